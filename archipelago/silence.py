# SPDX-License-Identifier: Apache-2.0
"""Why a peer gives no answer: it is stopped, it hangs, or it only takes its time.

A client asks this when a request is refused or not answered.  The supervisor knows
which peers were stopped.  Whether a peer hangs, the client finds out by itself with a
PING, which waits for no store and no other peer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from archipelago.errors import ArchipelagoError, NotAnswering, NotRunning
from archipelago.paths import Locations
from archipelago.peers.ports import PORTS
from xseg import Segment
from xseg.constants import PORT_ANY, PORT_VLMCD, Op
from xseg.errors import XsegError

__all__ = ["Silence"]

#: The peers that a request to the control half needs, in the order of who needs whom.
_FOR_CONTROL = ("blockerb", "blockerm", "mapperd")
#: How long the supervisor may take to say how the peers are [s].
_STATUS_PATIENCE = 2.0
#: How long a peer may take to answer a PING [s].
_PING_PATIENCE = 5.0


@dataclass(frozen=True)
class Silence:
    """Explains the silence of one instance's peers.

    Attributes:
        segment: of the instance.
        where: the instance.
    """

    segment: Segment
    where: Locations

    def of_stopped(self, dst: int) -> ArchipelagoError | None:
        """The error if a peer was stopped that a request to `dst` needs."""
        states = self._states()
        for role in _needed(dst):
            if states.get(role) == "stopped":
                return NotRunning(
                    f'{role} is stopped: "archipelago start {role}" starts it'
                )
        return None

    def of_hung(self, dst: int) -> ArchipelagoError | None:
        """The error if a peer hangs that a request to `dst` needs."""
        owners = {port.id: port.owner_pid for port in self.segment.ports()}
        pids = {
            role: owners[PORTS[role]] for role in _needed(dst) if PORTS[role] in owners
        }
        for role in self._silent(list(pids)):
            return NotAnswering(
                f"{role} (pid {pids[role]}) does not answer: it is stopped by a signal "
                "or it hangs; 'archipelago status' shows its state, and the watchdog "
                "of the supervisor replaces it"
            )
        return None

    def _states(self) -> dict[str, Any]:
        """The state of each peer, as the supervisor tells it; empty if it does not."""
        from archipelago.supervisor.client import ask

        try:
            status = ask(self.where, "status", patience=_STATUS_PATIENCE)
        except ArchipelagoError:
            return {}
        return {peer["name"]: peer["state"] for peer in status["peers"]}

    def _silent(self, roles: list[str]) -> list[str]:
        """Which peers do not answer a PING, in the order given."""
        waiting = dict.fromkeys(roles)
        try:
            with self.segment.bind(PORT_ANY, "client-ping") as port:
                pings = {}
                for role in roles:
                    request = port.request()
                    request.op = Op.PING
                    port.submit(request, PORTS[role])
                    pings[request.index] = role
                deadline = time.monotonic() + _PING_PATIENCE
                while waiting and (left := deadline - time.monotonic()) > 0:
                    port.wait(left)
                    while (answered := port.reap()) is not None:
                        waiting.pop(pings[answered.index])
                        answered.free()
        except XsegError:
            return []  # it went away just now, or there is no room to ask
        return list(waiting)


def _needed(dst: int) -> tuple[str, ...]:
    return (*_FOR_CONTROL, "vlmcd") if dst == PORT_VLMCD else _FOR_CONTROL
