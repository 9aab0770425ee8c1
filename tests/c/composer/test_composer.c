/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composer between a client and a store that answers late and out of order: what is
 * read is what was written, what was flushed survives, overlap is in order, changes
 * find the volume quiet, faults are answered and forgotten.
 */
#include <unistd.h>

#include "client.h"

/* ---- overlap: sent together, applied in the order of sending
 * ------------------------------ */

static void overlap_done(void *arg, struct xseg_request *rq)
{
    struct client *c = arg;
    CHECK_EQ(rq->result, rq->size);
    xseg_request_free(c->port, rq);
    if (--c->nr_busy == 0)
        reactor_stop(c->reactor);
}

static void test_overlapping_writes_keep_their_order(struct client *c)
{
    for (int round = 0; round < 200; round++) {
        fake_store_view(c->store, c->model, false);
        for (uint32_t i = 0; i < 12; i++) {
            uint64_t offset = check_next(&c->rng) % (6 * S);
            uint64_t size = 1 + check_next(&c->rng) % (4 * S);
            struct xseg_request *rq = new_request(c, XSEG_OP_WRITE);
            rq->offset = offset;
            rq->size = size;
            rq->data_off = c->ops[i].buffer;
            rq->data_len = 6 * S;
            memset(xseg_heap_ptr(c->seg, rq->data_off, size), (int)i + round, size);
            memset(c->model + offset, (int)i + round, size);
            c->nr_busy++;
            reactor_submit(c->reactor, c->port, rq, XSEG_PORT_VLMCD, overlap_done, c);
        }
        CHECK_EQ(reactor_run(c->reactor), 0);
        fake_store_view(c->store, c->view, false);
        CHECK(memcmp(c->view, c->model, FAKE_BYTES) == 0);
    }
}

/* ---- bad input, faults, opens
 * -------------------------------------------------------- */

static void test_bad_requests_are_refused(struct client *c)
{
    uint64_t size = c->store->size_bytes, good = c->handle;

    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, size, 1, 0), -EINVAL);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, UINT64_MAX, 2, 0), -EINVAL);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 1, UINT64_MAX, 0), -EINVAL);
    CHECK_EQ(call_simple(c, XSEG_OP_READ, 0, S, 0), -EINVAL);  /* no buffer */
    CHECK_EQ(call_simple(c, XSEG_OP_WRITE, 0, S, 0), -EINVAL); /* no buffer */
    CHECK_EQ(call_simple(c, XSEG_OP_WRITE, 0, 0, 0), 0);
    CHECK_EQ(call_simple(c, XSEG_OP_WRITE, 0, 0, XSEG_F_FUA), 0);
    CHECK_EQ(call_simple(c, XSEG_OP_COPY, 0, 0, 0), -EINVAL);
    CHECK_EQ(call_simple(c, 4711, 0, 0, 0), -EINVAL);
    CHECK_EQ(call_simple(c, XSEG_OP_OPEN, 0, 0, 0), -EINVAL); /* no name */
    c->handle = good + (UINT64_C(1) << 24);
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), -ESTALE);
    c->handle = UINT64_MAX;
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), -ESTALE);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), -ESTALE);
    c->handle = good;
}

static void test_faults_are_answered_and_forgotten(struct client *c)
{
    struct fake_store *f = c->store;
    static const uint32_t parts[] = {XSEG_OP_DISCARD, XSEG_OP_MAPW, XSEG_OP_MAPR,
                                     XSEG_OP_READ, XSEG_OP_WRITE};

    for (uint32_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        f->fail_op[parts[i]] = -ENOSPC;
        /* unaligned at both ends: reads, writes, discards and marks are all needed */
        CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 100, 5 * S, 0), -ENOSPC);
        f->fail_op[parts[i]] = 0;
        CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 100, 5 * S, 0), 5 * S);
    }
    f->fail_op[XSEG_OP_FLUSH] = -EIO;
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), -EIO);
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), 0);
    f->fail_op[XSEG_OP_FLUSH] = -EIO;
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, XSEG_F_FUA), -EIO);
    f->fail_op[XSEG_OP_FLUSH] = -EIO; /* a change needs the flush */
    CHECK_EQ(call_named(c, XSEG_OP_SNAPSHOT, 0, NULL), -EIO);
    CHECK_EQ(call_named(c, XSEG_OP_SNAPSHOT, 0, NULL), 0);
}

static void test_opens_are_counted(struct client *c)
{
    struct fake_store *f = c->store;
    uint64_t first = c->handle, second, read_only;
    uint32_t opens = f->nr_opens;

    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &second), 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_RDONLY, &read_only), 0);
    CHECK_EQ(f->nr_opens, opens); /* it was open already */
    c->handle = read_only;
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), -EROFS);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_HOLD, NULL), 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_HOLD, NULL), 0); /* idempotent */
    c->handle = second;
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    c->handle = first;
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    CHECK_EQ(f->nr_closes, 0); /* the administrator still has it */
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), 0);
    CHECK_EQ(call_named(c, XSEG_OP_CLOSE, XSEG_F_HOLD, NULL), 0);
    CHECK_EQ(f->nr_closes, 1);
    CHECK_EQ(call_named(c, XSEG_OP_CLOSE, XSEG_F_HOLD, NULL), -ENOENT);
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), -ESTALE);
    f->fail_op[XSEG_OP_OPEN] = -EBUSY;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, NULL), -EBUSY);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

/** Close; *flushed is what the answer says of it. */
static int64_t close_volume(struct client *c, uint64_t *flushed)
{
    struct xseg_request *rq = new_request(c, XSEG_OP_CLOSE);
    rq->arg[0] = 7;
    int64_t result = call(c, rq);
    *flushed = rq->arg[0];
    xseg_request_free(c->port, rq);
    return result;
}

/** Closed all the same; but never as if it had not been open. */
static void test_a_close_that_control_refuses_is_reported(struct client *c)
{
    static const int64_t errors[][2] = {
        {-EIO, -EIO},
        {-ENOSPC, -ENOSPC},
        {-ESTALE, -EIO},
        {-ENOENT, -EIO},
    };
    struct fake_store *f = c->store;
    uint64_t flushed;

    for (uint32_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), S);
        f->fail_dst = XSEG_PORT_CONTROL;
        f->fail_op[XSEG_OP_CLOSE] = errors[i][0];
        CHECK_EQ(close_volume(c, &flushed), errors[i][1]);
        CHECK_EQ(flushed, 1);
        CHECK_EQ(f->fail_op[XSEG_OP_CLOSE], 0);
        CHECK_EQ(close_volume(c, &flushed), -ESTALE);
        CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_HOLD, &c->handle), 0);
        f->fail_op[XSEG_OP_CLOSE] = errors[i][0];
        CHECK_EQ(call_named(c, XSEG_OP_CLOSE, XSEG_F_HOLD, NULL), errors[i][1]);
        CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
    }
    /* a flush that failed says more */
    f->fail_dst = 0;
    f->fail_op[XSEG_OP_FLUSH] = -ENOSPC;
    f->fail_op[XSEG_OP_CLOSE] = -EIO;
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), S);
    CHECK_EQ(close_volume(c, &flushed), -ENOSPC);
    CHECK_EQ(flushed, 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
    CHECK_EQ(close_volume(c, &flushed), 0);
    CHECK_EQ(flushed, 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_a_read_only_open_is_upgraded_once(struct client *c)
{
    struct fake_store *f = c->store;
    uint64_t reader, writer;
    uint32_t opens = f->nr_opens;

    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    f->flags = XSEG_VOL_RDONLY_OPEN;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_RDONLY, &reader), 0);
    CHECK_EQ(f->nr_opens, opens + 1);
    f->fail_op[XSEG_OP_OPEN] = -EBUSY; /* another node has the lease */
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, NULL), -EBUSY);
    c->handle = reader; /* and the reader never noticed */
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), 0);
    f->flags = 0;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &writer), 0);
    CHECK_EQ(f->nr_opens, opens + 2);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    c->handle = writer;
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), S);

    /* a snapshot can only be read, however it is opened: asked once */
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    f->flags = XSEG_VOL_RDONLY_OPEN | XSEG_VOL_READONLY;
    opens = f->nr_opens;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &writer), 0);
    CHECK_EQ(f->nr_opens, opens + 1);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), -EROFS);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    f->flags = 0;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_a_closed_volume_is_opened_for_a_change(struct client *c)
{
    struct fake_store *f = c->store;

    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    uint32_t opens = f->nr_opens, closes = f->nr_closes;
    CHECK_EQ(call_named(c, XSEG_OP_SNAPSHOT, 0, NULL), 0);
    CHECK_EQ(f->nr_opens, opens + 1);
    CHECK_EQ(call_named(c, XSEG_OP_RENAME, 0, NULL), 0); /* needs no open */
    CHECK_EQ(f->nr_opens, opens + 1);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
    CHECK_EQ(f->nr_closes, closes + 1);
}

static void test_a_tail_is_zeroed_on_open(struct client *c)
{
    struct fake_store *f = c->store;
    uint64_t end = f->size_bytes;

    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    memset(f->base + end, 0xdd, FAKE_BYTES - end); /* left over from before a shrink */
    memset(f->mark + end / S, 0, 1);
    memset(f->journaled + end / S, 0, 1);
    f->flags = XSEG_VOL_TAIL;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
    fake_store_view(f, c->view, true);
    for (uint64_t i = end; i < FAKE_BYTES; i++)
        CHECK_EQ(c->view[i], 0);
    f->flags = 0;
}

/** What uses "v", into users; returns how many. */
static int64_t get_users(struct client *c, struct xseg_volume_user *users)
{
    struct xseg_request *rq = new_request(c, XSEG_OP_INFO);
    rq->arg[XSEG_ARG_NAME_LEN] = 1;
    rq->inline_data[0] = 'v';
    rq->data_off = c->ops[0].buffer;
    rq->data_len = S;
    int64_t nr = call(c, rq);
    if (nr > 0)
        memcpy(users, xseg_heap_ptr(c->seg, c->ops[0].buffer, S),
               (uint64_t)nr * sizeof *users);
    xseg_request_free(c->port, rq);
    return nr;
}

static uint64_t open_as(struct client *c, const char *text, uint32_t pid,
                        uint32_t flags, uint64_t *number)
{
    struct xseg_request *rq = new_request(c, XSEG_OP_OPEN);
    rq->flags = flags;
    rq->arg[XSEG_ARG_NAME_LEN] = 1;
    rq->inline_data[0] = 'v';
    rq->arg[XSEG_ARG_OPEN] = strlen(text);
    memcpy(rq->inline_data + 1, text, strlen(text));
    rq->arg[0] = pid;
    CHECK_EQ(call(c, rq), 0);
    uint64_t handle = rq->handle;
    *number = rq->arg[XSEG_ARG_OPEN];
    xseg_request_free(c->port, rq);
    return handle;
}

static int64_t close_number(struct client *c, uint64_t handle, uint64_t number,
                            uint32_t flags)
{
    struct xseg_request *rq = new_request(c, XSEG_OP_CLOSE);
    rq->handle = handle;
    rq->flags = flags;
    rq->arg[XSEG_ARG_OPEN] = number;
    int64_t result = call(c, rq);
    xseg_request_free(c->port, rq);
    return result;
}

static void test_users_are_named(struct client *c)
{
    struct xseg_volume_user users[8];
    uint64_t one, two;
    uint64_t handle = open_as(c, "nbd 10.0.0.1:5", 77, XSEG_F_RDONLY, &one);

    CHECK_EQ(open_as(c, "nbd", 78, XSEG_F_RDONLY, &two), handle);
    CHECK_EQ(get_users(c, users), 3);
    CHECK_EQ(users[0].pid, getpid()); /* the client's own open says nothing of itself */
    CHECK(users[0].text_len == 6 && memcmp(users[0].text, "client", 6) == 0);
    CHECK_EQ(users[0].flags, 0);
    CHECK_EQ(users[1].pid, 77);
    CHECK(users[1].text_len == 14 && memcmp(users[1].text, "nbd 10.0.0.1:5", 14) == 0);
    CHECK_EQ(users[1].flags, XSEG_USER_READONLY);
    CHECK(users[1].since_ns > 0 && users[1].since_ns <= users[2].since_ns);
    CHECK_EQ(close_number(c, handle, one, 0), 0);
    CHECK_EQ(get_users(c, users), 2);
    CHECK_EQ(users[1].pid, 78);
    CHECK_EQ(close_number(c, handle, one, 0), -ESTALE);
    CHECK_EQ(close_number(c, handle, two, 0), 0);
    CHECK_EQ(get_users(c, users), 1);
}

static void send_delete(struct client *c, uint32_t i, uint32_t flags)
{
    struct xseg_request *rq = new_request(c, XSEG_OP_DELETE);

    rq->flags = flags;
    rq->arg[XSEG_ARG_NAME_LEN] = 1;
    rq->inline_data[0] = 'v';
    submit_async(c, i, rq);
}

/** Issue 9, fault 9: a client that is just leaving does not make a removal fail. */
static void test_a_removal_waits_for_a_user_that_leaves(struct client *c)
{
    struct fake_store *f = c->store;
    uint32_t changes = f->nr_changes;
    uint64_t number, handle = open_as(c, "nbd", 1, 0, &number);

    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0); /* any of the two will do */
    c->handle = handle;
    send_delete(c, 0, 0);
    client_run(c, 20);
    CHECK(c->ops[0].busy && f->nr_changes == changes);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), S); /* it is still open */
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, XSEG_F_NOSYNC), 0);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    CHECK_EQ(await(c, 0), 0);
    CHECK_EQ(f->nr_changes, changes + 1);
    CHECK(!f->mapped);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_a_forced_removal_cuts_users_off(struct client *c)
{
    struct fake_store *f = c->store;
    uint32_t changes = f->nr_changes;

    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_HOLD, NULL), 0);
    send_async(c, 1, XSEG_OP_WRITE, 0, S);
    send_delete(c, 0, XSEG_F_FORCE);
    CHECK_EQ(await(c, 0), 0);
    CHECK_EQ(await(c, 1), S); /* what was under way ended first */
    CHECK_EQ(f->nr_changes, changes + 1);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), -ESTALE);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), -ESTALE);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_stop_closes_what_is_open(struct client *c)
{
    uint32_t closes = c->store->nr_closes;

    client_stop_composer(c);
    CHECK_EQ(c->store->nr_closes, closes + 1);
}

int main(void)
{
    static struct fake_store store;
    static struct client client;
    struct client *c = &client;

    client_start(c, &store, &(struct composer_options){.queue_depth = 16});
    test_random_work_matches_the_model(c);
    test_overlapping_writes_keep_their_order(c);
    test_bad_requests_are_refused(c);
    test_faults_are_answered_and_forgotten(c);
    test_random_work_matches_the_model(c);
    test_opens_are_counted(c);
    test_a_close_that_control_refuses_is_reported(c);
    test_a_read_only_open_is_upgraded_once(c);
    test_a_closed_volume_is_opened_for_a_change(c);
    test_a_tail_is_zeroed_on_open(c);
    test_users_are_named(c);
    test_a_removal_waits_for_a_user_that_leaves(c);
    test_a_forced_removal_cuts_users_off(c);
    test_stop_closes_what_is_open(c);
    client_end(c);
    return 0;
}
