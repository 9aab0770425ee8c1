/* SPDX-License-Identifier: Apache-2.0 */
/* FLUSH: generations, rounds, fences, failures. */
#include <errno.h>

#include "check.h"
#include "mapper/journal.h"
#include "tables.h"
#include "volume.h"

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
    const uint64_t one_append = 8192; /* issue 9, fault 29: a short turn of the loop */
    uint64_t nr = one_append * 2 + 1000;
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
    struct xseg_run *runs;
    struct xseg_journal_info info;
    CHECK_EQ(rig_runs(&rig, h, 0, 1, 0, &runs), -ESTALE);
    CHECK_EQ(rig_hold(&rig, h, &info), -ESTALE);
    CHECK_EQ(rig_update(&rig, h, &header), -ESTALE);
    CHECK_EQ(rig_close(&rig, h), 0);
    end();
}

/** A flush with nothing to add finds out too, and so does one that came late. */
static void test_every_flush_compares_the_fence(void)
{
    struct call late = {.op = XSEG_OP_FLUSH, .generation = 2};
    struct call flush = {.op = XSEG_OP_FLUSH, .generation = 1};
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig.fake.nr_compares, 1);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig.fake.nr_compares, 1); /* the append did */
    rig.fake.paused = true;
    flush.handle = late.handle = h;
    rig_submit(&rig, &flush);
    rig_run(&rig, 20);
    rig_submit(&rig, &late);
    rig_run(&rig, 20);
    rig.fake.in_order = true;
    rig.fake.fault = (struct fake_fault){
        .armed = true, .compare = true, .op = XSEG_OP_APPEND, .skip = 1};
    rig.fake.fault.result = -ESTALE; /* the lease goes between the two */
    fake_blocker_resume(&rig.fake);
    CHECK_EQ(rig_wait(&rig, &flush), 0);
    CHECK_EQ(rig_wait(&rig, &late), -ESTALE);
    CHECK_EQ(rig_flush(&rig, h, 3), -ESTALE);
    uint64_t r = open_map(XSEG_F_RDONLY);
    uint64_t compares = rig.fake.nr_compares;
    CHECK_EQ(rig_flush(&rig, r, 1), 0);
    CHECK_EQ(rig.fake.nr_compares, compares); /* it has none */
    end();
}

/** An error of the comparison fails its flush and nothing else. */
static void test_a_comparison_that_fails(void)
{
    begin();
    uint64_t h = open_map(0);
    rig.fake.fault = (struct fake_fault){
        .armed = true, .compare = true, .op = XSEG_OP_APPEND, .result = -EIO};
    CHECK_EQ(rig_flush(&rig, h, 1), -EIO);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 0);
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

int main(void)
{
    check_seed();
    test_a_flush_takes_its_generation_and_older();
    test_an_older_generation_is_marked_again();
    test_flushes_share_an_append();
    test_many_marks_take_several_records();
    test_the_last_mark_of_a_sector_counts();
    test_a_newer_fence_ends_all_writing();
    test_every_flush_compares_the_fence();
    test_a_comparison_that_fails();
    test_a_full_store_keeps_the_marks();
    return 0;
}
