# SPDX-License-Identifier: Apache-2.0
"""Stored map structures: headers, layers and journals, coded by the mapper's own C.

The control half of mapperd reads and writes headers with it, builds layers and merges
stack entries.  Formats: ``docs/format/{header,layer,journal}.md``.  Everything
that is read is checked; what is damaged or contradicts itself is a `MapFormatError`.
"""

from dataclasses import dataclass

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBADMSG, EINVAL, EIO, ENOMEM, EPROTONOSUPPORT
from libc.stdint cimport (
    UINT64_MAX,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
)
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strerror

import os


cdef extern from "mapper/map_format.h" nogil:
    const uint32_t LAYER_PAGE_BYTES
    const uint32_t LAYER_MAX_HEIGHT
    const uint32_t LAYER_RUN
    const uint32_t MAP_HEADER_MAX_BYTES
    const uint32_t MAP_ENTRY_LAYER
    const uint32_t MAP_ENTRY_JOURNAL
    const uint32_t MAP_ENTRY_OWNED
    const uint32_t MAP_BLOCK_WORDS_MAX
    const uint32_t JOURNAL_RECORD_MAX_MARKS

    cdef struct map_entry:
        uint32_t type
        uint32_t flags
        uint8_t id[16]
        uint64_t number
        uint64_t length_bytes
        uint8_t extent_uuid[16]
        uint64_t extent_epoch
        uint64_t limit_bytes

    cdef struct journal_mark:
        uint64_t start
        uint32_t nr
        uint32_t kind

    cdef struct layer_page:
        uint32_t number

    cdef struct layer_extent:
        uint8_t uuid[16]
        uint64_t epoch

    cdef struct layer_record:
        uint64_t block
        uint32_t count
        uint8_t shape
        uint8_t kind


cdef extern from "mapper/ref.h" nogil:
    cdef struct map_ref:
        uint32_t kind
        uint8_t id[32]
    map_ref map_ref_zero()
    map_ref map_ref_content(const uint8_t *digest)
    map_ref map_ref_extent(const uint8_t *uuid, uint64_t epoch)


cdef extern from "mapper/header.h" nogil:
    cdef struct map_name:
        uint16_t len
        char bytes[256]

    cdef struct map_header:
        uint64_t version
        uint64_t fence
        uint8_t uuid[16]
        uint64_t size_bytes
        uint64_t epoch
        uint64_t created_ns
        uint64_t journal
        uint32_t block_bytes
        uint32_t flags
        uint32_t nr_entries
        map_entry *entries
        map_name name
        map_name parent
        map_name moving_to
        map_name moved_from

    int map_header_unpack(const void *data, size_t length, map_header *out,
                          const char **why)
    size_t map_header_bytes(const map_header *h)
    int64_t map_header_pack(const map_header *h, void *data, size_t room,
                            const char **why)
    void map_header_fini(map_header *h)


cdef extern from "mapper/journal.h" nogil:
    ctypedef int journal_mark_fn(void *ctx, const journal_mark *mark) noexcept

    cdef struct journal_reader:
        uint64_t valid_bytes
        uint64_t nr_marks
        uint64_t fed_bytes
        bint torn

    size_t journal_record_bytes(uint32_t nr_marks)
    size_t journal_record_pack(void *out, uint64_t sequence, uint64_t fence,
                               const journal_mark *marks, uint32_t nr_marks)
    int journal_reader_feed(journal_reader *r, const void *data, size_t length,
                            journal_mark_fn *fn, void *ctx)
    int journal_reader_end(journal_reader *r)
    void journal_reader_fini(journal_reader *r)


cdef extern from "mapper/bits.h" nogil:
    bint bits_run(const uint64_t *bits, uint32_t nr_bits, uint32_t first,
                  uint32_t *start, uint32_t *nr)


cdef extern from "mapper/table.h" nogil:
    cdef struct map_table:
        uint64_t present_sectors

    void map_table_init(map_table *t, uint32_t block_bytes)
    void map_table_fini(map_table *t)
    int map_table_apply(map_table *t, const journal_mark *mark)


cdef extern from "mapper/layer.h" nogil:
    cdef struct layer:
        uint8_t uuid[16]
        uint32_t block_bytes
        uint32_t sectors
        uint32_t nr_pages
        uint32_t height
        uint32_t nr_extents
        uint64_t nr_records
        uint64_t first_block
        uint64_t end_block
        uint64_t zero_sectors
        uint64_t extent_sectors
        uint64_t content_sectors
        layer_extent *extents

    int layer_init(layer *out, const void *page, const char **why)
    void layer_fini(layer *l)
    uint32_t layer_next_extents_page(const layer *l)
    int layer_add_extents(layer *l, const layer_page *page)
    int layer_page_check(const layer *l, const void *page, uint32_t number)

    ctypedef int layer_get_fn(void *ctx, uint32_t number, uint32_t level,
                              const layer_page **out) noexcept

    cdef struct layer_cursor:
        const layer *layer
        layer_get_fn *get
        void *ctx
        const layer_record *record

    int layer_cursor_seek(layer_cursor *c, uint64_t block)
    int layer_cursor_next(layer_cursor *c)
    map_ref layer_record_ref(const layer *l, const layer_record *record)
    void layer_record_bits(const layer *l, const layer_record *record, uint64_t *bits)


cdef extern from "mapper/layer_write.h" nogil:
    ctypedef int layer_write_fn(void *ctx, uint64_t offset, const void *data,
                                size_t length) noexcept

    cdef struct layer_writer:
        pass

    int layer_writer_create(const uint8_t *uuid, uint32_t block_bytes,
                            layer_write_fn *write, void *ctx, layer_writer **out)
    int layer_writer_run(layer_writer *w, uint64_t block, uint64_t nr,
                         const map_ref *ref)
    int64_t layer_writer_finish(layer_writer *w)
    void layer_writer_destroy(layer_writer *w)


cdef extern from "mapper/resolve.h" nogil:
    cdef struct map_source:
        const map_entry *entry
        const map_table *table
        layer_cursor cursor


cdef extern from "mapper/merge.h" nogil:
    cdef struct merge_statistics:
        uint64_t nr_blocks
        uint64_t zero_sectors
        uint64_t extent_sectors
        uint64_t content_sectors

    int map_merge(map_source *sources, uint32_t nr, uint32_t block_bytes,
                  uint64_t end_block, bint drop_zeros, layer_writer *out,
                  merge_statistics *statistics)


LAYER = 1
JOURNAL = 2
NO_LIMIT = 2**64 - 1
#: Kinds of journal marks.
PRESENT = 1
ZERO = 2
#: Kinds of references in layer records.
REF_ZERO = 0
REF_CONTENT = 1
REF_EXTENT = 2

#: Leaf pages fetched at once, and bytes of a journal fetched at once.
cdef enum:
    AHEAD_PAGES = 64
    JOURNAL_CHUNK = 1 << 20


class MapFormatError(ValueError):
    """Stored bytes are damaged, or not what they should be; the message says how."""


@dataclass(frozen=True, slots=True)
class StackEntry:
    """One immutable table of a map's stack.

    Attributes:
        type: `LAYER` or `JOURNAL`.
        owned: This map alone refers to it: removing the map removes it.
        id: 16 bytes: the layer's uuid, or the uuid of the volume whose journal it is.
        number: The journal's number; 0 for a layer.
        length: Of the frozen journal, or of the whole layer [bytes].
        extent_uuid: 16 bytes: volume whose extent the journal's marks refer to; zeros for
            a layer.
        extent_epoch: Epoch of that extent; 0 for a layer.
        limit: It provides nothing at or beyond it [bytes]; `NO_LIMIT`.
    """

    type: int
    owned: bool
    id: bytes
    number: int
    length: int
    extent_uuid: bytes
    extent_epoch: int
    limit: int


@dataclass(frozen=True, slots=True)
class Header:
    """A map's header.

    Attributes:
        name: 1 to 255 bytes of UTF-8.
        uuid: 16 bytes, not all zero.
        version: Of the stored object; each replacement has the old one's plus 1.
        fence: Of the lease it was written under.
        size: Of the volume [bytes].
        block_size: A power of two from 64 KiB to 4 MiB [bytes].
        epoch: Writes go to EXTENT(uuid, epoch).
        flags: XSEG_VOL_READONLY (1), XSEG_VOL_TAIL (2).
        created_ns: CLOCK_REALTIME [ns].
        parent: Name of the snapshot it came from, or "".
        journal: Number of the current journal.
        moving_to: New name while it is renamed, or "".
        moved_from: Old name while it is renamed, or "".
        stack: Top first, at most 512 entries.
    """

    name: str
    uuid: bytes
    version: int
    fence: int
    size: int
    block_size: int
    epoch: int
    flags: int
    created_ns: int
    parent: str
    journal: int
    moving_to: str
    moved_from: str
    stack: tuple


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


cdef fail(int64_t rc, str what):
    """Raise what a negative result means."""
    if rc == -ENOMEM:
        raise MemoryError(what)
    if rc == -EBADMSG or rc == -EPROTONOSUPPORT:
        raise MapFormatError(f"{what} is damaged")
    if rc == -EINVAL:
        raise ValueError(f"{what}: not in ascending order, or out of range")
    raise OSError(-rc, f"{what}: {os.strerror(-rc)}")


# ---- headers ---------------------------------------------------------------------


cdef int put_id(uint8_t *to, value, str what) except -1:
    if len(value) != 16:
        raise MapFormatError(f"{what} has {len(value)} bytes, not 16")
    memcpy(to, PyBytes_AS_STRING(bytes(value)), 16)
    return 0


cdef int put_name(map_name *to, str value) except -1:
    cdef bytes raw
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise MapFormatError(f"name {value!r} is not UTF-8 text") from None
    if len(raw) > 255:
        raise MapFormatError(f"name {value!r} is longer than 255 bytes")
    to.len = <uint16_t>len(raw)
    memcpy(to.bytes, PyBytes_AS_STRING(raw), len(raw))
    return 0


cdef int put_entry(map_entry *to, e) except -1:
    memset(to, 0, sizeof(map_entry))
    to.type = e.type
    to.flags = MAP_ENTRY_OWNED if e.owned else 0
    put_id(to.id, e.id, "id of a stack entry")
    to.number = e.number
    to.length_bytes = e.length
    put_id(to.extent_uuid, e.extent_uuid, "extent uuid of a stack entry")
    to.extent_epoch = e.extent_epoch
    to.limit_bytes = e.limit
    return 0


cdef bytes get_id(const uint8_t *data):
    return PyBytes_FromStringAndSize(<const char *>data, 16)


cdef get_entry(const map_entry *e):
    return StackEntry(
        type=e.type,
        owned=bool(e.flags & MAP_ENTRY_OWNED),
        id=get_id(e.id),
        number=e.number,
        length=e.length_bytes,
        extent_uuid=get_id(e.extent_uuid),
        extent_epoch=e.extent_epoch,
        limit=e.limit_bytes,
    )


cdef str get_name(const map_name *name):
    return name.bytes[:name.len].decode()


def pack_header(h):
    """Code a header for storing.

    Args:
        h: The `Header`.

    Returns:
        Its bytes, at most 64 KiB.

    Raises:
        MapFormatError: `unpack_header` would refuse it; the message says why.
        OverflowError: A number is negative or too large for its field.
    """
    cdef map_header c
    cdef const char *why = NULL
    cdef int64_t rc
    cdef bytes out
    memset(&c, 0, sizeof(c))
    stack = tuple(h.stack)
    c.entries = <map_entry *>calloc(len(stack) or 1, sizeof(map_entry))
    if c.entries == NULL:
        raise MemoryError
    try:
        for i, e in enumerate(stack):
            put_entry(&c.entries[i], e)
        c.nr_entries = len(stack)
        put_id(c.uuid, h.uuid, "uuid")
        c.version = h.version
        c.fence = h.fence
        c.size_bytes = h.size
        c.epoch = h.epoch
        c.created_ns = h.created_ns
        c.journal = h.journal
        c.block_bytes = h.block_size
        c.flags = h.flags
        put_name(&c.name, h.name)
        put_name(&c.parent, h.parent)
        put_name(&c.moving_to, h.moving_to)
        put_name(&c.moved_from, h.moved_from)
        out = PyBytes_FromStringAndSize(NULL, map_header_bytes(&c))
        rc = map_header_pack(&c, PyBytes_AS_STRING(out), len(out), &why)
    finally:
        map_header_fini(&c)
    if rc < 0:
        raise MapFormatError((<bytes>why).decode())
    return out


def unpack_header(data):
    """Read a stored header.

    Args:
        data: The bytes of the whole object, any contiguous bytes-like object.

    Returns:
        The `Header`.

    Raises:
        MapFormatError: The bytes are damaged or not a header; the message says why.
    """
    cdef map_header c
    cdef const char *why = NULL
    cdef Py_buffer view
    cdef int rc
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    rc = map_header_unpack(view.buf, <size_t>view.len, &c, &why)
    PyBuffer_Release(&view)
    if rc == -ENOMEM:
        raise MemoryError
    if rc < 0:
        raise MapFormatError((<bytes>why).decode())
    try:
        return Header(
            name=get_name(&c.name),
            uuid=get_id(c.uuid),
            version=c.version,
            fence=c.fence,
            size=c.size_bytes,
            block_size=c.block_bytes,
            epoch=c.epoch,
            flags=c.flags,
            created_ns=c.created_ns,
            parent=get_name(&c.parent),
            journal=c.journal,
            moving_to=get_name(&c.moving_to),
            moved_from=get_name(&c.moved_from),
            stack=tuple([get_entry(&c.entries[i]) for i in range(c.nr_entries)]),
        )
    finally:
        map_header_fini(&c)


# ---- journals --------------------------------------------------------------------


cdef int ignore_mark(void *ctx, const journal_mark *mark) noexcept nogil:
    return 0


def journal_marks(data):
    """Count the marks of a current journal.

    Args:
        data: The whole journal.

    Returns:
        (number of marks, length of the valid prefix [bytes]).  A torn last
        record is not part of it.

    Raises:
        MapFormatError: A whole record follows a damaged one.
    """
    cdef journal_reader reader
    cdef Py_buffer view
    cdef int rc
    memset(&reader, 0, sizeof(reader))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        rc = journal_reader_feed(&reader, view.buf, <size_t>view.len, ignore_mark, NULL)
        if rc == 0:
            rc = journal_reader_end(&reader)
        journal_reader_fini(&reader)
    PyBuffer_Release(&view)
    if rc < 0:
        fail(rc, "journal")
    return reader.nr_marks, reader.valid_bytes


def pack_journal_record(sequence, fence, marks):
    """Code one journal record.

    Args:
        sequence: 0 for a journal's first record, then 1, 2, ...
        fence: Of the writer's lease.
        marks: Of (first sector, sectors, `PRESENT` or `ZERO`), at least one.

    Returns:
        Its bytes.
    """
    cdef size_t nr = len(marks)
    cdef journal_mark *c
    cdef bytes out
    if nr == 0 or nr > JOURNAL_RECORD_MAX_MARKS:
        raise ValueError(f"a record cannot have {nr} marks")
    c = <journal_mark *>calloc(nr, sizeof(journal_mark))
    if c == NULL:
        raise MemoryError
    try:
        for i, (start, count, kind) in enumerate(marks):
            c[i].start = start
            c[i].nr = count
            c[i].kind = kind
        out = PyBytes_FromStringAndSize(NULL, journal_record_bytes(nr))
        journal_record_pack(PyBytes_AS_STRING(out), sequence, fence, c, nr)
        return out
    finally:
        free(c)


# ---- layers: reading ---------------------------------------------------------------


cdef class LayerReader:
    """Pages of one layer, fetched through a Python callable and checked."""

    cdef layer layer
    cdef object read
    cdef object error  # what `read` raised, or what was wrong with a page
    cdef uint8_t *pages  # one per level above the leaves
    cdef uint32_t numbers[8]
    cdef uint8_t *ahead  # AHEAD_PAGES leaf pages
    cdef uint32_t ahead_first, ahead_count

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


def layer_extents(read):
    """List the extents that a layer refers to.

    Args:
        read: As of `layer_statistics`.

    Returns:
        List of (uuid, epoch).

    Raises:
        MapFormatError: It is damaged.
    """
    cdef LayerReader r = LayerReader(read)
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


# ---- layers: writing -----------------------------------------------------------------


cdef class LayerWriter:
    """Builds a layer in one pass over ascending blocks.

    Args:
        uuid: 16 bytes, fresh.
        block_size: A power of two from 64 KiB to 4 MiB [bytes].
        write: Called as ``write(offset, data)`` with up to 1 MiB at a time, ascending,
            and with the first page last.
    """

    cdef layer_writer *writer
    cdef object write
    cdef object error

    def __cinit__(self, uuid, block_size, write):
        cdef uint8_t id[16]
        put_id(id, uuid, "uuid of a layer")
        self.write = write
        cdef int rc = layer_writer_create(
            id, block_size, write_chunk, <void *>self, &self.writer
        )
        if rc == -EINVAL:
            raise ValueError(
                f"block size {block_size} is not a power of two from 64 KiB to 4 MiB"
            )
        if rc < 0:
            fail(rc, "layer writer")

    def __dealloc__(self):
        layer_writer_destroy(self.writer)

    cdef int check(self, int64_t rc) except -1:
        if rc >= 0:
            return 0
        error, self.error = self.error, None
        if error is not None:
            raise error
        fail(rc, "layer being written")
        return -1

    def add_content(self, block, sha256):
        """Whole block `block` is the content of that name (32 bytes)."""
        cdef const unsigned char[::1] digest = sha256
        cdef map_ref ref
        if digest.shape[0] != 32:
            raise ValueError(f"a SHA-256 has 32 bytes, not {digest.shape[0]}")
        ref = map_ref_content(&digest[0])
        self.check(layer_writer_run(self.writer, block, 1, &ref))

    def add_zero(self, block, nr):
        """`nr` whole blocks from `block` on are zeros."""
        cdef map_ref ref = map_ref_zero()
        self.check(layer_writer_run(self.writer, block, nr, &ref))

    def add_extent(self, block, nr, uuid, epoch):
        """`nr` whole blocks from `block` on are in EXTENT(uuid, epoch)."""
        cdef uint8_t id[16]
        cdef map_ref ref
        put_id(id, uuid, "uuid of an extent")
        ref = map_ref_extent(id, epoch)
        self.check(layer_writer_run(self.writer, block, nr, &ref))

    def finish(self):
        """Write what is left and the superblock.

        Returns:
            The layer's length [bytes].  Nothing can be added after it.
        """
        cdef int64_t rc = layer_writer_finish(self.writer)
        self.check(rc)
        return rc


cdef int write_chunk(void *ctx, uint64_t offset, const void *data,
                     size_t length) noexcept with gil:
    cdef LayerWriter writer = <LayerWriter>ctx
    try:
        writer.write(offset, PyBytes_FromStringAndSize(<const char *>data, length))
        return 0
    except BaseException as error:
        writer.error = error
        return -EIO


# ---- merging ---------------------------------------------------------------------------


cdef int apply_mark(void *ctx, const journal_mark *mark) noexcept nogil:
    return map_table_apply(<map_table *>ctx, mark)


cdef class JournalTable:
    """A frozen journal, loaded whole."""

    cdef map_table table

    def __cinit__(self, entry, block_size, read):
        cdef journal_reader reader
        cdef int rc = 0
        cdef const char *data
        cdef size_t size
        map_table_init(&self.table, block_size)
        memset(&reader, 0, sizeof(reader))
        try:
            while rc == 0 and reader.fed_bytes < entry.length:
                chunk = bytes(
                    read(
                        entry,
                        reader.fed_bytes,
                        min(JOURNAL_CHUNK, entry.length - reader.fed_bytes),
                    )
                )
                if not chunk:
                    rc = -EBADMSG
                    break
                data = PyBytes_AS_STRING(chunk)
                size = len(chunk)
                with nogil:
                    rc = journal_reader_feed(
                        &reader, data, size, apply_mark, &self.table
                    )
            if rc == 0:
                rc = journal_reader_end(&reader)
            if rc == 0 and reader.valid_bytes != entry.length:
                rc = -EBADMSG
        finally:
            journal_reader_fini(&reader)
        if rc < 0:
            fail(rc, f"journal {entry.number} of {entry.id.hex()}")

    def __dealloc__(self):
        map_table_fini(&self.table)


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
