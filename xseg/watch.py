# SPDX-License-Identifier: Apache-2.0
"""What the ports of a segment do now: rates, depths and latencies from two looks.

Reading counters costs the peers nothing.  The mean latency follows from what is under
way and the rate (J. D. C. Little, 1961): requests in the port / requests answered a
second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xseg.statistics import PortStatistics

__all__ = ["PortRate", "port_rates"]

_COUNTERS = ("completed", "errors", "submitted", "read_bytes", "write_bytes")


@dataclass(frozen=True, slots=True)
class PortRate:
    """One port over one interval."""

    id: int
    role: str
    queue_depth: int
    """Requests sent to the port and not yet accepted."""
    serving: int
    """Accepted and not yet answered."""
    answered: float
    """Requests it has answered [1/s]."""
    errors: float
    """Those answered with an error [1/s]."""
    asked: float
    """Requests it has sent [1/s]."""
    read_bytes: float
    """[bytes/s]."""
    write_bytes: float
    """[bytes/s]."""
    latency_ns: int
    """Mean time of a request in the port [ns]; 0 if it has answered none."""


def port_rates(
    before: Sequence[PortStatistics], now: Sequence[PortStatistics], seconds: float
) -> list[PortRate]:
    """Compare two looks at the same ports.

    Args:
        before: the earlier look.
        now: the later look; ports that were bound since are measured from zero.
        seconds: time between them [s], above 0.
    """
    earlier = {(port.id, port.bound_ns): port for port in before}
    found = []
    for port in now:
        old = earlier.get((port.id, port.bound_ns))

        rates = {
            name: max(0, getattr(port, name) - getattr(old, name, 0)) / seconds
            for name in _COUNTERS
        }
        serving = max(0, port.accepted - port.completed)
        answered = rates["completed"]
        inside = port.queue_depth + serving
        found.append(
            PortRate(
                id=port.id,
                role=port.role,
                queue_depth=port.queue_depth,
                serving=serving,
                answered=answered,
                errors=rates["errors"],
                asked=rates["submitted"],
                read_bytes=rates["read_bytes"],
                write_bytes=rates["write_bytes"],
                latency_ns=int(1e9 * inside / answered) if answered else 0,
            )
        )
    return found
