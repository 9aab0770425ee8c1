# SPDX-License-Identifier: Apache-2.0
"""One change of one volume: the shared steps of all changes, in their order.

    [hold] -> UPDATE header -> native UPDATE -> [more]

UPDATE header is the commit point.  What fails before it changes nothing; what fails
after it is either rolled back or stops the volume's I/O, so that a map in memory and
its header never go different ways.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

from archipelago._header import JOURNAL, NO_LIMIT, Header, StackEntry, pack_header
from archipelago.errors import (
    ArchipelagoError,
    LeaseLost,
    MapCorrupt,
    ReadOnlySnapshot,
)
from archipelago.ids import ObjectId, journal_id, layer_id
from archipelago.volume.context import Context, OpenMap, own_extent
from archipelago.volume.journal import begin_journal
from xseg.constants import VolumeFlag
from xseg.payload import JournalInfo

log = logging.getLogger(__name__)


class Change:
    """A volume whose name is locked and whose lease is held.

    Made by `archipelago.volume.changing.changing`.

    Attributes:
        header: as stored now.
        opened: the open volume, or None.
        fence: of the lease.
        removed: true once the header is gone.
    """

    def __init__(
        self, ctx: Context, header: Header, opened: OpenMap | None, fence: int
    ) -> None:
        self.ctx = ctx
        self.header = header
        self.opened = opened
        self.fence = fence
        self.removed = False
        self._own_handle: int | None = None
        self._holding = False
        self._held: JournalInfo | None = None

    @property
    def handle(self) -> int:
        """The mapper's handle; a closed volume is loaded for the time of the change."""
        if self.opened is not None and not self.opened.read_only:
            return self.opened.handle
        if self._own_handle is None:
            self._own_handle = self.ctx.load(replace(self.header, fence=self.fence))
        return self._own_handle

    def hold(self) -> JournalInfo:
        """Hold journal appends back until `commit`; say where the journal stands."""
        journal = self.ctx.maps.hold(self.handle)
        self._holding = True
        self._held = journal
        if journal.number != self.header.journal:
            raise MapCorrupt(
                f'the map of "{self.header.name}" writes journal {journal.number}, its '
                f"header names journal {self.header.journal}"
            )
        return journal

    def commit(self, header: Header, *, moving_to: str = "") -> None:
        """Store a changed header and let the map in memory follow it.

        Args:
            header: the new one; version, fence, renames and the least length of its
                journal are filled in.
            moving_to: the name that a rename is about to give it.

        Raises:
            LeaseLost: somebody else changed it; the volume is stopped.
        """
        before = self.header
        after = replace(
            header,
            version=before.version + 1,
            fence=self.fence,
            moving_to=moving_to,
            moved_from="",
            journal_least=self._journal_least(before, header),
        )
        self._store(before, after)
        try:
            self._follow(after)
        except ArchipelagoError as error:
            self._roll_back(before, after, error)
            raise
        self.header = after
        self._holding = False
        self._held = None

    def begin_journal(self) -> bool:
        """Begin the current journal unless that is done; `commit` has to say so.

        Only before the volume's map is loaded for writing: the map would not know.

        Returns:
            True if the header is to be stored for it.
        """
        header = self.header
        if header.journal_least or self._own_handle is not None:
            return False
        store = self.ctx.store
        least = begin_journal(store, header.uuid, header.journal, self.fence)
        self.header = replace(header, journal_least=least)
        return least > 0

    def _journal_least(self, before: Header, after: Header) -> int:
        """How much of the new header's journal is durable now [bytes]."""
        if after.journal != before.journal:
            store = self.ctx.store
            return begin_journal(store, after.uuid, after.journal, self.fence)
        if self._holding and self._held is not None:
            return max(after.journal_least, self._held.length_bytes)
        return after.journal_least

    def leave(self, before: Header) -> None:
        """Give up an earlier epoch's extent, which nobody writes to any more."""
        if self.opened is None or self.opened.read_only:
            return
        try:
            self.ctx.store.release_extent(own_extent(before))
        except ArchipelagoError as error:
            # Sealed or deleted it may be all the same; it only takes longer.
            log.info('an extent of "%s" stays open: %s', before.name, error)

    def end(self) -> None:
        """Let appends go on if nothing was committed; forget a map loaded for this."""
        maps = self.ctx.maps
        if self._own_handle is not None:
            try:
                maps.close(self._own_handle)
            except ArchipelagoError as error:
                log.warning('the map of "%s" stays: %s', self.header.name, error)
        if self._holding and self.opened is not None and not self.opened.broken:
            try:
                if not self.opened.read_only:
                    maps.follow(self.opened.handle, pack_header(self.opened.header))
            except ArchipelagoError as error:
                self.ctx.give_up(self.opened, f"its map did not go on: {error}")

    def _store(self, before: Header, after: Header) -> None:
        try:
            self.ctx.headers.replace(after)
        except LeaseLost as error:
            self._stop(f"its header was changed by somebody else: {error}")
            raise
        except ArchipelagoError as error:
            # The answer may have been lost after the deed: look what is stored.
            try:
                stored = self.ctx.headers.peek(before.name)
            except ArchipelagoError:
                stored = None
            if stored == after:
                return
            if stored is None or stored.version != before.version:
                self._stop(f"its header may have changed: {error}")
            raise

    def _follow(self, header: Header) -> None:
        packed = pack_header(header)
        if self._own_handle is not None:
            self.ctx.maps.follow(self._own_handle, packed)
        if self.opened is not None:
            self.ctx.maps.follow(self.opened.handle, packed)
            self.opened.header = header

    def _roll_back(
        self, before: Header, after: Header, error: ArchipelagoError
    ) -> None:
        """The mapper refused the new header: store the old contents again."""
        again = replace(before, version=after.version + 1, fence=self.fence)
        try:
            self.ctx.headers.replace(again)
            self._follow(again)
        except ArchipelagoError as second:
            self._stop(f"its map did not follow its header: {error}; {second}")
            return
        self.header = again
        self._holding = False

    def _stop(self, why: str) -> None:
        self._holding = False
        if self.opened is not None:
            self.ctx.give_up(self.opened, why)


def frozen(header: Header, journal: JournalInfo, *, new_epoch: bool) -> Header:
    """Put the live journal on the stack, and start another one.

    Args:
        header: of the volume, with appends held back.
        journal: where its journal stands.
        new_epoch: whether writes go to a fresh extent from now on.
    """
    stack = header.stack
    if journal.nr_marks:
        top = StackEntry(
            type=JOURNAL,
            owned=True,
            id=header.uuid,
            number=journal.number,
            length=journal.length_bytes,
            extent_uuid=header.uuid,
            extent_epoch=header.epoch,
            limit=NO_LIMIT,
        )
        stack = (top, *stack)
    return replace(
        header,
        epoch=header.epoch + (1 if new_epoch else 0),
        journal=header.journal + 1,
        stack=stack,
    )


def shared(header: Header) -> Header:
    """Give up being the only one that refers to the stack's entries."""
    return replace(
        header, stack=tuple(replace(entry, owned=False) for entry in header.stack)
    )


def entry_object(entry: StackEntry) -> ObjectId:
    """Name the object that holds a stack entry."""
    if entry.type == JOURNAL:
        return journal_id(entry.id, entry.number)
    return layer_id(entry.id)


def refuse_snapshot(header: Header, what: str) -> None:
    """Raise `ReadOnlySnapshot` if the header is a snapshot's."""
    if header.flags & VolumeFlag.READONLY:
        raise ReadOnlySnapshot(
            f'"{header.name}" is a snapshot and cannot be {what}: clone it with "vlmc '
            f'create NAME --snap {header.name}" and change the clone'
        )


def roll_epoch(change: Change) -> None:
    """Freeze the journal, start a new epoch and give up owning the stack."""
    before = change.header
    journal = change.hold()
    after = shared(frozen(before, journal, new_epoch=True))
    with retiring_epoch(change, before, journal):
        change.commit(after)
        change.leave(before)


@contextlib.contextmanager
def retiring_epoch(
    change: Change, before: Header, journal: JournalInfo
) -> Iterator[None]:
    """Start a new epoch; what of the one before nothing refers to is deleted.

    Args:
        change: of the volume.
        before: its header.
        journal: where its journal stands.
    """
    reclaimer = change.ctx.reclaimer
    sole: list[ObjectId] = []
    if not journal.nr_marks:
        # Nothing goes to the stack; a frozen journal may have come from this epoch.
        sole.append(journal_id(before.uuid, before.journal))
        if not reclaimer.referred_by(before.stack, own_extent(before)):
            sole.append(own_extent(before))
    with reclaimer.retiring(sole=sole):
        yield
