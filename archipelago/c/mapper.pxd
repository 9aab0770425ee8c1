# SPDX-License-Identifier: Apache-2.0
# The mapper's codecs of stored maps: what archipelago's extensions call of src/mapper.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "mapper/map_format.h" nogil:
    const uint32_t LAYER_PAGE_BYTES
    const uint32_t LAYER_MAX_HEIGHT
    const uint32_t LAYER_RUN
    const uint32_t MAP_ENTRY_OWNED
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
        uint64_t journal_least_bytes
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

    cdef struct journal_identity:
        uint8_t uuid[16]
        uint64_t number

    cdef struct journal_reader:
        uint64_t valid_bytes
        uint64_t nr_marks
        uint64_t fed_bytes
        bint torn

    size_t journal_record_bytes(uint32_t nr_marks)
    size_t journal_record_pack(void *out, const journal_identity *journal,
                               uint64_t position, uint64_t sequence, uint64_t fence,
                               const journal_mark *marks, uint32_t nr_marks)
    void journal_reader_init(journal_reader *r, const journal_identity *journal)
    int journal_reader_feed(journal_reader *r, const void *data, size_t length,
                            journal_mark_fn *fn, void *ctx)
    int journal_reader_end(journal_reader *r, uint64_t least)
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
