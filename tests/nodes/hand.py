# SPDX-License-Identifier: Apache-2.0
"""The hand of a node: its process for everything but the load."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from archipelago import ArchipelagoError, Client, Volume, VolumeInfo, connect
from tests.helpers.cluster import until


class Hand:
    """Commands for one volume and one snapshot, see `tests.nodes.process`.

    Args:
        home: of the instance.
        volume: name of the volume.
    """

    def __init__(self, home: Path, volume: str) -> None:
        self._home = home
        self._name = volume
        self._connected: Client | None = None
        self._volume: Volume | None = None
        self._snapshot: Volume | None = None

    @property
    def _client(self) -> Client:
        if self._connected is None:
            self._connected = connect(self._home)
        return self._connected

    def create(self, size: int, block_size: int) -> None:
        """Create the volume."""
        self._client.create(self._name, size, block_size=block_size)

    def open(self) -> int:
        """Open the volume for writing; its fence."""
        assert self._volume is None, "it would stay open, and its lease held"
        self._volume = self._client.open(self._name)
        # It may have run out if the store was slow, and is renewed by the next round.
        until(lambda: self.info().lease is not None, "who opened it has a lease")
        lease = self.info().lease
        assert lease is not None, "open without a lease"
        return lease.fence

    def read(self, size: int) -> bytes:
        """Read the start of the open volume."""
        assert self._volume is not None
        return self._volume.pread(size, 0)

    def flush(self) -> None:
        """Flush the open volume."""
        assert self._volume is not None
        self._volume.flush()

    def close(self) -> None:
        """Close the volume."""
        volume, self._volume = self._volume, None
        if volume is not None:
            volume.close()

    def read_once(self, name: str, size: int) -> bytes:
        """Open a volume or snapshot for reading, read its start, close it."""
        with self._client.open(name, read_only=True) as volume:
            return volume.pread(size, 0)

    def keep_open(self, snapshot: str) -> None:
        """Open a snapshot for `read_kept`."""
        self._snapshot = self._client.open(snapshot)

    def read_kept(self, size: int) -> bytes:
        """Read the start of the snapshot that is kept open."""
        assert self._snapshot is not None
        return self._snapshot.pread(size, 0)

    def snapshot(self, name: str) -> None:
        """Take a snapshot of the volume."""
        self._client.snapshot(self._name, name)

    def clone(self, snapshot: str, name: str) -> None:
        """Clone a snapshot."""
        self._client.create(name, snap=snapshot)

    def remove(self, *names: str) -> None:
        """Remove volumes and snapshots."""
        for name in names:
            self._client.remove(name)

    def resize(self, size: int) -> None:
        """Change the size of the volume."""
        self._client.resize(self._name, size)

    def break_lease(self) -> None:
        """Break whoever's lease it is."""
        self._client.unlock(self._name, force=True)

    def info(self) -> VolumeInfo:
        """Describe the volume."""
        return self._client.info(self._name, usage=False)

    def try_changes(self, size: int) -> list[str]:
        """Try what only the holder may do.

        Returns:
            What was not refused.
        """
        done = []
        changes: dict[str, Callable[[], object]] = {
            "snapshot": lambda: self._client.snapshot(self._name, "stolen"),
            "resize": lambda: self._client.resize(self._name, size),
            "rename": lambda: self._client.rename(self._name, "stolen"),
        }
        for name, change in changes.items():
            with contextlib.suppress(ArchipelagoError):
                change()
                done.append(name)
        return done
