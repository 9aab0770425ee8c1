# SPDX-License-Identifier: Apache-2.0
"""Numbers of the segment protocol; the same as the enums of the C headers.

A test compares every one with the header (`xseg._layout.c_values`).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

# Well-known ports.
PORT_NONE: Final = 0
PORT_BLOCKERB: Final = 1
PORT_BLOCKERM: Final = 2
PORT_MAPPERD: Final = 3
PORT_CONTROL: Final = 4
PORT_VLMCD: Final = 5
PORT_ENDPOINT: Final = 6
PORT_FUSE: Final = 7
PORT_DYNAMIC: Final = 8
"""First of the ports that `PORT_ANY` chooses from."""
PORT_ANY: Final = 0xFFFFFFFF

# Sizes [bytes] unless the name says otherwise.
PAGE_BYTES: Final = 4096
SECTOR_BYTES: Final = 4096
BLOCK_MIN_BYTES: Final = 64 << 10
BLOCK_MAX_BYTES: Final = 4 << 20
BUFFER_MIN_BYTES: Final = 4096
BUFFER_MAX_BYTES: Final = 4 << 20
INLINE_BYTES: Final = 336
INLINE_RUNS: Final = 5
"""Runs that fit into a request's inline bytes."""
NAME_MAX: Final = 255
"""Longest name of a volume or snapshot [bytes of UTF-8]."""
NR_ARGS: Final = 5
NR_STAMPS: Final = 256
"""Stamps of one CHANGES: one for each first byte of an id."""
ARG_NAME_LEN: Final = 4
"""Index of the argument that holds the length of an inline name."""
OBJECT_ID_BYTES: Final = 32
LAYOUT_VERSION: Final = 2
MAGIC: Final = 0x3147455358504341
"""First eight bytes of a segment, "ACPXSEG1" in memory."""


class Op(IntEnum):
    """What a request asks; payload.h has the operands of each."""

    PING = 0
    READ = 1
    WRITE = 2
    SYNC = 3
    TRUNCATE = 4
    DELETE = 5
    ACQUIRE = 6
    RELEASE = 7
    COPY = 8
    CLONE = 9
    COMMIT = 10
    INFO = 11
    MAPR = 12
    MAPW = 13
    OPEN = 14
    CLOSE = 15
    SNAPSHOT = 16
    HASH = 17
    CREATE = 18
    RENAME = 19
    FLUSH = 20
    UPDATE = 21
    DISCARD = 22
    ZERO = 23
    APPEND = 24
    LIST = 25
    NOTIFY = 26
    CHANGES = 27
    USAGE = 28


class Flag(IntFlag):
    """How a request is to be served."""

    FUA = 1 << 0
    """Answer after the data of this request is durable."""
    FLUSH = 1 << 1
    """Flush what came before, first."""
    NOSYNC = 1 << 2
    """Do not wait: ACQUIRE fails at once, CREATE may defer its sync."""
    FORCE = 1 << 3
    """RELEASE breaks another's lease; CLOSE ignores users."""
    RDONLY = 1 << 4
    """OPEN without the lease."""
    HOLD = 1 << 5
    """OPEN and CLOSE of the administrator, idempotent."""
    ZERO = 1 << 6
    """MAPW: the range becomes zeros."""
    MORE = 1 << 7
    """UPDATE of the mapper: first half of a two-step change."""
    LIVE = 1 << 8
    """READ of an extent that may still change its file."""


class RequestState(IntEnum):
    """Where a request is in its life."""

    FREE = 0
    ALLOCATED = 1
    SUBMITTED = 2
    SERVING = 3
    DONE = 4


class PortState(IntEnum):
    """Whether a port has an owner."""

    FREE = 0
    BINDING = 1
    BOUND = 2
    DEAD = 3


class ObjectKind(IntEnum):
    """Kinds of stored objects."""

    NONE = 0
    CONTENT = 1
    EXTENT = 2
    LAYER = 3
    HEADER = 4
    JOURNAL = 5
    LEASE = 6
    PRESENCE = 7
    CANDIDATES = 8
    GENERATION = 9


class Reference(IntEnum):
    """Where the bytes of a run come from."""

    ZERO = 0
    CONTENT = 1
    EXTENT = 2


class RunFlag(IntFlag):
    """More about a run."""

    OWNED = 1
    """In the current epoch's extent: writable in place."""
    HOLE = 2
    """ZERO because no layer provides it, not because it was discarded."""
    LIVE = 4
    """As OWNED, for who reads what another may be writing to, or losing."""


class VolumeFlag(IntFlag):
    """State of an open volume."""

    READONLY = 1 << 0
    """A snapshot."""
    TAIL = 1 << 1
    """Shrunk inside a sector: its tail is zeroed on open for write."""
    HELD = 1 << 2
    """Open by the administrator."""
    RDONLY_OPEN = 1 << 3
    """Open without the lease."""


class UserFlag(IntFlag):
    """State of one open of a volume."""

    READONLY = 1 << 0
    """It may only read."""
    HELD = 1 << 1
    """The administrator's."""
    LEAVING = 1 << 2
    """Its close follows soon."""


class LeaseFlag(IntFlag):
    """How a lease is held."""

    LOCK = 1
    """Taken by an administrator: does not end with the process."""
    IF_FREE = 2
    """Of ACQUIRE only: not from who died or was too late without giving it back."""
    UNLOCK = 4
    """Of ACQUIRE that names its fence only: the lock ends, the lease stays."""
    INHERIT = 8
    """Of ACQUIRE that names its fence only: that was read, and may not be durable."""


class Role(IntFlag):
    """Native peers, as bits, for `xseg.Native`."""

    BLOCKERB = 1 << 0
    BLOCKERM = 1 << 1
    MAPPERD = 1 << 2
    VLMCD = 1 << 3
    NBD = 1 << 4
    """The NBD endpoint; only together with VLMCD."""
    FUSE = 1 << 5
    """The FUSE endpoint; only together with VLMCD."""
