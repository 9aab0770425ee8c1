# SPDX-License-Identifier: Apache-2.0
"""Describe: what is known of one volume, and how much storage it takes."""

from __future__ import annotations

import logging
from dataclasses import replace

from archipelago._format import MapFormatError
from archipelago._header import Header, StackEntry, pack_header
from archipelago._layer_write import LayerWriter
from archipelago._merge import merge
from archipelago.errors import ArchipelagoError, BlockNotFound, MapCorrupt
from archipelago.ids import ObjectId, journal_id, new_uuid, uuid_text
from archipelago.info import VolumeInfo
from archipelago.volume.change import entry_object, frozen
from archipelago.volume.context import Context, OpenMap, own_extent
from archipelago.volume.index import Damaged
from archipelago.volume.leaserecord import utc_text
from xseg.constants import SECTOR_BYTES, VolumeFlag
from xseg.payload import MapInfo
from xseg.payload import VolumeInfo as VolumeRecord

log = logging.getLogger(__name__)


def describe(ctx: Context, name: str, *, usage: bool = False) -> VolumeInfo:
    """Describe a volume or snapshot.

    Args:
        ctx: where.
        name: its name.
        usage: count its bytes too; reads all its tables.

    Raises:
        VolumeNotFound: there is none.
    """
    header = ctx.headers.get(name)
    if not usage:
        return describe_header(ctx, header)
    try:
        return _with_usage(ctx, header)
    except (BlockNotFound, MapCorrupt):
        # Its map may have changed while it was read, or the volume been removed.
        header = ctx.headers.get(name)
    try:
        return _with_usage(ctx, header)
    except MapCorrupt as error:
        ctx.maps.note_damage(header.uuid, str(error))
        return describe_header(ctx, header)


def describe_damaged(header: Damaged) -> VolumeInfo:
    """Describe a volume of which only the name is known."""
    return VolumeInfo(
        name=header.name,
        uuid="",
        kind="damaged",
        size=0,
        block_size=0,
        epoch=0,
        read_only=True,
        parent=None,
        created="",
        depth=0,
        damaged=header.why,
    )


def describe_header(ctx: Context, header: Header, *, lease: bool = True) -> VolumeInfo:
    """Describe the map of a header.

    Args:
        ctx: where.
        header: of the map.
        lease: say who holds it, which takes a look at the stored lease.
    """
    snapshot = bool(header.flags & VolumeFlag.READONLY)
    return VolumeInfo(
        name=header.name,
        uuid=uuid_text(header.uuid),
        kind="snapshot" if snapshot else "volume",
        size=header.size,
        block_size=header.block_size,
        epoch=header.epoch,
        read_only=snapshot,
        parent=header.parent or None,
        created=utc_text(header.created_ns),
        depth=len(header.stack),
        lease=ctx.leases.describe(header.uuid) if lease else None,
        damaged=ctx.maps.damage(header.uuid),
    )


def record(opened: OpenMap) -> VolumeRecord:
    """Describe an open volume to vlmcd."""
    header = opened.header
    flags = VolumeFlag(header.flags)
    if opened.read_only and not flags & VolumeFlag.READONLY:
        flags |= VolumeFlag.RDONLY_OPEN
    return VolumeRecord(
        uuid=header.uuid,
        size_bytes=header.size,
        epoch=header.epoch,
        fence=opened.fence,
        map_handle=opened.handle,
        block_bytes=header.block_size,
        flags=flags,
        users=0,
        name=header.name,
    )


def _with_usage(ctx: Context, header: Header) -> VolumeInfo:
    return replace(
        describe_header(ctx, header),
        private_bytes=_private_bytes(ctx, header),
        shared_bytes=_shared_bytes(ctx, header),
    )


def _private_bytes(ctx: Context, header: Header) -> int:
    """Storage of what this map alone refers to [bytes]."""
    own: list[ObjectId] = [entry_object(e) for e in header.stack if e.owned]
    if not header.flags & VolumeFlag.READONLY:
        own += [own_extent(header), journal_id(header.uuid, header.journal)]
    found = (ctx.store.stat(target) for target in own)
    return sum(info.allocated_bytes for info in found if info is not None)


def _shared_bytes(ctx: Context, header: Header) -> int:
    """Bytes of the volume that lie in content blocks or sealed extents [bytes].

    Merges the tables of its stack and drops the result: that costs what the tables
    hold, whatever the size of the volume.
    """
    if not header.stack:
        return 0
    entries, own_sectors = header.stack, 0
    if not header.flags & VolumeFlag.READONLY:
        info = _map_info(ctx, header)
        own_sectors = info.present_sectors
        if info.journal.nr_marks:
            live = frozen(header, info.journal, new_epoch=False).stack[0]
            entries = (live, *entries)

    def read(entry: StackEntry, offset: int, size: int) -> bytes:
        return ctx.store.read(entry_object(entry), offset, size)

    nowhere = LayerWriter(new_uuid(), header.block_size, lambda offset, data: None)
    try:
        found = merge(entries, header.block_size, nowhere, read, bottom=True)
    except MapFormatError as error:
        raise MapCorrupt(f'a table of "{header.name}" is damaged: {error}') from error
    shared = found.extent_sectors + found.content_sectors - own_sectors
    # What is written meanwhile may be counted as its own already.
    return max(0, shared) * SECTOR_BYTES


def _map_info(ctx: Context, header: Header) -> MapInfo:
    opened = ctx.table.get(header.name)
    if opened is not None and opened.header.uuid == header.uuid and not opened.broken:
        return ctx.maps.info(opened.handle)
    handle = ctx.maps.open(pack_header(header), read_only=True)
    try:
        return ctx.maps.info(handle)
    finally:
        try:
            ctx.maps.close(handle)
        except ArchipelagoError as error:
            log.warning('a map of "%s" stays in memory: %s', header.name, error)
