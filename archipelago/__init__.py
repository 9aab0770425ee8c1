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
