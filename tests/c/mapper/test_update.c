/* SPDX-License-Identifier: Apache-2.0 */
/* UPDATE: a map follows its header, whole or not at all. */
#include <errno.h>

#include "check.h"
#include "mapper/journal.h"
#include "tables.h"
#include "volume.h"

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

int main(void)
{
    check_seed();
    test_held_flushes_wait_for_the_update();
    test_an_update_changes_all_or_nothing();
    test_a_new_epoch_owns_nothing();
    test_a_checkpoint_keeps_what_is_owned();
    test_a_checkpoint_does_not_share_what_is_not_flushed();
    return 0;
}
