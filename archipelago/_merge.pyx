# SPDX-License-Identifier: Apache-2.0
"""Merging consecutive stack entries into one layer, done by the mapper's own C.

The control half of mapperd compacts stacks with it.
"""

from dataclasses import dataclass

from libc.stdint cimport UINT64_MAX, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from archipelago._format cimport get_id
from archipelago._header cimport put_entry
from archipelago._journal cimport JournalTable
from archipelago._layer cimport LayerReader
from archipelago._layer_write cimport LayerWriter
from archipelago.c.mapper cimport map_entry, map_merge, map_source, merge_statistics

from archipelago._format import MapFormatError
from archipelago._header import JOURNAL


@dataclass(frozen=True, slots=True)
class MergeStatistics:
    """What a merge stored.

    Attributes:
        blocks: Blocks that the result provides anything of.
        zero_sectors: Sectors of 4 KiB that it makes zeros.
        extent_sectors: Sectors from extents.
        content_sectors: Sectors from content blocks.
    """

    blocks: int
    zero_sectors: int
    extent_sectors: int
    content_sectors: int


def merge(entries, block_size, out, read, *, bottom=False):
    """Merge consecutive stack entries into a layer that says the same.

    Args:
        entries: `StackEntry`s, top first, with their limits.
        block_size: Of the map [bytes].
        out: The `LayerWriter` to fill; the caller finishes it.
        read: Called as ``read(entry, offset, size)``; returns bytes of that object.
        bottom: Nothing lies below them, so zeros need not be stored.

    Returns:
        `MergeStatistics`.

    Raises:
        MapFormatError: An entry is damaged, or a layer has another block size.
    """
    cdef list sources = []
    cdef LayerWriter writer = out
    cdef LayerReader reader
    cdef merge_statistics st
    cdef uint32_t count = len(entries)
    cdef uint32_t block_bytes = block_size
    cdef bint drop = bottom
    cdef int rc
    cdef map_source *c = <map_source *>calloc(count or 1, sizeof(map_source))
    cdef map_entry *centries = <map_entry *>calloc(count or 1, sizeof(map_entry))
    memset(&st, 0, sizeof(st))
    try:
        if c == NULL or centries == NULL:
            raise MemoryError
        for i, e in enumerate(entries):
            put_entry(&centries[i], e)
            c[i].entry = &centries[i]
            if e.type == JOURNAL:
                table = JournalTable(e, block_size, read)
                c[i].table = &(<JournalTable>table).table
                sources.append(table)
                continue
            reader = LayerReader(lambda offset, size, e=e: read(e, offset, size))
            if get_id(reader.layer.uuid) != e.id:
                raise MapFormatError(
                    f"layer {e.id.hex()} holds the bytes of layer {reader.name()}"
                )
            if reader.layer.block_bytes != block_bytes:
                raise MapFormatError(
                    f"layer {reader.name()} has blocks of {reader.layer.block_bytes} "
                    f"bytes, not {block_bytes}"
                )
            reader.start(&c[i].cursor)
            sources.append(reader)
        with nogil:
            rc = map_merge(c, count, block_bytes, UINT64_MAX, drop, writer.writer, &st)
        if rc < 0:
            for source in sources:
                if isinstance(source, LayerReader):
                    if (<LayerReader>source).error is not None:
                        (<LayerReader>source).raise_error(rc)
            writer.check(rc)
    finally:
        free(c)
        free(centries)
    return MergeStatistics(
        blocks=st.nr_blocks,
        zero_sectors=st.zero_sectors,
        extent_sectors=st.extent_sectors,
        content_sectors=st.content_sectors,
    )
