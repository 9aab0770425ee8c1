# SPDX-License-Identifier: Apache-2.0
"""Snapshot: freeze what a volume holds now under a name of its own, in O(1).

Writes go to a new epoch's extent from the first commit on; that alone changes nothing
that anyone can read.  The snapshot exists with the second: the CREATE of its header.
Whoever asks has drained and flushed the volume (vlmcd).
"""

from __future__ import annotations

from archipelago._header import Header
from archipelago.errors import LeaseLost, UsageError
from archipelago.ids import check_name
from archipelago.volume.change import Change, refuse_snapshot, roll_epoch
from archipelago.volume.changing import changing
from archipelago.volume.compact import compact_to
from archipelago.volume.context import Context
from archipelago.volume.create import fresh, put, refuse_existing
from archipelago.volume.resize import settle_tail
from xseg.constants import VolumeFlag


def snapshot(ctx: Context, name: str, new: str) -> Header:
    """Take a snapshot of a volume.

    Args:
        ctx: where.
        name: the volume.
        new: name of the snapshot.

    Returns:
        The snapshot's header.

    Raises:
        VolumeExists: the snapshot's name is taken; nothing has changed.
        ReadOnlySnapshot: it is a snapshot itself.
    """
    check_name(new)
    if new == name:
        raise UsageError(f'a snapshot of "{name}" needs another name')
    compact_to(ctx, name, ctx.limits.stack_most)
    with changing(ctx, name, new) as change:
        refuse_snapshot(change.header, "snapshotted")
        refuse_existing(ctx, new)
        settle_tail(change)
        epoch = change.header.epoch
        roll_epoch(change)
        header = fresh(
            new,
            size=change.header.size,
            block_size=change.header.block_size,
            flags=VolumeFlag.READONLY,
            parent=name,
            epoch=epoch,
            stack=change.header.stack,
        )
        put(ctx, header)
        _still_ours(change, header)
    ctx.compact_soon(change.header)
    return header


def _still_ours(change: Change, made: Header) -> None:
    """Take a snapshot back that came so late that its data may be reclaimed already.

    Until its header was there, only the volume's kept what it refers to; and another
    instance may have removed the volume, if this one was paused in between.
    """
    ctx, volume = change.ctx, change.header
    if ctx.leases.prove(volume.uuid):
        return
    with ctx.reclaimer.retiring(made.stack):
        ctx.headers.delete(made.name, made.version)
    raise LeaseLost(
        f'the lease of "{volume.name}" was lost: no snapshot "{made.name}" was taken'
    )
