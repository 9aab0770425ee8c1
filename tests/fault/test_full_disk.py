# SPDX-License-Identifier: Apache-2.0
"""A really full disk: the writer is told, all else goes on, then the writer too.

The store of a running instance lies on a small filesystem.  Nothing is restarted until
the end, when all flushed data must be there once more.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from archipelago import Client, Volume
from archipelago.errors import NoSpace
from tests.fault.disks import MIB, Disk, disk_or_skip
from tests.helpers.cluster import Node
from tests.helpers.instance import Instance, running_instance

SECTOR = 4096
BLOCK = 64 << 10
#: Left on the disk before the work begins [bytes].
ROOM = 24 * MIB

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def on_small_disk(kind: str, **settings: str) -> Iterator[tuple[Disk, Instance]]:
    """An instance whose store is on such a disk; skips where there can be none."""
    with disk_or_skip(kind) as disk:
        data, maps = disk.path / "data", disk.path / "maps"
        data.mkdir()
        maps.mkdir()
        with running_instance(
            data_path=str(data), maps_path=str(maps), **settings
        ) as instance:
            yield disk, instance


class Writer:
    """Fills a volume from its start with pieces that say where they are.

    Attributes:
        flushed: pieces that must be there after anything.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        client.create(name, "1G", block_size=BLOCK)
        self.volume: Volume = client.open(name)
        self._places: list[tuple[int, int]] = []
        self.flushed = 0
        self._end = 0

    def write(self, size: int) -> None:
        """Append one piece [bytes]."""
        self.volume.pwrite(self._piece(self._end, size), self._end)
        self._places.append((self._end, size))
        self._end += size

    def flush(self) -> None:
        """Flush."""
        written = len(self._places)
        self.volume.flush()
        self.flushed = written

    def fill(self, size: int, *, flush: bool) -> None:
        """Append pieces until the disk is full."""
        with pytest.raises(NoSpace) as told:
            while True:
                self.write(size)
                if flush:
                    self.flush()
        assert self.name in str(told.value)

    def check(self, *, restarted: bool = False) -> None:
        """Every piece reads back; after a restart at least those that were flushed."""
        places = self._places[: self.flushed] if restarted else self._places
        for offset, size in places:
            assert self.volume.pread(size, offset) == self._piece(offset, size)

    def reopen(self, client: Client) -> None:
        """Open it in another life of the instance."""
        self.volume = client.open(self.name)

    def _piece(self, offset: int, size: int) -> bytes:
        return f"{self.name} {offset:12}".encode().ljust(64) * (size // 64)


def renewed(client: Client, name: str, times: int) -> None:
    """Wait until a lease was renewed so many times."""
    seen: set[str | None] = set()
    while len(seen) <= times:
        lease = client.info(name, usage=False).lease
        assert lease is not None
        seen.add(lease.expires)


def image(path: Path) -> str:
    """A file that takes more space than there is."""
    with path.open("wb") as file:
        for number in range(32):
            file.write(number.to_bytes(4, "little") * (MIB // 4))
    return str(path)


def what_needs_space(instance: Instance, source: str) -> None:
    """Commands on a full disk: exit 7, and one line that says why."""
    refused = 0
    for argv in (
        ("create", "new", "--size", "1M"),
        ("snapshot", "third", "snap"),
        ("clone", "golden", "cloned"),
        ("import", source, "imported"),
    ):
        done = instance.command("vlmc", *argv)
        assert done.returncode in (0, 7), (argv, done.stderr)
        if done.returncode == 7:
            refused += 1
            assert len(done.stderr.strip().splitlines()) == 1
        else:
            # Some filesystems keep a little for names; it is there, then.
            instance.vlmc("remove", argv[2] if argv[0] != "create" else argv[1])
    assert refused, "nothing was refused: is the disk full?"


@pytest.mark.parametrize(
    ("kind", "placement"),
    [("ext4", "together"), ("xfs", "apart"), ("tmpfs", "together")],
)
def test_a_full_disk_clears_and_work_goes_on(
    kind: str, placement: str, tmp_path: Path
) -> None:
    source = image(tmp_path / "image")
    with on_small_disk(kind, placement=placement, lease_ttl="1") as (disk, instance):
        with instance.connect() as client:
            writers = fill_twice(disk, instance, client, source)
        instance.restart()
        with instance.connect() as client:
            for writer in writers:
                writer.reopen(client)
                writer.check(restarted=True)
                writer.write(SECTOR)
                writer.flush()
                writer.volume.close()


def fill_twice(
    disk: Disk, instance: Instance, client: Client, source: str
) -> list[Writer]:
    """Fill the disk, free it by removing a volume; again, by removing a file."""
    other, first, second = (Writer(client, n) for n in ("other", "first", "second"))
    for _ in range(16):
        other.write(SECTOR)
    other.flush()
    client.snapshot("other", "golden")
    other.write(SECTOR)
    other.flush()
    # Its snapshot is tried on the full disk, and may get as far as a new epoch.
    client.create("third", "1M", block_size=BLOCK)
    disk.leave(ROOM)
    while disk.free_bytes > ROOM // 2:
        first.write(MIB)
    first.flush()
    first.volume.close()

    second.fill(MIB, flush=False)
    goes_on(client, other, second)
    client.remove("first")
    client.wait_reclaimed()
    second.write(MIB)
    second.flush()

    second.fill(BLOCK, flush=True)
    second.fill(SECTOR, flush=True)
    disk.take_the_rest()
    what_needs_space(instance, source)
    goes_on(client, other, second)
    renewed(client, "second", 3)
    goes_on(client, other, second)

    disk.give_back("filler")
    disk.give_back("rest")
    second.write(MIB)
    second.flush()
    other.write(BLOCK)
    other.flush()
    for argv in (("create", "new", "--size", "1M"), ("snapshot", "second", "snap")):
        instance.vlmc(*argv)
    instance.vlmc("import", source, "imported")
    goes_on(client, other, second)
    for writer in (other, second):
        writer.volume.close()
    return [other, second]


def goes_on(client: Client, other: Writer, full: Writer) -> None:
    """What needs no space is done as ever, to the full volume as well."""
    other.check()
    other.volume.pwrite(other.volume.pread(SECTOR, 16 * SECTOR), 16 * SECTOR)
    other.flush()
    full.check()
    full.volume.pwrite(full.volume.pread(SECTOR, 0), 0)
    assert {info.name for info in client.list()} >= {"other", "second", "golden"}


@pytest.mark.requires_qemu
def test_an_nbd_client_is_told_that_the_disk_is_full() -> None:
    with (
        on_small_disk("tmpfs") as (disk, instance),
        instance.connect() as client,
    ):
        client.create("v", "1G")
        disk.leave(4 * MIB)

        def qemu_io(*commands: str) -> str:
            argv = ["qemu-io", "-f", "raw", client.url("v")]
            for command in commands:
                argv += ["-c", command]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            return done.stdout + done.stderr

        assert "No space left on device" in qemu_io("write -P 1 0 1M", "write 0 32M")
        assert "failed" not in qemu_io("read -P 1 0 1M -C 0")
        disk.give_back("filler")
        told = qemu_io("write -P 2 0 32M", "flush", "read -P 2 0 32M")
        assert "rror" not in told and "failed" not in told


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
@pytest.mark.parametrize("comes_back", ["itself", "another"])
def test_after_a_crash_a_full_disk_is_freed_by_a_removal(
    kind: str, comes_back: str, tmp_path: Path
) -> None:
    with on_small_disk(kind) as (disk, instance):
        dies = Node("dies", instance)
        (tmp_path / "other").mkdir()
        other = Instance(tmp_path / "other", instance.settings)
        other.start()  # once: for this an instance needs space
        other.stop()
        with instance.connect() as client:
            keeps, full = Writer(client, "keeps"), Writer(client, "full")
            for writer in (keeps, full):
                writer.write(SECTOR)
                writer.flush()
            disk.leave(ROOM)
            full.fill(MIB, flush=False)
            full.fill(SECTOR, flush=True)
            disk.take_the_rest()
            dies.kill()
            dies.remove_remains()
        comes = instance if comes_back == "itself" else other
        comes.start()
        try:
            comes.vlmc("remove", "full")
            with comes.connect() as client:
                assert [info.name for info in client.list()] == ["keeps"]
                client.wait_reclaimed()
                keeps.reopen(client)
                keeps.check(restarted=True)
                keeps.write(MIB)
                keeps.flush()
                keeps.check()
                keeps.volume.close()
            assert disk.free_bytes > ROOM // 2
        finally:
            comes.stop()
