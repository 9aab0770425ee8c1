# SPDX-License-Identifier: Apache-2.0
"""Defects of the Archipelago of 2010-2015 that only its storage shows: none is ours.

The numbers are those of the list that the project started from, as in
``test_original_defects.py``.  A library between the peers and libc makes calls fail, or
records their order.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import archipelago
from tests.crash import journal as recording
from tests.crash.journal import SYNCS, Event, build_recorder
from tests.fault.plan import Kind, Plan, build_injector, injected
from tests.helpers.instance import Instance, running_instance
from tests.helpers.preload import NEEDS_PRELOAD

MIB = 1 << 20
SECTOR = 4096

pytestmark = NEEDS_PRELOAD


@contextlib.contextmanager
def preloaded(store: Path, environment: dict[str, str]) -> Iterator[Instance]:
    """An instance whose processes start with that in their environment."""
    with pytest.MonkeyPatch.context() as patched:
        started = contextlib.ExitStack()
        for name, value in environment.items():
            patched.setenv(name, value)
        instance = started.enter_context(
            running_instance(
                backend="file",
                data_path=str(store / "data"),
                maps_path=str(store / "maps"),
                engine="threads",
            )
        )
    with started:
        yield instance


# ---- 1.9.5 ---------------------------------------------------------------------------


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_5_a_remove_that_fails_changes_nothing(
    tmp_path: Path, with_snapshot: bool
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    control = tmp_path / "control"
    library = build_injector(tmp_path)
    with (
        Plan(control) as plan,
        preloaded(store, injected(library, store, control)) as instance,
        instance.connect() as client,
    ):
        client.create("v", 4 * MIB)
        data = os.urandom(2 * MIB)
        with client.open("v") as volume:
            volume.pwrite(data, MIB)
        if with_snapshot:
            client.snapshot("v", "s")
            with client.open("v") as volume:
                volume.pwrite(data[:SECTOR], 0)
        before = client.info("v")
        plan.fail((Kind.UNLINK,), errno.EIO, 1, None, only="headers/")
        for _ in range(2):
            with pytest.raises(archipelago.ArchipelagoError):
                client.remove("v")
        assert plan.counts().struck >= 2
        with client.open("v") as volume:
            assert volume.pread(2 * MIB, MIB) == data
            assert volume.pread(SECTOR, 0) == (
                data[:SECTOR] if with_snapshot else bytes(SECTOR)
            )
            volume.pwrite(b"goes on", 0)
        after = client.info("v")
        assert (after.uuid, after.size) == (before.uuid, before.size)
        plan.clear()
        instance.restart()
        # nothing that the failed ones had begun is done later
        with instance.connect() as client:
            client.wait_reclaimed()
            with client.open("v") as volume:
                assert volume.pread(2 * MIB, MIB) == data
                assert volume.pread(7, 0) == b"goes on"
            client.remove("v")
            assert "v" not in [v.name for v in client.list()]


# ---- 1.9.9 ---------------------------------------------------------------------------


class Recording:
    """What the peers of an instance did to the files of a store."""

    def __init__(self, store: Path, log: Path) -> None:
        self._store = store
        self._log = log

    def now(self) -> int:
        """The number of the last call until now."""
        return max((e.number for e in recording.read_log(self._log)), default=0)

    def inode(self, pattern: str) -> int:
        """The inode of the one file or directory of that pattern."""
        (found,) = self._store.glob(pattern)
        return found.stat().st_ino

    def calls(self, kinds: frozenset[recording.Kind], inode: int) -> list[Event]:
        """Calls of these kinds on a file, in their order."""
        events = recording.read_log(self._log)
        return [e for e in events if e.kind in kinds and e.inode == inode]

    def end(self, event: Event) -> int:
        """The number at which a call had ended, well."""
        (end,) = [
            e
            for e in recording.read_log(self._log)
            if e.kind is recording.Kind.END and e.id == event.id
        ]
        assert end.offset >= 0
        return end.number

    def synced(self, inode: int, after: int, before: int) -> bool:
        """True if a sync of a file was begun and ended between two calls."""
        return any(
            after < e.number and self.end(e) < before for e in self.calls(SYNCS, inode)
        )


WRITES = frozenset({recording.Kind.WRITE, recording.Kind.WRITE_DSYNC})


def test_9_a_flush_syncs_the_data_then_the_map_and_new_names(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    library = build_recorder(tmp_path)
    preload = recording.environment(library, store, log)
    names = ("LD_PRELOAD", "CRASH_ROOT", "CRASH_LOG")
    seen = Recording(store, log)
    with (
        preloaded(store, {name: preload[name] for name in names}) as instance,
        instance.connect() as client,
    ):
        client.create("v", MIB)
        with client.open("v") as volume:
            begun = seen.now()
            volume.pwrite(b"x" * SECTOR, 0)
            written = seen.now()
            extent = seen.inode("data/extents/*/*")
            journal = seen.inode("maps/journals/*")
            # its first record, which says whose it is, and its new name
            named = len(seen.calls(WRITES, journal))
            assert seen.synced(seen.inode("maps/journals"), 0, begun + 1)
            volume.flush()
            flushed = seen.now()
            (data,) = seen.calls(WRITES, extent)
            assert begun < data.number < written
            (record,) = seen.calls(WRITES, journal)[named:]
            assert written < record.number < flushed
            # data, and the new names above it, before what says that it is there
            for path in ("data/extents/*/*", "data/extents/*", "data/extents"):
                assert seen.synced(seen.inode(path), seen.end(data), record.number)
            # the record, before the answer
            assert seen.synced(journal, seen.end(record), flushed + 1)

            # neither is new any more
            volume.pwrite(b"y" * SECTOR, 8 * SECTOR)
            again = seen.now()
            assert len(seen.calls(WRITES, journal)) == named + 1
            volume.flush()
            flushed = seen.now()
            record = seen.calls(WRITES, journal)[-1]
            assert again < record.number
            assert seen.synced(extent, again, record.number)
            # synced by the write itself, or after it
            dsync = record.kind is recording.Kind.WRITE_DSYNC
            assert dsync or seen.synced(journal, seen.end(record), flushed + 1)

            # and nothing new is nothing to do
            syncs = len(seen.calls(SYNCS | WRITES, extent))
            volume.flush()
            assert len(seen.calls(SYNCS | WRITES, extent)) == syncs
            assert len(seen.calls(WRITES, journal)) == named + 2
