# SPDX-License-Identifier: Apache-2.0
"""Census: what all stored objects take on disk.

That needs a look at each of them, which takes seconds where there are very many.  So a
thread counts while a caller waits, but only for a moment: who asks then gets the count
before, with its age.  Only the first count is waited for to its end.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from archipelago.errors import ArchipelagoError, BackendUnavailable
from archipelago.objects import Store
from xseg.constants import ObjectKind

log = logging.getLogger(__name__)

#: How long a caller waits for a new count if there is an old one [s].
_PATIENCE = 0.2
_KINDS = tuple(kind for kind in ObjectKind if kind is not ObjectKind.GENERATION)[1:]


@dataclass(frozen=True)
class Count:
    """What is stored, as counted once.  All in bytes on disk.

    Attributes:
        private_bytes: of extents.
        content_bytes: of content blocks.
        stored_bytes: of everything.
        counted_at: when that began, by `time.monotonic` [s].
        number: of the count.
    """

    private_bytes: int
    content_bytes: int
    stored_bytes: int
    counted_at: float
    number: int

    @property
    def age_seconds(self) -> int:
        """How old it is [s]."""
        return int(time.monotonic() - self.counted_at)


class Census:
    """Counts when it is asked.

    Args:
        store: what is counted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._wanted = 0
        self._done = 0
        self._last: Count | None = None
        self._error: ArchipelagoError | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None

    def count(self) -> Count:
        """Count anew, or give the last count if that takes too long.

        Raises:
            ArchipelagoError: the store cannot be listed.
        """
        with self._changed:
            self._wanted += 1
            wanted = self._wanted
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="archipelago-census", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._is_done(wanted), None if self._last is None else _PATIENCE
            )
            if self._error is not None:
                raise self._error
            if self._last is None:
                raise BackendUnavailable("the instance stops: nothing was counted")
            return self._last

    def stop(self) -> None:
        """Count no more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _is_done(self, wanted: int) -> bool:
        if self._stopping or self._error is not None:
            return True
        return self._last is not None and self._last.number >= wanted

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or self._wanted > self._done
                )
                if self._stopping:
                    return
                self._done = self._wanted
                self._error = None
            count, error = None, None
            try:
                count = self._count(self._done)
            except ArchipelagoError as failed:
                log.warning("what is stored cannot be counted: %s", failed)
                error = failed
            with self._changed:
                self._last = count or self._last
                self._error = error
                self._changed.notify_all()

    def _count(self, number: int) -> Count | None:
        started = time.monotonic()
        taken = dict.fromkeys(_KINDS, 0)
        for kind in _KINDS:
            for _, _, allocated, _ in self._store.listing(kind):
                taken[kind] += allocated
                if self._stopping:
                    return None
        return Count(
            taken[ObjectKind.EXTENT],
            taken[ObjectKind.CONTENT],
            sum(taken.values()),
            started,
            number,
        )
