# SPDX-License-Identifier: Apache-2.0
"""Shared-memory segments, ports and requests: the Python side of libxseg.

    with xseg.Segment.attach("archipelago") as segment, segment.bind() as port:
        with port.request() as rq:
            rq.op = xseg.Op.PING
            xseg.raise_for(port.call(rq, xseg.PORT_VLMCD, timeout=1.0), "ping")

`xseg.payload` has the records that requests carry, `xseg.aio` the bridge to asyncio,
`xseg.testing` helpers for tests, and `xseg.Native` the peers themselves.
"""

from __future__ import annotations

from xseg._digest import EMPTY_BLOCK_ID, block_id, is_zero, stripped_bytes
from xseg._errors import error_from, raise_for
from xseg._native import Native, default_engine
from xseg._port import Port
from xseg._process import process_id, process_life
from xseg._request import Request
from xseg._segment import Buffer, Segment, live_handles
from xseg.constants import (
    PORT_ANY,
    PORT_BLOCKERB,
    PORT_BLOCKERM,
    PORT_CONTROL,
    PORT_DYNAMIC,
    PORT_ENDPOINT,
    PORT_MAPPERD,
    PORT_NONE,
    PORT_VLMCD,
    Flag,
    LeaseFlag,
    ObjectKind,
    Op,
    PortState,
    Reference,
    RequestState,
    Role,
    RunFlag,
    VolumeFlag,
)
from xseg.discover import segments
from xseg.errors import (
    AlreadyExists,
    BusyError,
    Cancelled,
    ClosedError,
    DataCorrupt,
    FormatMismatch,
    InvalidArgument,
    NoSpace,
    NotFound,
    NotPermitted,
    NotSupported,
    PeerDied,
    PortUnbound,
    ReadOnly,
    SegmentFull,
    StaleVersion,
    TimedOut,
    WouldBlock,
    XsegError,
)
from xseg.life import Life, ProcessId
from xseg.statistics import (
    PortStatistics,
    ReapResult,
    RequestInfo,
    SegmentStatistics,
)

__version__ = "0.1.0"

__all__ = [
    "EMPTY_BLOCK_ID",
    "PORT_ANY",
    "PORT_BLOCKERB",
    "PORT_BLOCKERM",
    "PORT_CONTROL",
    "PORT_DYNAMIC",
    "PORT_ENDPOINT",
    "PORT_MAPPERD",
    "PORT_NONE",
    "PORT_VLMCD",
    "AlreadyExists",
    "Buffer",
    "BusyError",
    "Cancelled",
    "ClosedError",
    "DataCorrupt",
    "Flag",
    "FormatMismatch",
    "InvalidArgument",
    "LeaseFlag",
    "Life",
    "Native",
    "NoSpace",
    "NotFound",
    "NotPermitted",
    "NotSupported",
    "ObjectKind",
    "Op",
    "PeerDied",
    "Port",
    "PortState",
    "PortStatistics",
    "PortUnbound",
    "ProcessId",
    "ReadOnly",
    "ReapResult",
    "Reference",
    "Request",
    "RequestInfo",
    "RequestState",
    "Role",
    "RunFlag",
    "Segment",
    "SegmentFull",
    "SegmentStatistics",
    "StaleVersion",
    "TimedOut",
    "VolumeFlag",
    "WouldBlock",
    "XsegError",
    "block_id",
    "default_engine",
    "error_from",
    "is_zero",
    "live_handles",
    "process_id",
    "process_life",
    "raise_for",
    "segments",
    "stripped_bytes",
]
