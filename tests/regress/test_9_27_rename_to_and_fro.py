# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 27: a rename that lost gave the writer of a healthy volume EIO."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from archipelago.errors import ArchipelagoError, VolumeNotFound
from tests.helpers.instance import Instance, running_instance
from tests.nodes.nbd import NbdDisk

BLOCK = 4096
BLOCKS = 64
#: Renames of each client that succeed before the test ends.
RENAMES = 25
RENAMERS = 10


@pytest.fixture(params=["together", "apart"])
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    with running_instance(placement=request.param) as running:
        yield running


class Renamer(threading.Thread):
    """A client that gives a volume one name, whenever it has the other one."""

    def __init__(self, instance: Instance, old: str, new: str) -> None:
        super().__init__(daemon=True)
        self._instance = instance
        self._old, self._new = old, new
        self.done = self.lost = 0
        self.unexpected: list[str] = []

    def run(self) -> None:
        with self._instance.connect() as client:
            while self.done < RENAMES and not self.unexpected:
                try:
                    client.rename(self._old, self._new)
                    self.done += 1
                except VolumeNotFound:
                    self.lost += 1
                except ArchipelagoError as error:
                    self.unexpected.append(repr(error))


def test_the_writer_goes_on(instance: Instance) -> None:
    with instance.connect() as client:
        client.create("to", BLOCK * BLOCKS)
        disk = NbdDisk(client.settings.nbd_socket, "to")
    ways = [("to", "fro"), ("fro", "to")] * (RENAMERS // 2)
    renamers = [Renamer(instance, *way) for way in ways]
    for renamer in renamers:
        renamer.start()
    written = 0
    while any(renamer.is_alive() for renamer in renamers):
        disk.pwrite(written.to_bytes(8, "little") * (BLOCK // 8), at(written))
        written += 1
        if written % 16 == 0:
            disk.flush()
    for renamer in renamers:
        renamer.join()
    assert [line for renamer in renamers for line in renamer.unexpected] == []
    assert any(renamer.lost for renamer in renamers), "no rename lost: nothing is shown"
    disk.flush()
    for number in range(max(0, written - BLOCKS), written):
        found = disk.pread(BLOCK, at(number))
        assert found == number.to_bytes(8, "little") * (BLOCK // 8)
    disk.close()


def at(number: int) -> int:
    return number % BLOCKS * BLOCK
