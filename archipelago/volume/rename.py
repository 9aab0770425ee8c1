# SPDX-License-Identifier: Apache-2.0
"""Rename: exactly one of the two names is valid at any instant.

    UPDATE old: moving_to = new
    CREATE new: moved_from = old      (the commit point)
    DELETE old

A crash after the first step leaves the old name valid, after the second the new one;
the dead header is removed before the new one changes (`Headers.settle`) or when its
name is wanted again (`archipelago.volume.create.bury`).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from archipelago._map import Header, pack_header
from archipelago.errors import ArchipelagoError, UsageError, VolumeExists
from archipelago.ids import check_name
from archipelago.volume.change import changing
from archipelago.volume.context import Context, OpenMap
from archipelago.volume.create import refuse_existing

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
    with changing(ctx, name, new) as change:
        refuse_existing(ctx, new)
        change.commit(change.header, moving_to=new)
        header = replace(
            change.header, name=new, version=1, moving_to="", moved_from=name
        )
        _create(ctx, header, change.opened)
        if change.opened is not None:
            _follow(ctx, name, header)
        try:
            ctx.headers.delete(name)
        except ArchipelagoError as error:
            # The name is dead all the same; the next change of the volume removes it.
            log.warning('the header of "%s" stays for now: %s', name, error)
    return header


def _create(ctx: Context, header: Header, opened: OpenMap | None) -> None:
    """Store the header under its new name, or be sure that it is not there."""
    try:
        ctx.headers.create(header)
    except VolumeExists:
        raise
    except ArchipelagoError as error:
        try:
            stored = ctx.headers.peek(header.name)
        except ArchipelagoError:
            if opened is not None:
                ctx.give_up(opened, f"which of its names is valid is unknown: {error}")
            raise
        if stored is None or stored.uuid != header.uuid:
            raise


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
