# SPDX-License-Identifier: Apache-2.0
"""A flipped bit in what describes a volume: an error that names it, never wrong data.

Other volumes go on, and when the bit is put back so does the damaged one, with no
restart.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import archipelago.control.maintenance as maintenance
from archipelago import Client, Volume
from archipelago.errors import ArchipelagoError, DigestMismatch, IoError, MapCorrupt
from archipelago.volume.context import Limits
from tests.helpers.inprocess import Running, running

BLOCK = 64 << 10
SECTOR = 4096
SIZE = 64 * BLOCK
#: Of each file [bits].
FLIPS = 12
LIMITS = Limits(checkpoint_bytes=1 << 20, stack_soft=1, stack_hard=2, stack_most=4)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Site:
    """A store with a volume "a" of several tables, and one "b" beside it.

    Attributes:
        home: of the instance.
        data: what "a" holds.
    """

    home: Path
    data: bytes

    @property
    def store(self) -> Path:
        return self.home / "store"

    def files(self, kind: str) -> list[Path]:
        """The files of one kind that describe "a"."""
        names = (self.home / "files").read_text().splitlines()
        found = [self.store / name for name in names if name.startswith(f"maps/{kind}")]
        assert found, f'"a" has no {kind}'
        return found


@pytest.fixture(autouse=True)
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_PERIOD", 1e9)


@contextlib.contextmanager
def instance_on(site: Path) -> Iterator[tuple[Running, Client]]:
    with (
        running(site, store=site / "store", limits=LIMITS) as instance,
        instance.connect() as client,
    ):
        yield instance, client


def stamped(number: int) -> bytes:
    return number.to_bytes(8, "little") * (SECTOR // 8)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("data", "maps"):
        (tmp_path / "store" / name).mkdir(parents=True)
    data = bytearray(SIZE)
    with instance_on(tmp_path) as (instance, client):
        client.create("a", SIZE, block_size=BLOCK)
        with client.open("a") as volume:
            number = 0

            def work() -> None:
                nonlocal number
                for _ in range(40):
                    number += 1
                    at = number * 37 % (SIZE // SECTOR) * SECTOR
                    data[at : at + SECTOR] = stamped(number)
                    volume.pwrite(stamped(number), at)
                    if number % 10 == 0:
                        volume.flush()

            for snapshot in ("s1", "s2", "s3"):
                work()
                client.snapshot("a", snapshot)
                instance.control.maintenance.round()
            work()
        for snapshot in ("s1", "s2", "s3"):
            client.remove(snapshot)
        client.wait_reclaimed()
        store = tmp_path / "store"
        files = [p for p in (store / "maps").rglob("*") if p.is_file()]
        client.create("b", SIZE, block_size=BLOCK)
        with client.open("b") as volume:
            volume.pwrite(data, 0)
    text = "\n".join(str(p.relative_to(store)) for p in files if p.exists())
    (tmp_path / "files").write_text(text)
    return Site(tmp_path, bytes(data))


@contextlib.contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """Flip one bit; put it back at the end."""

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0] ^ 1 << bit % 8
            file.seek(bit // 8)
            file.write(bytes([byte]))

    flip()
    try:
        yield
    finally:
        flip()


def bits(path: Path, rng: random.Random) -> list[int]:
    """Some bits of a file, one of them in its last bytes."""
    size = path.stat().st_size
    last = rng.randrange(max(0, size - 16) * 8, size * 8)
    return sorted([last, *(rng.randrange(size * 8) for _ in range(FLIPS - 1))])


def is_told(deed: ArchipelagoError, path: Path) -> bool:
    """One line that names the volume, or the object."""
    names = ('"a"', path.stem[:8], path.parent.name[:8])
    return isinstance(deed, MapCorrupt | DigestMismatch | IoError) and any(
        name in str(deed) for name in names
    )


def check(client: Client, site: Site, path: Path) -> bool:
    """True if "a" was told to be damaged; any data that is read must be right."""
    try:
        with client.open("a") as volume:
            for offset in range(0, SIZE, BLOCK):
                assert volume.pread(BLOCK, offset) == site.data[offset : offset + BLOCK]
    except ArchipelagoError as error:
        assert is_told(error, path), f"{type(error).__name__}: {error}"
        return True
    return False


def check_other(client: Client, site: Site) -> None:
    assert "b" in [info.name for info in client.list()]
    with client.open("b") as volume:
        assert volume.pread(SIZE, 0) == site.data
        volume.pwrite(site.data[:SECTOR], 0)
        volume.flush()


@pytest.mark.parametrize("kind", ["headers", "journals", "layers"])
def test_damage_while_stopped(site: Site, kind: str, rng: random.Random) -> None:
    path = rng.choice(site.files(kind))
    told = 0
    for bit in bits(path, rng)[FLIPS // 4 - 1 :: FLIPS // 4]:
        with flipped(path, bit):
            with instance_on(site.home) as (_, client):
                told += check(client, site, path)
                check_other(client, site)
    assert told or kind == "layers", "no bit mattered"
    with instance_on(site.home) as (_, client):
        assert not check(client, site, path)


@pytest.mark.parametrize("kind", ["headers", "journals", "layers"])
def test_damage_while_running(site: Site, kind: str, rng: random.Random) -> None:
    path = rng.choice(site.files(kind))
    with instance_on(site.home) as (_, client), client.open("b") as other:
        told = 0
        for bit in bits(path, rng):
            with flipped(path, bit):
                told += check(client, site, path)
                assert other.pread(SECTOR, 0) == site.data[:SECTOR]
            assert not check(client, site, path), "mended, and refused all the same"
        assert told or kind == "layers", "no bit mattered"
        check_other(client, site)


def test_damage_while_open(site: Site, rng: random.Random) -> None:
    """What is in memory goes on; a table's page that is not is told of."""
    with instance_on(site.home) as (_, client):
        volume: Volume
        with client.open("a") as volume, contextlib.ExitStack() as stack:
            for kind in ("headers", "journals", "layers"):
                for path in site.files(kind):
                    stack.enter_context(flipped(path, bits(path, rng)[0]))
            for offset in range(0, SIZE, BLOCK):
                try:
                    data = volume.pread(BLOCK, offset)
                except ArchipelagoError as error:
                    assert isinstance(error, MapCorrupt), error
                else:
                    assert data == site.data[offset : offset + BLOCK]
            check_other(client, site)
