/* SPDX-License-Identifier: Apache-2.0 */
/* Caches: tiny ones still answer, a thousand clones share, depth and size cost no
 * reads. */
#include <errno.h>

#include "check.h"
#include "rig.h"
#include "tables.h"

#define CLONES 1000u

static uint64_t reads(const struct rig *rig)
{
    return rig->fake.nr_ops[XSEG_OP_READ];
}

/** A layer that gives every `stride`-th of `nr` blocks to EXTENT(uuid, block), on top.
 */
static void push_layer(struct rig *rig, struct map_header *h, uint32_t id, uint64_t nr,
                       uint64_t stride)
{
    struct blob blob = {0};
    struct layer_writer *w;
    struct map_entry *e = header_push(h, MAP_ENTRY_LAYER);
    memset(e->id, 0x55, sizeof e->id);
    memcpy(e->id, &id, sizeof id);
    CHECK_EQ(layer_writer_create(e->id, h->block_bytes, blob_write, &blob, &w), 0);
    for (uint64_t b = 0; b < nr; b++) {
        struct map_ref ref = map_ref_extent(e->id, b % 1000);
        CHECK_EQ(layer_writer_run(w, b * stride, 1, &ref), 0);
    }
    CHECK_EQ(layer_writer_finish(w), blob.size);
    layer_writer_destroy(w);
    struct xseg_object name = fake_layer_name(e->id);
    fake_put(&rig->fake, &name, 0, blob.bytes, blob.size);
    e->length_bytes = blob.size;
    blob_fini(&blob);
}

/** A frozen journal of one mark, on top. */
static void push_journal(struct rig *rig, struct map_header *h, uint64_t number,
                         uint64_t sector)
{
    const struct journal_mark mark = {sector, 1, JOURNAL_PRESENT};
    uint8_t record[64];
    struct map_entry *e = header_push(h, MAP_ENTRY_JOURNAL);
    memset(e->id, 0x66, sizeof e->id);
    struct journal_identity journal = journal_identity(e->id, number);
    size_t len = journal_record_pack(record, &journal, 0, 0, 1, &mark, 1);
    memset(e->extent_uuid, 0x66, sizeof e->extent_uuid);
    e->extent_epoch = number;
    e->number = number;
    e->length_bytes = len;
    struct xseg_object name = fake_journal_name(e->id, number);
    fake_put(&rig->fake, &name, 0, record, len);
}

static void test_a_thousand_clones_share(void)
{
    struct rig rig;
    struct map_header h;
    static uint64_t handles[CLONES];
    rig_start(&rig, 1, NULL);
    rig.fake.in_order = true;
    header_init(&h, 1, UINT64_C(1) << 40);
    push_layer(&rig, &h, 1, 5000, 3);
    push_journal(&rig, &h, 4, 1600);
    uint64_t pages = h.entries[1].length_bytes / LAYER_PAGE_BYTES;
    for (uint32_t i = 0; i < CLONES; i++) {
        memcpy(h.uuid, &i, sizeof i);
        int64_t handle = rig_open(&rig, &h, 0);
        CHECK(handle > 0);
        handles[i] = (uint64_t)handle;
    }
    CHECK_EQ(reads(&rig),
             CLONES + 1); /* each its own journal, and the frozen one once */
    for (uint32_t i = 0; i < CLONES; i++) {
        struct xseg_run *runs;
        CHECK_EQ(rig_runs(&rig, handles[i], 0, 16 * 3, 10, &runs), 2);
        CHECK_EQ(runs[0].id[4], 0x55);
        free(runs);
        CHECK_EQ(rig_runs(&rig, handles[i], 1600, 1, 0, &runs), 1);
        CHECK_EQ(runs[0].id[4], 0x66);
        free(runs);
    }
    for (uint32_t i = 0; i < CLONES; i += 50) {
        struct xseg_run *runs;
        CHECK_EQ(rig_runs(&rig, handles[i], 0, 16 * 15000, 1000, &runs), 10001);
        free(runs);
    }
    CHECK(reads(&rig) <= CLONES + 1 + pages);
    uint64_t before = reads(&rig);
    for (uint32_t i = 0; i < CLONES; i++)
        CHECK_EQ(rig_close(&rig, handles[i]), 0);
    CHECK_EQ(reads(&rig), before);
    map_header_fini(&h);
    rig_end(&rig);
}

/** 16 TiB, a stack of 200: opening reads the journals; a block costs its own pages
 * once. */
static void test_depth_and_size_cost_no_reads(void)
{
    struct rig rig;
    struct map_header h;
    struct xseg_run *runs;
    uint32_t nr_layers = 100, nr_journals = 100;
    rig_start(&rig, 1, NULL);
    header_init(&h, 1, UINT64_C(16) << 40);
    for (uint32_t i = 0; i < nr_layers; i++) {
        push_layer(&rig, &h, i + 1, 3000, 997 + i);
        push_journal(&rig, &h, i + 1, 1000000 + i);
    }
    int64_t handle = rig_open(&rig, &h, 0);
    CHECK(handle > 0);
    CHECK_EQ(reads(&rig), nr_journals + 1);
    uint64_t before = reads(&rig), at = 16 * 123456789;
    CHECK_EQ(rig_runs(&rig, (uint64_t)handle, at, 16, 0, &runs), 1);
    free(runs);
    uint64_t cold = reads(&rig) - before;
    CHECK(cold <= nr_layers * (1 + 7 + 2)); /* superblock, its extents, a path */
    before = reads(&rig);
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(rig_runs(&rig, (uint64_t)handle, at, 16, 0, &runs), 1);
        free(runs);
    }
    CHECK_EQ(reads(&rig), before); /* what is resolved is known, whatever the depth */
    CHECK_EQ(rig_close(&rig, (uint64_t)handle), 0);
    map_header_fini(&h);
    rig_end(&rig);
}

/** Many reads at once through caches that hold next to nothing. */
static void test_tiny_caches_still_answer(uint64_t *seed)
{
    const struct mapper_options tiny = {
        .page_cache_bytes = 1, .view_cache_bytes = 1, .marks_fd = -1};
    struct rig rig;
    struct map_header h;
    rig_start(&rig, check_next(seed), &tiny);
    header_init(&h, 1, UINT64_C(1) << 40);
    for (uint32_t i = 0; i < 12; i++)
        push_layer(&rig, &h, i + 1, 4000, 2 + i);
    int64_t handle = rig_open(&rig, &h, 0);
    CHECK(handle > 0);
    for (int round = 0; round < 20; round++) {
        static struct call calls[64];
        for (int i = 0; i < 64; i++) {
            calls[i] = (struct call){.op = XSEG_OP_MAPR,
                                     .handle = (uint64_t)handle,
                                     .offset = below(seed, 50000) * UINT64_C(65536),
                                     .size = 65536};
            rig_submit(&rig, &calls[i]);
        }
        for (int i = 0; i < 64; i++) {
            CHECK_EQ(rig_wait(&rig, &calls[i]), 1);
            struct xseg_run run;
            memcpy(&run, calls[i].answer, sizeof run);
            uint64_t block = calls[i].offset / 65536;
            uint32_t want =
                0; /* the top-most layer that has it: the last pushed first */
            for (uint32_t l = 12; l > 0 && !want; l--)
                if (block % (1 + l) == 0 && block / (1 + l) < 4000)
                    want = l;
            CHECK_EQ(run.kind, want ? XSEG_REF_EXTENT : XSEG_REF_ZERO);
            CHECK_EQ(run.id[0], want);
        }
    }
    CHECK(rig_info(&rig, (uint64_t)handle).cached_blocks <= 1);
    CHECK_EQ(rig_close(&rig, (uint64_t)handle), 0);
    map_header_fini(&h);
    rig_end(&rig);
}

/** No buffer is free: what needs one waits, and goes on when there is one. */
static void test_an_empty_heap_is_waited_for(void)
{
    struct rig rig;
    struct map_header h;
    uint64_t held[4096], nr = 0, off;
    rig_start(&rig, 1, NULL);
    header_init(&h, 1, UINT64_C(1) << 40);
    push_layer(&rig, &h, 1, 4000, 1);
    int64_t handle = rig_open(&rig, &h, 0);
    CHECK(handle > 0);
    CHECK_EQ(rig_mark(&rig, (uint64_t)handle, 1, 1, 0, 1), 0);
    for (uint64_t size = XSEG_BUFFER_MAX_BYTES; size >= XSEG_BUFFER_MIN_BYTES;
         size /= 2)
        while (nr < 4096 && xseg_buffer_alloc(rig.seg, size, &off) > 0)
            held[nr++] = off;
    CHECK(nr < 4096);
    struct call read = {.op = XSEG_OP_MAPR,
                        .handle = (uint64_t)handle,
                        .offset = 1 << 20,
                        .size = 65536};
    struct call flush = {
        .op = XSEG_OP_FLUSH, .handle = (uint64_t)handle, .generation = 1};
    rig_submit(&rig, &read);
    rig_submit(&rig, &flush);
    rig_run(&rig, 30);
    CHECK(!read.done && !flush.done);
    while (nr > 0)
        CHECK_EQ(xseg_buffer_free(rig.seg, held[--nr]), 0);
    CHECK_EQ(rig_wait(&rig, &read), 1);
    CHECK_EQ(rig_wait(&rig, &flush), 0);
    map_header_fini(&h);
    rig_end(&rig);
}

int main(void)
{
    uint64_t seed = check_seed();
    test_a_thousand_clones_share();
    test_depth_and_size_cost_no_reads();
    test_tiny_caches_still_answer(&seed);
    test_an_empty_heap_is_waited_for();
    return 0;
}
