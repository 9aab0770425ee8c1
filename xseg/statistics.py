# SPDX-License-Identifier: Apache-2.0
"""What a segment tells about itself: frozen records, read without asking any peer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PortStatistics", "ReapResult", "RequestInfo", "SegmentStatistics"]


@dataclass(frozen=True, slots=True)
class SegmentStatistics:
    """Sizes and use of a segment."""

    name: str
    uuid: str
    size_bytes: int
    heap_bytes: int
    heap_used_bytes: int
    nr_buffers: int
    nr_used_buffers: int
    nr_requests: int
    nr_free_requests: int
    nr_ports: int
    creator_pid: int


@dataclass(frozen=True, slots=True)
class PortStatistics:
    """One port that is bound, or whose owner died."""

    id: int
    state: str
    """"bound", "binding" or "dead"."""
    role: str
    owner_pid: int
    alive: bool
    """The owner's process is not proven dead."""
    bell_sleeping: bool
    """The owner sleeps, or is about to."""
    queue_depth: int
    """Requests sent to the port and not yet accepted."""
    accepted: int
    completed: int
    errors: int
    """Requests answered with a negative result."""
    submitted: int
    reaped: int
    read_bytes: int
    write_bytes: int
    sleeps: int
    bound_ns: int
    """Since 1970 [ns]."""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request descriptor that is in use."""

    index: int
    state: str
    """"allocated", "submitted", "serving" or "done"."""
    op: str
    src_port: int
    dst_port: int
    owner_pid: int
    target: str
    """Name of the volume, or "KIND:id" of the object; empty if neither is given."""
    offset: int
    """[bytes]."""
    size: int
    """[bytes]."""
    result: int
    """Bytes or count, or a negated errno; 0 until done."""
    age_ns: int
    """Since it was submitted [ns]; 0 if it was not."""


@dataclass(frozen=True, slots=True)
class ReapResult:
    """What dead processes had held and a reap gave back."""

    ports: int
    requests: int
    """Descriptors freed, or failed with EOWNERDEAD."""
    buffers: int
