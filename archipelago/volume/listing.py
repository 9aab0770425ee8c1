# SPDX-License-Identifier: Apache-2.0
"""List: the valid names, sorted, page by page."""

from __future__ import annotations

import heapq

from archipelago.errors import UsageError, VolumeNotFound
from archipelago.info import VolumeInfo
from archipelago.volume.context import Context
from archipelago.volume.describe import describe, describe_header


def list_volumes(
    ctx: Context,
    *,
    prefix: str = "",
    marker: str = "",
    limit: int = 1000,
    usage: bool = False,
) -> tuple[list[VolumeInfo], bool]:
    """List volumes and snapshots.

    Args:
        ctx: where.
        prefix: only names that start so.
        marker: only names behind this one.
        limit: at most so many.
        usage: count the bytes of each.

    Returns:
        The volumes sorted by name, and whether there are more.
    """
    if limit < 1:
        raise UsageError(f"a listing cannot have {limit} entries: ask for 1 or more")
    wanted = (
        header
        for header in ctx.headers.scan_live()
        if header.name.startswith(prefix) and header.name > marker
    )
    headers = heapq.nsmallest(limit + 1, wanted, key=lambda header: header.name)
    found = []
    for header in headers[:limit]:
        if not usage:
            found.append(describe_header(ctx, header))
            continue
        try:
            found.append(describe(ctx, header.name, usage=True))
        except VolumeNotFound:
            continue
    return found, len(headers) > limit
