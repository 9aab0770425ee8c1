/* SPDX-License-Identifier: Apache-2.0 */
/* Blockerm dies, is stopped, or stays away; maps are closed, the mapper stops. */
#include <errno.h>

#include "check.h"
#include "mapper/journal.h"
#include "tables.h"
#include "volume.h"

/** What a request of the mapper may meet when blockerm goes. */
static const int deaths[] = {-EOWNERDEAD, -ECANCELED, -EPIPE};

/** Blockerm goes with everything unanswered, and comes back. */
static void come_and_go(int death)
{
    fake_blocker_die(&rig.fake, death);
    rig_run(&rig, 50);
    fake_blocker_revive(&rig.fake);
    fake_blocker_resume(&rig.fake);
}

/** What became of an append when blockerm went. */
enum fate { NOT_STORED, STORED, STORED_IN_PART, STORED_AND_FENCED };

static void append_over(int death, enum fate fate)
{
    begin();
    push_layer(3, 0, 100);
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig.fake.paused = true;
    struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
    struct call read = {.op = XSEG_OP_MAPR, .handle = h, .offset = MIB, .size = 65536};
    rig_submit(&rig, &flush);
    rig_submit(&rig, &read);
    rig_run(&rig, 20);
    if (fate != NOT_STORED) { /* nobody said so */
        struct journal_mark mark = {0, 1, JOURNAL_PRESENT};
        struct xseg_object name = fake_journal_name(header.uuid, 1);
        uint8_t record[64];
        struct journal_identity j = journal_identity(header.uuid, 1);
        size_t len = journal_record_pack(record, &j, 0, 0, header.fence, &mark, 1);
        fake_put(&rig.fake, &name, 0, record, fate == STORED_IN_PART ? 20 : len);
    }
    if (fate == STORED_AND_FENCED)
        rig.fake.fence = header.fence + 1; /* blockerm died before it looked */
    come_and_go(death);
    static const int answers[] = {0, 0, -EAGAIN, -ESTALE};
    CHECK_EQ(rig_wait(&rig, &flush), answers[fate]);
    CHECK_EQ(rig_wait(&rig, &read), 1);
    if (fate < STORED_IN_PART) {
        bool stored = fate == STORED;
        CHECK_EQ(journal()->size, journal_record_bytes(1)); /* once */
        CHECK_EQ(rig.fake.nr_ops[XSEG_OP_FLUSH], stored);   /* and it is durable */
        CHECK_EQ(rig.fake.nr_compares, stored);
        CHECK_EQ(rig_mark(&rig, h, 5, 1, 0, 2), 0);
        CHECK_EQ(rig_flush(&rig, h, 2), 0);
    }
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, fate == STORED_IN_PART);
    end();
}

static void test_blockerm_goes_and_comes_back(void)
{
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++)
        for (int fate = NOT_STORED; fate <= STORED_AND_FENCED; fate++)
            append_over(deaths[i], (enum fate)fate);
}

/** It goes while it is asked what became of an append, and while that is flushed. */
static void test_blockerm_goes_again_and_again(void)
{
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        begin();
        uint64_t h = open_map(0);
        CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
        rig.fake.fault = (struct fake_fault){.armed = true,
                                             .op = XSEG_OP_APPEND,
                                             .result = deaths[i],
                                             .apply = UINT64_MAX};
        struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
        rig_submit(&rig, &flush);
        static const uint32_t steps[] = {XSEG_OP_INFO, XSEG_OP_READ, XSEG_OP_FLUSH};
        for (int step = 0; step < 3; step++) {
            uint64_t served = rig.fake.nr_ops[steps[step]];
            while (rig.fake.fault.armed)
                rig_run(&rig, 1);
            rig.fake.fault = (struct fake_fault){
                .armed = true, .op = steps[step], .result = deaths[i]};
            while (rig.fake.nr_ops[steps[step]] < served + 1)
                rig_run(&rig, 1);
        }
        CHECK_EQ(rig_wait(&rig, &flush), 0);
        CHECK_EQ(journal()->size, journal_record_bytes(1));
        end();
    }
}

static void test_a_comparison_is_repeated(void)
{
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        begin();
        uint64_t h = open_map(0);
        rig.fake.paused = true;
        struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
        rig_submit(&rig, &flush);
        rig_run(&rig, 20);
        come_and_go(deaths[i]);
        CHECK_EQ(rig_wait(&rig, &flush), 0);
        CHECK_EQ(rig.fake.nr_compares, 1);
        end();
    }
}

/** OPEN and UPDATE read journals: those reads are repeated. */
static void test_a_map_is_opened_over_a_death(void)
{
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        begin();
        uint64_t h = open_map(0);
        CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
        CHECK_EQ(rig_flush(&rig, h, 1), 0);
        CHECK_EQ(rig_close(&rig, h), 0);
        rig.fake.fault =
            (struct fake_fault){.armed = true, .op = XSEG_OP_READ, .result = deaths[i]};
        h = open_map(0);
        CHECK(!rig.fake.fault.armed);
        CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
        end();
    }
}

/** Patience ends: an error that does not say that the mapper is away, and no loss. */
static void test_waiting_has_an_end(void)
{
    const struct mapper_options hasty = {.patience_ns = 1, .marks_fd = -1};
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        struct xseg_run *runs;
        begin_with(&hasty);
        push_layer(3, 0, 100);
        uint64_t h = open_map(0);
        rig.fake.paused = true;
        struct call calls[2] = {
            {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1},
            {.op = XSEG_OP_MAPR, .handle = h, .offset = MIB, .size = 65536},
        };
        for (int call = 0; call < 2; call++)
            rig_submit(&rig, &calls[call]);
        rig_run(&rig, 20);
        fake_blocker_die(&rig.fake, deaths[i]);
        CHECK_EQ(rig_wait(&rig, &calls[0]), -EIO);
        CHECK_EQ(rig_wait(&rig, &calls[1]), -EIO);
        CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
        CHECK_EQ(rig_flush(&rig, h, 1), -EIO);
        CHECK_EQ(rig_flush(&rig, h, 1), -EIO);
        CHECK_EQ(rig_open(&rig, &header, XSEG_F_RDONLY), -EIO);
        fake_blocker_revive(&rig.fake);
        fake_blocker_resume(&rig.fake);
        CHECK_EQ(rig_flush(&rig, h, 1), 0);
        CHECK_EQ(journal()->size, journal_record_bytes(1));
        CHECK_EQ(rig_runs(&rig, h, 256, 16, 0, &runs), 1);
        free(runs);
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
    fake_blocker_die(&rig.fake, -EOWNERDEAD); /* nothing is left to answer either */
    rig_restart_mapper(&rig, NULL);
    CHECK(flush.done && read.done);
    CHECK_EQ(flush.result, -ECANCELED);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), -ESTALE); /* of the mapper before */
    fake_blocker_revive(&rig.fake);
    end();
}

int main(void)
{
    check_seed();
    test_blockerm_goes_and_comes_back();
    test_blockerm_goes_again_and_again();
    test_a_comparison_is_repeated();
    test_a_map_is_opened_over_a_death();
    test_waiting_has_an_end();
    test_close_answers_what_waits();
    test_stop_answers_what_waits();
    return 0;
}
