# SPDX-License-Identifier: Apache-2.0
"""One change at a time per name, within this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Lock:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class NameLocks:
    """Locks by name that exist while somebody holds or awaits them.

    Several are taken in the order of the names, so that no two holders wait for each
    other; whoever holds some takes no more.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, _Lock] = {}

    @contextmanager
    def hold(self, *names: str) -> Iterator[None]:
        """Hold the locks of all these names."""
        held: list[str] = []
        try:
            for name in sorted(set(names)):
                self._acquire(name)
                held.append(name)
            yield
        finally:
            for name in reversed(held):
                self._release(name)

    def _acquire(self, name: str) -> None:
        with self._guard:
            entry = self._locks.setdefault(name, _Lock())
            entry.users += 1
        entry.lock.acquire()

    def _release(self, name: str) -> None:
        with self._guard:
            entry = self._locks[name]
            entry.lock.release()
            entry.users -= 1
            if entry.users == 0:
                del self._locks[name]
