/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composer between a client and a store that answers late and out of order: what is
 * read is what was written, what was flushed survives, overlap is in order, changes
 * find the volume quiet, faults are answered and forgotten.
 */
#include <unistd.h>

#include "check.h"
#include "composer/composer.h"
#include "fake_store.h"

#define S      XSEG_SECTOR_BYTES
#define DEPTH  24u
#define NR_OPS 6000u

/** One client request in flight, and what it may do to the model. */
struct client_op {
    struct client *client;
    uint64_t buffer;
    uint32_t op;
    uint64_t offset, size;
    uint64_t started; /* clock */
    bool busy;
};

struct client {
    struct reactor *reactor;
    struct xseg_segment *seg;
    struct xseg_port *port;
    struct fake_store *store;
    struct peer *composer;
    uint64_t rng;
    uint64_t handle;
    struct client_op ops[DEPTH];
    uint32_t nr_busy, nr_sent, nr_ended;
    uint8_t model[FAKE_BYTES]; /* last acknowledged contents */
    uint64_t clock;            /* goes up with every request sent or ended */
    uint64_t
        mutated_at[FAKE_SECTORS]; /* when its last mutation ended; MAX: in flight */
    uint8_t view[FAKE_BYTES];
    bool stopped;
};

static void on_stopped(void *arg)
{
    struct client *c = arg;
    c->stopped = true;
    reactor_stop(c->reactor);
}

static struct xseg_request *new_request(struct client *c, uint32_t op)
{
    struct xseg_request *rq;
    CHECK_EQ(xseg_request_alloc(c->port, &rq), 0);
    rq->op = op;
    rq->handle = c->handle;
    return rq;
}

/* ---- one request at a time ---------------------------------------------------------
 */

static void call_done(void *arg, struct xseg_request *rq)
{
    (void)rq;
    reactor_stop(arg);
}

/** Send and run the loop until the answer; the caller frees. */
static int64_t call(struct client *c, struct xseg_request *rq)
{
    reactor_submit(c->reactor, c->port, rq, XSEG_PORT_VLMCD, call_done, c->reactor);
    CHECK_EQ(reactor_run(c->reactor), 0);
    return rq->result;
}

static int64_t call_simple(struct client *c, uint32_t op, uint64_t offset,
                           uint64_t size, uint32_t flags)
{
    struct xseg_request *rq = new_request(c, op);
    rq->offset = offset;
    rq->size = size;
    rq->flags = flags;
    int64_t result = call(c, rq);
    xseg_request_free(c->port, rq);
    return result;
}

static int64_t call_named(struct client *c, uint32_t op, uint32_t flags,
                          uint64_t *handle)
{
    struct xseg_request *rq = new_request(c, op);
    rq->flags = flags;
    rq->arg[XSEG_ARG_NAME_LEN] = 1;
    rq->inline_data[0] = 'v';
    int64_t result = call(c, rq);
    if (handle)
        *handle = rq->handle;
    xseg_request_free(c->port, rq);
    return result;
}

/* ---- many at once, against the model
 * -------------------------------------------------- */

static void send_random(struct client *c);

static bool in_flight_overlap(struct client *c, uint64_t offset, uint64_t size)
{
    for (uint32_t i = 0; i < DEPTH; i++) {
        struct client_op *o = &c->ops[i];
        if (o->busy && o->offset / S * S < offset + size &&
            offset / S * S < o->offset + o->size)
            return true;
    }
    return false;
}

static void stamp(struct client *c, const struct client_op *o, uint64_t when)
{
    if (o->op == XSEG_OP_WRITE || o->op == XSEG_OP_ZERO || o->op == XSEG_OP_DISCARD)
        for (uint64_t s = o->offset / S; s <= (o->offset + o->size - 1) / S; s++)
            c->mutated_at[s] = when;
}

static void check_durable(struct client *c, uint64_t since)
{
    fake_store_view(c->store, c->view, true);
    for (uint64_t i = 0; i < c->store->size_bytes; i++)
        if (c->mutated_at[i / S] < since)
            CHECK_EQ(c->view[i], c->model[i]);
}

static void op_done(void *arg, struct xseg_request *rq)
{
    struct client_op *o = arg;
    struct client *c = o->client;
    const uint8_t *data = xseg_heap_ptr(c->seg, o->buffer, o->size ? o->size : 1);

    stamp(c, o, ++c->clock);
    switch (o->op) {
    case XSEG_OP_READ:
        CHECK_EQ(rq->result, o->size);
        CHECK(memcmp(data, c->model + o->offset, o->size) == 0);
        break;
    case XSEG_OP_WRITE:
        CHECK_EQ(rq->result, o->size);
        memcpy(c->model + o->offset, data, o->size);
        break;
    case XSEG_OP_ZERO:
    case XSEG_OP_DISCARD:
        CHECK_EQ(rq->result, o->size);
        memset(c->model + o->offset, 0, o->size);
        break;
    case XSEG_OP_FLUSH:
        CHECK_EQ(rq->result, 0);
        check_durable(c, o->started);
        break;
    default:
        CHECK_EQ(rq->result, 0);
    }
    if (rq->flags & XSEG_F_FUA) {
        fake_store_view(c->store, c->view, true);
        CHECK(memcmp(c->view + o->offset, c->model + o->offset, o->size) == 0);
    }
    xseg_request_free(c->port, rq);
    o->busy = false;
    c->nr_busy--;
    c->nr_ended++;
    send_random(c);
}

static void send_one(struct client *c, struct client_op *o)
{
    static const uint32_t kinds[] = {XSEG_OP_READ,  XSEG_OP_WRITE,   XSEG_OP_WRITE,
                                     XSEG_OP_WRITE, XSEG_OP_DISCARD, XSEG_OP_ZERO,
                                     XSEG_OP_FLUSH};
    uint64_t dice = check_next(&c->rng), size_bytes = c->store->size_bytes;

    o->op = kinds[dice % 7];
    if (dice / 7 % 97 == 0)
        o->op = XSEG_OP_SNAPSHOT;
    o->offset = o->size = 0;
    if (o->op != XSEG_OP_FLUSH && o->op != XSEG_OP_SNAPSHOT) {
        o->offset = check_next(&c->rng) % size_bytes;
        o->size = 1 + check_next(&c->rng) % (5 * S);
        if (check_next(&c->rng) % 2)
            o->offset = o->offset / S * S;
        if (check_next(&c->rng) % 2)
            o->size = (o->size + S - 1) / S * S;
        if (o->size > size_bytes - o->offset)
            o->size = size_bytes - o->offset;
        /* a model needs one answer: overlap in flight is tested apart */
        if (in_flight_overlap(c, o->offset, o->size))
            return;
    }
    struct xseg_request *rq = new_request(c, o->op);
    rq->offset = o->offset;
    rq->size = o->size;
    rq->data_off = o->buffer;
    rq->data_len = 6 * S;
    c->nr_sent++;
    o->started = ++c->clock;
    stamp(c, o, UINT64_MAX);
    if (o->op == XSEG_OP_SNAPSHOT) {
        rq->arg[XSEG_ARG_NAME_LEN] = 1;
        rq->inline_data[0] = 'v';
    } else if (o->op != XSEG_OP_READ && o->op != XSEG_OP_FLUSH) {
        uint8_t *data = xseg_heap_ptr(c->seg, o->buffer, o->size);
        for (uint64_t i = 0; i < o->size; i++)
            data[i] = (uint8_t)check_next(&c->rng);
        rq->flags = check_next(&c->rng) % 8 == 0 ? XSEG_F_FUA : 0;
    }
    o->busy = true;
    c->nr_busy++;
    reactor_submit(c->reactor, c->port, rq, XSEG_PORT_VLMCD, op_done, o);
}

static void send_random(struct client *c)
{
    for (uint32_t i = 0; i < DEPTH && c->nr_sent < NR_OPS; i++)
        if (!c->ops[i].busy)
            send_one(c, &c->ops[i]);
    if (c->nr_sent >= NR_OPS && c->nr_busy == 0)
        reactor_stop(c->reactor);
}

static void test_random_work_matches_the_model(struct client *c)
{
    fake_store_view(c->store, c->model, false);
    memset(c->mutated_at, 0, sizeof c->mutated_at);
    c->nr_sent = 0;
    send_random(c);
    CHECK_EQ(reactor_run(c->reactor), 0);
    CHECK_EQ(c->nr_busy, 0);
    fake_store_view(c->store, c->view, false);
    CHECK(memcmp(c->view, c->model, c->store->size_bytes) == 0);
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), 0);
    fake_store_view(c->store, c->view, true);
    CHECK(memcmp(c->view, c->model, c->store->size_bytes) == 0);
}

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

static void test_stop_closes_what_is_open(struct client *c)
{
    uint32_t closes = c->store->nr_closes;

    c->composer->stop(c->composer, on_stopped, c);
    if (!c->stopped)
        CHECK_EQ(reactor_run(c->reactor), 0);
    CHECK(c->stopped);
    CHECK_EQ(c->store->nr_closes, closes + 1);
}

int main(void)
{
    static struct fake_store store;
    static struct client client;
    struct client *c = &client;
    struct xseg_segment_options options = {
        .nr_ports = 16, .nr_requests = 1024, .heap_bytes = 16u << 20};
    const char *why;
    char name[64];

    uint64_t seed = check_seed();
    snprintf(name, sizeof name, "test-composer-%d", (int)getpid());
    CHECK_EQ(xseg_segment_create(name, &options, &c->seg), 0);
    CHECK_EQ(xseg_segment_destroy(name), 0); /* the mapping is enough */
    CHECK_EQ(reactor_create(c->seg, NULL, &c->reactor), 0);
    fake_store_start(&store, c->reactor, seed);
    c->store = &store;
    c->rng = seed * 31 + 7;
    CHECK_EQ(xseg_port_bind(c->seg, XSEG_PORT_ANY, "client", &c->port), 0);
    CHECK_EQ(reactor_add_port(c->reactor, c->port, NULL, NULL), 0);
    CHECK_EQ(composer_create(c->reactor, &(struct composer_options){.queue_depth = 16},
                             &c->composer, &why),
             0);
    for (uint32_t i = 0; i < DEPTH; i++) {
        c->ops[i].client = c;
        CHECK(xseg_buffer_alloc(c->seg, 6 * S, &c->ops[i].buffer) > 0);
    }
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);

    test_random_work_matches_the_model(c);
    test_overlapping_writes_keep_their_order(c);
    test_bad_requests_are_refused(c);
    test_faults_are_answered_and_forgotten(c);
    test_random_work_matches_the_model(c);
    test_opens_are_counted(c);
    test_a_read_only_open_is_upgraded_once(c);
    test_a_closed_volume_is_opened_for_a_change(c);
    test_a_tail_is_zeroed_on_open(c);
    test_stop_closes_what_is_open(c);

    c->composer->destroy(c->composer);
    fake_store_stop(&store);
    for (uint32_t i = 0; i < DEPTH; i++)
        CHECK_EQ(xseg_buffer_free(c->seg, c->ops[i].buffer), 0);
    reactor_remove_port(c->reactor, c->port);
    xseg_port_unbind(c->port);
    reactor_destroy(c->reactor);
    struct xseg_heap_usage usage;
    xseg_heap_usage(c->seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0); /* nothing leaked */
    xseg_segment_detach(c->seg);
    return 0;
}
