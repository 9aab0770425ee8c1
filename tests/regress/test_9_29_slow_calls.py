# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 29: four slow calls blocked all control for a minute.

Slow requests have workers of their own, and end when their client has gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago.settings import SegmentSettings
from archipelago.words import verb
from tests.helpers.instance import Instance
from xseg.constants import Op


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path / "home")
    made.home.mkdir()
    yield made
    made.stop()


def answered(instance: Instance) -> int:
    """Requests that the native mapper has answered."""
    (mapperd,) = (p for p in instance.status()["peers"] if p["name"] == "mapperd")
    ops = mapperd["ops"]
    assert isinstance(ops, int)
    return ops


def test_usage_of_a_huge_snapshot_does_not_walk_its_map(instance: Instance) -> None:
    instance.start()
    instance.vlmc("create", "huge", "--size", "1024T")
    with instance.connect() as client, client.open("huge") as volume:
        volume.pwrite(b"abc", 0)
    instance.vlmc("snapshot", "huge", "snap")
    before = answered(instance)
    instance.vlmc("info", "snap")
    # A walk in steps of 4 GiB would ask for 262,144 of them.
    assert answered(instance) - before < 1000
    instance.archipelago("stop")


@pytest.mark.parametrize("placement", ["together", "apart"])
def test_the_least_number_of_requests_starts(
    instance: Instance, placement: str
) -> None:
    bounds = SegmentSettings.model_fields["requests"].metadata
    (least,) = (b.ge for b in bounds if hasattr(b, "ge"))
    instance.archipelago(
        "start", "-o", f"segment.requests={least}", "-o", f"placement={placement}"
    )
    instance.vlmc("create", "v", "--size", "8M")
    with instance.connect() as client, client.open("v") as volume:
        volume.pwrite(b"abc", 4095)
        volume.flush()
        assert volume.pread(3, 4095) == b"abc"
    instance.archipelago("stop")
    refused = instance.command(
        "archipelago", "start", "-o", f"segment.requests={least // 2}"
    )
    assert refused.returncode == 2
    assert f"a power of two from {least} to 65536" in refused.stderr


def test_no_message_names_an_operation_of_the_wire() -> None:
    assert verb(Op.MAPR) == "read"
    assert verb(Op.CREATE) == "create"
