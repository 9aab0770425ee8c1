# SPDX-License-Identifier: Apache-2.0
"""Checkpoint: freeze a journal that became long, within one epoch.

Appends are held back for the time of one header update; reads and writes go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from archipelago._header import Header
from archipelago.ids import journal_id
from archipelago.volume.change import Change, frozen
from archipelago.volume.changing import settled_change_of
from archipelago.volume.context import Context

log = logging.getLogger(__name__)


def checkpoint(ctx: Context, name: str) -> bool:
    """Freeze the journal of a volume that is open for writing.

    Returns:
        False if there was nothing to freeze, or it is not open for writing any more.
    """
    with _changing_open(ctx, name) as change:
        if change is None:
            return False
        done = freeze(change)
    ctx.compact_soon(change.header)
    return done


def mend(ctx: Context, name: str) -> bool:
    """Start another journal if the present one ends in bytes that are no record.

    An append that failed half way leaves such bytes; until then flushes fail.

    Returns:
        False if the journal is whole, or the volume not open for writing any more.
    """
    opened = ctx.table.get(name)
    if (
        opened is None
        or opened.read_only
        or not _torn(ctx, opened.header, opened.handle)
    ):
        return False
    with _changing_open(ctx, name) as change:
        return change is not None and change.opened is opened and freeze_torn(change)


@contextmanager
def _changing_open(ctx: Context, name: str) -> Iterator[Change | None]:
    """Change a volume that is open here for writing; yields None if it is not.

    Nobody asked for this: if the volume was closed meanwhile it may be another
    instance's, and is not taken for it.
    """
    with ctx.locks.hold(name):
        opened = ctx.table.get(name)
        if opened is None or opened.read_only:
            yield None
            return
        with settled_change_of(ctx, name) as change:
            yield change


def freeze_torn(change: Change) -> bool:
    """Leave a torn journal behind; false if it is whole."""
    header = change.header
    journal = change.hold()
    if not _torn(change.ctx, header, change.handle):
        return False
    if journal.nr_marks:
        change.commit(frozen(header, journal, new_epoch=False))
    else:
        torn = journal_id(header.uuid, header.journal)
        with change.ctx.reclaimer.retiring(sole=[torn]):
            change.commit(replace(header, journal=header.journal + 1))
    log.warning('"%s": journal %d was torn', header.name, header.journal)
    return True


def _torn(ctx: Context, header: Header, handle: int) -> bool:
    """True if the stored journal is not as long as the map in memory knows it."""
    stored = ctx.store.stat(journal_id(header.uuid, header.journal))
    known = ctx.maps.info(handle).journal.length_bytes
    return stored is not None and stored.size_bytes != known


def freeze(change: Change) -> bool:
    """Put the journal on the stack and start another; False if it is empty."""
    journal = change.hold()
    if not journal.nr_marks:
        return False
    change.commit(frozen(change.header, journal, new_epoch=False))
    return True
