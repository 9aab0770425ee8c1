# SPDX-License-Identifier: Apache-2.0
"""A lease as it is stored: who holds it, and how people read it."""

from __future__ import annotations

import datetime

from archipelago.errors import LeaseHeld
from archipelago.info import LeaseInfo
from archipelago.volume.incarnation import NS, is_gone, is_over
from xseg.constants import LeaseFlag
from xseg.payload import Lease, Presence


def is_locked(lease: Lease) -> bool:
    """Taken by an administrator: held whatever becomes of its owner."""
    return bool(lease.flags & LeaseFlag.LOCK)


def is_held(lease: Lease, presence: Presence | None) -> bool:
    """The blocker's rule, for looking only.

    Args:
        lease: as stored.
        presence: of its owner, as stored.
    """
    if lease.is_free or is_locked(lease):
        return not lease.is_free
    there = _of_holder(lease, presence)
    return there is not None and not is_over(there)


def is_standing(lease: Lease, presence: Presence | None) -> bool:
    """Not given back, and its holder not known to be gone, whatever any clock says."""
    if lease.is_free or is_locked(lease):
        return not lease.is_free
    there = _of_holder(lease, presence)
    return there is not None and there.expires_ns != 0 and not is_gone(there)


def _of_holder(lease: Lease, presence: Presence | None) -> Presence | None:
    """The presence, if it is of the very run that holds the lease."""
    return presence if presence is not None and presence.nonce == lease.nonce else None


def refusal(name: str, lease: Lease) -> LeaseHeld:
    """Make the error that says who holds a lease."""
    locked = is_locked(lease)
    return LeaseHeld(
        f'"{name}" is {"locked" if locked else "in use"} by '
        f"{lease.host or 'an unknown host'} (instance {lease.owner.hex()}, pid "
        f"{lease.pid}): {'unlock' if locked else 'close'} it there, or break the lease "
        f'with "vlmc unlock -f {name}"'
    )


def describe(lease: Lease, presence: Presence | None) -> LeaseInfo:
    """Turn a lease into what people read.

    Args:
        lease: as stored.
        presence: of its owner; the lease ends with it.
    """
    locked = is_locked(lease)
    until = None if locked or presence is None else utc_text(presence.expires_ns)
    return LeaseInfo(
        owner=lease.owner.hex(),
        host=lease.host,
        pid=lease.pid,
        fence=lease.fence,
        expires=until,
        locked=locked,
    )


def utc_text(since_1970_ns: int) -> str:
    """Write a time as ISO 8601 in UTC, to the microsecond."""
    moment = datetime.datetime.fromtimestamp(
        since_1970_ns // NS, tz=datetime.timezone.utc
    ).replace(microsecond=since_1970_ns % NS // 1000)
    return moment.isoformat().replace("+00:00", "Z")
