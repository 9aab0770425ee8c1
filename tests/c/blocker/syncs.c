/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the file backend makes durable and when; what it does when that fails is in
 * failed_syncs.c, and what another node left in elsewhere.c.
 * After an answer that promises durability, calls.h knows no change that is not durable.
 * The threads engine, since io_uring makes no such calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "blocker/calls.h"
#include "blocker/client.h"

/* ---- ordering ----------------------------------------------------------- */

static struct setup setup = {.backend = "file", .engine = "threads"};
static struct server server, *s = &server;
static uint8_t data[1u << 20];

static void test_durable_answers_leave_nothing_behind(void)
{
    struct xseg_object h = header_name(1), c = content_name(1), j = journal_name(1, 1);
    struct xseg_object e = extent_name(1, 1), l = layer_name(1), t = lease_name(1);
    struct xseg_lease lease = lease_of("a");

    CHECK_EQ(calls_not_durable(), 0); /* the tree, once open */
    fill_header(data, 64, 1, 1, 0);
    CHECK_EQ(do_create(s, &h, data, 64, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    fill_header(data, 64, 2, 1, 0);
    CHECK_EQ(do_update(s, &h, 1, data, 64), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_append(s, &j, 0, 1, data, 64), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_append(s, &j, 64, 1, data, 64), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &t, &lease, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_create(s, &c, data, 64, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_write(s, &e, UINT64_C(1) << 40, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_write(s, &e, (UINT64_C(3) << 40) - 4096, data, 8192, 0), 8192);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_write(s, &l, 0, data, 100, 0), 100);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_flush(s, &l), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_delete(s, &j), 0);
    CHECK_EQ(do_delete(s, &h), 0);
    CHECK_EQ(do_delete(s, &t), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK(!calls_named_unsynced());
}

static void test_deferred_content_is_named_last_and_flushed_together(void)
{
    struct xseg_object e = extent_name(2, 1);

    /* few directories one by one, many at once */
    for (uint64_t nr = 3; nr <= 100; nr += 97) {
        for (uint64_t i = 0; i < nr; i++) {
            struct xseg_object c = content_name(nr * 1000 + i);
            CHECK_EQ(do_create(s, &c, data, 64, XSEG_F_NOSYNC), 0);
        }
        CHECK(!calls_named_unsynced());
        CHECK(calls_not_durable() > 0);
        CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
        CHECK_EQ(do_flush(s, &whole_store), 0);
        CHECK_EQ(calls_not_durable(), 0);
    }
    unsigned before = calls_syncs();
    CHECK_EQ(do_flush(s, &whole_store), 0);
    CHECK_EQ(calls_syncs(), before);
}

static void test_a_flush_with_nothing_to_do_makes_no_call(void)
{
    struct xseg_object e = extent_name(3, 1), f = extent_name(4, 1);

    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &f, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_flush(s, &f), 0);
    unsigned before = calls_syncs();
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_syncs(), before);
    /* only what is dirty is synced: one file, no directory */
    CHECK_EQ(do_write(s, &e, 4096, data, 4096, 0), 4096);
    CHECK_EQ(do_flush(s, &f), 0);
    CHECK_EQ(calls_syncs(), before);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_syncs(), before + 1);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(calls_syncs(), before + 2);
    CHECK_EQ(do_zero(s, &e, 0, 4096), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_syncs(), before + 3);
}

static void test_what_another_process_left_is_flushed(void)
{
    struct xseg_object e = extent_name(5, 1), c = content_name(5);

    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(do_create(s, &c, data, 64, 0), 0);
    server_stop(s);
    server_start(s, &setup);
    /* nothing is known dirty, yet the one before us might have died with writes */
    unsigned before = calls_syncs();
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK(calls_syncs() >= before + 2); /* the file and its directory */
    before = calls_syncs();
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_syncs(), before);
    CHECK_EQ(do_create(s, &c, data, 64, 0), -EEXIST);
    CHECK(calls_syncs() > before); /* the name that we now rely on */
}

/** An append that fails is cut off again.  A flush beside it would be told of that. */
static void test_a_journal_is_flushed_behind_an_append(void)
{
    struct xseg_object j = journal_name(502, 1);
    struct xseg_object_info info;

    CHECK_EQ(do_append(s, &j, 0, 0, data, 64), 0);
    CHECK_EQ(do_flush(s, &j), 0);
    for (int error = 0; error <= EIO; error += EIO) {
        calls_hold(error);
        struct xseg_request *append = ask(s, XSEG_OP_APPEND, &j);
        append->offset = 64;
        append->size = 64;
        send_only(s, append);
        calls_await_held();
        unsigned before = calls_syncs();
        struct xseg_request *flushes[2];
        for (int i = 0; i < 2; i++) {
            flushes[i] = ask(s, XSEG_OP_FLUSH, &j);
            send_only(s, flushes[i]);
        }
        CHECK_EQ(do_info(s, &j, &info), 0); /* they are there */
        CHECK_EQ(calls_syncs(), before);
        calls_let_go();
        CHECK_EQ(await(s, append), -error);
        xseg_request_free(s->port, append);
        for (int i = 0; i < 2; i++) {
            CHECK_EQ(await(s, flushes[i]), 0);
            xseg_request_free(s->port, flushes[i]);
        }
        CHECK(calls_syncs() >= before + 2);
        CHECK_EQ(calls_not_durable(), 0);
        CHECK_EQ(do_info(s, &j, &info), 0);
        CHECK_EQ(info.size_bytes, error ? 64 : 128);
        if (!error) {
            j = journal_name(503, 1);
            CHECK_EQ(do_append(s, &j, 0, 0, data, 64), 0);
        }
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    make_root(setup.path);
    server_start(s, &setup);
    test_durable_answers_leave_nothing_behind();
    test_deferred_content_is_named_last_and_flushed_together();
    test_a_flush_with_nothing_to_do_makes_no_call();
    test_what_another_process_left_is_flushed();
    test_a_journal_is_flushed_behind_an_append();
    server_stop(s);
    remove_root(setup.path);
    return 0;
}
