# SPDX-License-Identifier: Apache-2.0
"""Open and close: lease and map of a volume, for as long as somebody uses it.

Opening for writing takes the lease and records its fence in the header, so that whoever
held it before can change nothing more.  If the last holder did not give the lease back
(it died, or the lease was broken), writes go to a new epoch's extent: a late write of
that holder cannot reach anything that is read.
"""

from __future__ import annotations

import logging

from archipelago._map import Header, pack_header
from archipelago.errors import ArchipelagoError, UsageError
from archipelago.volume.change import Change, change_of, own_extent
from archipelago.volume.checkpoint import freeze_torn
from archipelago.volume.context import Context, OpenMap
from archipelago.volume.resize import settle_tail
from archipelago.volume.snapshot import roll_epoch
from xseg.constants import VolumeFlag

log = logging.getLogger(__name__)


def open_volume(ctx: Context, name: str, *, read_only: bool) -> OpenMap:
    """Open a volume, or find it open.

    Args:
        ctx: where.
        name: a volume or snapshot.
        read_only: do not take the lease.  Snapshots never need it.

    Raises:
        VolumeNotFound: there is none.
        LeaseHeld: another instance has it open for writing.
    """
    with ctx.locks.hold(name):
        opened = _find_open(ctx, name)
        if opened is not None:
            if read_only or not opened.read_only or _is_snapshot(opened.header):
                return opened
            return _upgrade(ctx, opened)
        if not read_only and not _is_snapshot(ctx.headers.get(name)):
            opened = _open_for_write(ctx, name)
        else:
            opened = _open_for_read(ctx, name)
    ctx.compact_soon(opened.header)
    return opened


def close_volume(ctx: Context, name: str) -> None:
    """Close a volume; whoever asks has flushed it.  Not being open is fine."""
    with ctx.locks.hold(name):
        opened = ctx.table.get(name)
        if opened is not None:
            _close(ctx, opened)


def close_stale(ctx: Context, name: str) -> None:
    """Close a volume that an earlier life of vlmcd had open; the caller locks its name.

    Nobody can reach it any more.  What was written and not flushed is lost, as after
    any crash.
    """
    opened = ctx.table.get(name)
    if opened is not None and opened.opener != ctx.composer_life():
        _close(ctx, opened)


def _find_open(ctx: Context, name: str) -> OpenMap | None:
    """The open volume, fit for use by the present vlmcd; None if it is not open."""
    opened = ctx.table.get(name)
    if opened is None:
        return None
    if opened.broken:
        _close(ctx, opened)
        return None
    life = ctx.composer_life()
    if opened.opener != life:
        # The vlmcd that made its marks is gone, and so is its count of flushes.
        if not opened.read_only:
            ctx.store.flush(own_extent(opened.header))
            ctx.maps.flush(opened.handle)
        opened.opener = life
    return opened


def _close(ctx: Context, opened: OpenMap) -> None:
    ctx.table.remove(opened.header.name)
    try:
        if not opened.broken:
            ctx.maps.close(opened.handle)
    finally:
        if not opened.read_only:
            ctx.leases.release(opened.header.uuid)


def _is_snapshot(header: Header) -> bool:
    return bool(header.flags & VolumeFlag.READONLY)


def _open_for_read(ctx: Context, name: str) -> OpenMap:
    header = ctx.headers.get(name)
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
    try:
        ctx.maps.close(opened.handle)
    except ArchipelagoError as error:
        log.warning('a map of "%s" stays in memory: %s', name, error)
    return upgraded


def _open_for_write(ctx: Context, name: str) -> OpenMap:
    uuid = ctx.headers.get(name).uuid
    before = ctx.leases.last(uuid)
    taken_over = before is not None and not ctx.leases.is_own(before)
    lease = ctx.leases.acquire(uuid, name)
    handle = 0
    try:
        header = ctx.headers.get(name)
        if header.uuid != uuid:
            raise UsageError(f'"{name}" was replaced just now: try again')
        # A fence that was never written here may have been broken: be careful then.
        careful = taken_over or lease.fence > header.fence + 1
        with change_of(ctx, name) as change:
            if change.header.fence != lease.fence:
                change.commit(change.header)
            header = change.header
        handle = ctx.maps.open(pack_header(header), read_only=False)
        opened = OpenMap(header, handle, False, lease.fence, ctx.composer_life())
        ctx.table.add(opened)
        with change_of(ctx, name) as change:
            _make_ready(change, careful)
    except BaseException:
        ctx.table.remove(name)
        if handle:
            _forget(ctx, handle)
        ctx.leases.release(uuid)
        raise
    return opened


def _make_ready(change: Change, careful: bool) -> None:
    """Put right what an unclean end may have left."""
    settle_tail(change)
    if careful:
        roll_epoch(change)
    else:
        # The next append must follow whole records.
        freeze_torn(change)


def _forget(ctx: Context, handle: int) -> None:
    try:
        ctx.maps.close(handle)
    except ArchipelagoError as error:
        log.warning("a map stays in memory: %s", error)
