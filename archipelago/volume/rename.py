# SPDX-License-Identifier: Apache-2.0
"""Rename: exactly one of the two names is valid at any instant.

    CREATE new: moved_from = old      dead until the next step
    UPDATE old: moving_to = new       the commit point
    UPDATE new: moved_from gone       it needs the old one no more
    DELETE old

The commit point compares version and fence.  So an instance that lost the volume in the
middle, and goes on when another has it, brings no second name to life.  What a crash
leaves is finished with the next change of the volume (`Headers.settle`) or when the
name is wanted (`archipelago.volume.create.bury`).
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from archipelago._header import Header, pack_header
from archipelago.errors import ArchipelagoError, UsageError, VolumeExists
from archipelago.ids import check_name
from archipelago.volume.changing import changing
from archipelago.volume.context import Context
from archipelago.volume.create import refuse_existing
from archipelago.volume.headers import first_version
from archipelago.volume.references import own_objects

log = logging.getLogger(__name__)


def rename(ctx: Context, name: str, new: str) -> Header:
    """Give a volume or snapshot another name.  It may be open.

    Raises:
        VolumeNotFound: there is none.
        VolumeExists: the new name is taken.
    """
    check_name(new)
    if new == name:
        raise UsageError(f'"{name}" has that name already')
    with contextlib.ExitStack() as stack:
        change = stack.enter_context(changing(ctx, name, new))
        refuse_existing(ctx, new)
        # A collector that reads headers now may miss the old one and the new one.
        before = change.header
        stack.enter_context(
            ctx.reclaimer.retiring(before.stack, moved=own_objects(before))
        )
        header = replace(
            change.header,
            name=new,
            version=first_version(),
            fence=change.fence,
            moving_to="",
            moved_from=name,
        )
        _create(ctx, header)
        try:
            change.commit(change.header, moving_to=new)
        except ArchipelagoError:
            _withdraw(ctx, header)
            raise
        change.removed = True  # there is nothing more to change under this name
        header = _settled(ctx, header)
        if change.opened is not None:
            _follow(ctx, name, header)
    return header


def _create(ctx: Context, header: Header) -> None:
    """Store the header under its new name; a failure leaves at most a dead one."""
    try:
        ctx.headers.create(header)
    except VolumeExists:
        raise
    except ArchipelagoError:
        if ctx.headers.peek(header.name) != header:
            raise


def _withdraw(ctx: Context, header: Header) -> None:
    """Remove the new header, unless it may be the valid one."""
    with contextlib.suppress(ArchipelagoError):
        old = ctx.headers.peek(header.moved_from)
        if old is None or old.moving_to != header.name:
            ctx.headers.delete(header.name, header.version)


def _settled(ctx: Context, header: Header) -> Header:
    """Make the new header independent of the old one; it is valid all the same."""
    try:
        return ctx.headers.settle(header)
    except ArchipelagoError as error:
        log.warning('the rename to "%s" is finished later: %s', header.name, error)
    try:
        return ctx.headers.peek(header.name) or header
    except ArchipelagoError:
        return header


def _follow(ctx: Context, name: str, header: Header) -> None:
    """Let the open volume have its new name."""
    opened = ctx.table.get(name)
    assert opened is not None
    ctx.table.remove(name)
    opened.header = header
    ctx.table.add(opened)
    try:
        ctx.maps.follow(opened.handle, pack_header(header))
    except ArchipelagoError as error:
        ctx.give_up(opened, f"its map did not follow its header: {error}")
