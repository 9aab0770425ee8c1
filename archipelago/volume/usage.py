# SPDX-License-Identifier: Apache-2.0
"""Usage: how full the store is, by kind of what is stored."""

from __future__ import annotations

from archipelago.info import StoreUsage
from archipelago.volume.context import Context
from xseg.constants import ObjectKind


def store_usage(ctx: Context) -> StoreUsage:
    """Say what is stored.

    `logical_bytes` is the sum of the sizes of all volumes and snapshots; the others are
    bytes on disk.  What needs a look at every object may be from an earlier count
    (`archipelago.volume.census`); `StoreUsage.age_seconds` says how old it is.
    """
    capacity = ctx.store.capacity(ObjectKind.CONTENT)
    ctx.index.refresh()
    count = ctx.census.count()
    return StoreUsage(
        capacity_bytes=capacity.size_bytes,
        free_bytes=capacity.allocated_bytes,
        logical_bytes=ctx.index.logical_bytes,
        stored_bytes=count.stored_bytes,
        private_bytes=count.private_bytes,
        content_bytes=count.content_bytes,
        age_seconds=count.age_seconds,
    )
