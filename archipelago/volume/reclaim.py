# SPDX-License-Identifier: Apache-2.0
"""Give back the storage of what was removed, while all instances go on.

A change that takes a reference out of a header records the object as a candidate
before (`archipelago.volume.candidates`).  What only that header can have referred to
goes right after the change.  The rest goes in a *cycle*:

    triage   a header that is still there refers to it: it is no candidate any more
    begin    raise the store's generation from g to g + 1
    wait     until all presences report more than g
    sweep    read all headers; what none refers to is deleted

Why that is safe.  A change that could have read the removed header began in g or
before, so it has ended when the sweep begins, and its own header is seen.  A later
change gets a reference from a header that was there when the cycle began.  Such a
header may be gone when the sweep comes to it, and the new one not be there yet.  But
then it was removed or renamed meanwhile, and that recorded its references first: what
was recorded since the cycle began is kept until the next one.  (A deletion barrier, as
in incremental garbage collectors.)  No clock decides anything.

Why that is safe from power cuts: an instance that was killed may have removed or
replaced a header just before, and a power cut would bring the old one back.  So what
the sweep found is made durable before anything is deleted.

Source: H. Yuasa, "Real-time garbage collection on general-purpose machines" (1990);
K. Fraser, "Practical lock-freedom" (2004);
``docs/design/0004-presence-and-generations.md``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from archipelago._header import JOURNAL, LAYER, Header, StackEntry
from archipelago.errors import ArchipelagoError, LeaseLost
from archipelago.ids import ObjectId
from archipelago.objects import Store
from archipelago.volume.candidates import Batch, Candidates, Retired
from archipelago.volume.generations import Generations
from archipelago.volume.headers import Headers
from archipelago.volume.index import Damaged, HeaderIndex, Table, table_of
from archipelago.volume.presence import Presences
from archipelago.volume.references import References, Tables, own_objects
from xseg.constants import ObjectKind

#: The time between two sweeps is at least so many times what the last one took.
_PACE = 10.0
#: Time between two looks for batches that ended instances left [s].
_LOOK_PAUSE = 10.0
#: Time until what a damaged header may refer to is looked at again [s].
_UNSURE_PAUSE = 60.0
#: Time between two looks whether other instances have come to the new generation [s].
_WAIT_PAUSE = 0.05
#: Objects that are deleted at a time.
_DELETE = 256

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Cycle:
    """A cycle that has begun.

    Attributes:
        generation: that all changes of before must have left.
        todo: the candidates: whether only one header can have referred to each.
        own: this process's batches, to be removed at the end.
        adopted: batches of instances that have ended.
        others: how long the other batches were when it began [bytes].
    """

    generation: int
    todo: dict[ObjectId, bool]
    own: list[Batch]
    adopted: list[Batch]
    others: dict[bytes, int]


class Reclaimer:
    """Deletes what nothing refers to any more.

    Args:
        store: the objects.
        headers: the roots.
        index: what is known of them.
        generations: of this instance.
        presences: tells which generations the others use.
    """

    def __init__(
        self,
        store: Store,
        headers: Headers,
        index: HeaderIndex,
        generations: Generations,
        presences: Presences,
    ) -> None:
        self._store = store
        self._headers = headers
        self._index = index
        self._generations = generations
        self._presences = presences
        self._tables = Tables(store)
        self._candidates = Candidates(store, presences.instance)
        self._guard = threading.Lock()
        self._running = threading.Lock()
        self._resting: list[Retired] = []
        self._wanted = False
        self._look_at = 0.0
        self._not_before = 0.0
        self._cycle: _Cycle | None = None
        self._reported = 0

    @contextlib.contextmanager
    def retiring(
        self,
        entries: Iterable[StackEntry] = (),
        sole: Iterable[ObjectId] = (),
        *,
        moved: Iterable[ObjectId] = (),
        rest: bool = False,
        delete: Callable[[], None] | None = None,
    ) -> Iterator[None]:
        """Make a change of a header that may leave objects unreferenced.

        They are recorded before.  When the change was made, what it alone had is
        deleted; if it failed, all is looked at again.

        Args:
            entries: of the stack, which the header will not have, or another header
                will have in its place.
            sole: what no other header can ever have referred to.
            moved: what else another header will have in its place.
            rest: a map in memory has had them until now, and a read that began before
                may still want them: they are looked at after the next `ripen`.
            delete: deletes `sole`; None: they are just deleted.

        Raises:
            ArchipelagoError: they cannot be recorded; the change must not be made.
        """
        alone = list(sole)
        objects = dict.fromkeys([*self._references(entries), *moved], False)
        objects.update(dict.fromkeys(alone, True))
        retired = self._candidates.record(objects)
        try:
            yield
            if not rest:
                self._delete_sole(retired, alone, delete)
        finally:
            with self._guard:
                if rest:
                    self._resting.append(retired)
                else:
                    retired.done = True
                self._wanted = True

    @contextlib.contextmanager
    def making(self, target: ObjectId) -> Iterator[Callable[[], None]]:
        """Make an object that a header is to refer to.

        Until then it is a candidate: if the process dies it is deleted.

        Yields:
            To be called when a header refers to it.
        """
        retired = self._candidates.record({target: True})
        try:
            yield retired.objects.clear
            if retired.objects:
                self._delete_sole(retired, [target])
        except BaseException:
            # The header may have been stored all the same: a cycle looks.
            retired.objects.update(dict.fromkeys(retired.objects, False))
            raise
        finally:
            retired.done = True
            with self._guard:
                self._wanted = True

    def referred_by(self, entries: Iterable[StackEntry], target: ObjectId) -> bool:
        """True if a stack refers to an object, or may do so."""
        for entry in entries:
            try:
                if target in self._tables.of_entry(entry):
                    return True
            except ArchipelagoError:
                return True
        return False

    def ripen(self) -> None:
        """Look at what rested from now on; at least a second must lie between."""
        with self._guard:
            resting, self._resting = self._resting, []
            for retired in resting:
                retired.done = True
                self._wanted = True

    def come(self) -> None:
        """Use the store's generation, and say so if changes of before are over.

        Raises:
            ArchipelagoError: the store does not answer.
        """
        self._generations.advance()
        oldest = self._generations.oldest
        if oldest != self._reported:
            self._presences.report_generation(oldest)
            self._reported = oldest

    @property
    def wanted(self) -> bool:
        """True if `run` may find something to do."""
        now = time.monotonic()
        with self._guard:
            if self._cycle is not None:
                return True
            return (self._wanted and now >= self._not_before) or now >= self._look_at

    def run(self, patience: float = 0.0) -> int:
        """Go on with the cycle, or begin one.

        Args:
            patience: how long to wait for other instances [s]; without, the next run
                goes on.

        Returns:
            How many objects were deleted.
        """
        with self._running:
            try:
                return self._run(patience)
            except ArchipelagoError as error:
                # Nothing is lost: the candidates stay, the next run tries again.
                log.warning("nothing was reclaimed: %s", error)
                with self._guard:
                    self._not_before = time.monotonic() + _LOOK_PAUSE
                    self._look_at = max(self._look_at, self._not_before)
                return 0

    def _run(self, patience: float) -> int:
        end = time.monotonic() + patience
        if self._cycle is None:
            self._cycle = self._begin()
        cycle = self._cycle
        if cycle is None:
            return 0
        while not self._all_left(cycle.generation):
            if time.monotonic() >= end:
                return 0
            time.sleep(_WAIT_PAUSE)
        started = time.monotonic()
        with self._generations.change():
            deleted = self._sweep(cycle)
        self._cycle = None
        now = time.monotonic()
        with self._guard:
            self._not_before = now + _PACE * (now - started)
        if deleted:
            log.info("reclaimed %d objects that nothing refers to", deleted)
        return deleted

    # ---- begin ---------------------------------------------------------------------

    def _begin(self) -> _Cycle | None:
        with self._guard:
            self._wanted = False
            self._look_at = time.monotonic() + _LOOK_PAUSE
        own = self._candidates.close()
        todo: dict[ObjectId, bool] = {}
        for retired in [r for batch in own for r in batch.retired if r.done]:
            _merge(todo, retired.objects)
        living = {each.instance for each in self._presences.living()}
        living.discard(self._presences.instance)
        adopted, others = [], {}
        for batch in self._candidates.foreign():
            if batch.target.id[:16] in living:
                others[batch.target.id] = batch.length
                continue
            _merge(todo, self._candidates.read(batch))
            adopted.append(batch)
        todo = self._triage(todo)
        if not todo:
            self._finish(own, adopted, {})
            return None
        generation = self._generations.raise_store()
        return _Cycle(generation, todo, own, adopted, others)

    def _triage(self, todo: dict[ObjectId, bool]) -> dict[ObjectId, bool]:
        """Leave out what a header refers to that is there now.

        Whoever takes that reference away later records the object anew, before.
        """
        if not todo:
            return todo
        self._index.refresh()
        used: set[ObjectId] = set()
        confirmed: dict[str, Header | None] = {}
        for target in todo:
            table = _table(target)
            name = None if table is None else self._index.user_of(table)
            if name is None and target.kind is not ObjectKind.CONTENT:
                name = self._index.name_of(target.id[:16])
            if name is None:
                continue
            if name not in confirmed:
                confirmed[name] = self._valid(name)
            header = confirmed[name]
            if header is None:
                continue
            used.update(own_objects(header))
            for entry in header.stack:
                if table_of(entry) == table:
                    used.update(self._references([entry]))
        return {target: sole for target, sole in todo.items() if target not in used}

    def _valid(self, name: str) -> Header | None:
        try:
            return self._headers.find(name, durable=True)
        except ArchipelagoError:
            return None

    def _all_left(self, generation: int) -> bool:
        """True if no change that began in a generation or before is under way."""
        self.come()
        if self._generations.oldest <= generation:
            return False
        return all(
            each.generation > generation
            for each in self._presences.living()
            if each.instance != self._presences.instance
        )

    # ---- sweep ---------------------------------------------------------------------

    def _sweep(self, cycle: _Cycle) -> int:
        self._index.refresh(full=True)
        used = References(self._tables, self._without_dead(self._index.all()))
        free = [target for target in cycle.todo if not used.include(target)]
        since = self._recorded_since(cycle)
        later = {target: sole for target, sole in cycle.todo.items() if target in since}
        if used.unsure:
            # What the damaged one refers to is unknown.
            later.update({t: False for t in free if not cycle.todo[t]})
            free = [target for target in free if cycle.todo[target]]
            with self._guard:
                self._not_before = time.monotonic() + _UNSURE_PAUSE
        free = [target for target in free if target not in later]
        if free:
            self._headers.make_durable()
        deleted = 0
        for start in range(0, len(free), _DELETE):
            batch = free[start : start + _DELETE]
            deleted += self._store.delete_all(batch, generation=cycle.generation)
        self._tables.keep_only(used.layers)
        self._finish(cycle.own, cycle.adopted, later)
        return deleted

    def _without_dead(
        self, headers: list[Header | Damaged]
    ) -> Iterator[Header | Damaged]:
        """Remove the headers that an interrupted rename has left dead for good."""
        for header in headers:
            if isinstance(header, Header) and self._is_dead(header):
                log.info('a dead header "%s" of a rename is removed', header.name)
                with contextlib.suppress(LeaseLost):  # it changed: then it counts
                    self._headers.delete(header.name, header.version)
                    continue
            yield header

    def _is_dead(self, header: Header) -> bool:
        """True if no other header can make this one valid any more."""
        if header.moving_to:
            other = self._headers.peek(header.moving_to, durable=True)
            needed = other is not None and other.moved_from == header.name
            return other is None or other.uuid != header.uuid or not needed
        if header.moved_from:
            other = self._headers.peek(header.moved_from, durable=True)
            return other is None or other.uuid != header.uuid
        return False

    def _recorded_since(self, cycle: _Cycle) -> set[ObjectId]:
        """What any instance has recorded since the cycle began."""
        found = self._candidates.recorded()
        adopted = {batch.target.id for batch in cycle.adopted}
        for batch in self._candidates.foreign():
            if batch.target.id not in adopted:
                start = cycle.others.get(batch.target.id, 0)
                if batch.length > start:
                    found.update(self._candidates.read(batch, start))
        for target in [t for t in found if t.kind is ObjectKind.LAYER]:
            with contextlib.suppress(ArchipelagoError):
                found.update(self._tables.extents(target))
        return found

    def _finish(
        self, own: list[Batch], adopted: list[Batch], later: dict[ObjectId, bool]
    ) -> None:
        """Remove batches; what of them is not done yet is recorded anew before."""
        if later:
            self._candidates.record(later).done = True
        for retired in [r for batch in own for r in batch.retired if not r.done]:
            self._candidates.carry(retired)
        self._candidates.forget([*own, *adopted])

    def _delete_sole(
        self,
        retired: Retired,
        sole: list[ObjectId],
        delete: Callable[[], None] | None = None,
    ) -> None:
        """Delete what only the changed header had; a failure leaves it to a cycle."""
        if not sole:
            return
        try:
            if delete is None:
                self._store.delete_all(sole)
            else:
                delete()
        except ArchipelagoError as error:
            log.warning("storage is given back later: %s", error)
            return
        for target in sole:
            retired.objects.pop(target, None)

    def _references(self, entries: Iterable[StackEntry]) -> Iterator[ObjectId]:
        for entry in entries:
            try:
                yield from self._tables.of_entry(entry)
            except ArchipelagoError as error:
                log.warning("what a table refers to is not known: %s", error)


def _merge(into: dict[ObjectId, bool], objects: dict[ObjectId, bool]) -> None:
    """Add candidates; one that is recorded twice is nobody's alone."""
    for target, sole in objects.items():
        into[target] = into.get(target, True) and sole


def _table(target: ObjectId) -> Table | None:
    """What names an object as a table of a stack."""
    if target.kind is ObjectKind.LAYER:
        return LAYER, target.id[:16], 0
    if target.kind is ObjectKind.JOURNAL:
        return JOURNAL, target.id[:16], int.from_bytes(target.id[16:24], "little")
    return None
