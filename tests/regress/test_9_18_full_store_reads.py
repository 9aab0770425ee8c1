# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 18: what a store holds can be read in Python however full it is."""

from __future__ import annotations

import contextlib

import pytest

from archipelago import NoSpace
from archipelago.images.export import export_volume
from tests.fault.disks import small_disk, why_not
from tests.helpers.instance import running_instance

MIB = 1 << 20


@pytest.mark.skipif(bool(why_not("tmpfs")), reason=why_not("tmpfs") or "-")
def test_a_full_store_opens_volumes_for_reading() -> None:
    with contextlib.ExitStack() as held:
        disk = held.enter_context(small_disk("tmpfs"))
        data, maps = disk.path / "data", disk.path / "maps"
        data.mkdir()
        maps.mkdir()
        instance = held.enter_context(
            running_instance(data_path=str(data), maps_path=str(maps))
        )
        client = held.enter_context(instance.connect())
        for name in ("v", "w"):
            client.create(name, 4 * MIB)
            with client.open(name) as volume:
                volume.pwrite(name.encode() * MIB, 0)
        client.snapshot("w", "s")
        disk.leave(0)
        disk.take_the_rest()
        with client.open("w", read_only=True) as volume:
            assert volume.pread(MIB, 0) == b"w" * MIB
        for name in ("v", "s"):
            with client.open(name, read_only=True) as volume:
                assert volume.pread(MIB, 0) == name.replace("s", "w").encode() * MIB
        export_volume(client, "s", "/dev/null")
        with pytest.raises(NoSpace):
            client.create("new", MIB)
