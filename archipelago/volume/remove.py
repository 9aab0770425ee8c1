# SPDX-License-Identifier: Apache-2.0
"""Remove: the DELETE of the header is the commit point; storage is given back after it.

What only this map referred to goes at once, what it shared when nobody refers to it any
more (`archipelago.volume.reclaim`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from archipelago._header import Header
from archipelago.errors import MapCorrupt, NoSpace, VolumeBusy
from archipelago.ids import header_id, journal_id, lease_id
from archipelago.volume.change import entry_object
from archipelago.volume.changing import change_of, replaced
from archipelago.volume.context import Context, own_extent
from archipelago.volume.open import drop_stale
from xseg.constants import VolumeFlag

log = logging.getLogger(__name__)


def remove(ctx: Context, name: str) -> None:
    """Remove a volume or snapshot.  Its snapshots and clones stay as they are.

    Raises:
        VolumeNotFound: there is none.
        VolumeBusy: it is open.
    """
    with ctx.locks.hold(name):
        drop_stale(ctx, name)
        if ctx.table.get(name) is not None:
            raise VolumeBusy(
                f'"{name}" is in use in this instance: its clients must close it first'
            )
        try:
            with change_of(ctx, name) as change, _retiring(ctx, change.header):
                # This version and no other: if we were paused, the name may be
                # another's.
                ctx.headers.delete(name, change.header.version)
                change.removed = True
        except NoSpace:
            _remove_without_space(ctx, name)
        except MapCorrupt:
            if not ctx.headers.is_damaged(name):
                raise
            # What it referred to is unknown, and stays.
            ctx.store.delete(header_id(name))
            log.warning('the damaged header of "%s" is removed', name)


def _remove_without_space(ctx: Context, name: str) -> None:
    """Remove a closed volume with nothing taken over or settled: that needs space.

    Removing is how space is made.  Whoever held the lease before is not shut out of the
    extent, but that is deleted; its fence is old, and so is the header that it knows.
    """
    header = ctx.headers.get(name)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(ctx.leases.hold(header.uuid, name))
        except NoSpace:
            # A lease is written in its place, but for the first one.  Who takes that at
            # this moment replaces the header first, and this version is no more.
            if ctx.store.stat(lease_id(header.uuid)) is not None:
                raise
        now = ctx.headers.get(name, durable=True)
        if now.uuid != header.uuid:
            raise replaced(name)
        with _retiring(ctx, now):
            ctx.headers.delete(name, now.version)
            ctx.headers.bury_source(now)


@contextlib.contextmanager
def _retiring(ctx: Context, header: Header) -> Iterator[None]:
    """Remove a header; what it alone had goes with it, also if this process dies."""
    own = [entry_object(entry) for entry in header.stack if entry.owned]
    if not header.flags & VolumeFlag.READONLY:
        own += [
            own_extent(header),
            journal_id(header.uuid, header.journal),
            # Begun, perhaps, by a change that failed.
            journal_id(header.uuid, header.journal + 1),
        ]

    def delete() -> None:
        if not header.flags & VolumeFlag.READONLY:
            ctx.maps.give_up_left(header.uuid)
        ctx.leases.forget(header.uuid, own)

    sole = [*own, lease_id(header.uuid)]
    with ctx.reclaimer.retiring(header.stack, sole, delete=delete):
        yield
