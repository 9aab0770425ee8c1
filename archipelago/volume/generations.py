# SPDX-License-Identifier: Apache-2.0
"""Generations: which changes of this instance are under way, told without a clock.

The store keeps a number that only grows.  A change notes the number that this instance
knows when it begins.  The presence of the instance reports the least number of all
changes under way, or the newest known if there are none.  So whoever raises the number
to n + 1, and waits until all presences report more than n, knows that every change that
began before is over.

Source: K. Fraser, "Practical lock-freedom" (2004), epoch-based reclamation;
``docs/design/0004-presence-and-generations.md``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from archipelago.errors import BlockNotFound, LeaseLost, MapCorrupt
from archipelago.ids import ObjectId
from archipelago.objects import Store
from xseg.constants import ObjectKind
from xseg.payload import Versioned

log = logging.getLogger(__name__)

#: The store's generation, and how its record begins.
_OBJECT = ObjectId(ObjectKind.GENERATION, bytes(32))
_MAGIC = int.from_bytes(b"ACPGENER", "little")
_FIRST = 1


class Generations:
    """The generations that one instance uses.

    Args:
        store: where the store's generation is kept.

    Attributes:
        renew: called before a newer generation is used: what this instance still has
            from older ones is to be read anew.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._known = 0
        self._under_way: Counter[int] = Counter()
        self.renew: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def change(self) -> Iterator[int]:
        """Make a change: what it reads of headers is not removed while it runs.

        Yields:
            The generation in which it began.
        """
        with self._guard:
            began = self._known
            self._under_way[began] += 1
        try:
            yield began
        finally:
            with self._guard:
                self._under_way[began] -= 1
                if not self._under_way[began]:
                    del self._under_way[began]

    @property
    def oldest(self) -> int:
        """The oldest generation that is still used here; 0: none is known."""
        with self._guard:
            return min(self._under_way, default=self._known)

    def advance(self) -> int:
        """Use the store's generation from now on; returns it.

        Raises:
            ArchipelagoError: the store does not answer.
        """
        now = self._read()
        with self._guard:
            newer = now > self._known
        if newer:
            self.renew()
            with self._guard:
                self._known = max(self._known, now)
        return now

    def raise_store(self) -> int:
        """Raise the store's generation by one; returns what it was before.

        Raises:
            ArchipelagoError: the store does not answer.
        """
        while True:
            now = self._read()
            try:
                self._store.replace(_OBJECT, _record(now + 1), now)
            except LeaseLost:
                continue  # another instance was faster
            return now

    def _read(self) -> int:
        while True:
            try:
                raw = self._store.read(_OBJECT, 0, Versioned.LAYOUT.size)
            except BlockNotFound:
                self._store.create(_OBJECT, _record(_FIRST))
                continue
            record = (
                Versioned.unpack(raw) if len(raw) == Versioned.LAYOUT.size else None
            )
            if record is None or record.magic != _MAGIC or record.version < _FIRST:
                raise MapCorrupt(
                    "the store's generation is damaged: nothing is given back until "
                    "it is mended (docs/format/candidates.md)"
                )
            return record.version


def _record(version: int) -> bytes:
    return Versioned(_MAGIC, version, 0, Versioned.LAYOUT.size).pack()
