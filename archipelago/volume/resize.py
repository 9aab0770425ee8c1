# SPDX-License-Identifier: Apache-2.0
"""Resize: growing writes a header; shrinking also starts a new epoch.

Shrinking lowers the limit of every entry of the stack, so that nothing behind the new
end can come back when the volume grows again.  What lies behind the end inside the last
sector is zeroed after the commit; until then the header carries TAIL, and whoever opens
the volume for writing finishes that first (`settle_tail`).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from archipelago._header import Header
from archipelago.errors import ArchipelagoError
from archipelago.ids import ObjectId, extent_id
from archipelago.units import check_size
from archipelago.volume.change import (
    Change,
    frozen,
    refuse_snapshot,
    retiring_epoch,
)
from archipelago.volume.changing import changing
from archipelago.volume.compact import compact_to
from archipelago.volume.context import Context
from xseg.constants import SECTOR_BYTES, ObjectKind, Reference, VolumeFlag

log = logging.getLogger(__name__)


def resize(ctx: Context, name: str, size: int) -> Header:
    """Change the size of a volume.

    Whoever asks to shrink it has drained and flushed it (vlmcd).

    Args:
        ctx: where.
        name: the volume.
        size: the new size [bytes].

    Raises:
        ReadOnlySnapshot: it is a snapshot.
    """
    check_size(size)
    compact_to(ctx, name, ctx.limits.stack_most)
    with changing(ctx, name) as change:
        refuse_snapshot(change.header, "resized")
        settle_tail(change)
        if size > change.header.size:
            change.commit(replace(change.header, size=size))
        elif size < change.header.size:
            _shrink(change, size)
        return change.header


def _shrink(change: Change, size: int) -> None:
    before = change.header
    limit = sector_ceil(size)
    journal = change.hold()
    after = frozen(before, journal, new_epoch=True)
    stack = tuple(replace(e, limit=min(e.limit, limit)) for e in after.stack)
    flags = before.flags | (VolumeFlag.TAIL if size % SECTOR_BYTES else 0)
    extent = extent_id(before.uuid, before.epoch)
    with retiring_epoch(change, before, journal):
        change.commit(replace(after, size=size, flags=int(flags), stack=stack))
        try:
            # This epoch's extent is in no snapshot: nobody else can read it.
            change.leave(before)
            change.ctx.store.discard(extent, limit, sector_ceil(before.size) - limit)
        except ArchipelagoError as error:
            log.warning('what "%s" gave up stays allocated: %s', before.name, error)
    settle_tail(change)


def settle_tail(change: Change) -> None:
    """Zero what lies behind the end of a shrunk volume in its last sector, durably."""
    header = change.header
    if not header.flags & VolumeFlag.TAIL:
        return
    ctx = change.ctx
    offset = header.size - header.size % SECTOR_BYTES
    run = next(ctx.maps.runs(change.handle, offset, SECTOR_BYTES))
    if run.kind is not Reference.ZERO:
        kind = (
            ObjectKind.CONTENT if run.kind is Reference.CONTENT else ObjectKind.EXTENT
        )
        source = ObjectId(kind, run.id)
        data = ctx.store.read(source, run.object_off, SECTOR_BYTES)
        kept = data[: header.size - offset]
        extent = extent_id(header.uuid, header.epoch)
        ctx.store.write(extent, offset, kept.ljust(SECTOR_BYTES, b"\0"), durable=False)
        # All of it: marks that a dead mapper left go into the journal with ours.
        ctx.store.flush(extent)
        if change.opened is None or change.opened.read_only:
            ctx.store.release_extent(extent)
        ctx.maps.mark(change.handle, offset, SECTOR_BYTES)
    change.commit(replace(header, flags=int(header.flags & ~VolumeFlag.TAIL)))


def sector_ceil(size: int) -> int:
    """Round up to whole sectors [bytes]."""
    return -(-size // SECTOR_BYTES) * SECTOR_BYTES
