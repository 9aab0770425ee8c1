# SPDX-License-Identifier: Apache-2.0
"""Give back the storage of what was removed, as soon as nobody refers to it.

Removing a map leaves *candidates*: layers, journals and sealed extents that it shared.
From time to time all headers are read; candidates that none of them refers to are
deleted.

Why that is safe while others go on: a header gets a reference only by copying it from
another header whose name is locked meanwhile, so that one is not removed before the
copy is stored.  Hence during a scan at least one of the two can be seen, or the copy is
stored while the scan runs, and then `Headers.written` tells us (a write barrier, as in
incremental garbage collectors).  Another instance has no such barrier here: while one
has a presence on the store, nothing is deleted.

Why that is safe from power cuts: an instance that was killed may have removed or
replaced a header just before, and a power cut would bring the old one back.  So what
the scan found is made durable before anything is deleted.

Source: H. Yuasa, "Real-time garbage collection on general-purpose machines" (1990).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator

from archipelago._format import MapFormatError
from archipelago._header import JOURNAL, Header, StackEntry
from archipelago._layer import layer_extents
from archipelago.errors import ArchipelagoError, MapCorrupt
from archipelago.ids import ObjectId, extent_id, journal_id, layer_id
from archipelago.objects import Store
from archipelago.volume.headers import Headers
from archipelago.volume.index import Damaged, HeaderIndex
from archipelago.volume.presence import Presences
from xseg.constants import ObjectKind

#: Time between two looks whether other instances have gone [s].
_OTHERS_PAUSE = 10.0

log = logging.getLogger(__name__)


class Reclaimer:
    """Deletes what nobody refers to any more.

    Args:
        store: the objects.
        headers: the roots.
        index: knows them.
        presences: tell whether other instances are at work.
    """

    def __init__(
        self, store: Store, headers: Headers, index: HeaderIndex, presences: Presences
    ) -> None:
        self._store = store
        self._headers = headers
        self._index = index
        self._presences = presences
        self._guard = threading.Lock()
        self._running = threading.Lock()
        self._candidates: set[ObjectId] = set()
        self._resting: set[ObjectId] = set()
        self._wanted = False
        self._again_at = math.inf
        self._born: list[Header] | None = None
        self._extents: dict[bytes, frozenset[ObjectId]] = {}
        headers.written = self._note

    def add(self, objects: Iterable[ObjectId]) -> None:
        """Note objects that may have become unreferenced."""
        with self._guard:
            before = len(self._candidates)
            self._candidates.update(objects)
            self._wanted = self._wanted or len(self._candidates) != before

    def add_entries(self, entries: Iterable[StackEntry]) -> None:
        """Note stack entries that a header does not have any more."""
        self.add(target for entry in entries for target in self._references_of(entry))

    def add_resting(self, entries: Iterable[StackEntry]) -> None:
        """Note entries that a map in memory had until just now.

        A read that began before may still want them: they are looked at only after
        the next `ripen`.
        """
        found = [target for entry in entries for target in self._references_of(entry)]
        with self._guard:
            self._resting.update(found)

    def ripen(self) -> None:
        """Look at what rested from now on; at least a second must lie between."""
        with self._guard:
            resting, self._resting = self._resting, set()
        self.add(resting)

    @property
    def wanted(self) -> bool:
        """True if a run may find something to delete."""
        with self._guard:
            return self._wanted or time.monotonic() >= self._again_at

    def run(self) -> int:
        """Look at all headers once; returns how many objects were deleted."""
        with self._running:
            with self._guard:
                todo = set(self._candidates)
                self._wanted = False
                self._again_at = math.inf
                self._born = []
            try:
                return self._run(todo) if todo else 0
            except ArchipelagoError as error:
                # Nothing is lost: the candidates stay, the next removal tries again.
                log.warning("nothing was reclaimed: %s", error)
                return 0
            finally:
                with self._guard:
                    self._born = None

    def _run(self, todo: set[ObjectId]) -> int:
        if self._wait_for_others():
            return 0
        used: set[ObjectId] = set()
        self._index.refresh(full=True)
        for header in self._index.all():
            if isinstance(header, Damaged):
                raise MapCorrupt(f'the header of "{header.name}" is damaged')
            used.update(self._references(header))
        with self._guard:
            born = list(self._born or ())
        for header in born:
            used.update(self._references(header))
        free = todo - used
        if free:
            self._headers.make_durable()
        # One that was paused may have come back during the scan.
        if self._wait_for_others():
            return 0
        # The table of a layer names extents: note them before it is gone.
        for target in free:
            if target.kind is ObjectKind.LAYER:
                self.add(self._layer_extents(target))
        deleted = self._store.delete_all(list(free))
        with self._guard:
            self._candidates -= todo
        for target in free:
            self._extents.pop(target.id, None)
        if deleted:
            log.info("reclaimed %d objects that nothing refers to", deleted)
        return deleted

    def _wait_for_others(self) -> bool:
        """True while another instance is at work; then `run` is wanted again later."""
        if not self._presences.others():
            return False
        log.info("another instance uses the store: nothing is reclaimed now")
        with self._guard:
            self._again_at = time.monotonic() + _OTHERS_PAUSE
        return True

    def _note(self, header: Header) -> None:
        with self._guard:
            if self._born is not None:
                self._born.append(header)

    def _references(self, header: Header) -> Iterator[ObjectId]:
        """All objects that a header refers to, but for content blocks."""
        yield extent_id(header.uuid, header.epoch)
        yield journal_id(header.uuid, header.journal)
        for entry in header.stack:
            yield from self._references_of(entry)

    def _references_of(self, entry: StackEntry) -> Iterator[ObjectId]:
        if entry.type == JOURNAL:
            yield journal_id(entry.id, entry.number)
            yield extent_id(entry.extent_uuid, entry.extent_epoch)
            return
        target = layer_id(entry.id)
        yield target
        yield from self._layer_extents(target)

    def _layer_extents(self, layer: ObjectId) -> frozenset[ObjectId]:
        """The extents that a layer refers to; layers never change."""
        found = self._extents.get(layer.id)
        if found is None:
            try:
                pairs = layer_extents(
                    lambda off, size: self._store.read(layer, off, size),
                    layer.id[:16],
                )
            except MapFormatError as error:
                raise MapCorrupt(f"{layer} is damaged: {error}") from error
            found = frozenset(extent_id(uuid, epoch) for uuid, epoch in pairs)
            self._extents[layer.id] = found
        return found
