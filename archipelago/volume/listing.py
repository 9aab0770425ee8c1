# SPDX-License-Identifier: Apache-2.0
"""List: the valid names, sorted, page by page, from the index of headers."""

from __future__ import annotations

from archipelago._header import Header
from archipelago.errors import UsageError, VolumeNotFound
from archipelago.info import VolumeInfo
from archipelago.volume.context import Context
from archipelago.volume.describe import describe, describe_damaged, describe_header
from archipelago.volume.index import Damaged
from xseg.constants import ObjectKind


def list_volumes(
    ctx: Context,
    *,
    prefix: str = "",
    marker: str = "",
    limit: int = 1000,
    usage: bool = False,
    leases: bool = True,
) -> tuple[list[VolumeInfo], bool]:
    """List volumes and snapshots.

    Args:
        ctx: where.
        prefix: only names that start so.
        marker: only names behind this one.
        limit: at most so many.
        usage: count the bytes of each.
        leases: tell the holder of each lease.

    Returns:
        The volumes sorted by name, and whether there are more.

    Raises:
        ArchipelagoError: the store cannot be listed.
    """
    if limit < 1:
        raise UsageError(f"a listing cannot have {limit} entries: ask for 1 or more")
    # The pages of one listing follow each other within a moment.
    ctx.index.refresh(lately=bool(marker))
    headers, more = ctx.index.page(prefix, marker, limit)
    leased = _leased(ctx) if leases and headers else set()
    found = []
    for header in headers:
        if isinstance(header, Damaged):
            found.append(describe_damaged(header))
        elif not usage:
            found.append(describe_header(ctx, header, lease=header.uuid in leased))
        else:
            try:
                found.append(describe(ctx, header.name, usage=True))
            except VolumeNotFound:
                continue
    return found, more


def list_names(ctx: Context, marker: str, limit: int) -> tuple[list[str], bool]:
    """List the names behind `marker`, sorted, without those of damaged headers.

    Args:
        ctx: where.
        marker: the last name of the page before, or empty.
        limit: at most so many.

    Returns:
        The names, and whether there are more.
    """
    ctx.index.refresh(lately=bool(marker))
    while True:
        headers, more = ctx.index.page("", marker, limit)
        names = [header.name for header in headers if isinstance(header, Header)]
        if names or not more:
            return names, more
        marker = headers[-1].name


def _leased(ctx: Context) -> set[bytes]:
    """The volumes (uuid) that ever had a lease: most clones never had one."""
    return {raw[:16] for raw, *_ in ctx.store.listing(ObjectKind.LEASE)}
