# SPDX-License-Identifier: Apache-2.0
"""Leases of volumes that no client has open now, and that were not given back.

A process died, or a volume was given up.  Its lease lives on with the presence of this
run, so no other instance could ever take it.  Answered writes that were not flushed may
wait under its fence, in the mark log.  So these leases are kept, and when clients have
had time to come back the marks are made durable and the leases given back.

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
    """What waits for a client to open it.

    Args:
        ctx: where.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        #: For how many rounds each has waited.
        self._waiting: dict[bytes, int] = {}
        #: The leases of an earlier process of this run are to be looked for.
        self._search = ctx.presences.resumed

    def keep(self) -> None:
        """Keep the leases under which answered writes of an earlier process wait.

        Called once, before any client is served.  To open such a volume is to take its
        lease.

        Raises:
            ArchipelagoError: the store failed; some may not be kept.
        """
        self._search = self._ctx.presences.resumed
        for uuid in self._ctx.maps.left():
            self._keep(uuid)

    def round(self) -> None:
        """Take in what was left since the last round; settle what waited enough."""
        for uuid in self._take_in():
            self._keep(uuid)
        if self._search:
            for uuid in self._ctx.leases.unheld():
                self._keep(uuid)
            self._search = False
        for uuid in self._waiting:
            self._waiting[uuid] += 1
        self._settle({uuid for uuid, age in self._waiting.items() if age >= ROUNDS})

    def settle(self) -> None:
        """Make durable what still waits, and give the leases back."""
        self._take_in()
        self._settle(set(self._waiting))

    def _take_in(self) -> set[bytes]:
        """Note what was left since, all of it, whatever becomes of one."""
        left = self._ctx.take_left() | self._ctx.leases.take_unsettled()
        self._waiting.update(dict.fromkeys(left, 0))
        return left

    def _settle(self, due: set[bytes]) -> None:
        if not due:
            return
        for uuid in due:
            del self._waiting[uuid]
        void = {uuid for uuid in due if not self._ctx.leases.left(uuid)}
        for uuid in void.intersection(self._ctx.maps.left()):
            log.warning("writes of volume %s that wait are void", uuid.hex())
            self._ctx.maps.give_up_left(uuid)
        waiting = due - void
        if not waiting:
            return
        self._ctx.index.refresh()
        for header in [h for h in self._ctx.index.live() if h.uuid in waiting]:
            try:
                self._give_back(header)
            except ArchipelagoError as error:
                log.warning('the lease of "%s" waits: %s', header.name, error)
                self._keep(header.uuid)

    def _keep(self, uuid: bytes) -> None:
        self._waiting[uuid] = 0
        fence = self._ctx.leases.left(uuid)
        try:
            if fence:
                self._ctx.leases.keep(uuid, fence)
        except LeaseLost:
            pass  # another instance was there first: `settle` finds out

    def _give_back(self, header: Header) -> None:
        """Make what waits under a closed volume's lease durable, and give it back."""
        ctx, name = self._ctx, header.name
        with ctx.locks.hold(name):
            opened = ctx.table.get(name)
            if opened is None or opened.read_only:
                with settled_change_of(ctx, name, if_free=True):
                    log.info('the lease of "%s" was left, and is given back', name)
