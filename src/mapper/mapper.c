/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapper peer: takes requests for maps, checks them, and hands each to its noun.
 *
 * Stop: maps are closed, so that nothing new is read or appended; what is in flight
 * ends; then whoever asked is told.
 */
#include "mapper/mapper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapper/op.h"
#include "mapper/peer.h"

#define DEFAULT_CACHE_BYTES (UINT64_C(64) << 20)
#define DEFAULT_PATIENCE_NS UINT64_C(30000000000)
/** Descriptors kept for requests to blockerm. */
#define RESERVE 64u

static struct mapper *mapper_of(struct peer *peer)
{
    return LIST_ENTRY(peer, struct mapper, peer);
}

/** Ops that name a map. */
static void serve_map(struct mapper *m, struct map_op *op, uint64_t handle)
{
    struct map *map = map_find(m, handle);
    if (!map) {
        op_reply(op, -ESTALE);
        return;
    }
    op->map = map;
    map_ref(map);
    switch (op->op) {
    case XSEG_OP_MAPR:
        mapr_serve(op);
        break;
    case XSEG_OP_MAPW:
        mapw_serve(op);
        break;
    case XSEG_OP_FLUSH:
        flush_serve(op);
        break;
    case XSEG_OP_UPDATE:
        update_serve(op);
        break;
    case XSEG_OP_INFO:
        map_info_serve(op);
        break;
    default: /* XSEG_OP_CLOSE */
        if (op->flags & XSEG_F_FORCE)
            mark_log_drop(&m->marks, &map->marks);
        map_close(map, -ESTALE);
        op_reply(op, 0);
        break;
    }
}

static void on_request(void *ctx, struct xseg_request *rq)
{
    struct mapper *m = ctx;
    struct map_op *op = m->stopping ? NULL : op_new(m, rq);
    if (!op) {
        xseg_request_complete(m->port, rq, m->stopping ? -ECANCELED : -ENOMEM);
        return;
    }
    switch (op->op) {
    case XSEG_OP_PING:
        op_reply(op, 0);
        break;
    case XSEG_OP_OPEN:
        open_serve(op);
        break;
    case XSEG_OP_LIST:
        left_list_serve(op);
        break;
    case XSEG_OP_DELETE:
        left_delete_serve(op);
        break;
    case XSEG_OP_MAPR:
    case XSEG_OP_MAPW:
    case XSEG_OP_FLUSH:
    case XSEG_OP_UPDATE:
    case XSEG_OP_INFO:
    case XSEG_OP_CLOSE:
        serve_map(m, op, rq->handle);
        break;
    default:
        op_reply(op, op->op < XSEG_NR_OPS ? -EOPNOTSUPP : -EINVAL);
        break;
    }
}

/* ---- stop ---- */

static void stop_now(struct reactor_task *task)
{
    struct mapper *m = LIST_ENTRY(task, struct mapper, stop_task);
    void (*stopped)(void *arg) = m->stopped;
    m->stopped = NULL;
    if (stopped)
        stopped(m->stopped_arg);
}

static void mapper_check_stopped(struct mapper *m)
{
    if (!m->stopping || m->nr_ios || m->stop_task.fn)
        return;
    m->stop_task.fn = stop_now; /* on the next turn: the caller still uses the mapper */
    reactor_defer(m->reactor, &m->stop_task);
}

static void mapper_stop(struct peer *self, void (*stopped)(void *arg), void *arg)
{
    struct mapper *m = mapper_of(self);
    m->stopping = true;
    m->stopped = stopped;
    m->stopped_arg = arg;
    for (uint32_t i = 0; i < m->nr_slots; i++)
        if (m->slots[i])
            map_close(m->slots[i], -ECANCELED);
    mapper_check_stopped(m);
}

/* ---- life ---- */

static void mapper_free(struct mapper *m)
{
    struct list *link;
    while ((link = list_pop_front(&m->free_ops)))
        free(LIST_ENTRY(link, struct map_op, link));
    map_block_fini(&m->block);
    free(m->trail);
    free(m->contexts);
    free(m->sources);
    free(m->slots);
    mark_log_fini(&m->marks);
    page_cache_fini(&m->pages);
    hashtab_fini(&m->frozen);
    hashtab_fini(&m->layers);
    free(m);
}

static void mapper_destroy(struct peer *self)
{
    struct mapper *m = mapper_of(self);
    struct xseg_port *port = m->port;
    reactor_disarm_timer(m->reactor, &m->retry_timer);
    reactor_remove_port(m->reactor, port);
    mapper_free(m);
    xseg_port_unbind(port); /* last: who has the port has the mark log */
}

static int init_memory(struct mapper *m, const struct mapper_options *options)
{
    uint64_t pages = options && options->page_cache_bytes ? options->page_cache_bytes
                                                          : DEFAULT_CACHE_BYTES;
    uint64_t views = options && options->view_cache_bytes ? options->view_cache_bytes
                                                          : DEFAULT_CACHE_BYTES;
    list_init(&m->free_ops);
    list_init(&m->waiting);
    list_init(&m->views.lru);
    m->views.limit_bytes = views;
    m->patience_ns =
        options && options->patience_ns ? options->patience_ns : DEFAULT_PATIENCE_NS;
    m->generation = (uint32_t)(reactor_now_ns(m->reactor) >> 10);
    m->sources = calloc(MAP_HEADER_MAX_ENTRIES, sizeof *m->sources);
    m->contexts = calloc(MAP_HEADER_MAX_ENTRIES, sizeof *m->contexts);
    int rc = page_cache_init(&m->pages, pages);
    if (rc == 0)
        rc = hashtab_init(&m->layers);
    if (rc == 0)
        rc = hashtab_init(&m->frozen);
    return m->sources && m->contexts ? rc : -ENOMEM;
}

int mapper_create(struct reactor *r, const struct mapper_options *options,
                  struct peer **out, const char **why)
{
    struct mapper *m = calloc(1, sizeof *m);
    *out = NULL;
    *why = "no memory";
    if (!m)
        return -ENOMEM;
    m->peer = (struct peer){
        .role = "mapperd", .stop = mapper_stop, .destroy = mapper_destroy};
    m->reactor = r;
    m->seg = reactor_segment(r);
    m->retry_timer.on_fire = map_io_retry;
    m->io_ended = mapper_check_stopped;
    int rc = init_memory(m, options);
    if (rc < 0)
        goto fail_free;
    *why = "the mapperd port cannot be bound: is another mapperd running?";
    rc = xseg_port_bind(m->seg, XSEG_PORT_MAPPERD, "mapperd", &m->port);
    if (rc < 0)
        goto fail_free;
    rc = mark_log_init(&m->marks, options ? options->marks_fd : -1, why);
    if (rc < 0)
        goto fail_unbind;
    *why = "the segment has too few request descriptors";
    rc = xseg_port_reserve(m->port, RESERVE);
    if (rc < 0)
        goto fail_unbind;
    *why = "the mapperd port cannot be served";
    rc = reactor_add_port(r, m->port, on_request, m);
    if (rc < 0)
        goto fail_unbind;
    *why = NULL;
    *out = &m->peer;
    return 0;

fail_unbind:
    mark_log_fini(&m->marks);
    xseg_port_unbind(m->port);
fail_free:
    mapper_free(m);
    return rc;
}
