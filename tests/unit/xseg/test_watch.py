# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

from xseg.constants import PORT_VLMCD
from xseg.statistics import PortStatistics
from xseg.watch import port_rates

PORT = PortStatistics(
    id=PORT_VLMCD,
    state="bound",
    role="vlmcd",
    owner_pid=1,
    alive=True,
    bell_sleeping=False,
    queue_depth=3,
    accepted=101,
    completed=100,
    errors=2,
    submitted=50,
    reaped=50,
    read_bytes=4096,
    write_bytes=0,
    sleeps=0,
    bound_ns=7,
)


def test_rates_are_differences_over_the_time() -> None:
    now = replace(PORT, accepted=1101, completed=1100, read_bytes=8192, errors=4)
    (rate,) = port_rates([PORT], [now], 2.0)
    assert (rate.answered, rate.errors, rate.asked) == (500.0, 1.0, 0.0)
    assert rate.read_bytes == 2048.0
    # Three wait and one is served, at 500 a second.
    assert (rate.serving, rate.latency_ns) == (1, 8_000_000)


def test_a_port_that_was_bound_meanwhile_counts_from_zero() -> None:
    (rate,) = port_rates([PORT], [replace(PORT, bound_ns=8)], 1.0)
    assert rate.answered == 100.0


def test_an_idle_port_has_no_latency() -> None:
    (rate,) = port_rates([PORT], [PORT], 1.0)
    assert (rate.answered, rate.latency_ns) == (0.0, 0)
