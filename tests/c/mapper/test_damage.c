/* SPDX-License-Identifier: Apache-2.0 */
/* Torn journals, damaged and missing tables. */
#include <errno.h>

#include "check.h"
#include "mapper/journal.h"
#include "tables.h"
#include "volume.h"

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
    CHECK_EQ(rig_flush(&rig, h, 2), -EAGAIN);
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

/** What an append of a map that was given up stores late is no loss of the lease. */
static void test_an_append_that_comes_late(void)
{
    struct journal_mark mark = {9, 1, JOURNAL_PRESENT};
    struct xseg_journal_info info;
    uint8_t record[64];
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    size_t ours = journal()->size;
    struct journal_identity j = journal_identity(header.uuid, 1);
    size_t len = journal_record_pack(record, &j, ours, 1, header.fence, &mark, 1);
    fake_put(&rig.fake, &journal()->name, ours, record, len);
    CHECK_EQ(rig_flush(&rig, h, 1), 0); /* nothing to append */
    CHECK_EQ(rig_mark(&rig, h, 2, 1, 0, 2), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(rig_flush(&rig, h, 2), -EAGAIN);
        CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 1);
        CHECK_EQ(rig_info(&rig, h).dirty_marks, 1);
        CHECK_EQ(journal()->size, ours + len);
        CHECK_EQ(only_run(h, 2, 1).flags, XSEG_RUN_OWNED); /* the map goes on */
    }
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    CHECK_EQ(info.length_bytes, ours);
    freeze_header(&info, false);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_info(&rig, h).needs_checkpoint, 0);
    CHECK_EQ(rig_flush(&rig, h, 2), 0);
    CHECK_EQ(rig_info(&rig, h).dirty_marks, 0);
    CHECK_EQ(journal()->size, journal_record_bytes(1));
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(only_run(h, 2, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(only_run(h, 9, 1).flags & XSEG_RUN_OWNED, 0); /* behind our length */
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

/** Give the journal of the present header these bytes alone. */
static void put_journal(const void *bytes, size_t len)
{
    struct xseg_object name = fake_journal_name(header.uuid, header.journal);
    fake_delete(&rig.fake, &name);
    fake_put(&rig.fake, &name, 0, bytes, len);
}

/** Issue 9, fault 23: a current journal that is gone, emptied or cut is damage. */
static void test_a_current_journal_that_lost_records(void)
{
    uint8_t bytes[3 * 48];
    begin();
    uint64_t h = open_map(0);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(rig_mark(&rig, h, i * 2, 1, 0, i), 0);
        CHECK_EQ(rig_flush(&rig, h, i), 0);
    }
    CHECK_EQ(rig_close(&rig, h), 0);
    CHECK_EQ(journal()->size, sizeof bytes);
    memcpy(bytes, journal()->bytes, sizeof bytes);
    header.journal_least_bytes = 2 * 48; /* as it was when the header was written */
    for (size_t len = 0; len <= sizeof bytes; len += 8) {
        put_journal(bytes, len);
        int64_t handle = rig_open(&rig, &header, 0);
        if (len < 2 * 48) {
            CHECK_EQ(handle, -EBADMSG);
            CHECK_EQ(rig_open(&rig, &header, XSEG_F_RDONLY), -EBADMSG);
            continue;
        }
        CHECK(handle > 0);
        CHECK_EQ(rig_info(&rig, (uint64_t)handle).journal.nr_marks, len / 48);
        CHECK_EQ(rig_close(&rig, (uint64_t)handle), 0);
    }
    struct xseg_object name = fake_journal_name(header.uuid, header.journal);
    fake_delete(&rig.fake, &name);
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    end();
}

/** Issue 9, fault 23: journals of equal length that were swapped are both damage. */
static void test_journals_that_were_swapped(void)
{
    struct journal_mark mark = {5, 1, JOURNAL_PRESENT};
    struct journal_identity other = journal_identity(header.uuid, 1);
    uint8_t record[48];
    begin();
    other.uuid[0] ^= 1;
    size_t len = journal_record_pack(record, &other, 0, 0, header.fence, &mark, 1);
    put_journal(record, len);
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    struct xseg_journal_info info = {.number = 1, .length_bytes = len};
    freeze_header(&info, true);
    CHECK_EQ(rig_open(&rig, &header, 0), -EBADMSG);
    end();
}

/** A journal that the control half began is followed by our records. */
static void test_a_journal_that_was_begun(void)
{
    struct xseg_journal_info info;
    uint8_t record[64];
    begin();
    uint64_t h = open_map(0);
    CHECK_EQ(rig_mark(&rig, h, 0, 1, 0, 1), 0);
    CHECK_EQ(rig_flush(&rig, h, 1), 0);
    CHECK_EQ(rig_hold(&rig, h, &info), 0);
    freeze_header(&info, false);
    struct journal_identity next = journal_identity(header.uuid, header.journal);
    size_t len = journal_record_pack(record, &next, 0, 0, header.fence, NULL, 0);
    header.journal_least_bytes = len;
    CHECK_EQ(rig_update(&rig, h, &header), -EBADMSG); /* it is not there */
    put_journal(record, len);
    CHECK_EQ(rig_update(&rig, h, &header), 0);
    CHECK_EQ(rig_info(&rig, h).journal.length_bytes, len);
    CHECK_EQ(rig_info(&rig, h).journal.nr_marks, 0);
    CHECK_EQ(rig_mark(&rig, h, 2, 1, 0, 2), 0);
    CHECK_EQ(rig_flush(&rig, h, 2), 0);
    CHECK_EQ(journal()->size, len + journal_record_bytes(1));
    rig_restart_mapper(&rig, NULL);
    h = open_map(0);
    CHECK_EQ(only_run(h, 0, 1).flags, XSEG_RUN_OWNED);
    CHECK_EQ(only_run(h, 2, 1).flags, XSEG_RUN_OWNED);
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

int main(void)
{
    check_seed();
    test_a_record_torn_while_running();
    test_an_append_that_comes_late();
    test_a_torn_journal_at_open();
    test_damage_is_never_data();
    test_a_current_journal_that_lost_records();
    test_journals_that_were_swapped();
    test_a_journal_that_was_begun();
    test_a_missing_layer();
    return 0;
}
