/* SPDX-License-Identifier: Apache-2.0 */
/* Fake blockerb, mapperd and control (see fake_store.h). */
#include "fake_store.h"

#include "check.h"

#define S XSEG_SECTOR_BYTES

static const uint8_t uuid[16] = "composer-testing";

static void schedule(struct fake_store *f)
{
    if (!f->scheduled && f->nr_late) {
        f->scheduled = true;
        reactor_defer(f->reactor, &f->task);
    }
}

static void put_off(void *ctx, struct xseg_request *rq)
{
    struct fake_store *f = ctx;

    CHECK(f->nr_late < sizeof f->late / sizeof f->late[0]);
    if (rq->dst_port == XSEG_PORT_BLOCKERB && rq->object.kind == XSEG_OBJ_EXTENT &&
        (rq->op == XSEG_OP_WRITE || rq->op == XSEG_OP_DISCARD)) {
        CHECK_EQ(rq->offset % S, 0);
        CHECK_EQ(rq->size % S, 0);
        CHECK(rq->offset + rq->size <= FAKE_BYTES);
        for (uint64_t s = rq->offset / S; s < (rq->offset + rq->size) / S; s++) {
            CHECK_EQ(f->writing[s], 0); /* overlapping mutations wait */
            f->writing[s]++;
        }
    }
    f->late[f->nr_late++] = rq;
    schedule(f);
}

/* ---- blockerb --------------------------------------------------------------- */

static int64_t serve_blockerb(struct fake_store *f, struct xseg_request *rq)
{
    struct xseg_segment *seg = reactor_segment(f->reactor);
    uint64_t epoch;

    memcpy(&epoch, rq->object.id + 16, 8);
    switch (rq->op) {
    case XSEG_OP_READ: {
        const uint8_t *from = rq->object.kind == XSEG_OBJ_EXTENT ? f->extent : f->base;
        memcpy(xseg_heap_ptr(seg, rq->data_off, rq->size), from + rq->offset, rq->size);
        return (int64_t)rq->size;
    }
    case XSEG_OP_WRITE:
    case XSEG_OP_DISCARD:
        CHECK_EQ(epoch, f->epoch); /* never to a sealed extent */
        for (uint64_t s = rq->offset / S; s < (rq->offset + rq->size) / S; s++) {
            f->writing[s]--;
            f->written[s] = true;
        }
        if (rq->op == XSEG_OP_DISCARD) {
            memset(f->extent + rq->offset, 0, rq->size);
            return 0;
        }
        memcpy(f->extent + rq->offset, xseg_heap_ptr(seg, rq->data_off, rq->size),
               rq->size);
        return (int64_t)rq->size;
    case XSEG_OP_FLUSH:
        CHECK_EQ(epoch, f->epoch);
        memcpy(f->durable, f->extent, FAKE_BYTES);
        return 0;
    default:
        CHECK(!"an op that the composer has no business to send");
        return -EINVAL;
    }
}

/* ---- mapperd ------------------------------------------------------------------- */

static int64_t map_range(struct fake_store *f, struct xseg_request *rq)
{
    struct xseg_run *runs = (struct xseg_run *)rq->inline_data;
    uint64_t room = XSEG_INLINE_RUNS, nr = 0, end = (rq->offset + rq->size) / S;

    CHECK_EQ(rq->offset % S, 0);
    CHECK_EQ(rq->size % S, 0);
    if (rq->data_off) {
        runs = xseg_heap_ptr(reactor_segment(f->reactor), rq->data_off, rq->data_len);
        room = rq->data_len / sizeof *runs;
    }
    room = 1 + check_next(&f->rng) % room; /* a prefix is an answer too */
    for (uint64_t s = rq->offset / S; s < end && nr < room;) {
        uint64_t n = 1;
        while (s + n < end && f->mark[s + n] == f->mark[s])
            n++;
        struct xseg_run *run = &runs[nr++];
        memset(run, 0, sizeof *run);
        run->offset = s * S;
        run->size = n * S;
        run->kind = f->mark[s] == 1   ? XSEG_REF_EXTENT
                    : f->mark[s] == 2 ? XSEG_REF_ZERO
                                      : XSEG_REF_CONTENT;
        run->object_off = run->kind == XSEG_REF_ZERO ? 0 : run->offset;
        s += n;
    }
    return (int64_t)nr;
}

static int64_t serve_mapperd(struct fake_store *f, struct xseg_request *rq)
{
    CHECK_EQ(rq->handle, 77);
    switch (rq->op) {
    case XSEG_OP_MAPR:
        return map_range(f, rq);
    case XSEG_OP_MAPW:
        CHECK_EQ(rq->offset % S, 0);
        CHECK_EQ(rq->size % S, 0);
        for (uint64_t s = rq->offset / S; s < (rq->offset + rq->size) / S; s++) {
            CHECK(f->written[s]); /* marks follow data */
            CHECK_EQ(f->writing[s], 0);
            uint8_t mark = rq->flags & XSEG_F_ZERO ? 2 : 1;
            if (f->mark[s] != mark)
                f->mark_generation[s] = rq->arg[0];
            f->mark[s] = mark;
        }
        return 0;
    case XSEG_OP_FLUSH:
        for (uint32_t s = 0; s < FAKE_SECTORS; s++)
            if (f->mark[s] && f->mark_generation[s] <= rq->arg[0])
                f->journaled[s] = f->mark[s];
        return 0;
    default:
        CHECK(!"an op that the composer has no business to send");
        return -EINVAL;
    }
}

/* ---- control -------------------------------------------------------------------- */

static void fill_info(struct fake_store *f, struct xseg_request *rq)
{
    struct xseg_volume_info info = {
        .size_bytes = f->size_bytes,
        .epoch = f->epoch,
        .fence = 1,
        .map_handle = 77,
        .block_bytes = XSEG_BLOCK_MIN_BYTES,
        .flags = f->flags,
        .inline_valid = 1,
        .name_len = 1,
        .name = "v",
    };
    memcpy(info.uuid, uuid, 16);
    memcpy(rq->inline_data, &info, sizeof info);
}

/** Everything acked must be in the store when CONTROL is asked to seal it. */
static void check_quiet(struct fake_store *f)
{
    for (uint32_t s = 0; s < FAKE_SECTORS; s++) {
        CHECK_EQ(f->writing[s], 0);
        CHECK_EQ(f->journaled[s], f->mark[s]);
    }
}

static int64_t serve_control(struct fake_store *f, struct xseg_request *rq)
{
    CHECK_EQ(rq->arg[XSEG_ARG_NAME_LEN], 1);
    CHECK_EQ(rq->inline_data[0], 'v');
    rq->arg[0] = 0;
    switch (rq->op) {
    case XSEG_OP_OPEN:
        f->nr_opens++;
        break;
    case XSEG_OP_CLOSE:
        check_quiet(f);
        f->nr_closes++;
        return 0;
    case XSEG_OP_SNAPSHOT:
        check_quiet(f);
        f->nr_changes++;
        for (uint32_t s = 0; s < FAKE_SECTORS; s++) {
            if (f->mark[s] == 1)
                memcpy(f->base + s * S, f->extent + s * S, S);
            else if (f->mark[s] == 2)
                memset(f->base + s * S, 0, S);
            f->mark[s] = f->journaled[s] = 0;
            f->written[s] = false;
        }
        memset(f->extent, 0xee, FAKE_BYTES);
        memset(f->durable, 0xee, FAKE_BYTES);
        f->epoch++;
        break;
    default:
        f->nr_changes++;
    }
    fill_info(f, rq);
    return 0;
}

/* ---- answering late ----------------------------------------------------------------
 */

static void answer(struct fake_store *f, struct xseg_request *rq)
{
    struct xseg_port *port = rq->dst_port == XSEG_PORT_BLOCKERB  ? f->blockerb
                             : rq->dst_port == XSEG_PORT_MAPPERD ? f->mapperd
                                                                 : f->control;
    int64_t fault = f->fail_op[rq->op];
    bool data = rq->dst_port == XSEG_PORT_BLOCKERB;
    int64_t result;

    f->nr_ops[rq->op]++;
    if (fault) {
        f->fail_op[rq->op] = 0;
        if (data && (rq->op == XSEG_OP_WRITE || rq->op == XSEG_OP_DISCARD))
            for (uint64_t s = rq->offset / S; s < (rq->offset + rq->size) / S; s++)
                f->writing[s]--;
        result = fault;
    } else if (data) {
        result = serve_blockerb(f, rq);
    } else if (rq->dst_port == XSEG_PORT_MAPPERD) {
        result = serve_mapperd(f, rq);
    } else {
        result = serve_control(f, rq);
    }
    xseg_request_complete(port, rq, result);
}

static void answer_some(struct reactor_task *task)
{
    struct fake_store *f =
        (struct fake_store *)(void *)((char *)task - offsetof(struct fake_store, task));

    f->scheduled = false;
    for (uint64_t n = check_next(&f->rng) % 4; n && f->nr_late; n--) {
        uint32_t i = (uint32_t)(check_next(&f->rng) % f->nr_late);
        struct xseg_request *rq = f->late[i];
        f->late[i] = f->late[--f->nr_late];
        answer(f, rq);
    }
    schedule(f);
}

void fake_store_start(struct fake_store *f, struct reactor *r, uint64_t seed)
{
    struct xseg_segment *seg = reactor_segment(r);

    memset(f, 0, sizeof *f);
    f->reactor = r;
    f->rng = seed;
    f->size_bytes = FAKE_BYTES - 700; /* ends inside a sector */
    f->epoch = 5;
    f->task.fn = answer_some;
    for (uint32_t i = 0; i < f->size_bytes; i++)
        f->base[i] = (uint8_t)check_next(&f->rng);
    memset(f->extent, 0xee, FAKE_BYTES); /* what must never be seen */
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_BLOCKERB, "blockerb", &f->blockerb), 0);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_MAPPERD, "mapperd", &f->mapperd), 0);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_CONTROL, "control", &f->control), 0);
    CHECK_EQ(reactor_add_port(r, f->blockerb, put_off, f), 0);
    CHECK_EQ(reactor_add_port(r, f->mapperd, put_off, f), 0);
    CHECK_EQ(reactor_add_port(r, f->control, put_off, f), 0);
}

void fake_store_stop(struct fake_store *f)
{
    struct xseg_port *ports[] = {f->blockerb, f->mapperd, f->control};

    CHECK_EQ(f->nr_late, 0);
    for (int i = 0; i < 3; i++) {
        reactor_remove_port(f->reactor, ports[i]);
        xseg_port_unbind(ports[i]);
    }
}

void fake_store_view(const struct fake_store *f, uint8_t *out, bool after_crash)
{
    const uint8_t *marks = after_crash ? f->journaled : f->mark;
    const uint8_t *extent = after_crash ? f->durable : f->extent;

    for (uint32_t s = 0; s < FAKE_SECTORS; s++) {
        if (marks[s] == 2)
            memset(out + s * S, 0, S);
        else
            memcpy(out + s * S, (marks[s] == 1 ? extent : f->base) + s * S, S);
    }
}
