# SPDX-License-Identifier: Apache-2.0
"""A lease as it is stored: who asks, who holds it, and how people read it."""

from __future__ import annotations

import datetime
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

from archipelago.errors import LeaseHeld
from archipelago.info import LeaseInfo
from xseg.constants import LeaseFlag
from xseg.payload import Lease

NS = 1_000_000_000
_NEVER = (1 << 64) - 1
#: How far clocks may be apart: how much more than its whole life a lease may have left
#: (``src/blocker/lease.h``), and how long it may still be counted on after its end.
_MAX_SKEW_NS = 60 * NS


def asker(owner: bytes, ttl: float, host: str | None, pid: int | None) -> Lease:
    """What this instance asks for.

    Args:
        owner: uuid of the instance, 16 bytes.
        ttl: life without renewal [s].
        host: name of this machine, for people; None asks the system.
        pid: when that process has ended, others on this machine need not wait for the
            lease to expire; None: this process.
    """
    pid = pid or os.getpid()
    return Lease(
        ttl_ns=int(ttl * NS),
        pid=pid,
        pid_start=_process_start(pid),
        boot_id=_boot_id(),
        owner=owner.hex(),
        host=_host(host),
    )


def renewal(ask: Lease, fence: int) -> Lease:
    """Ask for the lease of that fence and no other."""
    return replace(ask, fence=fence)


def is_held(lease: Lease) -> bool:
    """The blocker's rule, for looking only: not expired, nor due too late."""
    left = lease.expires_ns - time.time_ns()
    in_time = 0 < left <= lease.ttl_ns + _MAX_SKEW_NS
    return is_standing(lease) and (bool(lease.flags & LeaseFlag.LOCK) or in_time)


def may_be_held(lease: Lease) -> bool:
    """Its holder may count on it, by a clock that is another's and wrong."""
    over = lease.expires_ns + _MAX_SKEW_NS <= time.time_ns()
    return is_standing(lease) and (bool(lease.flags & LeaseFlag.LOCK) or not over)


def is_standing(lease: Lease) -> bool:
    """Not free, not known dead, whatever any clock says."""
    if lease.expires_ns == 0:
        return False
    if lease.flags & LeaseFlag.LOCK:
        return True
    if not lease.pid or not lease.boot_id or lease.boot_id != _boot_id():
        return True
    return _process_start(lease.pid) == lease.pid_start


def refusal(name: str, lease: Lease) -> LeaseHeld:
    """Make the error that says who holds a lease."""
    locked = bool(lease.flags & LeaseFlag.LOCK)
    return LeaseHeld(
        f'"{name}" is {"locked" if locked else "in use"} by '
        f"{lease.host or 'an unknown host'} (instance {lease.owner}, pid {lease.pid}): "
        f"{'unlock' if locked else 'close'} it there, or break the lease with "
        f'"vlmc unlock -f {name}"'
    )


def describe(lease: Lease) -> LeaseInfo:
    """Turn a lease into what people read."""
    return LeaseInfo(
        owner=lease.owner,
        host=lease.host,
        pid=lease.pid,
        fence=lease.fence,
        expires=None if lease.expires_ns == _NEVER else utc_text(lease.expires_ns),
        locked=bool(lease.flags & LeaseFlag.LOCK),
    )


def utc_text(since_1970_ns: int) -> str:
    """Write a time as ISO 8601 in UTC, to the microsecond."""
    moment = datetime.datetime.fromtimestamp(
        since_1970_ns // NS, tz=datetime.timezone.utc
    ).replace(microsecond=since_1970_ns % NS // 1000)
    return moment.isoformat().replace("+00:00", "Z")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _process_start(pid: int) -> int:
    """Start time of a process [clock ticks since boot], 0 if it is gone.

    Source: proc(5), field 22 of ``stat``, counted from behind the command's name.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _host(name: str | None) -> str:
    raw = (name or socket.gethostname()).encode()[:63]
    return raw.decode(errors="ignore").replace("\0", "")
