# SPDX-License-Identifier: Apache-2.0
"""A process, and whether it runs (``xseg/process.h``)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Life", "ProcessId"]


class Life(enum.Enum):
    """What is known of a process.  UNKNOWN is to be treated as ALIVE."""

    UNKNOWN = 0
    ALIVE = 1
    DEAD = 2


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, named so that no other can be taken for it; 0 where not known."""

    boot_id: bytes
    pid_namespace: int
    """Inode of its pid namespace."""
    pid: int
    start: int
    """Start time [clock ticks since boot]."""
