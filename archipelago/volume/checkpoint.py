# SPDX-License-Identifier: Apache-2.0
"""Checkpoint: freeze a journal that became long, within one epoch.

Appends are held back for the time of one header update; reads and writes go on.
"""

from __future__ import annotations

from archipelago.volume.change import Change, changing, frozen
from archipelago.volume.context import Context
from xseg.constants import VolumeFlag


def checkpoint(ctx: Context, name: str) -> bool:
    """Freeze the journal of a volume that is open for writing.

    Returns:
        False if there was nothing to freeze, or it is not open for writing any more.
    """
    with changing(ctx, name) as change:
        if change.opened is None or change.opened.read_only:
            return False
        if change.header.flags & VolumeFlag.READONLY:
            return False
        done = freeze(change)
    ctx.compact_soon(change.header)
    return done


def freeze(change: Change) -> bool:
    """Put the journal on the stack and start another; False if it is empty."""
    journal = change.hold()
    if not journal.length_bytes:
        return False
    change.commit(frozen(change.header, journal, new_epoch=False))
    return True
