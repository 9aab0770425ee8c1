/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapper against a model: random marks, zeros, flushes, snapshots, checkpoints,
 * resizes, compactions and crashes, over a blockerm that is late, out of order, and at
 * times fails. The model knows each sector of each table.
 */
#include <errno.h>
#include <unistd.h>

#include "check.h"
#include "mapper/mark_log.h"
#include "mapper/merge.h"
#include "rig.h"
#include "tables.h"

#define BLOCKS_MAX  48u
#define SECTORS_MAX (BLOCKS_MAX * 16u)
#define DEPTH_MAX   24u

struct table {
    struct says says[SECTORS_MAX];
    struct blob blob; /* the object's bytes */
};

struct model {
    struct rig rig;
    uint64_t random;
    struct mapper_options options;
    struct map_header header;
    struct table *tables[DEPTH_MAX]; /* as header.entries */
    uint64_t handle;
    uint64_t generation;
    uint8_t top[SECTORS_MAX];     /* 0 or enum journal_mark_kind */
    uint8_t durable[SECTORS_MAX]; /* the same as of the last flush */
    uint32_t next_uuid;
};

static uint32_t sectors(const struct model *m)
{
    return (uint32_t)((m->header.size_bytes + XSEG_SECTOR_BYTES - 1) /
                      XSEG_SECTOR_BYTES);
}

/** What a sector should be. */
static struct says expected(const struct model *m, uint32_t s)
{
    if (m->top[s] == JOURNAL_PRESENT)
        return (struct says){.set = true,
                             .ref = map_ref_extent(m->header.uuid, m->header.epoch)};
    if (m->top[s] == JOURNAL_ZERO)
        return (struct says){.set = true, .ref = map_ref_zero()};
    for (uint32_t i = 0; i < m->header.nr_entries; i++) {
        uint64_t limit = m->header.entries[i].limit_bytes;
        if (m->tables[i]->says[s].set && (uint64_t)s * XSEG_SECTOR_BYTES < limit)
            return m->tables[i]->says[s];
    }
    return (struct says){.ref = map_ref_zero()};
}

static void check_run(const struct model *m, const struct xseg_run *run)
{
    struct map_ref own = map_ref_extent(m->header.uuid, m->header.epoch);
    for (uint64_t at = run->offset; at < run->offset + run->size;
         at += XSEG_SECTOR_BYTES) {
        struct says want = expected(m, (uint32_t)(at / XSEG_SECTOR_BYTES));
        uint64_t off = run->object_off + (at - run->offset);
        uint32_t flags = 0;
        CHECK_EQ(run->kind, want.ref.kind);
        CHECK(memcmp(run->id, want.ref.id, 32) == 0);
        if (want.ref.kind == XSEG_REF_ZERO) {
            CHECK_EQ(run->object_off, 0);
            flags = want.set ? 0 : XSEG_RUN_HOLE;
            if (want.vague)
                flags = run->flags & XSEG_RUN_HOLE;
        } else if (want.ref.kind == XSEG_REF_EXTENT) {
            CHECK_EQ(off, at);
            flags = map_ref_equal(&want.ref, &own) ? XSEG_RUN_OWNED : 0;
        } else {
            CHECK_EQ(off, at % m->header.block_bytes);
        }
        CHECK_EQ(run->flags, flags);
    }
}

static void verify(struct model *m)
{
    struct xseg_run *runs;
    uint32_t nr = sectors(m), first = below(&m->random, nr);
    uint32_t len =
        below(&m->random, 2) ? nr - first : 1 + below(&m->random, nr - first);
    uint32_t room = below(&m->random, 2) ? 0 : 1 + below(&m->random, 200);
    if (below(&m->random, 2)) {
        first = 0;
        len = nr;
    }
    int64_t got = rig_runs(&m->rig, m->handle, first, len, room, &runs);
    CHECK(got > 0);
    for (int64_t i = 0; i < got; i++)
        check_run(m, &runs[i]);
    free(runs);
}

/** Neighbours in one answer are merged: asked at once with room enough, no two are
 * alike. */
static void verify_merged(struct model *m)
{
    struct call call = {.op = XSEG_OP_MAPR,
                        .handle = m->handle,
                        .size = (uint64_t)sectors(m) * XSEG_SECTOR_BYTES,
                        .room = SECTORS_MAX * sizeof(struct xseg_run)};
    int64_t nr = rig_call(&m->rig, &call);
    const struct xseg_run *runs = call.bytes;
    CHECK(nr > 0);
    for (int64_t i = 1; i < nr; i++)
        CHECK(runs[i].kind != runs[i - 1].kind || runs[i].flags != runs[i - 1].flags ||
              memcmp(runs[i].id, runs[i - 1].id, 32) != 0 ||
              runs[i].kind == XSEG_REF_CONTENT);
    call_fini(&call);
}

/* ---- marks and flushes ---- */

static void model_mark(struct model *m, uint32_t first, uint32_t nr, bool zero)
{
    struct map_ref own = map_ref_extent(m->header.uuid, m->header.epoch);
    for (uint32_t s = first; s < first + nr; s++) {
        struct map_ref ref = expected(m, s).ref;
        if (zero && ref.kind != XSEG_REF_ZERO)
            m->top[s] = JOURNAL_ZERO;
        else if (!zero && !map_ref_equal(&ref, &own))
            m->top[s] = JOURNAL_PRESENT;
    }
}

/** Some marks at once, of ranges that do not overlap. */
static void mark(struct model *m)
{
    struct call calls[8] = {0};
    uint32_t nr_calls = 1 + below(&m->random, 8), first = 0, nr = sectors(m);
    uint32_t used = 0;
    for (uint32_t i = 0; i < nr_calls && first < nr; i++) {
        first += below(&m->random, nr / 4 + 1);
        if (first >= nr)
            break;
        uint32_t len = 1 + below(&m->random, below(&m->random, 3) ? 8 : 100);
        bool zero = below(&m->random, 3) == 0;
        if (len > nr - first)
            len = nr - first;
        calls[i] = (struct call){.op = XSEG_OP_MAPW,
                                 .flags = zero ? XSEG_F_ZERO : 0,
                                 .handle = m->handle,
                                 .offset = (uint64_t)first * XSEG_SECTOR_BYTES,
                                 .size = (uint64_t)len * XSEG_SECTOR_BYTES,
                                 .generation = m->generation};
        model_mark(m, first, len, zero);
        rig_submit(&m->rig, &calls[i]);
        used++;
        first += len;
    }
    for (uint32_t i = 0; i < used; i++)
        CHECK_EQ(rig_wait(&m->rig, &calls[i]), 0);
}

static void flush(struct model *m)
{
    struct call call = {
        .op = XSEG_OP_FLUSH, .handle = m->handle, .generation = m->generation++};
    uint8_t before[SECTORS_MAX];
    memcpy(before, m->top, sizeof before);
    rig_submit(&m->rig, &call);
    while (below(&m->random, 3) == 0) /* marks of the next generation meanwhile */
        mark(m);
    CHECK_EQ(rig_wait(&m->rig, &call), 0);
    memcpy(m->durable, before, sizeof before);
}

static void flush_all(struct model *m)
{
    CHECK_EQ(rig_flush(&m->rig, m->handle, m->generation++), 0);
    memcpy(m->durable, m->top, sizeof m->top);
}

/** An append that fails, in one of the ways there are; the next flush mends it. */
static void flush_with_fault(struct model *m)
{
    static const int results[] = {-ENOSPC, -EIO, -EOWNERDEAD, -EPIPE};
    struct fake_fault *fault = &m->rig.fake.fault;
    bool away = below(&m->random, 2);
    *fault = (struct fake_fault){
        .armed = true,
        .op = XSEG_OP_APPEND,
        .result = results[away ? 2 + below(&m->random, 2) : below(&m->random, 2)]};
    if (away && below(&m->random, 2))
        fault->apply = UINT64_MAX; /* it was appended, only the answer is lost */
    int64_t rc = rig_flush(&m->rig, m->handle, m->generation++);
    if (fault->armed) {
        CHECK_EQ(rc, 0); /* there was nothing to append */
        fault->armed = false;
    } else if (away) {
        CHECK_EQ(rc, 0); /* blockerm's death is not the writer's business */
    } else {
        CHECK_EQ(rc, fault->result);
    }
    flush_all(m);
}

/* ---- changes ---- */

static struct table *table_new(void)
{
    struct table *t = calloc(1, sizeof *t);
    CHECK(t);
    return t;
}

static void table_free(struct table *t)
{
    blob_fini(&t->blob);
    free(t);
}

/** Put a table on top of the stack, for the entry that header_push just made. */
static void push_table(struct model *m, struct table *t)
{
    CHECK(m->header.nr_entries <= DEPTH_MAX);
    memmove(m->tables + 1, m->tables, (m->header.nr_entries - 1) * sizeof m->tables[0]);
    m->tables[0] = t;
}

static void fresh_uuid(struct model *m, uint8_t uuid[16])
{
    memset(uuid, 0xee, 16);
    memcpy(uuid, &m->next_uuid, 4);
    m->next_uuid++;
}

static void update(struct model *m)
{
    m->header.version++;
    CHECK_EQ(rig_update(&m->rig, m->handle, &m->header), 0);
}

/** Freeze the journal: a new epoch, or a checkpoint (then `m->top` stays as unflushed).
 */
static void freeze(struct model *m, bool new_epoch)
{
    struct xseg_journal_info info;
    struct xseg_object name = fake_journal_name(m->header.uuid, m->header.journal);
    if (m->header.nr_entries + 1 >= DEPTH_MAX)
        return;
    if (new_epoch)
        flush_all(m);
    CHECK_EQ(rig_hold(&m->rig, m->handle, &info), 0);
    CHECK_EQ(info.number, m->header.journal);
    struct fake_object *o = fake_find(&m->rig.fake, &name);
    CHECK_EQ(info.length_bytes, o ? o->size : 0);
    struct map_ref own = map_ref_extent(m->header.uuid, m->header.epoch);
    if (info.length_bytes) {
        struct map_entry *e = header_push(&m->header, MAP_ENTRY_JOURNAL);
        struct table *t = table_new();
        e->flags = MAP_ENTRY_OWNED;
        memcpy(e->id, m->header.uuid, 16);
        memcpy(e->extent_uuid, m->header.uuid, 16);
        e->number = info.number;
        e->length_bytes = info.length_bytes;
        e->extent_epoch = m->header.epoch;
        blob_put(&t->blob, 0, o->bytes, o->size);
        for (uint32_t s = 0; s < SECTORS_MAX; s++) {
            if (m->durable[s])
                t->says[s] = (struct says){
                    .set = true,
                    .ref = m->durable[s] == JOURNAL_PRESENT ? own : map_ref_zero()};
            if (m->top[s] == m->durable[s])
                m->top[s] = 0;
            m->durable[s] = 0;
        }
        push_table(m, t);
    }
    m->header.journal++;
    m->header.epoch += new_epoch;
    update(m);
}

static void grow(struct model *m)
{
    uint64_t max = (uint64_t)SECTORS_MAX * XSEG_SECTOR_BYTES;
    m->header.size_bytes += below(&m->random, max - m->header.size_bytes + 1);
    update(m);
}

static void shrink(struct model *m)
{
    uint32_t before = m->header.nr_entries;
    uint64_t size = 1 + below(&m->random, m->header.size_bytes);
    if (before + 1 >= DEPTH_MAX)
        return;
    freeze(m, true);
    if (size >= m->header.size_bytes)
        return;
    for (uint32_t i = 0; i < m->header.nr_entries; i++)
        if (m->header.entries[i].limit_bytes > size)
            m->header.entries[i].limit_bytes = size;
    m->header.size_bytes = size;
    m->header.epoch++;
    m->header.journal++;
    update(m);
}

/** Merge some neighbours of the stack into a layer. */
static void compact(struct model *m)
{
    uint32_t nr = m->header.nr_entries;
    if (nr < 2)
        return;
    uint32_t first = below(&m->random, nr - 1),
             count = 2 + below(&m->random, nr - first - 1);
    struct table_source *sources = calloc(count, sizeof *sources);
    struct map_source *in = calloc(count, sizeof *in);
    struct table *t = table_new();
    struct layer_writer *w;
    struct merge_statistics st = {0};
    uint8_t uuid[16];
    bool bottom = first + count == nr;
    fresh_uuid(m, uuid);
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(table_source_init(&sources[i], &m->header.entries[first + i],
                                   &m->tables[first + i]->blob, m->header.block_bytes,
                                   &in[i]),
                 0);
    CHECK_EQ(layer_writer_create(uuid, m->header.block_bytes, blob_write, &t->blob, &w),
             0);
    CHECK_EQ(map_merge(in, count, m->header.block_bytes, UINT64_MAX, bottom, w, &st),
             0);
    CHECK_EQ(layer_writer_finish(w), t->blob.size);
    layer_writer_destroy(w);
    for (uint32_t s = 0; s < SECTORS_MAX; s++) {
        for (uint32_t i = 0; i < count && !t->says[s].set; i++)
            if ((uint64_t)s * XSEG_SECTOR_BYTES <
                m->header.entries[first + i].limit_bytes)
                t->says[s] = m->tables[first + i]->says[s];
        if (bottom && t->says[s].ref.kind == XSEG_REF_ZERO)
            t->says[s].vague = true;
    }
    for (uint32_t i = 0; i < count; i++) {
        table_source_fini(&sources[i]);
        if (i)
            table_free(m->tables[first + i]);
    }
    table_free(m->tables[first]);
    free(sources);
    free(in);
    m->tables[first] = t;
    struct map_entry *e = &m->header.entries[first];
    *e = (struct map_entry){.type = MAP_ENTRY_LAYER,
                            .length_bytes = t->blob.size,
                            .limit_bytes = MAP_NO_LIMIT};
    memcpy(e->id, uuid, 16);
    uint32_t tail = nr - first - count;
    memmove(e + 1, e + count, tail * sizeof *e);
    memmove(m->tables + first + 1, m->tables + first + count,
            tail * sizeof m->tables[0]);
    m->header.nr_entries = nr - count + 1;
    struct xseg_object name = fake_layer_name(uuid);
    fake_put(&m->rig.fake, &name, 0, t->blob.bytes, t->blob.size);
    update(m);
}

static void reopen(struct model *m)
{
    bool lost = true; /* what is not flushed */
    switch (below(&m->random, 4)) {
    case 0: /* a power cut, or another holder since */
        rig_kill_mapper(&m->rig, &m->options);
        break;
    case 1: /* the mapper died */
        rig_kill_mapper(&m->rig, &m->options);
        lost = false;
        break;
    case 2:
        rig_restart_mapper(&m->rig, &m->options);
        lost = false;
        break;
    default:
        flush_all(m);
        CHECK_EQ(rig_close(&m->rig, m->handle), 0);
        CHECK_EQ(rig_close(&m->rig, m->handle), -ESTALE);
    }
    if (lost) {
        memcpy(m->top, m->durable, sizeof m->top);
        m->header.fence++;
    }
    int64_t handle = rig_open(&m->rig, &m->header, 0);
    CHECK(handle > 0);
    m->handle = (uint64_t)handle;
    m->generation = 1;
}

static void start(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->random = seed;
    m->next_uuid = 1;
    m->generation = 1;
    m->options.page_cache_bytes = below(&m->random, 2) ? 1 : 0;
    m->options.view_cache_bytes =
        below(&m->random, 2) ? 1 + below(&m->random, 3000) : 0;
    m->options.marks_fd = rig_memfd(MARK_LOG_BYTES_MIN);
    rig_start(&m->rig, check_next(&m->random), &m->options);
    header_init(&m->header, 7,
                XSEG_SECTOR_BYTES * (uint64_t)(1 + below(&m->random, SECTORS_MAX)));
    for (uint32_t i = below(&m->random, 4); i > 0; i--) {
        struct map_entry *e = header_push(&m->header, MAP_ENTRY_LAYER);
        struct table *t = table_new();
        fresh_uuid(m, e->id);
        random_layer(&m->random, e->id, m->header.block_bytes, BLOCKS_MAX, &t->blob,
                     t->says);
        e->length_bytes = t->blob.size;
        if (below(&m->random, 2))
            e->limit_bytes =
                below(&m->random, (uint64_t)SECTORS_MAX * XSEG_SECTOR_BYTES);
        struct xseg_object name = fake_layer_name(e->id);
        fake_put(&m->rig.fake, &name, 0, t->blob.bytes, t->blob.size);
        push_table(m, t);
    }
    int64_t handle = rig_open(&m->rig, &m->header, 0);
    CHECK(handle > 0);
    m->handle = (uint64_t)handle;
}

static void end(struct model *m)
{
    for (uint32_t i = 0; i < m->header.nr_entries; i++)
        table_free(m->tables[i]);
    map_header_fini(&m->header);
    rig_end(&m->rig);
    close(m->options.marks_fd);
}

static void step(struct model *m)
{
    switch (below(&m->random, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
        mark(m);
        break;
    case 4:
        flush(m);
        break;
    case 5:
        flush_with_fault(m);
        break;
    case 6:
        freeze(m, true);
        break;
    case 7:
        freeze(m, false);
        break;
    case 8:
        grow(m);
        break;
    case 9:
        shrink(m);
        break;
    case 10:
        compact(m);
        break;
    case 11:
        reopen(m);
        break;
    default:
        verify(m);
        verify_merged(m);
        break;
    }
}

int main(void)
{
    uint64_t seed = check_seed();
    for (uint32_t round = 0; round < 60; round++) {
        static struct model m;
        start(&m, check_next(&seed));
        for (uint32_t i = 0; i < 120; i++)
            step(&m);
        end(&m);
    }
    return 0;
}
