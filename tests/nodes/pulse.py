# SPDX-License-Identifier: Apache-2.0
"""How long the machine let nobody run, as one thread that does nothing sees it."""

from __future__ import annotations

import threading
import time

#: Between two ticks [s].
_TICK = 0.02


class Pulse:
    """A thread that ticks, and notes the longest time between two ticks."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last = time.monotonic()
        self._longest = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Forget what was before."""
        with self._guard:
            self._longest = 0.0

    def longest(self) -> float:
        """The longest time without a tick since `begin`, or until now [s]."""
        with self._guard:
            return max(self._longest, time.monotonic() - self._last)

    def stop(self) -> None:
        """Tick no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_TICK):
            with self._guard:
                now = time.monotonic()
                self._longest = max(self._longest, now - self._last)
                self._last = now
