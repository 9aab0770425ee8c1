# SPDX-License-Identifier: Apache-2.0
"""Lock and unlock: the administrator's hand on a volume's lease."""

from __future__ import annotations

from archipelago._header import Header
from archipelago.errors import MapCorrupt, UsageError
from archipelago.info import LeaseInfo
from archipelago.volume.changing import changing, settled_change_of
from archipelago.volume.context import Context, OpenMap
from archipelago.volume.leaserecord import describe, refusal


def lock(ctx: Context, name: str) -> Header:
    """Keep a volume for this instance, across restarts, until `unlock`.

    Raises:
        LeaseHeld: another instance has it.
    """
    with changing(ctx, name) as change:
        ctx.leases.lock(change.header.uuid, name)
    return change.header


def unlock(
    ctx: Context, name: str, *, force: bool = False
) -> tuple[Header, LeaseInfo | None]:
    """Undo `lock`; with `force`, break the lease on the volume, of any holder.

    A lease whose record is damaged is broken, too: that mends it.

    A holder whose lease was broken cannot change the volume any more, and its users are
    answered with errors; also if that is this instance.  The next to open it takes it
    over (`archipelago.volume.changing`).

    Returns:
        The volume's header, and the lease that was broken if there was one.

    Raises:
        LeaseHeld: another instance holds the lease, and not `force`.
        MapCorrupt: the lease is damaged, and not `force`.
        UsageError: it is not locked.
    """
    with ctx.locks.hold(name):
        header = ctx.headers.get(name)
        opened = ctx.table.get(name)
        used = opened is not None and not opened.read_only and not opened.broken
        try:
            look = ctx.leases.standing if force else ctx.leases.peek
            lease = look(header.uuid)
        except MapCorrupt:
            if not force:
                raise
            damaged = ctx.leases.describe(header.uuid)
            _break(ctx, header, opened if used else None)
            return header, damaged
        own = lease is not None and ctx.leases.is_own(lease)
        if lease is not None and (not own or (used and force)):
            if not force:
                raise refusal(name, lease)
            _break(ctx, header, opened if own else None)
            return header, describe(lease, None)
        if own and not force and (opened is None or opened.read_only):
            # What was answered before peers died may wait for this very lease.
            with settled_change_of(ctx, name) as change:
                undone = ctx.leases.unlock(header.uuid)
            header = change.header
        else:
            undone = ctx.leases.unlock(header.uuid)
        if not undone and not force:
            if used:
                raise UsageError(
                    f'"{name}" is open here, not locked: disconnect its clients or '
                    f'"vlmc close {name}" to give its lease back'
                )
            raise UsageError(f'"{name}" is not locked: there is nothing to undo')
    return header, None


def _break(ctx: Context, header: Header, opened: OpenMap | None) -> None:
    """Break a lease; `opened` is what this instance has open under it."""
    ctx.leases.break_(header.uuid, header.fence)
    if opened is not None:
        ctx.give_up(opened, 'its lease was broken with "vlmc unlock -f"')
