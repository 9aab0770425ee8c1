/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocker peer: takes requests from its port, hands them to the backend, answers.
 *
 * All on the reactor's thread.  A request in flight occupies one slot; slots come in
 * slabs and are kept, so a steady load allocates nothing.  There are never more
 * requests in flight than the segment has descriptors, which bounds the slabs.
 *
 * Every request has a deadline.  When it passes, the backend is asked to let go of the
 * request's memory; then the request is answered -ETIMEDOUT, and its slot waits for the
 * backend's late completion, which is dropped.
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
/** A request whose memory is in use after its deadline is looked at so often. */
#define ABANDON_AGAIN_NS UINT64_C(1000000000)
/** How often to see whether the store is still there. */
#define CHECK_NS UINT64_C(1000000000)

struct slot {
    struct blk_io io; /* first: io->done gets the slot back by it */
    struct list link; /* in blocker.free or blocker.flying */
    struct blocker *blocker;
    struct xseg_request *rq; /* NULL: its deadline passed, it is answered */
    uint64_t deadline_ns;
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
    struct blk_capabilities capabilities;
    struct blk_backend *backend;
    struct lease_watch *watch; /* BLOCKERM only */
    bool watch_idle;
    struct slab *slabs;
    struct list free;
    struct list flying; /* not answered yet, by rising deadline */
    uint64_t nr_in_flight;
    uint64_t timeout_ns;
    struct reactor_timer deadline_timer;
    struct reactor_timer check_timer;
    bool slow_told;
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

static uint32_t capability_bits(const struct blk_capabilities *c)
{
    return (c->shared ? XSEG_STORE_SHARED : 0) |
           (c->persistent ? XSEG_STORE_PERSISTENT : 0);
}

static void on_done(struct blk_io *io)
{
    struct slot *slot = (struct slot *)io;
    struct blocker *b = slot->blocker;

    if (b->watch)
        lease_watch_end(b->watch, &slot->lease_op, slot->op);
    if (slot->rq) {
        if (slot->op == XSEG_OP_INFO && io->object.kind == XSEG_OBJ_NONE)
            io->info.store = capability_bits(&b->capabilities);
        request_encode(slot->rq, slot->op, io);
        /* -EPIPE: the sender is gone, and the answer with it. */
        (void)xseg_request_complete(b->port, slot->rq, io->result);
    }
    list_remove(&slot->link);
    list_push_front(&b->free, &slot->link);
    if (--b->nr_in_flight == 0 && b->state == DRAINING)
        queue_stop_step(b);
}

/* ---- deadlines ---------------------------------------------------------- */

/** Answer a request whose deadline has passed; false if its memory is still in use. */
static bool slot_abandon(struct slot *slot)
{
    struct blocker *b = slot->blocker;

    if (!b->backend->ops->abandon(b->backend, &slot->io))
        return false;
    list_remove(&slot->link);
    (void)xseg_request_complete(b->port, slot->rq, -ETIMEDOUT);
    slot->rq = NULL;
    if (!b->slow_told)
        log_line(LOG_ERROR, b->peer.role,
                 "the store has not answered %s for %.1f s: its requests fail now",
                 xseg_op_name(slot->op), (double)b->timeout_ns / 1e9);
    b->slow_told = true;
    return true;
}

static void on_deadline(struct reactor_timer *timer)
{
    struct blocker *b = LIST_ENTRY(timer, struct blocker, deadline_timer);
    uint64_t now = reactor_now_ns(b->reactor);
    struct list in_use;

    list_init(&in_use);
    LIST_FOR_EACH(link, next, &b->flying)
    {
        struct slot *slot = LIST_ENTRY(link, struct slot, link);
        if (slot->deadline_ns > now)
            break;
        if (slot_abandon(slot))
            continue;
        list_remove(link);
        list_push_back(&in_use, link);
    }
    bool again = !list_empty(&in_use);
    for (struct list *link; (link = in_use.prev) != &in_use;) {
        list_remove(link);
        list_push_front(&b->flying, link);
    }
    if (again) {
        reactor_arm_timer(b->reactor, timer, ABANDON_AGAIN_NS);
    } else if (!list_empty(&b->flying)) {
        const struct slot *first = LIST_ENTRY(b->flying.next, struct slot, link);
        reactor_arm_timer(b->reactor, timer, first->deadline_ns - now);
    }
}

static void slot_fly(struct slot *slot)
{
    struct blocker *b = slot->blocker;

    b->nr_in_flight++;
    slot->deadline_ns = reactor_now_ns(b->reactor) + b->timeout_ns;
    list_push_back(&b->flying, &slot->link);
    /* An armed timer is early enough; it finds the next one itself. */
    if (b->backend->ops->abandon && !b->deadline_timer.armed)
        reactor_arm_timer(b->reactor, &b->deadline_timer, b->timeout_ns);
}

/** Once the store's directory was removed nothing can be served: end, and say so. */
static void on_check(struct reactor_timer *timer)
{
    struct blocker *b = LIST_ENTRY(timer, struct blocker, check_timer);
    int rc = b->backend->ops->check(b->backend);

    if (rc == 0) {
        reactor_arm_timer(b->reactor, timer, CHECK_NS);
        return;
    }
    log_line(LOG_ERROR, b->peer.role,
             "the store is gone, its directory was removed: %s", "this process ends");
    reactor_fail(b->reactor, rc);
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
    rc = request_decode(b->seg, b->port_id, b->capabilities.alignment, b->backend->ops,
                        slot->op, rq, &slot->io, &call);
    if (rc < 0 || !call) {
        list_push_front(&b->free, &slot->link);
        if (rc == 0 && slot->op == XSEG_OP_NOTIFY)
            lease_watch_wait(b->watch, rq);
        else
            (void)xseg_request_complete(b->port, rq, rc);
        return;
    }
    slot_fly(slot);
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
    reactor_disarm_timer(b->reactor, &b->deadline_timer);
    reactor_disarm_timer(b->reactor, &b->check_timer);
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
    b->timeout_ns =
        options->store.timeout_ns ? options->store.timeout_ns : BLK_TIMEOUT_NS;
    b->deadline_timer.on_fire = on_deadline;
    b->check_timer.on_fire = on_check;
    list_init(&b->free);
    list_init(&b->flying);
    rc = grow(b);
    if (rc < 0)
        goto fail_free;
    rc = ops->open(r, &options->store, &b->backend, why);
    if (rc < 0)
        goto fail_slabs;
    b->backend->ops->capabilities(b->backend, &b->capabilities);
    if (!b->capabilities.persistent)
        log_line(LOG_INFO, b->peer.role,
                 "this store is in memory only: it ends with this process");
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
    if (ops->check)
        reactor_arm_timer(r, &b->check_timer, CHECK_NS);
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
