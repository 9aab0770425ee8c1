# SPDX-License-Identifier: Apache-2.0
"""A command imports what it needs: commands run thousands of times in scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.instance import Instance

#: What no quick command needs.  Settings are read where the instance was started.
NEVER = {
    "archipelago.settings",
    "archipelago.volume",
    "archipelago.volume_handle",
    "asyncio",
    "concurrent",
    "logging",
    "pydantic",
    "rich",
    "ssl",
    "subprocess",
    "urllib",
    "xseg._digest",
    "xseg._native",
}
#: Runs a command and prints which modules it needed beyond those of click.
PROBE = """
import click, json, sys
before = set(sys.modules)
program, sys.argv[1:] = sys.argv[1], sys.argv[2:]
try:
    if program == "vlmc":
        from vlmc.cli import main
    else:
        from archipelago.cli import main
    main()
except SystemExit as ended:
    assert not ended.code
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    made = Instance(tmp_path_factory.mktemp("home"))
    made.start()
    made.vlmc("create", "v", "--size", "1M")
    made.vlmc("snapshot", "v", "s")
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("most", "command"),
    [
        (54, ["vlmc", "list"]),
        (50, ["vlmc", "clone", "s", "c"]),
        (38, ["archipelago", "status"]),
        (38, ["archipelago", "config", "show"]),
    ],
)
def test_a_command_imports_little(
    instance: Instance, tmp_path: Path, most: int, command: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command],
        env=instance.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stderr.splitlines()[-1])
    names = {".".join(name.split(".")[:n]) for name in loaded for n in (1, 2)}
    assert not names & NEVER
    assert len(loaded) <= most, loaded
