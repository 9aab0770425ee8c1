# SPDX-License-Identifier: Apache-2.0
"""A holder that was paused, lost its volumes to another node, and goes on.

It holds what a blocker holds: an open descriptor of an extent's first file and a
shared lock on it.  After the take-over it writes, as a thread does that slept between
its last check and its system call.  Nobody may ever read what it writes.
"""

from __future__ import annotations

import fcntl
import os
import random
from pathlib import Path

SECTOR = 4096


class Rival:
    """Holds some current extents of a store.

    Args:
        store: its directory.
        rng: chooses them.
        most: so many at most; taking each of them over needs a second.
    """

    def __init__(self, store: Path, rng: random.Random, most: int) -> None:
        self._rng = rng
        newest = [
            max(directory.glob("*.0"), default=None)
            for directory in sorted((store / "data" / "extents").iterdir())
        ]
        found = [path for path in newest if path is not None]
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
