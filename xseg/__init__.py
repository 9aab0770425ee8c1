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

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        PORT_FUSE,
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
    "PORT_FUSE",
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

#: Where each name is.  Modules are imported when a name is first used: a command that
#: sends one request must not wait for the native peers.
_MODULES = {
    "EMPTY_BLOCK_ID": "xseg._digest",
    "block_id": "xseg._digest",
    "is_zero": "xseg._digest",
    "stripped_bytes": "xseg._digest",
    "error_from": "xseg._errors",
    "raise_for": "xseg._errors",
    "Native": "xseg._native",
    "default_engine": "xseg._native",
    "Port": "xseg._port",
    "process_id": "xseg._process",
    "process_life": "xseg._process",
    "Request": "xseg._request",
    "Buffer": "xseg._segment",
    "Segment": "xseg._segment",
    "live_handles": "xseg._segment",
    "PORT_ANY": "xseg.constants",
    "PORT_BLOCKERB": "xseg.constants",
    "PORT_BLOCKERM": "xseg.constants",
    "PORT_CONTROL": "xseg.constants",
    "PORT_DYNAMIC": "xseg.constants",
    "PORT_ENDPOINT": "xseg.constants",
    "PORT_FUSE": "xseg.constants",
    "PORT_MAPPERD": "xseg.constants",
    "PORT_NONE": "xseg.constants",
    "PORT_VLMCD": "xseg.constants",
    "Flag": "xseg.constants",
    "LeaseFlag": "xseg.constants",
    "ObjectKind": "xseg.constants",
    "Op": "xseg.constants",
    "PortState": "xseg.constants",
    "Reference": "xseg.constants",
    "RequestState": "xseg.constants",
    "Role": "xseg.constants",
    "RunFlag": "xseg.constants",
    "VolumeFlag": "xseg.constants",
    "segments": "xseg.discover",
    "AlreadyExists": "xseg.errors",
    "BusyError": "xseg.errors",
    "Cancelled": "xseg.errors",
    "ClosedError": "xseg.errors",
    "DataCorrupt": "xseg.errors",
    "FormatMismatch": "xseg.errors",
    "InvalidArgument": "xseg.errors",
    "NoSpace": "xseg.errors",
    "NotFound": "xseg.errors",
    "NotPermitted": "xseg.errors",
    "NotSupported": "xseg.errors",
    "PeerDied": "xseg.errors",
    "PortUnbound": "xseg.errors",
    "ReadOnly": "xseg.errors",
    "SegmentFull": "xseg.errors",
    "StaleVersion": "xseg.errors",
    "TimedOut": "xseg.errors",
    "WouldBlock": "xseg.errors",
    "XsegError": "xseg.errors",
    "Life": "xseg.life",
    "ProcessId": "xseg.life",
    "PortStatistics": "xseg.statistics",
    "ReapResult": "xseg.statistics",
    "RequestInfo": "xseg.statistics",
    "SegmentStatistics": "xseg.statistics",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
