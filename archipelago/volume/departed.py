# SPDX-License-Identifier: Apache-2.0
"""What processes that died have left under way at peers that live.

A blocker goes on with what it took from a dead vlmcd or mapperd.  Who comes next must
not act before that has ended: an old write that the system delays would land on top of
a new one, an old header would replace what was read in the meantime, and a lease would
be given back that is held again.
"""

from __future__ import annotations

import time

from archipelago.errors import BackendUnavailable
from xseg import Segment
from xseg.constants import PORT_BLOCKERB, PORT_BLOCKERM, PORT_MAPPERD

__all__ = ["await_departed"]

#: How long they may take [s].
PATIENCE = 20.0
_SERVERS = (PORT_BLOCKERB, PORT_BLOCKERM, PORT_MAPPERD)
#: Time between two looks [s].
_PAUSE = 0.001


def await_departed(segment: Segment) -> None:
    """Wait until blockers and mapperd serve nothing whose sender is dead.

    Raises:
        BackendUnavailable: they do not come to an end.
    """
    deadline = time.monotonic() + PATIENCE
    while _departed(segment):
        if time.monotonic() >= deadline:
            raise BackendUnavailable(
                "requests of a process that died do not end: the storage hangs"
            )
        time.sleep(_PAUSE)


def _departed(segment: Segment) -> bool:
    # Requests first: a sender that binds its port afterwards has none among them.
    requests = segment.requests()
    living = {port.owner_pid for port in segment.ports() if port.alive}
    return any(
        rq.state in ("submitted", "serving")
        and rq.dst_port in _SERVERS
        and rq.owner_pid not in living
        and rq.op != "NOTIFY"  # is answered when something happens, and changes nothing
        for rq in requests
    )
