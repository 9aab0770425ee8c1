# SPDX-License-Identifier: Apache-2.0
"""Who seems to hold a lease, by clocks that do not agree."""

from __future__ import annotations

import time

from archipelago.volume.leaserecord import NS, is_held, is_standing, may_be_held
from xseg.constants import LeaseFlag
from xseg.payload import Lease

TTL = 10 * NS
HOUR = 3600 * NS


def due(after_ns: int, *, locked: bool = False) -> Lease:
    """A lease that ends so long after now."""
    return Lease(
        fence=1,
        ttl_ns=TTL,
        expires_ns=time.time_ns() + after_ns,
        flags=LeaseFlag.LOCK if locked else LeaseFlag(0),
        owner="a",
    )


def test_a_lease_is_held_until_it_expires() -> None:
    assert is_held(due(TTL))
    assert may_be_held(due(TTL))
    assert not is_held(due(-1))


def test_by_a_clock_that_is_behind_it_may_be_held_a_minute_longer() -> None:
    assert may_be_held(due(-59 * NS))
    assert not may_be_held(due(-60 * NS))


def test_a_lease_of_a_clock_that_ran_far_ahead_can_be_taken() -> None:
    assert is_held(due(TTL + 30 * NS))
    assert not is_held(due(TTL + HOUR))
    # and yet who holds it may be at work
    assert may_be_held(due(TTL + HOUR))


def test_a_lock_has_no_time() -> None:
    assert is_held(due(TTL + HOUR, locked=True))


def test_whoever_breaks_a_lease_means_also_one_that_seems_to_be_over() -> None:
    assert is_standing(due(-HOUR))
    assert is_standing(due(TTL + HOUR))
    assert not is_standing(Lease(fence=1, ttl_ns=TTL, owner="a"))
