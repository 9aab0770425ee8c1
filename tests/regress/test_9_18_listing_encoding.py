# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 18: a name that the terminal cannot show cut its listing short."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.helpers.instance import Instance, running_instance

NAMES = ["a", "caf\u00e9", "snow\u2603", "zz", "z\U0001f600"]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as started:
        with started.connect() as client:
            for name in NAMES:
                client.create(name, 1 << 20)
        yield started


@pytest.mark.parametrize(
    ("encoding", "codec"),
    # Click takes ASCII for a terminal that is not set up, and writes UTF-8.
    [("ascii", "utf-8"), ("latin-1", "latin-1"), ("utf-8", "utf-8")],
)
def test_every_name_is_listed_in_every_encoding(
    instance: Instance, encoding: str, codec: str
) -> None:
    instance.variables = {"PYTHONIOENCODING": "utf-8"}
    whole = instance.vlmc("list").splitlines()
    instance.variables = {"PYTHONIOENCODING": encoding}
    done = instance.raw("vlmc", "list")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode(codec).splitlines()
    assert len(lines) == len(whole) == len(NAMES) + 1
    for name, line in zip(NAMES, lines[1:], strict=True):
        shown = name.encode(codec, "backslashreplace").decode(codec)
        assert line.split()[0] == shown
    done = instance.raw("vlmc", "--json", "list")
    volumes = json.loads(done.stdout.decode(codec))["volumes"]
    assert [v["name"] for v in volumes] == NAMES
