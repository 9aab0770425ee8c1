# SPDX-License-Identifier: Apache-2.0
"""Who seems to hold a lease, by clocks that do not agree."""

from __future__ import annotations

import time
from dataclasses import replace

from archipelago.volume.incarnation import NS, incarnation
from archipelago.volume.leaserecord import is_held, is_standing
from xseg.constants import LeaseFlag
from xseg.payload import Lease, Presence

TTL = 10 * NS
HOUR = 3600 * NS
RUN = incarnation(10.0)
LEASE = Lease(fence=1, owner=b"a" * 16, nonce=RUN.nonce)


def due(after_ns: int) -> Presence:
    """The presence of the lease's holder, which ends so long after now."""
    return replace(RUN, expires_ns=time.time_ns() + after_ns)


def test_a_lease_is_held_as_long_as_the_presence_of_its_holder() -> None:
    assert is_held(LEASE, due(TTL))
    assert not is_held(LEASE, due(-1))
    assert not is_held(LEASE, None)
    assert not is_held(LEASE, replace(due(TTL), nonce=b"n" * 16))
    assert not is_held(Lease(fence=1, owner=b"a" * 16), due(TTL))


def test_a_lease_of_a_clock_that_ran_far_ahead_can_be_taken() -> None:
    assert is_held(LEASE, due(TTL + 30 * NS))
    assert not is_held(LEASE, due(TTL + HOUR))


def test_a_lock_needs_no_presence() -> None:
    locked = replace(LEASE, flags=LeaseFlag.LOCK)
    assert is_held(locked, None)
    assert is_standing(locked, None)


def test_breaking_a_lease_means_also_a_holder_that_seems_to_be_over() -> None:
    assert is_standing(LEASE, due(-HOUR))
    assert is_standing(LEASE, due(TTL + HOUR))
    assert not is_standing(LEASE, replace(RUN, expires_ns=0))
    assert not is_standing(LEASE, replace(due(TTL), pid_start=RUN.pid_start + 1))
    assert not is_standing(replace(LEASE, nonce=bytes(16)), due(TTL))
