# SPDX-License-Identifier: Apache-2.0
"""Writes that were answered and not flushed, of volumes that nobody has open now.

A process died, or a volume was given up.  Their marks wait in the mark log for who
opens the volume under the same fence.  If nobody did, the lease would run out, another
instance could take it over, and the writes would be gone, though the supervisor still
has them.  So these leases are kept, and when clients have had time to come back the
marks are made durable and the leases given back.

One thread at a time: the one that starts and stops, between them
`archipelago.control.maintenance`.
"""

from __future__ import annotations

import logging

from archipelago._header import Header
from archipelago.errors import ArchipelagoError, LeaseLost
from archipelago.volume.changing import settled_change_of
from archipelago.volume.context import Context

log = logging.getLogger(__name__)

#: Rounds of maintenance for which clients have time to come back.
ROUNDS = 10


class Left:
    """What waits for somebody to open it.

    Args:
        ctx: where.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        #: For how many rounds each has waited.
        self._waiting: dict[bytes, int] = {}

    def keep(self) -> None:
        """Keep the leases of the volumes that an earlier process left.

        Called once, before anybody is served.  Who opens such a volume has its lease.

        Raises:
            ArchipelagoError: the store failed; some may not be kept.
        """
        for uuid in self._ctx.maps.left():
            self._keep(uuid)

    def round(self) -> None:
        """Take in what was left since the last round; settle what waited enough."""
        for uuid in self._take_in():
            self._keep(uuid)
        for uuid in self._waiting:
            self._waiting[uuid] += 1
        self._settle({uuid for uuid, age in self._waiting.items() if age >= ROUNDS})

    def settle(self) -> None:
        """Make durable what still waits, and give the leases back."""
        self._take_in()
        self._settle(set(self._waiting))

    def _take_in(self) -> set[bytes]:
        """Note what was left since, all of it, whatever becomes of one."""
        left = self._ctx.take_left()
        self._waiting.update(dict.fromkeys(left, 0))
        return left

    def _settle(self, due: set[bytes]) -> None:
        if not due:
            return
        waiting = due.intersection(self._ctx.maps.left())
        for uuid in due:
            del self._waiting[uuid]
        for uuid in list(waiting):
            if not self._ctx.leases.left(uuid):
                log.warning("writes of volume %s that wait are void", uuid.hex())
                self._ctx.maps.give_up_left(uuid)
                waiting.discard(uuid)
        if not waiting:
            return
        self._ctx.index.refresh()
        for header in [h for h in self._ctx.index.live() if h.uuid in waiting]:
            try:
                self._make_durable(header)
            except ArchipelagoError as error:
                log.warning('what "%s" had answered waits: %s', header.name, error)
                self._keep(header.uuid)

    def _keep(self, uuid: bytes) -> None:
        self._waiting[uuid] = 0
        fence = self._ctx.leases.left(uuid)
        try:
            if fence:
                self._ctx.leases.keep(uuid, fence)
        except LeaseLost:
            pass  # another instance was there first: `settle` finds out

    def _make_durable(self, header: Header) -> None:
        ctx, name = self._ctx, header.name
        with ctx.locks.hold(name):
            opened = ctx.table.get(name)
            if opened is None or opened.read_only:
                with settled_change_of(ctx, name, if_free=True):
                    log.info('what "%s" had answered is durable', name)
