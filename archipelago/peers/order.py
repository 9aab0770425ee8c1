# SPDX-License-Identifier: Apache-2.0
"""The order in which peers end without a supervisor: which peer needs which.

A supervisor stops vlmcd first, whose volumes are flushed and closed through the others,
and the blockers last.  When it dies all its peers notice at the same moment; each then
waits for those that need it.  If one that it needs has died as well, there is no good
order any more: nothing starts that one again, and to wait for it would only keep the
next supervisor waiting.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable

from archipelago.peers.ports import PORTS
from xseg import Segment
from xseg.constants import (
    PORT_CONTROL,
    PORT_ENDPOINT,
    PORT_FUSE,
    PORT_MAPPERD,
    PORT_VLMCD,
)
from xseg.errors import XsegError

__all__ = ["await_dependents", "await_desertion"]

log = logging.getLogger(__name__)

#: How long they may take [s]: less than a new supervisor waits for all of us
#: (`ground.ORPHAN_PATIENCE`).
_PATIENCE = 10.0
#: Time between two looks [s].
_PAUSE = 0.01

_VLMCD = {PORT_VLMCD, PORT_ENDPOINT, PORT_FUSE}
_DEPENDENTS = {
    "blockerb": {PORT_MAPPERD, PORT_CONTROL} | _VLMCD,
    "blockerm": {PORT_MAPPERD, PORT_CONTROL} | _VLMCD,
    "mapperd": _VLMCD,
    "vlmcd": set[int](),
}


def await_dependents(segment_name: str, roles: Iterable[str]) -> None:
    """Wait until the processes that need one of `roles` have ended, or long enough."""
    ports = set().union(*(_DEPENDENTS[role] for role in roles))
    if not ports:
        return
    deadline = time.monotonic() + _PATIENCE
    try:
        with Segment.attach(segment_name) as segment:
            while _served(segment, ports):
                if time.monotonic() >= deadline:
                    log.warning("peers that need this one do not end: not waiting")
                    return
                time.sleep(_PAUSE)
    except XsegError as error:
        log.warning("cannot see which peers need this one: %s", error)


def await_desertion(segment_name: str, roles: Iterable[str]) -> bool:
    """Wait until a peer that `roles` need has ended; false if that cannot be."""
    own = {PORTS[role] for role in roles}
    needed = {PORTS[role] for role, by in _DEPENDENTS.items() if by & own} - own
    if not needed:
        return False
    try:
        with Segment.attach(segment_name) as segment:
            while all(_served(segment, {port}) for port in needed):
                time.sleep(_PAUSE)
    except XsegError as error:
        log.warning("cannot see which peers this one needs: %s", error)
        return False
    return True


def _served(segment: Segment, ports: set[int]) -> bool:
    """Whether another living process serves one of them."""
    return any(
        port.id in ports and port.alive and port.owner_pid != os.getpid()
        for port in segment.ports()
    )
