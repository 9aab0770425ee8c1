# SPDX-License-Identifier: Apache-2.0
"""What a vlmcd that died has left under way at peers that live.

A blocker goes on with the writes that it took from a dead vlmcd.  The next vlmcd must
not write before they have ended: an old write that the system delays would land on
top of a new one.
"""

from __future__ import annotations

import time

from archipelago.errors import BackendUnavailable
from xseg import Segment
from xseg.constants import PORT_BLOCKERB, PORT_MAPPERD

__all__ = ["await_departed"]

#: How long they may take [s].
PATIENCE = 20.0
#: Time between two looks [s].
_PAUSE = 0.001


def await_departed(segment: Segment) -> None:
    """Wait until blockerb and mapperd serve nothing whose sender is dead.

    Raises:
        BackendUnavailable: they do not come to an end.
    """
    deadline = time.monotonic() + PATIENCE
    while _departed(segment):
        if time.monotonic() >= deadline:
            raise BackendUnavailable(
                "requests of a vlmcd that died do not end: the storage hangs"
            )
        time.sleep(_PAUSE)


def _departed(segment: Segment) -> bool:
    # Requests first: a sender that binds its port afterwards has none among them.
    requests = segment.requests()
    living = {port.owner_pid for port in segment.ports() if port.alive}
    return any(
        rq.state == "serving"
        and rq.dst_port in (PORT_BLOCKERB, PORT_MAPPERD)
        and rq.owner_pid not in living
        for rq in requests
    )
