# SPDX-License-Identifier: Apache-2.0
"""One run of an instance: what it says of itself, and whether another one is over.

The blocker judges in the same step in which it grants a lease
(``src/blocker/presence.h``); what is here is for looking only.
"""

from __future__ import annotations

import os
import socket
import time

from xseg._process import process_id, process_life
from xseg.life import Life, ProcessId
from xseg.payload import Presence

NS = 1_000_000_000
NONCE_BYTES = 16
#: How far clocks may be apart: how much more than its whole life a presence may have
#: left (``src/blocker/presence.h``), and how long it may be counted on after its end.
_MAX_SKEW_NS = 60 * NS


def incarnation(
    ttl: float,
    host: str | None = None,
    pid: int | None = None,
    nonce: bytes | None = None,
) -> Presence:
    """What this run asks for.

    Args:
        ttl: life without renewal [s].
        host: name of this machine, for people; None asks the system.
        pid: of the process with which the run ends; None: this process.
        nonce: names the run, `NONCE_BYTES` long; None makes one.
    """
    process = process_id(pid or None)
    return Presence(
        nonce=nonce or os.urandom(NONCE_BYTES),
        ttl_ns=int(ttl * NS),
        boot_id=process.boot_id,
        pid_ns=process.pid_namespace,
        pid_start=process.start,
        pid=process.pid,
        host=_host(host),
    )


def is_over(presence: Presence) -> bool:
    """The blocker's rule: given back, run out, due too late, or its process is gone."""
    left = presence.expires_ns - time.time_ns()
    in_time = 0 < left <= presence.ttl_ns + _MAX_SKEW_NS
    return not in_time or is_gone(presence)


def may_live(presence: Presence) -> bool:
    """Its instance may count on it, by a clock that is another's and wrong."""
    if presence.expires_ns == 0 or is_gone(presence):
        return False
    return presence.expires_ns + _MAX_SKEW_NS > time.time_ns()


def is_here(presence: Presence) -> bool:
    """Its process is known to live."""
    return _life(presence) is Life.ALIVE


def is_gone(presence: Presence) -> bool:
    """Its process is known to have ended."""
    return _life(presence) is Life.DEAD


def _life(presence: Presence) -> Life:
    if presence.boot_id != process_id().boot_id:
        return Life.UNKNOWN  # it may be another machine's
    return process_life(
        ProcessId(
            boot_id=presence.boot_id,
            pid_namespace=presence.pid_ns,
            pid=presence.pid,
            start=presence.pid_start,
        )
    )


def _host(name: str | None) -> str:
    raw = (name or socket.gethostname()).encode()[:63]
    return raw.decode(errors="ignore").replace("\0", "")
