# SPDX-License-Identifier: Apache-2.0
"""Usage: how full the store is, by kind of what is stored."""

from __future__ import annotations

from archipelago.info import StoreUsage
from archipelago.volume.context import Context
from xseg.constants import ObjectKind

_METADATA = (
    ObjectKind.LAYER,
    ObjectKind.HEADER,
    ObjectKind.JOURNAL,
    ObjectKind.LEASE,
)


def store_usage(ctx: Context) -> StoreUsage:
    """Count what is stored.

    `logical_bytes` is the sum of the sizes of all volumes and snapshots; the others are
    bytes on disk.
    """
    capacity = ctx.store.capacity(ObjectKind.CONTENT)
    private = _allocated(ctx, ObjectKind.EXTENT)
    content = _allocated(ctx, ObjectKind.CONTENT)
    metadata = sum(_allocated(ctx, kind) for kind in _METADATA)
    logical = sum(header.size for header in ctx.headers.scan_live())
    return StoreUsage(
        capacity_bytes=capacity.size_bytes,
        free_bytes=capacity.allocated_bytes,
        logical_bytes=logical,
        stored_bytes=private + content + metadata,
        private_bytes=private,
        content_bytes=content,
    )


def _allocated(ctx: Context, kind: ObjectKind) -> int:
    return sum(entry.allocated_bytes for entry in ctx.store.list(kind))
