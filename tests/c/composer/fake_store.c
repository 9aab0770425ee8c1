/* SPDX-License-Identifier: Apache-2.0 */
/* Fake blockerb, mapperd and control (see fake_store.h). */
#include "fake_store.h"

#include "check.h"

#define S XSEG_SECTOR_BYTES

#define NS_PER_MS UINT64_C(1000000)

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
    if (rq->dst_port == XSEG_PORT_BLOCKERB && rq->op == XSEG_OP_FLUSH) {
        memcpy(f->flushing, f->extent, FAKE_BYTES);
        memcpy(f->safe_soon, f->written, sizeof f->safe_soon);
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
        CHECK_EQ(rq->flags, rq->object.kind == XSEG_OBJ_EXTENT ? XSEG_F_LIVE : 0);
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
        memcpy(f->durable, f->flushing, FAKE_BYTES);
        memcpy(f->safe, f->safe_soon, sizeof f->safe);
        return 0;
    case XSEG_OP_PING:
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
        run->flags = run->kind == XSEG_REF_EXTENT ? XSEG_RUN_OWNED : 0;
        run->object_off = run->kind == XSEG_REF_ZERO ? 0 : run->offset;
        s += n;
    }
    return (int64_t)nr;
}

static uint32_t nr_unjournaled(const struct fake_store *f)
{
    uint32_t nr = 0;

    for (uint32_t s = 0; s < FAKE_SECTORS; s++)
        nr += f->mark[s] != f->journaled[s];
    return nr;
}

static int64_t serve_mapperd(struct fake_store *f, struct xseg_request *rq)
{
    if (!f->mapped || rq->handle != f->map_handle)
        return -ESTALE;
    switch (rq->op) {
    case XSEG_OP_MAPR:
        return map_range(f, rq);
    case XSEG_OP_MAPW:
        CHECK_EQ(rq->offset % S, 0);
        CHECK_EQ(rq->size % S, 0);
        if (f->mark_room && nr_unjournaled(f) + rq->size / S > f->mark_room) {
            f->nr_refused++;
            return -EAGAIN;
        }
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
        if (f->deadly && check_next(&f->rng) % 8 == 0)
            return -EAGAIN; /* a checkpoint is to come */
        for (uint32_t s = 0; s < FAKE_SECTORS; s++) {
            if (!f->mark[s] || f->mark_generation[s] > rq->arg[0] ||
                f->journaled[s] == f->mark[s])
                continue;
            CHECK(f->mark[s] == 2 || f->safe[s]); /* never before its data */
            f->journaled[s] = f->mark[s];
        }
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
        .epoch = f->epoch + f->epochs_on,
        .fence = f->fence,
        .map_handle = f->map_handle,
        .block_bytes = XSEG_BLOCK_MIN_BYTES,
        .flags = f->flags,
        .inline_valid = 1,
        .name_len = 1,
        .name = {(uint8_t)f->name},
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

/** Does it ask for the volume by what never changes? */
static bool has_uuid(const struct xseg_request *rq)
{
    return rq->object.kind == XSEG_OBJ_LEASE &&
           memcmp(rq->object.id, uuid, sizeof uuid) == 0;
}

static int64_t serve_control(struct fake_store *f, struct xseg_request *rq)
{
    CHECK_EQ(rq->arg[XSEG_ARG_NAME_LEN], 1);
    rq->arg[0] = 0;
    if (rq->op != XSEG_OP_OPEN)
        CHECK_EQ(rq->inline_data[0], f->name);
    switch (rq->op) {
    case XSEG_OP_OPEN:
        CHECK(rq->inline_data[0] == f->name || has_uuid(rq));
        f->nr_opens++;
        f->map_handle += !f->mapped;
        f->mapped = true;
        rq->arg[1] = f->deadline_ns;
        break;
    case XSEG_OP_CLOSE:
        if (f->disowned)
            memcpy(f->mark, f->journaled, sizeof f->mark);
        check_quiet(f);
        f->nr_closes++;
        f->mapped = false;
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
            f->written[s] = f->safe[s] = f->safe_soon[s] = false;
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

static struct xseg_port **port_of(struct fake_store *f, uint32_t id)
{
    return id == XSEG_PORT_BLOCKERB  ? &f->blockerb
           : id == XSEG_PORT_MAPPERD ? &f->mapperd
                                     : &f->control;
}

/** Answered without having been done. */
static void unwrite(struct fake_store *f, const struct xseg_request *rq)
{
    if (rq->dst_port == XSEG_PORT_BLOCKERB &&
        (rq->op == XSEG_OP_WRITE || rq->op == XSEG_OP_DISCARD))
        for (uint64_t s = rq->offset / S; s < (rq->offset + rq->size) / S; s++)
            f->writing[s]--;
}

static int64_t serve(struct fake_store *f, struct xseg_request *rq)
{
    if (rq->dst_port == XSEG_PORT_BLOCKERB)
        return serve_blockerb(f, rq);
    if (rq->dst_port == XSEG_PORT_MAPPERD)
        return serve_mapperd(f, rq);
    return serve_control(f, rq);
}

static void answer(struct fake_store *f, struct xseg_request *rq)
{
    int64_t result = f->fail_op[rq->op];

    f->nr_ops[rq->op]++;
    if (result && (!f->fail_dst || f->fail_dst == rq->dst_port)) {
        f->fail_op[rq->op] = 0;
        unwrite(f, rq);
    } else {
        result = serve(f, rq);
    }
    xseg_request_complete(*port_of(f, rq->dst_port), rq, result);
}

/* ---- death ---- */

/** What it was asked is answered with a death; some of it was done. */
static void abandon(struct fake_store *f, uint32_t port)
{
    static const int64_t deaths[] = {-EPIPE, -EOWNERDEAD, -ECANCELED};
    uint32_t nr = 0;

    for (uint32_t i = 0; i < f->nr_late; i++) {
        struct xseg_request *rq = f->late[i];
        if (rq->dst_port != port) {
            f->late[nr++] = rq;
            continue;
        }
        if (check_next(&f->rng) % 2)
            serve(f, rq);
        else
            unwrite(f, rq);
        xseg_request_complete(*port_of(f, port), rq, deaths[check_next(&f->rng) % 3]);
    }
    f->nr_late = nr;
}

static void die(struct fake_store *f, uint32_t id)
{
    struct xseg_port **port = port_of(f, id);

    if (!*port)
        return;
    abandon(f, id);
    reactor_remove_port(f->reactor, *port);
    xseg_port_unbind(*port); /* what it did not take is answered -EPIPE */
    *port = NULL;
}

void fake_store_kill(struct fake_store *f, uint32_t port)
{
    f->nr_deaths++;
    die(f, port);
    if (port == XSEG_PORT_MAPPERD) {
        die(f, XSEG_PORT_CONTROL);
        f->mapped = false;
        for (uint32_t s = 0; s < FAKE_SECTORS; s++)
            f->mark_generation[s] = 0;
    }
    if (!f->stay_dead)
        reactor_arm_timer(f->reactor, &f->rebirth,
                          check_next(&f->rng) % (3 * NS_PER_MS));
}

static void be_born(struct fake_store *f, uint32_t id, const char *role)
{
    struct xseg_port **port = port_of(f, id);

    if (*port)
        return;
    CHECK_EQ(xseg_port_bind(reactor_segment(f->reactor), id, role, port), 0);
    CHECK_EQ(reactor_add_port(f->reactor, *port, put_off, f), 0);
}

void fake_store_rebirth(struct fake_store *f)
{
    be_born(f, XSEG_PORT_BLOCKERB, "blockerb");
    be_born(f, XSEG_PORT_MAPPERD, "mapperd");
    be_born(f, XSEG_PORT_CONTROL, "control");
}

static void on_rebirth(struct reactor_timer *t)
{
    fake_store_rebirth((
        struct fake_store *)(void *)((char *)t - offsetof(struct fake_store, rebirth)));
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
        if (f->deadly && check_next(&f->rng) % 300 == 0)
            fake_store_kill(f, check_next(&f->rng) % 2 ? XSEG_PORT_BLOCKERB
                                                       : XSEG_PORT_MAPPERD);
    }
    schedule(f);
}

void fake_store_start(struct fake_store *f, struct reactor *r, uint64_t seed)
{
    memset(f, 0, sizeof *f);
    f->reactor = r;
    f->rng = seed;
    f->name = 'v';
    f->size_bytes = FAKE_BYTES - 700; /* ends inside a sector */
    f->epoch = 5;
    f->fence = 1;
    f->map_handle = 77;
    f->rebirth.on_fire = on_rebirth;
    f->task.fn = answer_some;
    for (uint32_t i = 0; i < f->size_bytes; i++)
        f->base[i] = (uint8_t)check_next(&f->rng);
    memset(f->extent, 0xee, FAKE_BYTES); /* what must never be seen */
    fake_store_rebirth(f);
}

void fake_store_stop(struct fake_store *f)
{
    CHECK_EQ(f->nr_late, 0);
    reactor_disarm_timer(f->reactor, &f->rebirth);
    die(f, XSEG_PORT_BLOCKERB);
    die(f, XSEG_PORT_MAPPERD);
    die(f, XSEG_PORT_CONTROL);
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
