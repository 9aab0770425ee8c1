/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocker peer: takes requests from its port, hands them to the backend, answers.
 *
 * All on the reactor's thread.  A request in flight occupies one slot; slots come in
 * slabs and are kept, so a steady load allocates nothing.  There are never more
 * requests in flight than the segment has descriptors, which bounds the slabs.
 */
#include "blocker/blocker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blocker/lease_watch.h"
#include "blocker/request.h"
#include "common/list.h"
#include "common/log.h"

#define SLOTS_PER_SLAB 256u

struct slot {
    struct blk_io io; /* first: io->done gets the slot back by it */
    struct list link; /* in blocker.free */
    struct blocker *blocker;
    struct xseg_request *rq;
    uint32_t op;
    struct lease_watch_op lease_op;
};

struct slab {
    struct slab *next;
    struct slot slots[SLOTS_PER_SLAB];
};

struct blocker {
    struct peer peer; /* first: struct peer callbacks get the blocker by it */
    struct reactor *reactor;
    struct xseg_segment *seg;
    struct xseg_port *port;
    uint32_t port_id;
    uint32_t alignment;
    struct blk_backend *backend;
    struct lease_watch *watch; /* BLOCKERM only */
    bool watch_idle;
    struct slab *slabs;
    struct list free;
    uint64_t nr_in_flight;
    /* stop: SERVING -> DRAINING (answering what is in flight) -> FLUSHING -> STOPPED */
    enum { SERVING, DRAINING, FLUSHING, STOPPED } state;
    struct blk_io last_flush;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct reactor_task
        stop_task; /* stop steps run from the loop, not inside a reply */
    bool stop_task_queued;
};

static int grow(struct blocker *b)
{
    struct slab *slab = calloc(1, sizeof *slab);
    if (!slab)
        return -ENOMEM;
    slab->next = b->slabs;
    b->slabs = slab;
    for (uint32_t i = 0; i < SLOTS_PER_SLAB; i++) {
        slab->slots[i].blocker = b;
        list_push_back(&b->free, &slab->slots[i].link);
    }
    return 0;
}

static void queue_stop_step(struct blocker *b)
{
    if (b->stop_task_queued)
        return;
    b->stop_task_queued = true;
    reactor_defer(b->reactor, &b->stop_task);
}

static void on_done(struct blk_io *io)
{
    struct slot *slot = (struct slot *)io;
    struct blocker *b = slot->blocker;

    if (b->watch)
        lease_watch_end(b->watch, &slot->lease_op, slot->op);
    request_encode(slot->rq, slot->op, io);
    /* -EPIPE: the sender is gone, and the answer with it. */
    (void)xseg_request_complete(b->port, slot->rq, io->result);
    list_push_front(&b->free, &slot->link);
    if (--b->nr_in_flight == 0 && b->state == DRAINING)
        queue_stop_step(b);
}

static void on_request(void *ctx, struct xseg_request *rq)
{
    struct blocker *b = ctx;
    request_call_fn call;
    int rc;

    if (b->state != SERVING) {
        (void)xseg_request_complete(b->port, rq, -ECANCELED);
        return;
    }
    struct list *link = list_pop_front(&b->free);
    if (!link && grow(b) == 0)
        link = list_pop_front(&b->free);
    if (!link) {
        (void)xseg_request_complete(b->port, rq, -ENOBUFS);
        return;
    }
    struct slot *slot = LIST_ENTRY(link, struct slot, link);
    slot->rq = rq;
    slot->op = *(const volatile uint32_t *)&rq->op;
    slot->io.done = on_done;
    slot->io.owner = slot;
    slot->io.backend = b->backend;
    rc = request_decode(b->seg, b->port_id, b->alignment, b->backend->ops, slot->op, rq,
                        &slot->io, &call);
    if (rc < 0 || !call) {
        list_push_front(&b->free, &slot->link);
        if (rc == 0 && slot->op == XSEG_OP_NOTIFY)
            lease_watch_wait(b->watch, rq);
        else
            (void)xseg_request_complete(b->port, rq, rc);
        return;
    }
    b->nr_in_flight++;
    if (b->watch)
        lease_watch_begin(b->watch, &slot->lease_op, &slot->io);
    call(b->backend, &slot->io);
}

static void close_store(struct blocker *b)
{
    if (b->state == STOPPED)
        return;
    b->state = STOPPED;
    lease_watch_destroy(b->watch);
    b->watch = NULL;
    reactor_remove_port(b->reactor, b->port);
    xseg_port_unbind(b->port);
    b->backend->ops->close(b->backend);
    b->backend = NULL;
}

static void on_flushed(struct blk_io *io)
{
    struct blocker *b = io->owner;
    if (io->result < 0)
        log_line(LOG_ERROR, b->peer.role, "last flush failed: %s",
                 strerror((int)-io->result));
    queue_stop_step(b);
}

static void stop_step(struct reactor_task *task)
{
    struct blocker *b =
        (struct blocker *)(void *)((char *)task - offsetof(struct blocker, stop_task));
    b->stop_task_queued = false;
    if (b->state == DRAINING) {
        if (b->nr_in_flight > 0 || (b->watch && !b->watch_idle))
            return;
        b->state = FLUSHING;
        b->last_flush =
            (struct blk_io){.done = on_flushed, .owner = b, .backend = b->backend};
        b->backend->ops->flush(b->backend, &b->last_flush);
        return;
    }
    if (b->state == FLUSHING) {
        close_store(b);
        b->stopped(b->stopped_arg);
    }
}

static void watch_idle(void *arg)
{
    struct blocker *b = arg;
    b->watch_idle = true;
    queue_stop_step(b);
}

static void blocker_stop(struct peer *self, void (*stopped)(void *arg), void *arg)
{
    struct blocker *b = (struct blocker *)self;
    if (b->state != SERVING)
        return;
    b->stopped = stopped;
    b->stopped_arg = arg;
    b->state = DRAINING;
    if (b->watch)
        lease_watch_stop(b->watch, watch_idle, b);
    queue_stop_step(b);
}

static void blocker_destroy(struct peer *self)
{
    struct blocker *b = (struct blocker *)self;
    close_store(b);
    while (b->slabs) {
        struct slab *next = b->slabs->next;
        free(b->slabs);
        b->slabs = next;
    }
    free(b);
}

int blocker_create(struct reactor *r, const struct blocker_options *options,
                   struct peer **out, const char **why)
{
    const struct blk_backend_ops *ops = blk_backend_find(options->backend);
    struct blk_capabilities capabilities;
    int rc = -EINVAL;

    *out = NULL;
    *why = "no such backend; there are file and mem";
    if (!ops)
        return -EINVAL;
    *why = "a blocker serves port 1 (blockerb) or 2 (blockerm)";
    if (options->port != XSEG_PORT_BLOCKERB && options->port != XSEG_PORT_BLOCKERM)
        return -EINVAL;
    *why = "out of memory";
    struct blocker *b = calloc(1, sizeof *b);
    if (!b)
        return -ENOMEM;
    b->peer.role = options->port == XSEG_PORT_BLOCKERB ? "blockerb" : "blockerm";
    b->peer.stop = blocker_stop;
    b->peer.destroy = blocker_destroy;
    b->reactor = r;
    b->seg = reactor_segment(r);
    b->port_id = options->port;
    b->stop_task.fn = stop_step;
    list_init(&b->free);
    rc = grow(b);
    if (rc < 0)
        goto fail_free;
    rc = ops->open(r, &options->store, &b->backend, why);
    if (rc < 0)
        goto fail_slabs;
    b->backend->ops->capabilities(b->backend, &capabilities);
    b->alignment = capabilities.alignment;
    rc = xseg_port_bind(b->seg, b->port_id, b->peer.role, &b->port);
    if (rc < 0) {
        *why = rc == -EBUSY ? "the port is served by another process"
                            : "cannot bind the port";
        goto fail_backend;
    }
    if (options->port == XSEG_PORT_BLOCKERM) {
        rc = lease_watch_create(r, b->backend, b->port, &b->watch);
        *why = "out of memory";
        if (rc < 0)
            goto fail_port;
    }
    rc = reactor_add_port(r, b->port, on_request, b);
    if (rc < 0) {
        *why = "cannot add the port to the reactor";
        goto fail_watch;
    }
    *why = NULL;
    *out = &b->peer;
    return 0;

fail_watch:
    lease_watch_destroy(b->watch);
fail_port:
    xseg_port_unbind(b->port);
fail_backend:
    b->backend->ops->close(b->backend);
fail_slabs:
    free(b->slabs);
fail_free:
    free(b);
    return rc;
}
