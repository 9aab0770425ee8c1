# SPDX-License-Identifier: Apache-2.0
"""Layers of maps and their pages, read by the mapper's own C.

The control half of mapperd lists with it what a layer refers to, and merges stack
entries.  Format: ``docs/format/layer.md``.  Everything that is read is checked; what
is damaged or contradicts itself is a `MapFormatError`.
"""

from dataclasses import dataclass

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from archipelago._format cimport fail, get_id
from archipelago.c.mapper cimport (
    LAYER_MAX_HEIGHT,
    LAYER_PAGE_BYTES,
    LAYER_RUN,
    bits_run,
    layer_add_extents,
    layer_cursor,
    layer_cursor_next,
    layer_cursor_seek,
    layer_fini,
    layer_init,
    layer_next_extents_page,
    layer_page,
    layer_page_check,
    layer_record,
    layer_record_bits,
    layer_record_ref,
    map_ref,
)

from archipelago._format import MapFormatError

#: Kinds of references in layer records.
REF_ZERO = 0
REF_CONTENT = 1
REF_EXTENT = 2

#: Leaf pages fetched at once.
cdef enum:
    AHEAD_PAGES = 64


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """What a layer holds.

    Attributes:
        uuid: 16 bytes.
        block_size: [bytes].
        length: Of the whole layer [bytes].
        records: Number of records.
        height: Levels of its tree.
        extents: Number of extents that it refers to.
        first_block: First block it provides anything of.
        end_block: One past the last.
        zero_sectors: Sectors of 4 KiB that it makes zeros.
        extent_sectors: Sectors from extents.
        content_sectors: Sectors from content blocks.
    """

    uuid: bytes
    block_size: int
    length: int
    records: int
    height: int
    extents: int
    first_block: int
    end_block: int
    zero_sectors: int
    extent_sectors: int
    content_sectors: int


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What one source provides of consecutive blocks, or of some sectors of one block.

    Attributes:
        block: First block.
        count: Number of blocks.
        kind: `REF_ZERO`, `REF_CONTENT` or `REF_EXTENT`.
        id: SHA-256 of the content; uuid (16) + epoch (8, little endian) of the extent;
            empty for zeros.
        spans: Pairs (first sector in the block, number); None for whole blocks.
    """

    block: int
    count: int
    kind: int
    id: bytes
    spans: tuple | None


cdef class LayerReader:
    """Pages of one layer, fetched through a Python callable and checked."""

    def __cinit__(self, read):
        cdef const char *why = NULL
        cdef uint32_t number
        cdef int rc
        self.read = read
        self.pages = <uint8_t *>malloc(LAYER_MAX_HEIGHT * LAYER_PAGE_BYTES)
        self.ahead = <uint8_t *>malloc(AHEAD_PAGES * LAYER_PAGE_BYTES)
        if self.pages == NULL or self.ahead == NULL:
            raise MemoryError
        self.fetch(0, 1, self.pages)
        rc = layer_init(&self.layer, self.pages, &why)
        if rc == -ENOMEM:
            raise MemoryError
        if rc < 0:
            raise MapFormatError((<bytes>why).decode())
        number = layer_next_extents_page(&self.layer)
        while number:
            self.fetch(number, 1, self.pages)
            rc = layer_page_check(&self.layer, self.pages, number)
            if rc == 0:
                rc = layer_add_extents(&self.layer, <layer_page *>self.pages)
            if rc < 0:
                fail(rc, f"page {number} of layer {self.name()}")
            number = layer_next_extents_page(&self.layer)

    def __dealloc__(self):
        layer_fini(&self.layer)
        free(self.pages)
        free(self.ahead)

    cdef str name(self):
        return get_id(self.layer.uuid).hex()

    cdef int fetch(self, uint32_t number, uint32_t count, uint8_t *to) except -1:
        data = self.read(number * <uint64_t>LAYER_PAGE_BYTES, count * LAYER_PAGE_BYTES)
        if len(data) != count * LAYER_PAGE_BYTES:
            raise MapFormatError(f"layer ends inside page {number + count - 1}")
        memcpy(to, PyBytes_AS_STRING(bytes(data)), count * LAYER_PAGE_BYTES)
        return 0

    cdef const layer_page *page(self, uint32_t number, uint32_t level) except NULL:
        """Have a checked page in memory; leaves are fetched many at a time."""
        cdef uint8_t *at
        cdef uint32_t count
        if level:
            at = self.pages + level * LAYER_PAGE_BYTES
            if self.numbers[level] == number:
                return <const layer_page *>at
            self.numbers[level] = 0
            self.fetch(number, 1, at)
        else:
            if not self.ahead_first <= number < self.ahead_first + self.ahead_count:
                self.ahead_count = 0
                count = min(AHEAD_PAGES, self.layer.nr_pages - number)
                self.fetch(number, count, self.ahead)
                self.ahead_first = number
                self.ahead_count = count
            at = self.ahead + (number - self.ahead_first) * LAYER_PAGE_BYTES
        if layer_page_check(&self.layer, at, number) < 0:
            raise MapFormatError(f"page {number} of layer {self.name()} is damaged")
        if level:
            self.numbers[level] = number
        return <const layer_page *>at

    cdef void start(self, layer_cursor *c) noexcept:
        memset(c, 0, sizeof(layer_cursor))
        c.layer = &self.layer
        c.get = get_page
        c.ctx = <void *>self

    cdef raise_error(self, int rc):
        error, self.error = self.error, None
        if error is not None:
            raise error
        fail(rc, f"layer {self.name()}")


cdef int get_page(void *ctx, uint32_t number, uint32_t level,
                  const layer_page **out) noexcept with gil:
    cdef LayerReader reader = <LayerReader>ctx
    try:
        out[0] = reader.page(number, level)
        return 0
    except BaseException as error:
        reader.error = error
        return -EIO


def layer_statistics(read):
    """Read a layer's superblock.

    Args:
        read: Returns `size` bytes at `offset` of the layer: ``read(offset, size)``.

    Returns:
        `LayerStatistics`.

    Raises:
        MapFormatError: It is damaged.
    """
    cdef LayerReader r = LayerReader(read)
    return LayerStatistics(
        uuid=get_id(r.layer.uuid),
        block_size=r.layer.block_bytes,
        length=r.layer.nr_pages * <uint64_t>LAYER_PAGE_BYTES,
        records=r.layer.nr_records,
        height=r.layer.height,
        extents=r.layer.nr_extents,
        first_block=r.layer.first_block,
        end_block=r.layer.end_block,
        zero_sectors=r.layer.zero_sectors,
        extent_sectors=r.layer.extent_sectors,
        content_sectors=r.layer.content_sectors,
    )


def layer_extents(read, uuid):
    """List the extents that a layer refers to.

    Args:
        read: As of `layer_statistics`.
        uuid: 16 bytes: the layer that it must be.

    Returns:
        List of (uuid, epoch).

    Raises:
        MapFormatError: It is damaged, or another layer.
    """
    cdef LayerReader r = LayerReader(read)
    if get_id(r.layer.uuid) != uuid:
        raise MapFormatError(f"it holds the bytes of layer {r.name()}")
    return [
        (get_id(r.layer.extents[i].uuid), r.layer.extents[i].epoch)
        for i in range(r.layer.nr_extents)
    ]


cdef get_record(LayerReader r, const layer_record *record):
    cdef map_ref ref = layer_record_ref(&r.layer, record)
    cdef uint64_t bits[16]
    cdef uint32_t start = 0, nr = 0
    spans = None
    if record.shape != LAYER_RUN:
        memset(bits, 0, sizeof(bits))
        layer_record_bits(&r.layer, record, bits)
        found = []
        while bits_run(bits, r.layer.sectors, start + nr, &start, &nr):
            found.append((start, nr))
        spans = tuple(found)
    return LayerRecord(
        block=record.block,
        count=record.count if record.shape == LAYER_RUN else 1,
        kind=record.kind,
        id=PyBytes_FromStringAndSize(<const char *>ref.id, (0, 32, 24)[record.kind]),
        spans=spans,
    )


def layer_records(read, block=0):
    """Iterate over the records of a layer.

    Args:
        read: As of `layer_statistics`.
        block: Start with the first record that says something of a block from here on.

    Yields:
        `LayerRecord`, in order of blocks.  Of several for one block the first that
        provides a sector wins.

    Raises:
        MapFormatError: It is damaged.
    """
    cdef LayerReader r = LayerReader(read)
    cdef layer_cursor c
    cdef int rc
    r.start(&c)
    rc = layer_cursor_seek(&c, block)
    while rc > 0:
        yield get_record(r, c.record)
        rc = layer_cursor_next(&c)
    if rc < 0:
        r.raise_error(rc)


def layer_contents(read):
    """Iterate over the content blocks that a layer refers to.

    Args:
        read: As of `layer_statistics`.

    Yields:
        SHA-256 digests in the order of blocks; one may come more than once.

    Raises:
        MapFormatError: The layer is damaged.
    """
    cdef LayerReader r = LayerReader(read)
    cdef layer_cursor c
    cdef map_ref ref
    cdef int rc
    r.start(&c)
    rc = layer_cursor_seek(&c, 0)
    while rc > 0:
        if c.record.kind == 1:
            ref = layer_record_ref(&r.layer, c.record)
            yield PyBytes_FromStringAndSize(<const char *>ref.id, 32)
        rc = layer_cursor_next(&c)
    if rc < 0:
        r.raise_error(rc)
