/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composer peer: takes requests for volumes, checks them, and hands each to its
 * noun.
 *
 * Descriptors and edge buffers are reserved at start, so that whatever clients do to
 * the segment's pools, requests already accepted always end: what finds none free waits
 * in `starved` or `edge_waiters` for one that comes back.
 */
#include "composer/composer.h"

#include <stdlib.h>
#include <string.h>

#include "composer/internal.h"

#define DEFAULT_QUEUE_DEPTH 512u
#define WATCH_INTERVAL_NS   UINT64_C(1000000000)
#define NS_PER_MS           UINT64_C(1000000)
#define PATIENCE_MS         30000u
#define STOP_PATIENCE_MS    5000u

/* ---- descriptors, edge buffers, queues --------------------------------------------
 */

struct xseg_request *composer_request(struct composer *c, uint32_t op)
{
    struct xseg_request *rq;

    if (xseg_request_alloc(c->port, &rq) < 0)
        return NULL;
    rq->op = op;
    return rq;
}

void composer_send(struct composer *c, struct xseg_request *rq, uint32_t dst,
                   reactor_reply_fn *done, void *arg)
{
    reactor_submit(c->reactor, c->port, rq, dst, done, arg);
}

void composer_release(struct composer *c, struct xseg_request *rq)
{
    xseg_request_free(c->port, rq);
    struct list *link = list_pop_front(&c->starved);
    if (link) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        w->resume(w);
    }
}

void composer_starve(struct composer *c, struct waiter *w)
{
    list_push_back(&c->starved, &w->link);
}

uint64_t composer_edge_get(struct composer *c)
{
    return c->nr_edges ? c->edges[--c->nr_edges] : 0;
}

void composer_edge_put(struct composer *c, uint64_t off)
{
    c->edges[c->nr_edges++] = off;
    struct list *link = list_pop_front(&c->edge_waiters);
    if (link) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        w->resume(w);
    }
}

bool composer_queue(struct composer *c, struct list *where, struct xseg_request *rq,
                    struct volume *v)
{
    struct queued *q = malloc(sizeof *q);
    if (!q) {
        composer_reply(c, rq, -ENOMEM);
        return false;
    }
    q->rq = rq;
    q->v = v;
    list_push_back(where, &q->link);
    return true;
}

struct xseg_request *composer_dequeue(struct list *where, struct volume **v)
{
    struct list *link = list_pop_front(where);
    if (!link)
        return NULL;
    struct queued *q = LIST_ENTRY(link, struct queued, link);
    struct xseg_request *rq = q->rq;
    if (v)
        *v = q->v;
    free(q);
    return rq;
}

void composer_serve_again(struct composer *c, struct list *where)
{
    struct list todo;
    struct xseg_request *rq;

    list_init(&todo);
    for (struct list *link; (link = list_pop_front(where));)
        list_push_back(&todo, link);
    while ((rq = composer_dequeue(&todo, NULL)))
        composer_serve(c, rq);
}

/* ---- requests of clients --------------------------------------------------------- */

void composer_reply(struct composer *c, struct xseg_request *rq, int64_t result)
{
    xseg_request_complete(c->port, rq, result);
}

int request_name(const struct xseg_request *rq, uint8_t *len)
{
    if (rq->arg[XSEG_ARG_NAME_LEN] == 0)
        return -EINVAL;
    if (rq->arg[XSEG_ARG_NAME_LEN] > XSEG_NAME_MAX)
        return -ENAMETOOLONG;
    *len = (uint8_t)rq->arg[XSEG_ARG_NAME_LEN];
    return 0;
}

void request_lend(struct xseg_request *child, const struct xseg_request *rq)
{
    child->op = rq->op;
    child->flags = rq->flags;
    child->size = rq->size;
    child->data_off = rq->data_off;
    child->data_len = rq->data_len;
    memcpy(child->arg, rq->arg, sizeof child->arg);
    memcpy(child->inline_data, rq->inline_data, sizeof child->inline_data);
}

void request_answer(struct xseg_request *rq, const struct xseg_request *child)
{
    rq->arg[0] = child->arg[0];
    memcpy(rq->inline_data, child->inline_data, sizeof rq->inline_data);
}

static void fill_info(const struct volume *v, struct xseg_volume_info *info)
{
    *info = v->info;
    info->users = v->users;
    if (v->held)
        info->flags |= XSEG_VOL_HELD;
    info->inline_valid = 1;
}

/** INFO by name: what uses the volume. */
static void users_serve(struct composer *c, struct xseg_request *rq)
{
    uint64_t room = rq->data_len / sizeof(struct xseg_volume_user);
    struct xseg_volume_user *out = xseg_heap_ptr(c->seg, rq->data_off, rq->data_len);
    uint8_t len;
    int rc = request_name(rq, &len);
    struct volume *v = rc < 0 ? NULL : volume_by_name(c, rq->inline_data, len);

    if (rc == 0 && !out)
        rc = -EINVAL;
    else if (rc == 0 && !v)
        rc = -ENOENT;
    composer_reply(c, rq, rc < 0 ? rc : open_users(v, out, room));
}

static void info_serve(struct composer *c, struct xseg_request *rq)
{
    if (rq->arg[XSEG_ARG_NAME_LEN]) {
        users_serve(c, rq);
        return;
    }
    bool read_only;
    struct volume *v = volume_by_handle(c, rq->handle, &read_only);
    struct xseg_volume_info info;

    if (v) {
        fill_info(v, &info);
        memcpy(rq->inline_data, &info, sizeof info);
    }
    composer_reply(c, rq, v ? 0 : -ESTALE);
}

static void list_serve(struct composer *c, struct xseg_request *rq)
{
    uint64_t room = rq->data_len / sizeof(struct xseg_volume_info), nr = 0;
    struct xseg_volume_info *out = xseg_heap_ptr(c->seg, rq->data_off, rq->data_len);

    if (!out) {
        composer_reply(c, rq, -EINVAL);
        return;
    }
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        if (v->state == VOLUME_OPEN && !v->lost && nr < room)
            fill_info(v, &out[nr++]);
    }
    composer_reply(c, rq, (int64_t)nr);
}

static void io_serve(struct composer *c, struct xseg_request *rq)
{
    bool read_only;
    struct volume *v = volume_by_handle(c, rq->handle, &read_only);

    if (!v) {
        composer_reply(c, rq, -ESTALE);
        return;
    }
    bool mutates =
        rq->op == XSEG_OP_WRITE || rq->op == XSEG_OP_ZERO || rq->op == XSEG_OP_DISCARD;
    if (mutates && read_only) {
        composer_reply(c, rq, -EROFS);
        return;
    }
    if (!volume_enter(v, rq))
        return;
    if (mutates)
        vol_serve_mutate(c, v, rq);
    else if (rq->op == XSEG_OP_READ)
        vol_serve_read(c, v, rq);
    else if (rq->op == XSEG_OP_FLUSH)
        vol_serve_flush(c, v, rq);
    else
        vol_serve_mapr(c, v, rq);
}

void composer_serve(struct composer *c, struct xseg_request *rq)
{
    if (rq->op == XSEG_OP_ACQUIRE || rq->op == XSEG_OP_RELEASE) {
        lease_serve(c, rq);
        return;
    }
    if (c->stopping && rq->op != XSEG_OP_CLOSE) {
        composer_reply(c, rq, -ECANCELED);
        return;
    }
    switch (rq->op) {
    case XSEG_OP_READ:
    case XSEG_OP_WRITE:
    case XSEG_OP_ZERO:
    case XSEG_OP_DISCARD:
    case XSEG_OP_FLUSH:
    case XSEG_OP_MAPR:
        io_serve(c, rq);
        break;
    case XSEG_OP_OPEN:
        vol_serve_open(c, rq);
        break;
    case XSEG_OP_CLOSE:
        vol_serve_close(c, rq);
        break;
    case XSEG_OP_SNAPSHOT:
    case XSEG_OP_TRUNCATE:
    case XSEG_OP_RENAME:
    case XSEG_OP_DELETE:
        vol_serve_change(c, rq);
        break;
    case XSEG_OP_INFO:
        info_serve(c, rq);
        break;
    case XSEG_OP_LIST:
        list_serve(c, rq);
        break;
    case XSEG_OP_PING:
        composer_reply(c, rq, 0);
        break;
    default:
        composer_reply(c, rq, -EINVAL);
    }
}

uint32_t composer_port_life(struct composer *c, uint32_t port)
{
    const struct xseg_port_shared *p = xseg_segment_port(c->seg, port);
    bool bound = p && __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == XSEG_PORT_BOUND;
    return bound ? p->generation : 0;
}

static void on_request(void *ctx, struct xseg_request *rq)
{
    composer_serve(ctx, rq);
}

static void on_watch_timer(struct reactor_timer *t)
{
    struct composer *c = LIST_ENTRY(t, struct composer, watch_timer);

    open_reap(c);
    revive_all(c);
    if (!c->stopping)
        reactor_arm_timer(c->reactor, t, WATCH_INTERVAL_NS);
}

/* ---- life -------------------------------------------------------------------------
 */

void composer_check_stopped(struct composer *c)
{
    if (c->stopping && c->stopped && list_empty(&c->volumes)) {
        void (*stopped)(void *) = c->stopped;
        c->stopped = NULL;
        stopped(c->stopped_arg);
    }
}

static void composer_hurry(struct peer *self)
{
    struct composer *c = LIST_ENTRY(self, struct composer, peer);

    c->stop_ns = reactor_now_ns(c->reactor);
}

static void composer_stop(struct peer *self, void (*stopped)(void *arg), void *arg)
{
    struct composer *c = LIST_ENTRY(self, struct composer, peer);

    c->stopping = true;
    if (!c->stop_ns)
        c->stop_ns = reactor_now_ns(c->reactor);
    c->stopped = stopped;
    c->stopped_arg = arg;
    reactor_disarm_timer(c->reactor, &c->watch_timer);
    reactor_disarm_timer(c->reactor, &c->removal_timer);
    open_close_all(c);
    composer_check_stopped(c);
}

static void composer_destroy(struct peer *self)
{
    struct composer *c = LIST_ENTRY(self, struct composer, peer);

    if (c->port) {
        reactor_disarm_timer(c->reactor, &c->watch_timer);
        reactor_disarm_timer(c->reactor, &c->removal_timer);
        again_fini(c);
        reactor_remove_port(c->reactor, c->port);
        for (uint32_t i = 0; i < c->nr_edges; i++)
            xseg_buffer_free(c->seg, c->edges[i]);
        xseg_port_unbind(c->port);
    }
    if (c->slots)
        volume_table_fini(c);
    free(c->ops);
    free(c);
}

static int reserve(struct composer *c, uint32_t depth)
{
    int rc = xseg_port_reserve(c->port, depth);
    if (rc < 0)
        return rc;
    c->spare = composer_request(c, XSEG_OP_PING);
    if (!c->spare)
        return -ENOBUFS;
    for (uint32_t i = 0; i < sizeof c->edges / sizeof c->edges[0]; i++) {
        uint64_t off;
        if (xseg_buffer_alloc(c->seg, (uint64_t)2 * SECTOR, &off) < 0)
            return i ? 0 : -ENOBUFS; /* one is enough to make progress */
        c->edges[c->nr_edges++] = off;
    }
    return 0;
}

int composer_create(struct reactor *r, const struct composer_options *options,
                    struct peer **out, const char **why)
{
    const struct composer_options o = options ? *options : (struct composer_options){0};
    uint32_t depth = o.queue_depth ? o.queue_depth : DEFAULT_QUEUE_DEPTH;
    int rc = -ENOMEM;

    *out = NULL;
    *why = "out of memory";
    struct composer *c = calloc(1, sizeof *c);
    if (!c)
        return rc;
    c->peer.role = "vlmcd";
    c->peer.stop = composer_stop;
    c->peer.hurry = composer_hurry;
    c->peer.destroy = composer_destroy;
    c->reactor = r;
    c->seg = reactor_segment(r);
    c->patience_ns = (o.patience_ms ? o.patience_ms : PATIENCE_MS) * NS_PER_MS;
    c->stop_patience_ns =
        (o.stop_patience_ms ? o.stop_patience_ms : STOP_PATIENCE_MS) * NS_PER_MS;
    list_init(&c->free_ops);
    list_init(&c->op_waiters);
    list_init(&c->starved);
    list_init(&c->edge_waiters);
    list_init(&c->unnamed);
    list_init(&c->renames);
    again_init(c);
    relief_init(c);
    removal_init(c);
    c->watch_timer.on_fire = on_watch_timer;
    c->ops = calloc(depth, sizeof *c->ops);
    if (!c->ops || volume_table_init(c) < 0)
        goto fail;
    for (uint32_t i = 0; i < depth; i++) {
        c->ops[i].c = c;
        list_push_back(&c->free_ops, &c->ops[i].link);
    }
    rc = xseg_port_bind(c->seg, XSEG_PORT_VLMCD, "vlmcd", &c->port);
    if (rc < 0) {
        *why = "port 5 (vlmcd) is taken: is another instance serving this segment?";
        goto fail;
    }
    rc = reactor_add_port(r, c->port, on_request, c);
    if (rc < 0) {
        *why = "the reactor cannot serve another port";
        xseg_port_unbind(c->port);
        c->port = NULL;
        goto fail;
    }
    rc = reserve(c, depth / 2);
    if (rc < 0) {
        *why = "the segment is too small: make segment.requests or segment.heap larger";
        goto fail;
    }
    reactor_arm_timer(r, &c->watch_timer, WATCH_INTERVAL_NS);
    *out = &c->peer;
    return 0;

fail:
    composer_destroy(&c->peer);
    return rc;
}
