# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 29: four slow calls blocked all control for a minute.

Slow requests have workers of their own, and end when their client has gone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago.settings import SegmentSettings
from archipelago.words import verb
from tests.helpers.instance import BIN, Instance
from tests.helpers.waiting import wait_until
from xseg.constants import Op

#: More than both lanes of mapperd have workers.
CALLS = 12


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


def test_changes_do_not_wait_behind_slow_calls(instance: Instance) -> None:
    instance.start()
    # Its map is walked in steps of 4 GiB, which takes a while.
    instance.vlmc("create", "huge", "--size", "1024T")
    with instance.connect() as client, client.open("huge") as volume:
        volume.pwrite(b"abc", 0)
    instance.vlmc("snapshot", "huge", "snap")
    before = answered(instance)
    calls = [
        subprocess.Popen(
            [str(BIN / "vlmc"), "info", "snap"],
            env=instance.env,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(CALLS)
    ]
    try:
        wait_until(lambda: answered(instance) > before + 1000, "the walks")
        instance.vlmc("create", "small", "--size", "1M")
        instance.vlmc("remove", "small")
        assert all(call.poll() is None for call in calls)
    finally:
        for call in calls:
            call.kill()
            call.wait()

    last = answered(instance)

    def at_rest() -> bool:
        nonlocal last
        earlier, last = last, answered(instance)
        # A round of maintenance asks the mapper for a few things, a walk for thousands.
        return last - earlier < 100

    wait_until(at_rest, "the walks ended with their clients")
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
