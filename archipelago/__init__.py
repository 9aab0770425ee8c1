# SPDX-License-Identifier: Apache-2.0
"""Archipelago: copy-on-write, deduplicated volumes.

::

    import archipelago

    with archipelago.connect() as a:
        a.create("v", size="10G")
        with a.open("v") as v:
            v.pwrite(b"hello", 0)
            v.flush()
        a.snapshot("v", "s")
        a.create("c", snap="s")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archipelago.client import Client, CloneResult, connect
    from archipelago.errors import (
        ArchipelagoError,
        BackendUnavailable,
        BlockError,
        BlockNotFound,
        ConfigError,
        DigestMismatch,
        IoError,
        LeaseHeld,
        LeaseLost,
        MapCorrupt,
        MapError,
        NoSpace,
        NotAnswering,
        NotRunning,
        NotSnapshot,
        ReadOnlySnapshot,
        UsageError,
        VolumeBusy,
        VolumeExists,
        VolumeNotFound,
    )
    from archipelago.info import LeaseInfo, StoreUsage, VolumeInfo
    from archipelago.volume_handle import Volume
    from archipelago.volume_queue import VolumeQueue

__version__ = "0.1.0"

__all__ = [
    "connect",
    "Client",
    "CloneResult",
    "Volume",
    "VolumeQueue",
    "VolumeInfo",
    "LeaseInfo",
    "StoreUsage",
    "ArchipelagoError",
    "UsageError",
    "ConfigError",
    "NotRunning",
    "NotAnswering",
    "IoError",
    "BlockError",
    "BlockNotFound",
    "DigestMismatch",
    "BackendUnavailable",
    "NoSpace",
    "MapError",
    "VolumeNotFound",
    "VolumeExists",
    "VolumeBusy",
    "LeaseHeld",
    "LeaseLost",
    "ReadOnlySnapshot",
    "NotSnapshot",
    "MapCorrupt",
]

#: Where each name is.  Modules are imported when a name is first used: commands that
#: need no client must not wait for one.
_MODULES = {
    "Client": "archipelago.client",
    "CloneResult": "archipelago.client",
    "connect": "archipelago.client",
    "ArchipelagoError": "archipelago.errors",
    "BackendUnavailable": "archipelago.errors",
    "BlockError": "archipelago.errors",
    "BlockNotFound": "archipelago.errors",
    "ConfigError": "archipelago.errors",
    "DigestMismatch": "archipelago.errors",
    "IoError": "archipelago.errors",
    "LeaseHeld": "archipelago.errors",
    "LeaseLost": "archipelago.errors",
    "MapCorrupt": "archipelago.errors",
    "MapError": "archipelago.errors",
    "NoSpace": "archipelago.errors",
    "NotAnswering": "archipelago.errors",
    "NotRunning": "archipelago.errors",
    "NotSnapshot": "archipelago.errors",
    "ReadOnlySnapshot": "archipelago.errors",
    "UsageError": "archipelago.errors",
    "VolumeBusy": "archipelago.errors",
    "VolumeExists": "archipelago.errors",
    "VolumeNotFound": "archipelago.errors",
    "LeaseInfo": "archipelago.info",
    "StoreUsage": "archipelago.info",
    "VolumeInfo": "archipelago.info",
    "Volume": "archipelago.volume_handle",
    "VolumeQueue": "archipelago.volume_queue",
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
