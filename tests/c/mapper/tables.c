/* SPDX-License-Identifier: Apache-2.0 */
/* Random layers and journals (see tables.h). */
#include "tables.h"

#include <errno.h>

#include "check.h"
#include "mapper/bits.h"

void blob_put(struct blob *blob, uint64_t offset, const void *data, size_t len)
{
    if (offset + len > blob->size) {
        blob->bytes = realloc(blob->bytes, offset + len);
        CHECK(blob->bytes);
        memset(blob->bytes + blob->size, 0, offset + len - blob->size);
        blob->size = offset + len;
    }
    memcpy(blob->bytes + offset, data, len);
}

void blob_fini(struct blob *blob)
{
    free(blob->bytes);
    memset(blob, 0, sizeof *blob);
}

int blob_write(void *ctx, uint64_t offset, const void *data, size_t len)
{
    CHECK(len <= LAYER_CHUNK_BYTES);
    blob_put(ctx, offset, data, len);
    return 0;
}

uint32_t below(uint64_t *random, uint64_t n)
{
    return (uint32_t)(check_next(random) % n);
}

static struct map_ref random_ref(uint64_t *random)
{
    uint8_t id[32];
    switch (below(random, 3)) {
    case 0:
        return map_ref_zero();
    case 1:
        for (int i = 0; i < 32; i++)
            id[i] = (uint8_t)check_next(random);
        return map_ref_content(id);
    default:
        memset(id, (int)(1 + below(random, 3)), sizeof id);
        return map_ref_extent(id, below(random, 300));
    }
}

/** Note what a record of the layer said, unless an earlier one did. */
static void say(struct says *says, uint64_t sector, const struct map_ref *ref)
{
    if (!says[sector].set)
        says[sector] = (struct says){.set = true, .ref = *ref};
}

static void random_part(uint64_t *random, struct layer_writer *w, uint32_t block,
                        uint32_t sectors, struct says *says)
{
    uint64_t bits[MAP_BLOCK_WORDS_MAX] = {0};
    struct map_ref ref = random_ref(random);
    uint32_t runs = 1 + below(random, below(random, 4) ? 3 : sectors);
    for (uint32_t i = 0; i < runs; i++)
        bits_set(bits, (sectors + 63) / 64, below(random, sectors), 1);
    CHECK_EQ(layer_writer_part(w, block, bits, &ref), 0);
    for (uint32_t s = 0; s < sectors; s++)
        if (bits[s / 64] >> (s % 64) & 1)
            say(says, (uint64_t)block * sectors + s, &ref);
}

void random_layer(uint64_t *random, const uint8_t uuid[16], uint32_t block_bytes,
                  uint32_t nr_blocks, struct blob *out, struct says *says)
{
    uint32_t sectors = block_bytes / XSEG_SECTOR_BYTES;
    struct layer_writer *w;
    memset(says, 0, (size_t)nr_blocks * sectors * sizeof *says);
    CHECK_EQ(layer_writer_create(uuid, block_bytes, blob_write, out, &w), 0);
    for (uint32_t block = 0; block < nr_blocks;) {
        if (below(random, 3) == 0) {
            block += 1 + below(random, 5);
            continue;
        }
        for (uint32_t parts = below(random, 4); parts > 0; parts--)
            random_part(random, w, block, sectors, says);
        uint32_t nr = 1;
        if (below(random, 2)) {
            struct map_ref ref = random_ref(random);
            if (ref.kind != XSEG_REF_CONTENT)
                nr = 1 + below(random, 4);
            if (nr > nr_blocks - block)
                nr = nr_blocks - block;
            CHECK_EQ(layer_writer_run(w, block, nr, &ref), 0);
            for (uint64_t s = 0; s < (uint64_t)nr * sectors; s++)
                say(says, (uint64_t)block * sectors + s, &ref);
        }
        block += nr;
    }
    CHECK_EQ(layer_writer_finish(w), out->size);
    layer_writer_destroy(w);
}

void random_journal(uint64_t *random, const uint8_t extent[16], uint64_t epoch,
                    uint32_t nr_sectors, struct blob *out, struct says *says)
{
    struct map_ref refs[] = {map_ref_zero(), map_ref_extent(extent, epoch)};
    struct journal_identity journal = journal_identity(extent, 0);
    uint32_t nr_records = 1 + below(random, 5);
    memset(says, 0, nr_sectors * sizeof *says);
    for (uint32_t i = 0; i < nr_records; i++) {
        struct journal_mark marks[20];
        uint8_t record[1024];
        uint32_t nr = 1 + below(random, 20);
        for (uint32_t k = 0; k < nr; k++) {
            uint32_t start = below(random, nr_sectors);
            uint32_t len = 1 + below(random, below(random, 2) ? 3 : 60);
            if (len > nr_sectors - start)
                len = nr_sectors - start;
            bool present = below(random, 3);
            marks[k] = (struct journal_mark){start, len,
                                             present ? JOURNAL_PRESENT : JOURNAL_ZERO};
            for (uint32_t s = start; s < start + len; s++)
                says[s] = (struct says){.set = true, .ref = refs[present]};
        }
        size_t len = journal_record_pack(record, &journal, out->size, i, 1, marks, nr);
        blob_put(out, out->size, record, len);
    }
}

static int apply(void *ctx, const struct journal_mark *mark)
{
    return map_table_apply(ctx, mark);
}

static int get_page(void *ctx, uint32_t number, uint32_t level,
                    const struct layer_page **out)
{
    struct table_source *t = ctx;
    t->nr_gets++;
    if ((uint64_t)(number + 1) * LAYER_PAGE_BYTES > t->blob->size)
        return -EBADMSG;
    memcpy(&t->pages[level], t->blob->bytes + (size_t)number * LAYER_PAGE_BYTES,
           LAYER_PAGE_BYTES);
    *out = &t->pages[level];
    return layer_page_check(&t->layer, *out, number);
}

static int init_journal(struct table_source *t, const struct map_entry *entry)
{
    struct journal_identity journal = journal_identity(entry->id, entry->number);
    struct journal_reader reader;
    int rc = 0;
    journal_reader_init(&reader, &journal);
    /* In uneven pieces: records straddle them. */
    for (size_t at = 0; rc == 0 && at < t->blob->size;) {
        size_t len = t->blob->size - at < 333 ? t->blob->size - at : 333;
        rc = journal_reader_feed(&reader, t->blob->bytes + at, len, apply, &t->table);
        at += len;
    }
    if (rc == 0)
        rc = journal_reader_end(&reader, entry->length_bytes);
    if (rc == 0 && reader.valid_bytes != entry->length_bytes)
        rc = -EBADMSG;
    journal_reader_fini(&reader);
    return rc;
}

static int init_layer(struct table_source *t)
{
    const char *why;
    int rc = t->blob->size < LAYER_PAGE_BYTES
                 ? -EBADMSG
                 : layer_init(&t->layer, t->blob->bytes, &why);
    uint32_t next;
    while (rc == 0 && (next = layer_next_extents_page(&t->layer))) {
        const struct layer_page *page;
        rc = get_page(t, next, 0, &page);
        if (rc == 0)
            rc = layer_add_extents(&t->layer, page);
    }
    return rc;
}

int table_source_init(struct table_source *t, const struct map_entry *entry,
                      struct blob *blob, uint32_t block_bytes, struct map_source *out)
{
    memset(t, 0, sizeof *t);
    memset(out, 0, sizeof *out);
    t->blob = blob;
    out->entry = entry;
    map_table_init(&t->table, block_bytes);
    if (entry->type == MAP_ENTRY_JOURNAL) {
        out->table = &t->table;
        return init_journal(t, entry);
    }
    out->cursor.layer = &t->layer;
    out->cursor.get = get_page;
    out->cursor.ctx = t;
    return init_layer(t);
}

void table_source_fini(struct table_source *t)
{
    map_table_fini(&t->table);
    layer_fini(&t->layer);
}
