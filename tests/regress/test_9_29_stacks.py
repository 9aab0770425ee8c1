# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 29: tables of volumes that are opened for a moment are merged too."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.inprocess import BLOCK, MIB, SECTOR, running


def test_a_volume_that_is_never_open_for_long_keeps_a_short_stack(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as instance, instance.connect() as client:
        instance.control.maintenance.stop()  # it might find the volume open
        client.create("v", 8 * MIB, block_size=BLOCK)
        for number in range(40):
            with client.open("v") as volume:
                volume.pwrite(b"%04d" % number, number * SECTOR)
            client.snapshot("v", f"s{number}")
        hard = instance.ctx.limits.stack_hard
        assert len(instance.ctx.headers.get("v").stack) <= hard + 1
        with client.open("v") as volume:
            for number in range(40):
                assert volume.pread(4, number * SECTOR) == b"%04d" % number
