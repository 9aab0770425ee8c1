# SPDX-License-Identifier: Apache-2.0
"""Who may change a volume: the lock of its name, its lease, and taking it over.

    lock name -> lease -> header -> [take over] -> change

Whoever held the lease before may still be there: paused, cut off, or just slow.  Unless
it gave the lease back, nothing is changed before its writes cannot reach anything that
is read (``docs/design/0003-survival-and-fencing.md``):

    ACQUIRE: the fence grows         appends of the old holder are refused
    seal the extent of the epoch     what it writes from now on nobody reads
    UPDATE header                    our fence, another epoch, another journal, at once

If the header was replaced meanwhile, the old holder changed the volume just before it
lost it: its extent may be another one now, so all is done again from the sealing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from archipelago._header import Header
from archipelago.errors import ArchipelagoError, LeaseLost, VolumeBusy
from archipelago.ids import journal_id
from archipelago.volume.change import Change, frozen, roll_epoch
from archipelago.volume.context import Context, own_extent
from xseg.constants import VolumeFlag

log = logging.getLogger(__name__)


@contextmanager
def changing(ctx: Context, name: str, *others: str) -> Iterator[Change]:
    """Lock names and take the lease of the volume called `name`.

    Args:
        ctx: where.
        name: the volume that is to change.
        others: further names to lock (those that come into being).

    Raises:
        VolumeNotFound: there is none.
        LeaseHeld: another instance has it.
        VolumeBusy: it was stopped after a failure.
    """
    with ctx.locks.hold(name, *others), settled_change_of(ctx, name) as change:
        yield change


@contextmanager
def settled_change_of(
    ctx: Context, name: str, *, if_free: bool = False
) -> Iterator[Change]:
    """As `changing`, for a caller that holds the lock of the name.

    Args:
        ctx: where.
        name: the volume that is to change.
        if_free: leave it to another instance that ended without giving it back: its
            next process still has what was answered and not flushed.
    """
    with change_of(ctx, name, if_free=if_free) as change:
        _keep_marks(change)
        ctx.leases.settle(change.header.uuid)
        yield change


@contextmanager
def change_of(ctx: Context, name: str, *, if_free: bool = False) -> Iterator[Change]:
    """As `settled_change_of`, but what waits for the volume's fence goes on waiting."""
    opened = ctx.table.get(name)
    if opened is not None:
        opened.check()
    header = opened.header if opened is not None else ctx.headers.get(name)
    with ctx.leases.hold(header.uuid, name, if_free=if_free) as lease:
        if opened is None or opened.read_only:
            # Read again: only now can nobody else change it.
            header = _ours(ctx, name, header.uuid, lease.fence)
            if header.flags & VolumeFlag.READONLY:
                ctx.leases.settle(header.uuid)
        elif header.moved_from:
            header = opened.header = ctx.headers.settle(header)
        change = Change(ctx, header, opened, lease.fence)
        try:
            yield change
        except ArchipelagoError:
            _record_fence(change)
            raise
        else:
            _record_fence(change)
        finally:
            change.end()


def replaced(name: str) -> VolumeBusy:
    """Make the error for a name that has become another volume's."""
    return VolumeBusy(f'"{name}" was replaced just now: try again')


def _keep_marks(change: Change) -> None:
    """Journal what was answered for a volume, and not flushed, before peers died.

    The mapper keeps it for this fence alone, and a lease that is given back has another
    one the next time.
    """
    header, ctx = change.header, change.ctx
    if change.opened is not None and not change.opened.read_only:
        return  # vlmcd flushes it
    if header.fence != change.fence or header.flags & VolumeFlag.READONLY:
        return
    found = ctx.maps.info(change.handle)
    if not found.dirty_marks:
        return
    if found.needs_checkpoint:
        journal = change.hold()
        left = journal_id(header.uuid, header.journal)
        sole = () if journal.nr_marks else (left,)
        with ctx.reclaimer.retiring(sole=sole):
            change.commit(frozen(header, journal, new_epoch=False))
    ctx.store.flush(own_extent(header))
    ctx.maps.flush(change.handle)


def _ours(ctx: Context, name: str, uuid: bytes, fence: int) -> Header:
    """The header of a volume whose lease was taken, with nobody else behind it.

    It is durable before anything is done for it: an extent that is sealed, or a name
    that is settled, stays so whatever a power cut does to the header.
    """
    while True:
        header = ctx.headers.get(name, durable=True)
        if header.uuid != uuid:
            raise replaced(name)
        header = ctx.headers.settle(header)
        if header.flags & VolumeFlag.READONLY:
            return header
        if not ctx.leases.unclean(uuid, header.fence):
            return header
        taken = _take_over(ctx, header, fence)
        if taken is not None:
            return taken


def _take_over(ctx: Context, header: Header, fence: int) -> Header | None:
    """Shut out whoever held the lease before; None if the header was replaced."""
    log.warning('"%s" is taken over: its last holder did not give it back', header.name)
    ctx.store.seal(own_extent(header))
    change = Change(ctx, header, None, fence)
    try:
        roll_epoch(change)
    except LeaseLost:
        now = ctx.headers.get(header.name)
        if now.fence > fence or now.version == header.version:
            raise
        return None
    finally:
        change.end()
    return change.header


def _record_fence(change: Change) -> None:
    """Leave our fence in the header, so that giving the lease back can be relied on.

    Whoever comes next would take a volume over whose header has an older fence than
    its lease.  That does no harm, so a failure here does not matter.
    """
    header = change.header
    if header.fence == change.fence or header.flags & VolumeFlag.READONLY:
        return
    if change.removed or (change.opened is not None and change.opened.broken):
        return
    try:
        change.commit(header)
    except ArchipelagoError as error:
        log.info('the fence of "%s" is not recorded: %s', header.name, error)
