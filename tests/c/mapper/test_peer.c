/* SPDX-License-Identifier: Apache-2.0 */
/* The mapper peer, one promise at a time: flushes, fences, torn journals, updates,
 * deaths. */
#include <errno.h>

#include "check.h"
#include "mapper/journal.h"
#include "rig.h"
#include "tables.h"

#define MIB (UINT64_C(1) << 20)

static struct rig rig;
static struct map_header header;

static uint64_t open_map(uint32_t flags)
{
    int64_t handle = rig_open(&rig, &header, flags);
    CHECK(handle > 0);
    return (uint64_t)handle;
}

/** A volume of 64 MiB without a stack. */
static void begin(void)
{
    rig_start(&rig, 1, NULL);
    header_init(&header, 7, 64 * MIB);
}

static void end(void)
{
    map_header_fini(&header);
    rig_end(&rig);
}

static struct fake_object *journal(void)
{
    struct xseg_object name = fake_journal_name(header.uuid, header.journal);
    return fake_find(&rig.fake, &name);
}

/** Move the journal onto the stack of the header. */
static void freeze_header(const struct xseg_journal_info *info, bool new_epoch)
{
    if (info->length_bytes) {
        struct map_entry *e = header_push(&header, MAP_ENTRY_JOURNAL);
        memcpy(e->id, header.uuid, 16);
        memcpy(e->extent_uuid, header.uuid, 16);
        e->number = info->number;
        e->length_bytes = info->length_bytes;
        e->extent_epoch = header.epoch;
    }
    header.version++;
    header.journal++;
    header.epoch += new_epoch;
}

/** The one run that covers [sector, sector + nr). */
static struct xseg_run only_run(uint64_t handle, uint64_t sector, uint64_t nr)
{
    struct xseg_run *runs, run;
    CHECK_EQ(rig_runs(&rig, handle, sector, nr, 0, &runs), 1);
    run = runs[0];
    free(runs);
    return run;
}

static uint64_t appends(void)
{
    return rig.fake.nr_ops[XSEG_OP_APPEND];
}

/* ---- callers' mistakes ---- */

static int64_t mapr(uint64_t handle, uint64_t offset, uint64_t size)
{
    struct call call = {
        .op = XSEG_OP_MAPR, .handle = handle, .offset = offset, .size = size};
    return rig_call(&rig, &call);
}

static void test_mistakes_are_refused(void)
{
    begin();
    struct call call = {.op = XSEG_NR_OPS + 5};
    CHECK_EQ(rig_call(&rig, &call), -EINVAL);
    call = (struct call){.op = XSEG_OP_COPY};
    CHECK_EQ(rig_call(&rig, &call), -EOPNOTSUPP);
    call = (struct call){.op = XSEG_OP_PING};
    CHECK_EQ(rig_call(&rig, &call), 0);
    call = (struct call){.op = XSEG_OP_OPEN};
    CHECK_EQ(rig_call(&rig, &call), -EINVAL);
    uint8_t junk[200] = {1};
    call = (struct call){.op = XSEG_OP_OPEN, .data = junk, .size = sizeof junk};
    CHECK_EQ(rig_call(&rig, &call), -EBADMSG);
    call_fini(&call);
    uint64_t h = open_map(0);
    CHECK_EQ(mapr(h, 0, 0), -EINVAL);
    CHECK_EQ(mapr(h, 1, 4096), -EINVAL);
    CHECK_EQ(mapr(h, 0, 100), -EINVAL);
    CHECK_EQ(mapr(h, 0, 64 * MIB + 4096), -EINVAL);
    CHECK_EQ(mapr(h, 64 * MIB, 4096), -EINVAL);
    CHECK_EQ(mapr(h, UINT64_MAX - 4095, 8192), -EINVAL);
    CHECK_EQ(mapr(h, 0, 64 * MIB), 1);
    CHECK_EQ(mapr(h + 1, 0, 4096), -ESTALE);
    CHECK_EQ(mapr(h ^ UINT64_C(1) << 40, 0, 4096), -ESTALE);
    CHECK_EQ(mapr(0, 0, 4096), -ESTALE);
    CHECK_EQ(rig_mark(&rig, h, 64 * MIB / 4096, 1, 0, 1), -EINVAL);
    CHECK_EQ(rig_close(&rig, h), 0);
    CHECK_EQ(rig_close(&rig, h), -ESTALE);
    CHECK_EQ(mapr(h, 0, 4096), -ESTALE);
    end();
}

static void caught(void *arg, struct xseg_request *rq)
{
    int64_t *result = arg;
    *result = rq->result;
    xseg_request_free(rig.client, rq);
}

static void test_an_answer_goes_only_where_it_may(void)
{
    static const uint64_t offsets[] = {1, 4096, UINT64_C(1) << 60, UINT64_MAX - 64};
    begin();
    uint64_t h = open_map(0);
    for (size_t i = 0; i < 4; i++) {
        struct xseg_request *rq;
        int64_t result = 1;
        CHECK_EQ(xseg_request_alloc(rig.client, &rq), 0);
        rq->op = XSEG_OP_MAPR;
        rq->handle = h;
        rq->size = 4096;
        rq->data_off = offsets[i]; /* not in the heap */
        rq->data_len = 640;
        reactor_submit(rig.reactor, rig.client, rq, XSEG_PORT_MAPPERD, caught, &result);
        rig_run(&rig, 20);
        CHECK_EQ(result, -EINVAL);
    }
    end();
}

static void test_a_read_only_map_takes_no_marks(void)
{
    begin();
    uint64_t w = open_map(0);
    CHECK_EQ(rig_mark(&rig, w, 5, 3, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, w, 1), 0);
    uint64_t r = open_map(XSEG_F_RDONLY);
    CHECK_EQ(only_run(r, 5, 3).kind, XSEG_REF_EXTENT); /* it sees the journal */
    CHECK_EQ(only_run(r, 5, 3).flags, 0);
    CHECK_EQ(only_run(w, 5, 3).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_mark(&rig, r, 5, 3, 0, 1), -EROFS);
    CHECK_EQ(rig_mark(&rig, r, 5, 3, XSEG_F_ZERO, 1), -EROFS);
    CHECK_EQ(rig_flush(&rig, r, 1), 0);
    header.flags = XSEG_VOL_READONLY;
    uint64_t s = open_map(0);
    CHECK_EQ(rig_mark(&rig, s, 5, 3, 0, 1), -EROFS);
    CHECK_EQ(only_run(s, 5, 3).flags, XSEG_RUN_HOLE); /* a snapshot has no journal */
    end();
}

/* ---- flushes ---- */

static void test_a_flush_takes_its_generation_and_older(void)
{
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_flush(&rig, h, 9), 0);
    CHECK_EQ(appends(), 0); /* nothing to say */
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_mark(&rig, h, 1, 1, 0, 1), 0); /* joins its neighbour */
    CHECK_EQ(rig_mark(&rig, h, 100, 1, 0, 2), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 2);
    CHECK_EQ(rig_flush(&rig, h, 0), 0);
    CHECK_EQ(appends(), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(appends(), 1);
    CHECK_EQ(journal()->size, journal_record_bytes(1));
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 1);
    CHECK_EQ(rig_info(&rig, h).journal.nr_marks, 1);
    CHECK_EQ(rig_info(&rig, h).present_sectors, 3);
    CHECK_EQ(rig_mark(&rig, h, 0, 2, 0, 2), 0); /* journaled already */
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 1);
    CHECK_EQ(rig_flush(&rig, h, UINT64_MAX), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
    CHECK_EQ(rig_info(&rig, h).journal.length_bytes, journal()->size);
    end();
}

/** A mark of an older generation is not taken for one that waits for a later flush. */
static void test_an_older_generation_is_marked_again(void)
{
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 4, 0, 2), 0);
    CHECK_EQ(rig_mark(&rig, h, 0, 4, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(appends(), 1);
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 4).kind, XSEG_REF_EXTENT);
    end();
}

static void test_flushes_share_an_append(void)
{
    struct call calls[6];
    begin();
    uint64_t h = open_map(0);
    rig.fake.paused = true;
    for (uint64_t i = 0; i < 6; i++) {
        CHECK_EQ(rig_mark(&rig, h, i * 10, 1, 0, i), 0);
        calls[i] = (struct call){.op = XSEG_OP_FLUSH, .handle = h, .generation = i};
        rig_submit(&rig, &calls[i]);
        rig_run(&rig, 5);
        CHECK(!calls[i].done);
    }
    fake_blocker_resume(&rig.fake);
    for (int i = 0; i < 6; i++)
        CHECK_EQ(rig_wait(&rig, &calls[i]), 0);
    CHECK_EQ(appends(), 2); /* the first, and all that came meanwhile */
    end();
}

static void test_many_marks_take_several_records(void)
{
    begin();
    header.size_bytes = UINT64_C(4) << 40;
    uint64_t h = open_map(0);
    uint64_t nr = JOURNAL_RECORD_MAX_MARKS * 2 + 1000;
    struct call calls[64];
    for (uint64_t i = 0; i < nr;) {
        uint32_t n = 0;
        for (; n < 64 && i < nr; n++, i++) {
            calls[n] = (struct call){.op = XSEG_OP_MAPW,
                                     .handle = h,
                                     .offset = i * 3 * 4096,
                                     .size = 4096,
                                     .generation = i % 2};
            rig_submit(&rig, &calls[n]);
        }
        while (n-- > 0)
            CHECK_EQ(rig_wait(&rig, &calls[n]), 0);
    }
    CHECK_EQ(rig_info(&rig, h).dirty_marks, nr);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(appends(), 3);
    CHECK_EQ(rig_info(&rig, h).journal.nr_marks, nr);
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(rig_info(&rig, h).present_sectors, nr);
    CHECK_EQ(rig_info(&rig, h).journal.nr_marks, nr);
    for (uint64_t i = 0; i < nr; i += 997)
        CHECK_EQ(only_run(h, i * 3, 1).flags, XSEG_RUN_OWNED);
    end();
}

static void test_the_last_mark_of_a_sector_counts(void)
{
    begin();
    uint64_t h = open_map(0);
    for (uint64_t i = 0; i < 50; i++) {
        CHECK_EQ(rig_mark(&rig, h, 10, 20, 0, 1), 0);
        CHECK_EQ(rig_mark(&rig, h, i, 1, XSEG_F_ZERO, 1), 0);
    }
    CHECK_EQ(rig_mark(&rig, h, 12, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    struct xseg_run *before, *after;
    int64_t nr = rig_runs(&rig, h, 0, 64, 0, &before);
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(rig_runs(&rig, h, 0, 64, 0, &after), nr);
    CHECK(memcmp(before, after, (size_t)nr * sizeof *before) == 0);
    free(before);
    free(after);
    end();
}

/* ---- zeros ---- */

static void test_zeros_are_marked_only_over_data(void)
{
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 64 * MIB / 4096, XSEG_F_ZERO, 1), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 0); /* holes are zeros */
    CHECK_EQ(rig_mark(&rig, h, 100, 10, 0, 1), 0);
    CHECK_EQ(rig_mark(&rig, h, 0, 64 * MIB / 4096, XSEG_F_ZERO, 1), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 2);
    CHECK_EQ(only_run(h, 100, 10).kind, XSEG_REF_ZERO);
    CHECK_EQ(only_run(h, 100, 10).flags, 0);
    CHECK_EQ(only_run(h, 0, 50).flags, XSEG_RUN_HOLE);
    end();
}

/** A layer of one EXTENT run over the first `nr` blocks, on top of the stack. */
static void push_layer(uint8_t uuid, uint64_t first, uint64_t nr)
{
    struct blob blob = {0};
    struct layer_writer *w;
    struct map_entry *e = header_push(&header, MAP_ENTRY_LAYER);
    memset(e->id, uuid, sizeof e->id);
    struct map_ref ref = map_ref_extent(e->id, 1);
    CHECK_EQ(layer_writer_create(e->id, header.block_bytes, blob_write, &blob, &w), 0);
    for (uint64_t b = first; b < first + nr; b += 2) /* a record for each */
        CHECK_EQ(layer_writer_run(w, b, 1, &ref), 0);
    CHECK_EQ(layer_writer_finish(w), blob.size);
    layer_writer_destroy(w);
    struct xseg_object name = fake_layer_name(e->id);
    fake_put(&rig.fake, &name, 0, blob.bytes, blob.size);
    e->length_bytes = blob.size;
    blob_fini(&blob);
}

static void test_plain_marks_read_nothing(void)
{
    begin();
    header.size_bytes = 1024 * MIB; /* more blocks than one turn of the loop takes */
    push_layer(1, 0, 16000);
    uint64_t h = open_map(0);
    uint64_t reads = rig.fake.nr_ops[XSEG_OP_READ];
    CHECK_EQ(reads, 1); /* the current journal */
    for (uint64_t i = 0; i < 1000; i++)
        CHECK_EQ(rig_mark(&rig, h, i * 16, 3, 0, 1), 0);
    CHECK_EQ(rig.fake.nr_ops[XSEG_OP_READ], reads);
    CHECK_EQ(rig_mark(&rig, h, 0, 16000 * 16, XSEG_F_ZERO, 1), 0);
    CHECK(rig.fake.nr_ops[XSEG_OP_READ] > reads); /* zeros ask what lies below */
    struct xseg_run *runs;
    int64_t nr = rig_runs(&rig, h, 0, 16000 * 16, 1000, &runs);
    for (int64_t i = 0; i < nr; i++)
        CHECK_EQ(runs[i].kind, XSEG_REF_ZERO);
    free(runs);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    end();
}

/* ---- fences and failures ---- */

static void test_a_newer_fence_ends_all_writing(void)
{
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig.fake.fence = 99;
    CHECK_EQ(rig_flush(&rig, h, 1), -ESTALE);
    rig.fake.fence = 0;
    CHECK_EQ(rig_mark(&rig, h, 1, 1, 0, 2), -ESTALE);
    CHECK_EQ(rig_flush(&rig, h, 2), -ESTALE);
    CHECK(journal() == NULL);
    CHECK_EQ(only_run(h, 0, 1).kind, XSEG_REF_EXTENT); /* reads go on */
    end();
}

static void test_a_full_store_keeps_the_marks(void)
{
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    for (int i = 0; i < 3; i++) {
        rig.fake.fault =
            (struct fake_fault){.armed = true, .op = XSEG_OP_APPEND, .result = -ENOSPC};
        CHECK_EQ(rig_flush(&rig, h, 1), -ENOSPC);
        CHECK_EQ(rig_mark(&rig, h, 10 + (uint64_t)i * 2, 1, 0, 2), 0);
    }
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 4);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 3);
    CHECK_EQ(rig_flush(&rig, h, 2), 0);
    CHECK_EQ(rig_info(&rig, h).journal.length_bytes, journal()->size);
    end();
}

/** An append leaves half a record behind: only a new journal can go on. */
static void test_a_record_torn_while_running(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_mark(&rig, h, 2, 1, 0, 2), 0);
    rig.fake.fault = (struct fake_fault){
        .armed = true, .op = XSEG_OP_APPEND, .result = -EIO, .apply = 20};
    CHECK_EQ(rig_flush(&rig, h, 2), -EIO);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 0); /* not asked yet */
    CHECK_EQ(rig_flush(&rig, h, 2), -EIO);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 1);
    CHECK_EQ(rig_flush(&rig, h, 2), -EAGAIN);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    CHECK_EQ(info.length_bytes, journal_record_bytes(1));
    CHECK_EQ(info.nr_marks, 1);
    freeze_header(&info, false);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 0);
    CHECK_EQ(rig_flush(&rig, h, 2), 0);
    CHECK_EQ(journal()->size, journal_record_bytes(1));
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(only_run(h, 2, 1).flags, XSEG_RUN_OWNED);
    end();
}

static void test_a_torn_journal_at_open(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    size_t valid = journal()->size;
    fake_put(&rig.fake, &journal()->name, valid, "torn", 4);
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 1);
    CHECK_EQ(rig_info(&rig, h).journal.length_bytes, valid);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_flush(&rig, h, 1), 0); /* nothing to append */
    CHECK_EQ(rig_mark(&rig, h, 4, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), -EAGAIN);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    CHECK_EQ(info.length_bytes, valid);
    freeze_header(&info, false);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 0);
    end();
}

static void test_damage_is_never_data(void)
{
    struct xseg_run *runs;
    begin();
    uint64_t h = open_map(0);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(rig_mark(&rig, h, i * 2, 1, 0, i), 0);
        CHECK_EQ(rig_flush(&rig, h, i), 0);
    }
    struct fake_object *o = journal();
    o->bytes[50] ^= 1; /* in the first of three records */
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    o->bytes[50] ^= 1;
    struct xseg_journal_info info = {.number = 1, .length_bytes = o->size};
    CHECK_EQ(rig_close(&rig, h), 0);
    freeze_header(&info, true);
    CHECK_EQ(rig_close(&rig, open_map(0)), 0);
    o->bytes[o->size - 1] ^= 1; /* frozen: the last record must be whole too */
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    o->bytes[o->size - 1] ^= 1;
    header.entries[0].length_bytes -= 16; /* inside a record */
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    header.entries[0].length_bytes += 1000; /* longer than it is */
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    header.entries[0].number = 55; /* not there */
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    header.nr_entries = 0;
    push_layer(3, 0, 2000); /* in several leaves */
    h = open_map(0);
    struct xseg_object name = fake_layer_name(header.entries[0].id);
    o = fake_find(&rig.fake, &name);
    o->bytes[LAYER_PAGE_BYTES + 100] ^= 1;
    CHECK_EQ(rig_runs(&rig, h, 0, 16, 0, &runs), -EBADMSG);
    CHECK_EQ(rig_mark(&rig, h, 0, 16, XSEG_F_ZERO, 1), -EBADMSG);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
    CHECK_EQ(only_run(h, 16 * 900, 16).kind,
             XSEG_REF_EXTENT); /* other leaves are fine */
    o->bytes[LAYER_PAGE_BYTES + 100] ^= 1;
    CHECK_EQ(only_run(h, 0, 16).kind, XSEG_REF_EXTENT); /* and it is read again */
    CHECK_EQ(rig_close(&rig, h), 0);
    header.block_bytes *= 2;
    h = open_map(0); /* a layer of other blocks */
    CHECK_EQ(rig_runs(&rig, h, 0, 16, 0, &runs), -EBADMSG);
    header.block_bytes /= 2;
    header.entries[0].length_bytes += LAYER_PAGE_BYTES; /* not its length */
    h = open_map(0);
    CHECK_EQ(rig_runs(&rig, h, 0, 16, 0, &runs), -EBADMSG);
    fake_delete(&rig.fake, &name);
    CHECK_EQ(rig_close(&rig, h), 0);
    end();
}

static void test_a_missing_layer(void)
{
    struct xseg_run *runs;
    begin();
    push_layer(3, 0, 10);
    struct xseg_object name = fake_layer_name(header.entries[0].id);
    fake_delete(&rig.fake, &name);
    uint64_t h = open_map(0); /* layers are met when they are needed */
    CHECK_EQ(rig_runs(&rig, h, 0, 16, 0, &runs), -EBADMSG);
    CHECK_EQ(rig_runs(&rig, h, 0, 16, 0, &runs), -EBADMSG);
    end();
}

/* ---- updates ---- */

static void test_held_flushes_wait_for_the_update(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig.fake.paused = true;
    struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
    struct call hold = {.op = XSEG_OP_UPDATE, .flags = XSEG_F_MORE, .handle = h};
    rig_submit(&rig, &flush);
    rig_submit(&rig, &hold);
    rig_run(&rig, 20);
    CHECK(!flush.done && !hold.done); /* the append in flight comes first */
    fake_blocker_resume(&rig.fake);
    CHECK_EQ(rig_wait(&rig, &hold), 0);
    CHECK_EQ(rig_wait(&rig, &flush), 0);
    memcpy(&info, hold.answer, sizeof info);
    CHECK_EQ(info.length_bytes, journal()->size);
    CHECK_EQ(rig_mark(&rig, h, 9, 1, 0, 2), 0);
    flush.generation = 2;
    flush.handle = h;
    rig_submit(&rig, &flush);
    rig_run(&rig, 20);
    CHECK(!flush.done);
    CHECK_EQ(rig_hold(&rig, h, &info), 0); /* once more: as after a lost answer */
    freeze_header(&info, false);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_wait(&rig, &flush), 0);
    CHECK_EQ(journal()->size, journal_record_bytes(1)); /* in the new journal */
    end();
}

static void test_an_update_changes_all_or_nothing(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    uint8_t junk[200] = {1};
    struct call call = {
        .op = XSEG_OP_UPDATE, .handle = h, .data = junk, .size = sizeof junk};
    CHECK_EQ(rig_call(&rig, &call), -EINVAL);
    call_fini(&call);
    CHECK_EQ(rig_mark(&rig, h, 2, 1, 0, 2), 0);
    CHECK_EQ(rig_flush(&rig, h, 2), 0); /* appends go on */
    header.journal++;                   /* the marks so far would vanish */
    CHECK_EQ(rig_update(&rig, h, &header), -EINVAL);
    header.epoch++; /* or change their meaning */
    header.journal--;
    CHECK_EQ(rig_update(&rig, h, &header), -EINVAL);
    header.epoch--;
    header.uuid[0]++;
    CHECK_EQ(rig_update(&rig, h, &header), -EINVAL);
    header.uuid[0]--;
    header.size_bytes -= 4096; /* a shrink takes a new epoch */
    CHECK_EQ(rig_update(&rig, h, &header), -EINVAL);
    header.size_bytes += 4096;
    header.block_bytes *= 2;
    CHECK_EQ(rig_update(&rig, h, &header), -EINVAL);
    header.block_bytes /= 2;
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    CHECK_EQ(rig_mark(&rig, h, 4, 1, 0, 3), 0);
    freeze_header(&info, true);
    CHECK_EQ(rig_update(&rig, h, &header), -EBUSY); /* a mark of the old epoch */
    header.epoch--;
    header.journal--;
    CHECK_EQ(only_run(h, 4, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_flush(&rig, h, 3), 0);
    struct map_entry gone = {.type = MAP_ENTRY_JOURNAL,
                             .number = 77,
                             .length_bytes = 480,
                             .limit_bytes = MAP_NO_LIMIT};
    header.entries[0] = gone; /* a table that cannot be read */
    CHECK_EQ(rig_update(&rig, h, &header), -EBADMSG);
    header.nr_entries = 0;
    CHECK_EQ(rig_update(&rig, h, &header), 0); /* nothing changed: fine */
    CHECK_EQ(rig_info(&rig, h).journal.length_bytes, journal()->size);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    end();
}

static void test_a_new_epoch_owns_nothing(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 8, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    uint64_t reads = rig.fake.nr_ops[XSEG_OP_READ];
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    freeze_header(&info, true);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig.fake.nr_ops[XSEG_OP_READ], reads); /* the top is frozen as it is */
    struct xseg_run run = only_run(h, 0, 8);
    CHECK_EQ(run.flags, 0);
    CHECK_EQ(run.id[16], 1);
    CHECK_EQ(rig_mark(&rig, h, 2, 2, 0, 2), 0);
    run = only_run(h, 2, 2);
    CHECK_EQ(run.flags, XSEG_RUN_OWNED);
    CHECK_EQ(run.id[16], 2);
    uint64_t other = open_map(XSEG_F_RDONLY); /* a clone would: the table is shared */
    CHECK_EQ(rig.fake.nr_ops[XSEG_OP_READ], reads + 1); /* its current journal */
    CHECK_EQ(only_run(other, 0, 8).id[16], 1);
    end();
}

/** Sectors of a checkpointed journal are still owned: writing them again marks nothing.
 */
static void test_a_checkpoint_keeps_what_is_owned(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 8, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    freeze_header(&info, false);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(only_run(h, 0, 8).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_mark(&rig, h, 2, 4, 0, 2), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
    CHECK_EQ(rig_info(&rig, h).present_sectors, 8);
    CHECK_EQ(rig_mark(&rig, h, 2, 4, XSEG_F_ZERO, 2), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 1);
    CHECK_EQ(rig_mark(&rig, h, 3, 1, 0, 2), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 2);
    end();
}

/** Marks that wait for a flush are in nobody's journal: a table that is shared has
 * none. */
static void test_a_checkpoint_does_not_share_what_is_not_flushed(void)
{
    struct xseg_journal_info info;
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 8, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_mark(&rig, h, 20, 8, 0, 2), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    freeze_header(&info, false);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    uint64_t other = open_map(XSEG_F_RDONLY);
    CHECK_EQ(only_run(h, 20, 8).kind, XSEG_REF_EXTENT);
    CHECK_EQ(only_run(other, 0, 8).kind, XSEG_REF_EXTENT);
    CHECK_EQ(only_run(other, 20, 8).flags, XSEG_RUN_HOLE);
    CHECK_EQ(rig_flush(&rig, h, 2), 0);
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(only_run(h, 20, 8).flags, XSEG_RUN_OWNED);
    end();
}

/* ---- deaths and stops ---- */

static void test_blockerm_dies_and_comes_back(void)
{
    for (int applied = 0; applied < 2; applied++) {
        begin();
        push_layer(3, 0, 100);
        uint64_t h = open_map(0);
        CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
        rig.fake.paused = true;
        struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
        struct call read = {
            .op = XSEG_OP_MAPR, .handle = h, .offset = MIB, .size = 65536};
        rig_submit(&rig, &flush);
        rig_submit(&rig, &read);
        rig_run(&rig, 20);
        if (applied) { /* it was stored, and nobody said so */
            struct journal_mark mark = {0, 1, JOURNAL_PRESENT};
            struct xseg_object name = fake_journal_name(header.uuid, 1);
            uint8_t record[64];
            size_t len = journal_record_pack(record, 0, header.fence, &mark, 1);
            fake_put(&rig.fake, &name, 0, record, len);
        }
        fake_blocker_die(&rig.fake);
        rig_run(&rig, 50);
        CHECK(!flush.done && !read.done);
        fake_blocker_revive(&rig.fake);
        fake_blocker_resume(&rig.fake);
        CHECK_EQ(rig_wait(&rig, &flush), 0);
        CHECK_EQ(rig_wait(&rig, &read), 1);
        CHECK_EQ(journal()->size, journal_record_bytes(1)); /* once */
        CHECK_EQ(rig.fake.nr_ops[XSEG_OP_FLUSH], applied);  /* and it is durable */
        CHECK_EQ(rig_mark(&rig, h, 5, 1, 0, 2), 0);
        CHECK_EQ(rig_flush(&rig, h, 2), 0);
        end();
    }
}

static void test_close_answers_what_waits(void)
{
    begin();
    push_layer(3, 0, 100);
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig.fake.paused = true;
    struct call calls[4] = {
        {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1},
        {.op = XSEG_OP_MAPR, .handle = h, .offset = MIB, .size = 65536},
        {.op = XSEG_OP_MAPW,
         .flags = XSEG_F_ZERO,
         .handle = h,
         .offset = MIB,
         .size = 65536,
         .generation = 2},
        {.op = XSEG_OP_UPDATE, .flags = XSEG_F_MORE, .handle = h},
    };
    for (int i = 0; i < 4; i++)
        rig_submit(&rig, &calls[i]);
    rig_run(&rig, 20);
    CHECK_EQ(rig_close(&rig, h), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(rig_wait(&rig, &calls[i]), -ESTALE);
    fake_blocker_resume(&rig.fake);
    CHECK_EQ(rig_wait(&rig, &calls[3]), -ESTALE);
    h = open_map(0); /* the same map opens anew */
    CHECK_EQ(rig_close(&rig, h), 0);
    end();
}

static void test_stop_answers_what_waits(void)
{
    begin();
    push_layer(3, 0, 100);
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig.fake.paused = true;
    struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
    struct call read = {.op = XSEG_OP_MAPR, .handle = h, .size = 65536};
    rig_submit(&rig, &flush);
    rig_submit(&rig, &read);
    rig_run(&rig, 20);
    fake_blocker_die(&rig.fake); /* nothing is left to answer either */
    rig_restart_mapper(&rig, NULL);
    CHECK(flush.done && read.done);
    CHECK_EQ(flush.result, -ECANCELED);
    CHECK_EQ(mapr(h, 0, 4096), -ESTALE); /* of the mapper before */
    fake_blocker_revive(&rig.fake);
    end();
}

/* ---- large maps ---- */

static void test_a_hole_of_tebibytes_is_one_run(void)
{
    begin();
    header.size_bytes = UINT64_C(16) << 40;
    push_layer(3, 0, 1);
    push_layer(4, 1000000, 1);
    uint64_t h = open_map(0);
    uint64_t sectors = header.size_bytes / 4096;
    CHECK_EQ(rig_mark(&rig, h, sectors - 1, 1, 0, 1), 0);
    struct xseg_run *runs;
    CHECK_EQ(rig_runs(&rig, h, 0, sectors, 100, &runs), 5);
    CHECK_EQ(runs[0].id[0], 3);
    CHECK_EQ(runs[1].flags, XSEG_RUN_HOLE);
    CHECK_EQ(runs[2].id[0], 4);
    CHECK_EQ(runs[3].flags, XSEG_RUN_HOLE);
    CHECK_EQ(runs[4].flags, XSEG_RUN_OWNED);
    free(runs);
    CHECK_EQ(rig_info(&rig, h).cached_blocks, 4);
    CHECK_EQ(rig_mark(&rig, h, 0, sectors, XSEG_F_ZERO, 2), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 4); /* one present, three zeros */
    end();
}

/** Two blocks of the same content are two runs: an object offset never runs on. */
static void test_content_ends_with_its_block(void)
{
    struct blob blob = {0};
    struct layer_writer *w;
    struct xseg_run *runs;
    begin();
    struct map_entry *e = header_push(&header, MAP_ENTRY_LAYER);
    struct map_ref ref = map_ref_content((const uint8_t[32]){1, 2, 3});
    e->id[0] = 1;
    CHECK_EQ(layer_writer_create(e->id, header.block_bytes, blob_write, &blob, &w), 0);
    CHECK_EQ(layer_writer_run(w, 4, 1, &ref), 0);
    CHECK_EQ(layer_writer_run(w, 5, 1, &ref), 0);
    CHECK_EQ(layer_writer_finish(w), blob.size);
    layer_writer_destroy(w);
    struct xseg_object name = fake_layer_name(e->id);
    fake_put(&rig.fake, &name, 0, blob.bytes, blob.size);
    e->length_bytes = blob.size;
    blob_fini(&blob);
    uint64_t h = open_map(0);
    CHECK_EQ(rig_runs(&rig, h, 4 * 16 + 3, 20, 10, &runs), 2);
    CHECK_EQ(runs[0].object_off, 3 * 4096);
    CHECK_EQ(runs[0].size, 13 * 4096);
    CHECK_EQ(runs[1].object_off, 0);
    CHECK_EQ(runs[1].size, 7 * 4096);
    CHECK(memcmp(runs[0].id, ref.id, 32) == 0 && memcmp(runs[1].id, ref.id, 32) == 0);
    free(runs);
    end();
}

int main(void)
{
    check_seed();
    test_mistakes_are_refused();
    test_an_answer_goes_only_where_it_may();
    test_a_read_only_map_takes_no_marks();
    test_a_flush_takes_its_generation_and_older();
    test_an_older_generation_is_marked_again();
    test_flushes_share_an_append();
    test_many_marks_take_several_records();
    test_the_last_mark_of_a_sector_counts();
    test_zeros_are_marked_only_over_data();
    test_plain_marks_read_nothing();
    test_a_newer_fence_ends_all_writing();
    test_a_full_store_keeps_the_marks();
    test_a_record_torn_while_running();
    test_a_torn_journal_at_open();
    test_damage_is_never_data();
    test_a_missing_layer();
    test_held_flushes_wait_for_the_update();
    test_an_update_changes_all_or_nothing();
    test_a_new_epoch_owns_nothing();
    test_a_checkpoint_keeps_what_is_owned();
    test_a_checkpoint_does_not_share_what_is_not_flushed();
    test_blockerm_dies_and_comes_back();
    test_close_answers_what_waits();
    test_stop_answers_what_waits();
    test_a_hole_of_tebibytes_is_one_run();
    test_content_ends_with_its_block();
    return 0;
}
