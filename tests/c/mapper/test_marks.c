/* SPDX-License-Identifier: Apache-2.0 */
/* Marks outlive the mapper: killed or stopped, started again with the same memory. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "mapper/journal.h"
#include "mapper/mark_log.h"
#include "tables.h"
#include "volume.h"

static struct mapper_options options;

static void begin_logged(void)
{
    options = (struct mapper_options){.marks_fd = rig_memfd(MARK_LOG_BYTES_MIN)};
    begin_with(&options);
}

static void end_logged(void)
{
    end();
    close(options.marks_fd);
}

/** Chunks that are in use, as the memory says. */
static uint32_t chunks(void)
{
    uint32_t nr = 0;
    for (uint64_t at = 0; at < MARK_LOG_BYTES_MIN; at += MARK_CHUNK_BYTES) {
        uint64_t sequence;
        CHECK_EQ(pread(options.marks_fd, &sequence, sizeof sequence, (off_t)at),
                 sizeof sequence);
        nr += sequence != 0;
    }
    return nr;
}

static void test_unflushed_marks_are_there_again(void)
{
    for (int killed = 0; killed < 2; killed++) {
        begin_logged();
        uint64_t h = open_map(0);
        CHECK_EQ(rig_mark(&rig, h, 0, 4, 0, 1), 0);
        CHECK_EQ(rig_flush(&rig, h, 1), 0);
        CHECK_EQ(chunks(), 0);
        CHECK_EQ(rig_mark(&rig, h, 2, 1, XSEG_F_ZERO, 2), 0);
        CHECK_EQ(rig_mark(&rig, h, 10, 4, 0, 2), 0);
        CHECK_EQ(rig_mark(&rig, h, 11, 1, XSEG_F_ZERO, 3), 0);
        CHECK_EQ(rig_mark(&rig, h, 2, 1, 0, 3), 0);
        struct xseg_run *before, *after;
        int64_t nr = rig_runs(&rig, h, 0, 64, 0, &before);
        if (killed)
            rig_kill_mapper(&rig, &options);
        else
            rig_restart_mapper(&rig, &options);
        h = open_map(0);
        CHECK_EQ(rig_runs(&rig, h, 0, 64, 0, &after), nr);
        CHECK(memcmp(before, after, (size_t)nr * sizeof *before) == 0);
        CHECK_EQ(rig_info(&rig, h).dirty_marks, 4);
        CHECK_EQ(rig_flush(&rig, h, 0), 0); /* any flush takes them */
        CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
        CHECK_EQ(chunks(), 0);
        free(after);
        rig_kill_mapper(&rig, &options);
        h = open_map(0);
        CHECK_EQ(rig_runs(&rig, h, 0, 64, 0, &after), nr);
        CHECK(memcmp(before, after, (size_t)nr * sizeof *before) == 0);
        CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
        free(before);
        free(after);
        end_logged();
    }
}

/** Which volumes wait; the first byte of their uuids. */
static uint32_t list_left(uint8_t first[8])
{
    struct call call = {.op = XSEG_OP_LIST, .room = 8 * sizeof(struct xseg_object)};
    CHECK(rig_call(&rig, &call) <= 8);
    uint32_t nr = (uint32_t)call.result;
    for (uint32_t i = 0; i < nr; i++) {
        struct xseg_object object;
        memcpy(&object, (uint8_t *)call.bytes + i * sizeof object, sizeof object);
        CHECK_EQ(object.kind, XSEG_OBJ_LEASE);
        first[i] = object.id[0];
    }
    call_fini(&call);
    return nr;
}

static void test_what_nobody_opens_again_is_named_and_given_up(void)
{
    struct map_header other;
    uint8_t left[8];

    begin_logged();
    header_init(&other, 0x77, UINT64_C(64) << 20);
    uint64_t a = open_map(0);
    int64_t b = rig_open(&rig, &other, 0);
    CHECK(b > 0);
    for (uint64_t generation = 1; generation < 4; generation++) { /* some chunks each */
        CHECK_EQ(rig_mark(&rig, a, 4 * generation, 1, 0, generation), 0);
        CHECK_EQ(rig_mark(&rig, (uint64_t)b, 4 * generation, 1, 0, generation), 0);
    }
    CHECK_EQ(list_left(left), 0);
    rig_kill_mapper(&rig, &options);
    CHECK_EQ(list_left(left), 2);
    CHECK(left[0] != left[1] && (left[0] == 0x77 || left[1] == 0x77));
    a = open_map(0);
    CHECK_EQ(list_left(left), 1);
    CHECK_EQ(left[0], 0x77);
    struct call bad = {.op = XSEG_OP_LIST};
    CHECK_EQ(rig_call(&rig, &bad), -EINVAL);
    call_fini(&bad);
    struct call give_up = {.op = XSEG_OP_DELETE};
    CHECK_EQ(rig_call(&rig, &give_up), -EINVAL);
    call_fini(&give_up);
    give_up = (struct call){.op = XSEG_OP_DELETE, .object = {.kind = XSEG_OBJ_LEASE}};
    memcpy(give_up.object.id, other.uuid, sizeof other.uuid);
    for (int twice = 0; twice < 2; twice++) {
        CHECK_EQ(rig_call(&rig, &give_up), 0);
        call_fini(&give_up);
        give_up.done = false;
        CHECK_EQ(list_left(left), 0);
    }
    CHECK_EQ(rig_info(&rig, a).dirty_marks, 3); /* the other's are untouched */
    CHECK_EQ(chunks(), 3);
    end_logged();
}

/** Killed when the append was on its way: marks may be in the journal and in the log. */
static void test_killed_in_mid_flush(void)
{
    for (int stored = 0; stored < 2; stored++) {
        begin_logged();
        uint64_t h = open_map(0);
        CHECK_EQ(rig_mark(&rig, h, 5, 2, 0, 1), 0);
        rig.fake.paused = true;
        struct call flush = {.op = XSEG_OP_FLUSH, .handle = h, .generation = 1};
        rig_submit(&rig, &flush);
        rig_run(&rig, 20);
        CHECK_EQ(rig_mark(&rig, h, 6, 1, XSEG_F_ZERO, 2), 0);
        CHECK_EQ(chunks(), 2); /* the flush gives back what it has, no more */
        int fd = rig_copy_memory(&options);
        if (!stored)
            fake_blocker_die(&rig.fake, -EOWNERDEAD);
        else
            fake_blocker_resume(&rig.fake);
        rig_restart_mapper(&rig, NULL);
        CHECK(flush.done);
        if (!stored) {
            fake_blocker_revive(&rig.fake);
            fake_blocker_resume(&rig.fake);
        }
        close(options.marks_fd);
        options.marks_fd = fd;
        rig_restart_mapper(&rig, &options);
        h = open_map(0);
        CHECK_EQ(only_run(h, 5, 1).flags, XSEG_RUN_OWNED);
        CHECK_EQ(only_run(h, 6, 1).kind, XSEG_REF_ZERO);
        CHECK_EQ(rig_flush(&rig, h, 1), 0);
        rig_restart_mapper(&rig, NULL);
        h = open_map(0);
        CHECK_EQ(only_run(h, 5, 1).flags, XSEG_RUN_OWNED);
        CHECK_EQ(only_run(h, 6, 1).kind, XSEG_REF_ZERO);
        end_logged();
    }
}

static void test_an_append_that_failed_keeps_its_marks(void)
{
    begin_logged();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 5), 0);
    rig.fake.fault =
        (struct fake_fault){.armed = true, .op = XSEG_OP_APPEND, .result = -ENOSPC};
    CHECK_EQ(rig_flush(&rig, h, 5), -ENOSPC);
    CHECK_EQ(rig_mark(&rig, h, 2, 1, 0, 6), 0);
    CHECK_EQ(chunks(), 2);
    rig_kill_mapper(&rig, &options);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(only_run(h, 2, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(chunks(), 0);
    end_logged();
}

static int64_t close_and_drop(uint64_t handle)
{
    struct call call = {.op = XSEG_OP_CLOSE, .handle = handle, .flags = XSEG_F_FORCE};
    return rig_call(&rig, &call);
}

static void test_what_is_dropped_is_gone(void)
{
    begin_logged();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(chunks(), 1);
    CHECK_EQ(close_and_drop(h), 0);
    CHECK_EQ(chunks(), 0);
    rig_kill_mapper(&rig, &options);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_HOLE);
    end_logged();
}

/** Who closes a map without a flush leaves what it marked, and what it found. */
static void test_marks_outlive_a_close(void)
{
    begin_logged();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig_kill_mapper(&rig, &options);
    h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 5, 1, 0, 1), 0);
    CHECK_EQ(rig_close(&rig, h), 0);
    uint64_t r = open_map(XSEG_F_RDONLY);
    CHECK_EQ(only_run(r, 0, 1).flags,
             XSEG_RUN_HOLE); /* not flushed: not its business */
    CHECK_EQ(rig_close(&rig, r), 0);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(only_run(h, 5, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(chunks(), 0);
    end_logged();
}

static void test_another_fence_or_epoch_ends_the_marks(void)
{
    for (int epoch = 0; epoch < 2; epoch++) {
        begin_logged();
        uint64_t h = open_map(0);
        CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
        rig_kill_mapper(&rig, &options);
        CHECK_EQ(chunks(), 1);
        header.fence += !epoch;
        header.epoch += (uint64_t)epoch;
        h = open_map(0);
        CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_HOLE);
        CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
        CHECK_EQ(chunks(), 0);
        end_logged();
    }
}

static void test_a_lost_fence_ends_the_marks(void)
{
    begin_logged();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    rig.fake.fence = 99;
    CHECK_EQ(rig_flush(&rig, h, 1), -ESTALE);
    CHECK_EQ(chunks(), 0);
    end_logged();
}

/** An epoch ends with all of its marks journaled; the next one has chunks of its own. */
static void test_marks_follow_an_update(void)
{
    struct xseg_journal_info info;
    begin_logged();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    freeze_header(&info, true);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_mark(&rig, h, 4, 1, 0, 2), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    CHECK_EQ(info.length_bytes, 0);
    freeze_header(&info, false); /* a checkpoint: the same extent */
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    header.fence++;
    CHECK_EQ(rig_update(&rig, h, &header), -EBUSY); /* a mark of the old fence */
    header.fence--;
    rig_kill_mapper(&rig, &options);
    h = open_map(0);
    struct xseg_run run = only_run(h, 4, 1);
    CHECK_EQ(run.flags, XSEG_RUN_OWNED);
    CHECK_EQ(run.id[16], 2);
    CHECK_EQ(only_run(h, 0, 1).id[16], 1);
    end_logged();
}

/** The newest OPEN has the volume; the marks go with it. */
static void test_a_map_is_superseded(void)
{
    struct xseg_run *runs;
    begin_logged();
    uint64_t old = open_map(0);
    CHECK_EQ(rig_mark(&rig, old, 0, 1, 0, 1), 0);
    uint64_t h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(rig_mark(&rig, old, 1, 1, 0, 1), -ESTALE);
    CHECK_EQ(rig_runs(&rig, old, 0, 1, 0, &runs), -ESTALE);
    CHECK_EQ(rig_flush(&rig, old, 1), -ESTALE);
    CHECK_EQ(rig_close(&rig, old), 0);
    CHECK_EQ(chunks(), 1);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(chunks(), 0);
    end_logged();
}

/** Full: nothing of a mark that was refused is there; a flush makes room. */
static void test_a_full_log_asks_for_a_flush(void)
{
    begin_logged();
    uint64_t h = open_map(0), sector = 0;
    struct xseg_run *runs;
    int64_t rc;
    while ((rc = rig_mark(&rig, h, sector, 1, 0, 1)) == 0)
        sector += 2;
    CHECK_EQ(rc, -EAGAIN);
    CHECK_EQ(sector / 2, MARK_LOG_BYTES_MIN / MARK_CHUNK_BYTES * MARK_CHUNK_RECORDS);
    CHECK_EQ(rig_runs(&rig, h, sector, 16, 0, &runs), 1);
    CHECK_EQ(runs[0].flags, XSEG_RUN_HOLE);
    free(runs);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0); /* is marked already */
    CHECK_EQ(rig_mark(&rig, h, sector, 1, 0, 2), -EAGAIN);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_mark(&rig, h, sector, 1, 0, 2), 0);
    CHECK_EQ(chunks(), 1);
    /* what orphans hold comes back only when their volume does */
    CHECK_EQ(rig_flush(&rig, h, 2), 0);
    for (uint64_t s = sector + 2; rig_mark(&rig, h, s, 1, 0, 3) == 0; s += 2)
        continue;
    rig_kill_mapper(&rig, &options);
    header.uuid[0]++;
    uint64_t other = open_map(0); /* a flush of all would give no room */
    CHECK_EQ(rig_mark(&rig, other, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, other, 1), 0);
    header.uuid[0]--;
    h = open_map(0);
    CHECK_EQ(rig_mark(&rig, other, 4, 1, 0, 2), -EAGAIN); /* now it would */
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(chunks(), 0);
    CHECK_EQ(rig_mark(&rig, other, 4, 1, 0, 2), 0);
    end_logged();
}

/** A stop in mid-flush leaves the marks too. */
static void test_marks_of_several_volumes(void)
{
    begin_logged();
    uint64_t handles[5];
    for (uint8_t i = 0; i < 5; i++) {
        header.uuid[0] = i;
        handles[i] = open_map(0);
        CHECK_EQ(rig_mark(&rig, handles[i], i, 1, 0, 1), 0);
    }
    CHECK_EQ(rig_flush(&rig, handles[3], 1), 0);
    rig_kill_mapper(&rig, &options);
    for (uint8_t i = 0; i < 5; i++) {
        header.uuid[0] = i;
        uint64_t h = open_map(0);
        CHECK_EQ(only_run(h, i, 1).flags, XSEG_RUN_OWNED);
        CHECK_EQ(rig_info(&rig, h).dirty_marks, i != 3);
    }
    end_logged();
}

static void test_a_memory_that_is_no_log(void)
{
    struct peer *peer;
    const char *why;
    begin();
    rig.mapper->stop(rig.mapper, NULL, NULL);
    rig_run(&rig, 5);
    rig.mapper->destroy(rig.mapper);
    int fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQ(ftruncate(fd, MARK_LOG_BYTES_MIN), 0);
    options = (struct mapper_options){.marks_fd = fd};
    CHECK_EQ(mapper_create(rig.reactor, &options, &peer, &why), -EINVAL);
    CHECK(strstr(why, "sealed"));
    CHECK_EQ(ftruncate(fd, 100), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    CHECK_EQ(mapper_create(rig.reactor, &options, &peer, &why), -EINVAL);
    CHECK(strstr(why, "size"));
    close(fd);
    CHECK_EQ(mapper_create(rig.reactor, &options, &peer, &why), -EBADF);
    options.marks_fd = -1;
    CHECK_EQ(mapper_create(rig.reactor, &options, &rig.mapper, &why), 0);
    end();
}

int main(void)
{
    check_seed();
    test_unflushed_marks_are_there_again();
    test_what_nobody_opens_again_is_named_and_given_up();
    test_killed_in_mid_flush();
    test_an_append_that_failed_keeps_its_marks();
    test_what_is_dropped_is_gone();
    test_marks_outlive_a_close();
    test_another_fence_or_epoch_ends_the_marks();
    test_a_lost_fence_ends_the_marks();
    test_marks_follow_an_update();
    test_a_map_is_superseded();
    test_a_full_log_asks_for_a_flush();
    test_marks_of_several_volumes();
    test_a_memory_that_is_no_log();
    return 0;
}
