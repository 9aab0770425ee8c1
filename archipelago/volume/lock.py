# SPDX-License-Identifier: Apache-2.0
"""Lock and unlock: the administrator's hand on a volume's lease."""

from __future__ import annotations

from archipelago._map import Header
from archipelago.errors import UsageError
from archipelago.volume.context import Context
from archipelago.volume.leases import refusal


def lock(ctx: Context, name: str) -> Header:
    """Keep a volume for this instance, across restarts, until `unlock`.

    Raises:
        LeaseHeld: another instance has it.
    """
    with ctx.locks.hold(name):
        header = ctx.headers.get(name)
        ctx.leases.lock(header.uuid, name)
    return header


def unlock(ctx: Context, name: str, *, force: bool = False) -> Header:
    """Undo `lock`; with `force`, break whatever lease there is on the volume.

    A holder whose lease was broken cannot change the volume any more; whoever opens it
    next writes to a new epoch (`archipelago.volume.open`).

    Raises:
        LeaseHeld: another instance holds the lease, and not `force`.
        UsageError: it is not locked.
    """
    with ctx.locks.hold(name):
        header = ctx.headers.get(name)
        lease = ctx.leases.peek(header.uuid)
        if lease is not None and not ctx.leases.is_own(lease):
            if not force:
                raise refusal(name, lease)
            ctx.leases.break_(header.uuid)
        elif not ctx.leases.unlock(header.uuid) and not force:
            raise UsageError(f'"{name}" is not locked: there is nothing to undo')
    return header
