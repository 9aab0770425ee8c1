# SPDX-License-Identifier: Apache-2.0
"""Open and close: lease and map of a volume, for as long as somebody uses it.

Opening for writing takes the lease and records its fence in the header, so that whoever
held it before can change nothing more; if that one did not give the lease back, the
volume is taken over first (`archipelago.volume.changing`).  Closing goes the other way:
map, extent, lease, so that there is nothing to take over.

A volume that was stopped is forgotten once vlmcd knows that it is lost: who opens it
again gets it anew, and its users of before get errors until they have closed it.
"""

from __future__ import annotations

import contextlib
import errno
import logging

from archipelago._header import Header, pack_header
from archipelago.errors import (
    ArchipelagoError,
    LeaseHeld,
    LeaseLost,
    MapCorrupt,
    VolumeNotFound,
)
from archipelago.volume.change import Change
from archipelago.volume.changing import change_of, replaced, settled_change_of
from archipelago.volume.checkpoint import freeze, freeze_torn
from archipelago.volume.compact import compact_small
from archipelago.volume.context import Context, OpenMap, own_extent
from archipelago.volume.departed import await_departed
from archipelago.volume.journal import note_length
from archipelago.volume.resize import settle_tail
from xseg.constants import VolumeFlag

log = logging.getLogger(__name__)


def open_volume(ctx: Context, name: str, *, read_only: bool, fence: int = 0) -> OpenMap:
    """Open a volume, or find it open.

    Args:
        ctx: where.
        name: a volume or snapshot.
        read_only: do not take the lease.  Snapshots never need it.
        fence: of the lease under which vlmcd had it open for writing, and wants it
            again; 0: any.  A lease that was broken is not taken anew for that.

    Raises:
        VolumeNotFound: there is none.
        LeaseHeld: another instance has it open for writing.
        LeaseLost: it cannot be had under that fence any more.
    """
    if not read_only and not fence:
        _merge_small(ctx, name)
    with ctx.locks.hold(name):
        opened = _find_open(ctx, name)
        if opened is not None:
            if fence not in (0, opened.fence):
                raise LeaseLost(
                    f'"{name}" was opened anew: the lease of before is lost'
                )
            if read_only or not opened.read_only or _is_snapshot(opened.header):
                return opened
            return _upgrade(ctx, opened)
        if not read_only and not _is_snapshot(ctx.headers.get(name)):
            opened = _open_for_write(ctx, name, fence)
        else:
            opened = _open_for_read(ctx, name)
    ctx.compact_soon(opened.header)
    return opened


def _merge_small(ctx: Context, name: str) -> None:
    """Keep the stack of a volume short that is opened often and never for long."""
    if ctx.table.get(name) is not None:
        return
    try:
        compact_small(ctx, name, ctx.limits.stack_hard)
    except ArchipelagoError as error:
        log.info('the tables of "%s" are not merged: %s', name, error)


def close_volume(ctx: Context, name: str) -> None:
    """Close a volume; whoever asks has flushed it.  Not being open is fine.

    If another control half had it open, and died over this, its lease is given back.

    Raises:
        ArchipelagoError: the store failed.  It is closed all the same; if its extent
            or lease could not be given back, the next to open it takes it over.
    """
    with ctx.locks.hold(name):
        opened = ctx.table.get(name)
        try:
            if opened is not None:
                _close(ctx, opened)
            else:
                _give_back_left(ctx, name)
        except ArchipelagoError as error:
            # Whoever used it may have gone long ago: this is for the administrator.
            log.error('"%s" is closed, but not given back: %s', name, error)
            raise


def close_stale(ctx: Context, name: str) -> None:
    """Close a volume that no living vlmcd has open; the caller locks its name.

    Its clients may come back for it: all that was answered is made durable first.

    Raises:
        ArchipelagoError: that failed, and it stays open.
    """
    opened = ctx.table.get(name)
    if opened is not None and opened.opener != ctx.composer_life():
        if not opened.broken and not opened.read_only:
            _make_durable(ctx, opened)
        _close(ctx, opened)


def close_all_stale(ctx: Context) -> None:
    """Close at the end what no living vlmcd has open, so that others need not wait."""
    for opened in ctx.table.all():
        name = opened.header.name
        try:
            with ctx.locks.hold(name):
                close_stale(ctx, name)
        except ArchipelagoError as error:
            log.error('"%s" is not closed: %s', name, error)


def forget_broken(ctx: Context, opened: OpenMap) -> None:
    """Close a volume that was stopped; the caller locks its name."""
    if not opened.read_only:
        # It must not take what is opened next for what it had: marks are missing.
        ctx.tell_lost(opened.header.uuid)
    _close(ctx, opened)


def drop_stale(ctx: Context, name: str) -> None:
    """As `close_stale`, for a volume whose data nobody wants any more."""
    opened = ctx.table.get(name)
    if opened is not None and opened.opener != ctx.composer_life():
        _close(ctx, opened)


def _find_open(ctx: Context, name: str) -> OpenMap | None:
    """The open volume, fit for use by the present vlmcd; None if it is not open."""
    opened = ctx.table.get(name)
    if opened is None:
        return None
    life = ctx.composer_life()
    if opened.broken:
        forget_broken(ctx, opened)
        return None
    if opened.opener != life:
        # The vlmcd that made its marks is gone, and so is its count of flushes.
        if not opened.read_only:
            _make_durable(ctx, opened)
        opened.opener = life
    return opened


def _make_durable(ctx: Context, opened: OpenMap) -> None:
    """Flush all that was answered by a vlmcd that is gone; its name is locked."""
    await_departed(ctx.messenger.segment)
    ctx.store.flush(own_extent(opened.header))
    try:
        ctx.maps.flush(opened.handle)
    except ArchipelagoError as error:
        if error.number != errno.EAGAIN:
            raise
        # The journal waits for another one.
        with change_of(ctx, opened.header.name) as change:
            if not freeze_torn(change):
                freeze(change)
        ctx.maps.flush(opened.handle)


def _close(ctx: Context, opened: OpenMap) -> None:
    ctx.table.remove(opened.header.name)
    uuid = opened.header.uuid
    if not opened.read_only and not opened.broken:
        opened.header = note_length(ctx.headers, ctx.maps, opened.handle, opened.header)
    try:
        ctx.let_go(opened)
    except ArchipelagoError:
        if not opened.read_only:
            ctx.leases.abandon(uuid)
        raise
    if opened.left:
        ctx.leases.leave(uuid)
    elif not opened.read_only:
        ctx.leases.give_back(uuid)


def _give_back_left(ctx: Context, name: str) -> None:
    """Give back a lease that nobody here counts on; nobody else would renew it."""
    try:
        header = ctx.headers.get(name)
    except VolumeNotFound:
        return
    left = 0 if _is_snapshot(header) else ctx.leases.left(header.uuid)
    if not left or left != header.fence:
        return  # whoever takes it next takes the volume over
    await_departed(ctx.messenger.segment)
    with contextlib.suppress(LeaseHeld), settled_change_of(ctx, name, if_free=True):
        log.info('the lease of "%s" was left, and is given back', name)


def _is_snapshot(header: Header) -> bool:
    return bool(header.flags & VolumeFlag.READONLY)


def _open_for_read(ctx: Context, name: str) -> OpenMap:
    header = ctx.headers.get(name)
    try:
        handle = ctx.maps.open(pack_header(header), read_only=True)
    except MapCorrupt:
        # Its writer may have changed it meanwhile, and given back what it was.
        again = ctx.headers.get(name)
        if again == header:
            raise
        header = again
        handle = ctx.maps.open(pack_header(header), read_only=True)
    opened = OpenMap(header, handle, True, 0, ctx.composer_life())
    ctx.table.add(opened)
    return opened


def _upgrade(ctx: Context, opened: OpenMap) -> OpenMap:
    """Open for writing what is open for reading; vlmcd has drained it."""
    name = opened.header.name
    ctx.table.remove(name)
    try:
        upgraded = _open_for_write(ctx, name)
    except ArchipelagoError:
        ctx.table.add(opened)
        raise
    _forget(ctx, opened.handle)
    return upgraded


def _open_for_write(ctx: Context, name: str, fence: int = 0) -> OpenMap:
    uuid = ctx.headers.get(name).uuid
    await_departed(ctx.messenger.segment)
    lease = ctx.leases.acquire(uuid, name, fence=fence)
    handle = 0
    try:
        with change_of(ctx, name) as change:
            if change.header.uuid != uuid:
                raise replaced(name)
            if change.begin_journal() or change.header.fence != lease.fence:
                change.commit(change.header)
            header = change.header
        handle = ctx.load(header)
        opened = OpenMap(header, handle, False, lease.fence, ctx.composer_life())
        ctx.table.add(opened)
        with change_of(ctx, name) as change:
            _make_ready(change)
        ctx.leases.settle(uuid)
    except BaseException:
        ctx.table.remove(name)
        if handle:
            _forget(ctx, handle)
        ctx.leases.release(uuid)
        raise
    return opened


def _make_ready(change: Change) -> None:
    """Put right what an unclean end may have left."""
    settle_tail(change)
    # The next append must follow whole records.
    freeze_torn(change)


def _forget(ctx: Context, handle: int) -> None:
    try:
        ctx.maps.close(handle)
    except ArchipelagoError as error:
        log.warning("a map stays in memory: %s", error)
