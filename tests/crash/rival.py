# SPDX-License-Identifier: Apache-2.0
"""A holder that was paused, lost its volumes to another node, and goes on.

It holds what a blocker holds: an open descriptor of an extent's first file and a
shared lock on it.  After the take-over it writes, as a thread does that slept between
its last check and its system call.  What it writes may never be read.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Iterator
from pathlib import Path

from archipelago._header import unpack_header
from tests.crash.lease import is_held

SECTOR = 4096


def _current(store: Path) -> Iterator[Path]:
    """The first files of extents to which a process that is gone may still write.

    A holder gives up the extent of a volume before it gives back the lease.
    """
    for path in (store / "maps" / "headers").glob("*/*"):
        header = unpack_header(path.read_bytes())
        lease = store / "maps" / "leases" / header.uuid.hex()
        if lease.exists() and is_held(lease.read_bytes()):
            directory = store / "data" / "extents" / header.uuid.hex()
            yield directory / f"{header.epoch:016x}.0"


class Rival:
    """Holds some current extents of a store.

    Args:
        store: its directory.
        rng: chooses them.
        most: so many at most; taking each of them over needs a second.
    """

    def __init__(self, store: Path, rng: random.Random, most: int) -> None:
        self._rng = rng
        found = [path for path in sorted(_current(store)) if path.exists()]
        self._fds = [
            os.open(path, os.O_RDWR | os.O_CLOEXEC)
            for path in rng.sample(found, min(most, len(found)))
        ]
        for fd in self._fds:
            fcntl.flock(fd, fcntl.LOCK_SH)

    @property
    def held(self) -> int:
        """How many extents it holds."""
        return len(self._fds)

    def go_on(self) -> None:
        """Write into all of them, durably, and let go."""
        for fd in self._fds:
            size = os.fstat(fd).st_size
            for _ in range(8):
                at = self._rng.randrange(size // SECTOR + 1) * SECTOR
                os.pwrite(fd, b"\xee" * SECTOR, at)
            os.fsync(fd)
            os.close(fd)
        self._fds.clear()
