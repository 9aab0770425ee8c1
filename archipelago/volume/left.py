# SPDX-License-Identifier: Apache-2.0
"""Writes that a dead process had answered, of volumes that nobody has opened since.

Their marks wait in the mark log for who opens the volume under the same fence.  If
nobody did, the lease would run out, another instance could take it over, and the writes
would be gone, though the supervisor still has them.  So the next control half keeps
these leases, and when clients have had time to come back it makes the marks durable and
gives the leases back.

One thread at a time: the one that starts and stops, between them
`archipelago.control.maintenance`.
"""

from __future__ import annotations

import logging

from archipelago.errors import ArchipelagoError, LeaseHeld, LeaseLost
from archipelago.volume.changing import change_of, keep_marks
from archipelago.volume.context import Context

log = logging.getLogger(__name__)


class Left:
    """What an earlier process of this instance left.

    Args:
        ctx: of the present one.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._kept: set[bytes] = set()

    def keep(self) -> None:
        """Keep the leases of the volumes with marks that wait.

        Called once, before anybody is served.

        Raises:
            ArchipelagoError: the store failed; some may not be kept.
        """
        for uuid in self._ctx.maps.left():
            label = f"volume {uuid.hex()}"
            fence = self._ctx.leases.left(uuid)
            try:
                if fence:
                    self._ctx.leases.acquire(uuid, label, fence=fence)
                    self._kept.add(uuid)
                    log.info("%s has writes that wait: its lease is kept", label)
                    continue
            except (LeaseHeld, LeaseLost):
                pass  # another instance was there first
            self._give_up(uuid)

    def let_go(self) -> None:
        """Give the leases back of what was opened again: nothing of it waits now."""
        if self._kept:
            for uuid in self._kept.difference(self._ctx.maps.left()):
                self._release(uuid)

    def settle(self) -> None:
        """Make durable what still waits, and give the leases back."""
        if not self._kept:
            return
        names = {h.uuid: h.name for h in self._ctx.headers.scan_live()}
        for uuid in list(self._kept):
            try:
                if uuid in names:
                    self._settle(uuid, names[uuid])
                else:
                    log.error("volume %s has writes that wait, no name", uuid.hex())
            except (LeaseHeld, LeaseLost):
                self._give_up(uuid)
            except ArchipelagoError as error:
                log.warning("writes that wait are not durable yet: %s", error)
                continue
            self._release(uuid)

    def _settle(self, uuid: bytes, name: str) -> None:
        ctx = self._ctx
        with ctx.locks.hold(name):
            opened = ctx.table.get(name)
            if opened is not None and not opened.read_only:
                return
            with change_of(ctx, name) as change:
                if change.header.uuid == uuid:
                    keep_marks(change)
        log.info('what "%s" had answered is durable', name)

    def _release(self, uuid: bytes) -> None:
        self._ctx.leases.release(uuid)
        self._kept.discard(uuid)

    def _give_up(self, uuid: bytes) -> None:
        """Forget marks of a volume that is gone, or was another's meanwhile."""
        log.warning("writes of volume %s that wait are void", uuid.hex())
        self._ctx.maps.give_up_left(uuid)
