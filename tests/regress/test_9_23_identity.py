# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 23: what is swapped, or gone, is damage and never data."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import archipelago
from archipelago.volume.compact import compact_to
from tests.helpers.inprocess import BLOCK, MIB, SECTOR, running


def write_two(home: Path, store: Path) -> None:
    """Two volumes, alike but for their data, closed."""
    with running(home, store=store) as instance, instance.connect() as client:
        for name in ("v", "w"):
            client.create(name, 8 * MIB, block_size=BLOCK)
            with client.open(name) as volume:
                for sector in range(3):
                    volume.pwrite(name.encode() * SECTOR, 2 * sector * SECTOR)
                    volume.flush()


def swap(directory: Path, suffix: str = "") -> None:
    """Exchange two files, or those of two directories."""
    one, other = sorted(p for p in directory.rglob("*" + suffix) if p.is_file())
    spare = directory / "spare"
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def read_all(home: Path, store: Path, *, read_only: bool) -> None:
    with running(home, store=store) as instance, instance.connect() as client:
        for name in ("v", "w"):
            with pytest.raises(archipelago.ArchipelagoError) as caught:
                with client.open(name, read_only=read_only) as volume:
                    volume.pread(SECTOR, 0)
            assert caught.value.number in (errno.EBADMSG, errno.EIO)


@pytest.mark.parametrize("read_only", [True, False])
def test_swapped_journals_are_noticed(tmp_path: Path, read_only: bool) -> None:
    store = tmp_path / "store"
    write_two(tmp_path, store)
    swap(store / "maps" / "journals")
    read_all(tmp_path, store, read_only=read_only)


@pytest.mark.parametrize("read_only", [True, False])
def test_swapped_extents_are_noticed(tmp_path: Path, read_only: bool) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"1")
    except OSError:
        pytest.skip("the filesystem has no extended attributes")
    store = tmp_path / "store"
    write_two(tmp_path, store)
    swap(store / "data" / "extents", ".0")
    read_all(tmp_path, store, read_only=read_only)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda path: path.unlink(), id="deleted"),
        pytest.param(lambda path: cut(path, 0), id="emptied"),
        pytest.param(lambda path: cut(path, 32), id="cut-to-its-beginning"),
        pytest.param(lambda path: cut(path, path.stat().st_size - 48), id="cut-record"),
        pytest.param(lambda path: cut(path, path.stat().st_size - 1), id="cut-byte"),
    ],
)
def test_a_journal_that_lost_records_is_noticed(
    tmp_path: Path, lose: Callable[[Path], None], read_only: bool
) -> None:
    store = tmp_path / "store"
    write_two(tmp_path, store)
    for path in (store / "maps" / "journals").iterdir():
        lose(path)
    read_all(tmp_path, store, read_only=read_only)


def test_swapped_layers_are_noticed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_two(tmp_path, store)
    with running(tmp_path, store=store) as instance, instance.connect() as client:
        for name in ("v", "w"):
            for number in range(3):
                client.snapshot(name, f"{name}-{number}")
                with client.open(name) as volume:
                    volume.pwrite(name.encode() * SECTOR, 0)
            client.snapshot(name, f"{name}-last")
            compact_to(instance.ctx, name, 1)
        stacks = [instance.ctx.headers.get(name).stack for name in ("v", "w")]
        names = [[e.id for e in stack if e.type == 1] for stack in stacks]
    layers = store / "maps" / "layers"
    assert names[0]
    one, other = (layers / ids[-1].hex() for ids in names)
    spare = layers / "spare"
    one.rename(spare)
    other.rename(one)
    spare.rename(other)
    with running(tmp_path, store=store) as instance, instance.connect() as client:
        for name in ("v", "w"):
            with pytest.raises(archipelago.ArchipelagoError) as caught:
                with client.open(name, read_only=True) as volume:
                    volume.pread(8 * MIB, 0)
            assert caught.value.number in (errno.EBADMSG, errno.EIO)
