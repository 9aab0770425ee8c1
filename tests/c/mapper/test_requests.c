/* SPDX-License-Identifier: Apache-2.0 */
/* What requests the mapper takes: mistakes, read-only maps, zeros, large maps. */
#include <errno.h>

#include "check.h"
#include "mapper/journal.h"
#include "tables.h"
#include "volume.h"

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
    CHECK_EQ(only_run(r, 5, 3).flags, XSEG_RUN_LIVE);
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
    put_layer(e, w, &blob);
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
    test_zeros_are_marked_only_over_data();
    test_plain_marks_read_nothing();
    test_a_hole_of_tebibytes_is_one_run();
    test_content_ends_with_its_block();
    return 0;
}
