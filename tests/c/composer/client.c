/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a composer over a fake store (see client.h). */
#include "client.h"

#include <unistd.h>

/* Requests of one run of random work.  Issue 9, fault 11: a sanitizer makes each many times
 * slower, and the test must end well within its limit on a busy machine. */
#if defined(__SANITIZE_THREAD__)
#define RANDOM_OPS 600u
#elif defined(__SANITIZE_ADDRESS__)
#define RANDOM_OPS 1500u
#else
#define RANDOM_OPS 6000u
#endif

static void on_stopped(void *arg)
{
    struct client *c = arg;
    c->stopped = true;
    reactor_stop(c->reactor);
}

struct xseg_request *new_request(struct client *c, uint32_t op)
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
int64_t call(struct client *c, struct xseg_request *rq)
{
    reactor_submit(c->reactor, c->port, rq, XSEG_PORT_VLMCD, call_done, c->reactor);
    CHECK_EQ(reactor_run(c->reactor), 0);
    return rq->result;
}

int64_t call_simple(struct client *c, uint32_t op, uint64_t offset, uint64_t size,
                    uint32_t flags)
{
    struct xseg_request *rq = new_request(c, op);
    rq->offset = offset;
    rq->size = size;
    rq->flags = flags;
    int64_t result = call(c, rq);
    xseg_request_free(c->port, rq);
    return result;
}

int64_t call_named(struct client *c, uint32_t op, uint32_t flags, uint64_t *handle)
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

/* ---- without waiting ---- */

static void async_done(void *arg, struct xseg_request *rq)
{
    struct client_op *o = arg;

    o->result = rq->result;
    o->busy = false;
    xseg_request_free(o->client->port, rq);
    reactor_stop(o->client->reactor);
}

void submit_async(struct client *c, uint32_t i, struct xseg_request *rq)
{
    struct client_op *o = &c->ops[i];

    CHECK(!o->busy);
    o->busy = true;
    reactor_submit(c->reactor, c->port, rq, XSEG_PORT_VLMCD, async_done, o);
}

void send_async(struct client *c, uint32_t i, uint32_t op, uint64_t offset,
                uint64_t size)
{
    struct xseg_request *rq = new_request(c, op);

    rq->offset = offset;
    rq->size = size;
    rq->data_off = c->ops[i].buffer;
    rq->data_len = 6 * S;
    if (op == XSEG_OP_SNAPSHOT || op == XSEG_OP_OPEN || op == XSEG_OP_TRUNCATE) {
        rq->arg[XSEG_ARG_NAME_LEN] = 1;
        rq->inline_data[0] = 'v';
    }
    submit_async(c, i, rq);
}

int64_t await(struct client *c, uint32_t i)
{
    while (c->ops[i].busy)
        CHECK_EQ(reactor_run(c->reactor), 0);
    return c->ops[i].result;
}

struct turns {
    struct reactor_task task;
    struct client *client;
    uint32_t left;
};

static void turned(struct reactor_task *task)
{
    struct turns *t = (struct turns *)(void *)task;

    if (t->left--)
        reactor_defer(t->client->reactor, task);
    else
        reactor_stop(t->client->reactor);
}

void client_run(struct client *c, uint32_t turns)
{
    struct turns t = {.task.fn = turned, .client = c, .left = turns};

    reactor_defer(c->reactor, &t.task);
    while (t.left != UINT32_MAX)
        CHECK_EQ(reactor_run(c->reactor), 0);
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
        /* a change whose CONTROL died: nobody knows */
        CHECK(rq->result == 0 || (c->store->deadly && fake_store_away(rq->result)));
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
    for (uint32_t i = 0; i < DEPTH && c->nr_sent < c->nr_ops; i++)
        if (!c->ops[i].busy)
            send_one(c, &c->ops[i]);
    if (c->nr_sent >= c->nr_ops && c->nr_busy == 0)
        reactor_stop(c->reactor);
}

void test_random_work_matches_the_model(struct client *c)
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

/* ---- life ---- */

void client_start(struct client *c, struct fake_store *f,
                  const struct composer_options *options)
{
    static const struct xseg_segment_options segment = {
        .nr_ports = 16, .nr_requests = 1024, .heap_bytes = 16u << 20};
    const char *why;
    char name[64];

    uint64_t seed = check_seed();
    memset(c, 0, sizeof *c);
    c->nr_ops = RANDOM_OPS;
    snprintf(name, sizeof name, "test-composer-%d", (int)getpid());
    CHECK_EQ(xseg_segment_create(name, &segment, &c->seg), 0);
    CHECK_EQ(xseg_segment_destroy(name), 0); /* the mapping is enough */
    CHECK_EQ(reactor_create(c->seg, NULL, &c->reactor), 0);
    fake_store_start(f, c->reactor, seed);
    c->store = f;
    c->rng = seed * 31 + 7;
    CHECK_EQ(xseg_port_bind(c->seg, XSEG_PORT_ANY, "client", &c->port), 0);
    CHECK_EQ(reactor_add_port(c->reactor, c->port, NULL, NULL), 0);
    CHECK_EQ(composer_create(c->reactor, options, &c->composer, &why), 0);
    for (uint32_t i = 0; i < DEPTH; i++) {
        c->ops[i].client = c;
        CHECK(xseg_buffer_alloc(c->seg, 6 * S, &c->ops[i].buffer) > 0);
    }
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

void client_begin_stop(struct client *c)
{
    c->composer->stop(c->composer, on_stopped, c);
}

void client_stop_composer(struct client *c)
{
    client_begin_stop(c);
    while (!c->stopped)
        CHECK_EQ(reactor_run(c->reactor), 0);
}

void client_end(struct client *c)
{
    c->composer->destroy(c->composer);
    fake_store_stop(c->store);
    for (uint32_t i = 0; i < DEPTH; i++)
        CHECK_EQ(xseg_buffer_free(c->seg, c->ops[i].buffer), 0);
    reactor_remove_port(c->reactor, c->port);
    xseg_port_unbind(c->port);
    reactor_destroy(c->reactor);
    struct xseg_heap_usage usage;
    xseg_heap_usage(c->seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0); /* nothing leaked */
    xseg_segment_detach(c->seg);
}
