/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving and merging random stacks against a record per sector. */
#include <errno.h>

#include "check.h"
#include "mapper/bits.h"
#include "mapper/merge.h"
#include "tables.h"

#define DEPTH   12u
#define SECTORS (64u * 64u)

struct stack {
    uint32_t block_bytes, sectors, nr_blocks, depth;
    struct map_entry entries[DEPTH];
    struct blob blobs[DEPTH];
    struct table_source tables[DEPTH];
    struct map_source sources[DEPTH];
    struct says says[DEPTH][SECTORS];
};

static void stack_init(struct stack *s, uint64_t *seed)
{
    memset(s, 0, sizeof *s);
    s->block_bytes = XSEG_BLOCK_MIN_BYTES << below(seed, 7);
    s->sectors = s->block_bytes / XSEG_SECTOR_BYTES;
    s->nr_blocks = 1 + below(seed, SECTORS / s->sectors);
    s->depth = below(seed, DEPTH + 1);
    for (uint32_t i = 0; i < s->depth; i++) {
        struct map_entry *e = &s->entries[i];
        uint8_t uuid[16];
        memset(uuid, (int)i + 1, sizeof uuid);
        e->limit_bytes = MAP_NO_LIMIT;
        if (below(seed, 3) == 0)
            e->limit_bytes = below(seed, (uint64_t)s->nr_blocks * s->block_bytes);
        if (below(seed, 2)) {
            e->type = MAP_ENTRY_JOURNAL;
            memcpy(e->id, uuid, 16);
            memcpy(e->extent_uuid, uuid, 16);
            e->extent_epoch = i;
            random_journal(seed, uuid, i, s->nr_blocks * s->sectors, &s->blobs[i],
                           s->says[i]);
        } else {
            e->type = MAP_ENTRY_LAYER;
            random_layer(seed, uuid, s->block_bytes, s->nr_blocks, &s->blobs[i],
                         s->says[i]);
        }
        e->length_bytes = s->blobs[i].size;
        CHECK_EQ(table_source_init(&s->tables[i], e, &s->blobs[i], s->block_bytes,
                                   &s->sources[i]),
                 0);
    }
}

static void stack_fini(struct stack *s)
{
    for (uint32_t i = 0; i < s->depth; i++) {
        table_source_fini(&s->tables[i]);
        blob_fini(&s->blobs[i]);
    }
}

/** What sector `at` is over entries [first, first + nr). */
static struct says model(const struct stack *s, uint32_t first, uint32_t nr,
                         uint64_t at)
{
    for (uint32_t i = first; i < first + nr; i++)
        if (s->says[i][at].set && at * XSEG_SECTOR_BYTES < s->entries[i].limit_bytes)
            return s->says[i][at];
    return (struct says){.set = false};
}

/** What a resolved block says of sector `i`. */
static struct says block_says(const struct map_block *b, uint32_t i)
{
    struct says found = {.set = false};
    for (uint32_t p = 0; p < b->nr_pieces; p++)
        if (b->pieces[p].bits[i / 64] >> (i % 64) & 1) {
            CHECK(!found.set); /* pieces are disjoint */
            found = (struct says){.set = true, .ref = b->pieces[p].ref};
        }
    CHECK_EQ(found.set, b->seen[i / 64] >> (i % 64) & 1);
    return found;
}

static void check_same(const struct says *got, const struct says *want)
{
    CHECK_EQ(got->set, want->set);
    CHECK(!got->set || map_ref_equal(&got->ref, &want->ref));
}

static void check_block(const struct stack *s, uint64_t block, struct map_block *b)
{
    uint64_t end = b->end < s->nr_blocks ? b->end : s->nr_blocks;
    CHECK_EQ(b->block, block);
    CHECK(b->end > block);
    bool alike = b->nr_pieces == 0 || map_block_is_whole(b);
    CHECK(alike || b->end == block + 1);
    if (map_block_is_whole(b) && b->pieces[0].ref.kind == XSEG_REF_CONTENT)
        CHECK_EQ(b->end, block + 1);
    for (uint64_t k = block; k < end; k++)
        for (uint32_t i = 0; i < s->sectors; i++) {
            struct says got = block_says(b, i);
            struct says want = model(s, 0, s->depth, k * s->sectors + i);
            check_same(&got, &want);
        }
}

static void test_resolve(uint64_t *seed)
{
    static struct stack s;
    struct map_block b;
    stack_init(&s, seed);
    map_block_init(&b, s.block_bytes);
    for (uint64_t block = 0; block < s.nr_blocks; block = b.end) { /* as a merge does */
        CHECK_EQ(map_resolve(s.sources, s.depth, block, &b), 0);
        check_block(&s, block, &b);
    }
    for (int i = 0; i < 30; i++) { /* any order */
        uint64_t block = below(seed, s.nr_blocks);
        CHECK_EQ(map_resolve(s.sources, s.depth, block, &b), 0);
        check_block(&s, block, &b);
    }
    map_block_fini(&b);
    stack_fini(&s);
}

static void test_merge(uint64_t *seed)
{
    static struct stack s;
    stack_init(&s, seed);
    uint32_t first = below(seed, s.depth + 1), nr = below(seed, s.depth - first + 1);
    bool bottom = below(seed, 2);
    struct blob merged = {0};
    struct layer_writer *w;
    struct merge_statistics st = {0};
    uint8_t uuid[16] = {0xaa};
    CHECK_EQ(layer_writer_create(uuid, s.block_bytes, blob_write, &merged, &w), 0);
    CHECK_EQ(
        map_merge(s.sources + first, nr, s.block_bytes, UINT64_MAX, bottom, w, &st), 0);
    CHECK_EQ(layer_writer_finish(w), merged.size);
    layer_writer_destroy(w);
    struct map_entry entry = {.type = MAP_ENTRY_LAYER, .limit_bytes = MAP_NO_LIMIT};
    struct table_source t;
    struct map_source source;
    struct map_block b;
    CHECK_EQ(table_source_init(&t, &entry, &merged, s.block_bytes, &source), 0);
    CHECK_EQ(t.layer.content_sectors, st.content_sectors);
    CHECK_EQ(t.layer.extent_sectors, st.extent_sectors);
    map_block_init(&b, s.block_bytes);
    for (uint64_t block = 0; block < s.nr_blocks; block++) {
        CHECK_EQ(map_resolve(&source, 1, block, &b), 0);
        for (uint32_t i = 0; i < s.sectors; i++) {
            struct says got = block_says(&b, i);
            struct says want = model(&s, first, nr, block * s.sectors + i);
            if (bottom && (!got.set || got.ref.kind == XSEG_REF_ZERO))
                CHECK(!want.set || want.ref.kind == XSEG_REF_ZERO);
            else
                check_same(&got, &want);
        }
    }
    map_block_fini(&b);
    table_source_fini(&t);
    blob_fini(&merged);
    stack_fini(&s);
}

/** A page that is not there yet: the error comes through, and a second try succeeds. */
static int missing_page(void *ctx, uint32_t number, uint32_t level,
                        const struct layer_page **out)
{
    (void)ctx, (void)number, (void)level, (void)out;
    return -EAGAIN;
}

static void test_a_missing_page_is_asked_for(uint64_t *seed)
{
    static struct says says[100 * 16];
    const struct map_entry entry = {.type = MAP_ENTRY_LAYER,
                                    .limit_bytes = MAP_NO_LIMIT};
    struct blob blob = {0};
    struct table_source t;
    struct map_source source;
    struct map_block b;
    uint8_t uuid[16] = {5};
    do {
        blob_fini(&blob);
        random_layer(seed, uuid, XSEG_BLOCK_MIN_BYTES, 100, &blob, says);
    } while (blob.size == LAYER_PAGE_BYTES);
    CHECK_EQ(table_source_init(&t, &entry, &blob, XSEG_BLOCK_MIN_BYTES, &source), 0);
    map_block_init(&b, XSEG_BLOCK_MIN_BYTES);
    layer_get_fn *get = source.cursor.get;
    source.cursor.get = missing_page;
    CHECK_EQ(map_resolve(&source, 1, 0, &b), -EAGAIN);
    source.cursor.get = get;
    CHECK_EQ(map_resolve(&source, 1, 0, &b), 0);
    map_block_fini(&b);
    table_source_fini(&t);
    blob_fini(&blob);
}

int main(void)
{
    uint64_t seed = check_seed();
    for (int i = 0; i < 150; i++)
        test_resolve(&seed);
    for (int i = 0; i < 150; i++)
        test_merge(&seed);
    test_a_missing_page_is_asked_for(&seed);
    return 0;
}
