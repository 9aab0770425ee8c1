/* SPDX-License-Identifier: Apache-2.0 */
/* A blockerm in memory (see fake_blocker.h). */
#include "fake_blocker.h"

#include <errno.h>

#include "check.h"

struct xseg_object fake_layer_name(const uint8_t uuid[16])
{
    struct xseg_object name = {.kind = XSEG_OBJ_LAYER};
    memcpy(name.id, uuid, 16);
    return name;
}

struct xseg_object fake_journal_name(const uint8_t uuid[16], uint64_t number)
{
    struct xseg_object name = {.kind = XSEG_OBJ_JOURNAL};
    memcpy(name.id, uuid, 16);
    memcpy(name.id + 16, &number, 8);
    return name;
}

struct fake_object *fake_find(struct fake_blocker *fake, const struct xseg_object *name)
{
    LIST_FOR_EACH(it, n, &fake->objects)
    {
        struct fake_object *o = LIST_ENTRY(it, struct fake_object, link);
        if (memcmp(&o->name, name, sizeof *name) == 0)
            return o;
    }
    return NULL;
}

void fake_put(struct fake_blocker *fake, const struct xseg_object *name,
              uint64_t offset, const void *data, size_t len)
{
    struct fake_object *o = fake_find(fake, name);
    if (!o) {
        o = calloc(1, sizeof *o);
        CHECK(o);
        o->name = *name;
        list_push_front(&fake->objects, &o->link);
    }
    if (offset + len > o->size) {
        o->bytes = realloc(o->bytes, offset + len);
        CHECK(o->bytes);
        memset(o->bytes + o->size, 0, offset + len - o->size);
        o->size = offset + len;
    }
    memcpy(o->bytes + offset, data, len);
}

static void object_free(struct fake_object *o)
{
    list_remove(&o->link);
    free(o->bytes);
    free(o);
}

void fake_delete(struct fake_blocker *fake, const struct xseg_object *name)
{
    struct fake_object *o = fake_find(fake, name);
    if (o)
        object_free(o);
}

static int64_t serve_read(struct fake_blocker *fake, struct xseg_request *rq)
{
    struct fake_object *o = fake_find(fake, &rq->object);
    uint64_t size = rq->size;
    if (!o)
        return -ENOENT;
    CHECK(size <= rq->data_len);
    if (rq->offset >= o->size)
        return 0;
    if (size > o->size - rq->offset)
        size = o->size - rq->offset;
    struct xseg_segment *seg = reactor_segment(fake->reactor);
    memcpy(xseg_heap_ptr(seg, rq->data_off, size), o->bytes + rq->offset, size);
    return (int64_t)size;
}

static int64_t serve_append(struct fake_blocker *fake, struct xseg_request *rq,
                            uint64_t size)
{
    struct fake_object *o = fake_find(fake, &rq->object);
    CHECK(rq->size <= rq->data_len);
    if (rq->arg[0] < fake->fence)
        return -ESTALE;
    if (rq->size == 0)
        return 0;
    if (rq->offset != (o ? o->size : 0))
        return o ? -ERANGE : -ESTALE;
    if (size)
        fake_put(fake, &rq->object, rq->offset,
                 xseg_heap_ptr(reactor_segment(fake->reactor), rq->data_off, size),
                 size);
    return 0;
}

static int64_t serve_info(struct fake_blocker *fake, struct xseg_request *rq)
{
    struct fake_object *o = fake_find(fake, &rq->object);
    struct xseg_object_info info = {.size_bytes = o ? o->size : 0};
    memcpy(rq->inline_data, &info, sizeof info);
    return o ? 0 : -ENOENT;
}

static int64_t serve(struct fake_blocker *fake, struct xseg_request *rq)
{
    struct fake_fault *fault = &fake->fault;
    bool compare = rq->op == XSEG_OP_APPEND && rq->size == 0;
    if (compare)
        fake->nr_compares++;
    else
        fake->nr_ops[rq->op]++;
    if (fault->armed && fault->op == rq->op && fault->compare == compare &&
        fault->skip-- == 0) {
        fault->armed = false;
        if (rq->op == XSEG_OP_APPEND && fault->apply)
            serve_append(fake, rq, fault->apply < rq->size ? fault->apply : rq->size);
        return fault->result;
    }
    switch (rq->op) {
    case XSEG_OP_READ:
        return serve_read(fake, rq);
    case XSEG_OP_APPEND:
        return serve_append(fake, rq, rq->size);
    case XSEG_OP_INFO:
        return serve_info(fake, rq);
    case XSEG_OP_FLUSH:
        return 0;
    default:
        return -EINVAL;
    }
}

static void answer(struct fake_blocker *fake, uint32_t i)
{
    struct xseg_request *rq = fake->queue[i];
    fake->nr_queued--;
    memmove(&fake->queue[i], &fake->queue[i + 1],
            (fake->nr_queued - i) * sizeof(fake->queue[0]));
    xseg_request_complete(fake->port, rq, serve(fake, rq));
}

static void arm(struct fake_blocker *fake)
{
    if (fake->task_armed || fake->paused || fake->nr_queued == 0)
        return;
    fake->task_armed = true;
    reactor_defer(fake->reactor, &fake->task);
}

static void run(struct reactor_task *task)
{
    struct fake_blocker *fake = LIST_ENTRY(task, struct fake_blocker, task);
    fake->task_armed = false;
    if (!fake->paused && fake->nr_queued) {
        if (fake->in_order)
            answer(fake, 0);
        else if (check_next(&fake->random) % 3)
            answer(fake, (uint32_t)(check_next(&fake->random) % fake->nr_queued));
    }
    arm(fake);
}

static void on_request(void *ctx, struct xseg_request *rq)
{
    struct fake_blocker *fake = ctx;
    CHECK(fake->nr_queued < sizeof fake->queue / sizeof fake->queue[0]);
    fake->queue[fake->nr_queued++] = rq;
    arm(fake);
}

static void bind_port(struct fake_blocker *fake)
{
    struct xseg_segment *seg = reactor_segment(fake->reactor);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_BLOCKERM, "blockerm", &fake->port), 0);
    CHECK_EQ(reactor_add_port(fake->reactor, fake->port, on_request, fake), 0);
}

void fake_blocker_start(struct fake_blocker *fake, struct reactor *r, uint64_t seed)
{
    memset(fake, 0, sizeof *fake);
    fake->reactor = r;
    fake->random = seed;
    fake->task.fn = run;
    list_init(&fake->objects);
    bind_port(fake);
}

void fake_blocker_die(struct fake_blocker *fake, int result)
{
    while (fake->nr_queued) {
        struct xseg_request *rq = fake->queue[--fake->nr_queued];
        xseg_request_complete(fake->port, rq, result);
    }
    reactor_remove_port(fake->reactor, fake->port);
    xseg_port_unbind(fake->port);
    fake->port = NULL;
}

void fake_blocker_revive(struct fake_blocker *fake)
{
    bind_port(fake);
}

void fake_blocker_resume(struct fake_blocker *fake)
{
    fake->paused = false;
    arm(fake);
}

void fake_blocker_end(struct fake_blocker *fake)
{
    struct list *link;
    if (fake->port)
        fake_blocker_die(fake, -EOWNERDEAD);
    while ((link = list_pop_front(&fake->objects)))
        object_free(LIST_ENTRY(link, struct fake_object, link));
}
