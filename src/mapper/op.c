/* SPDX-License-Identifier: Apache-2.0 */
/* Operations: pool, answers, waiting for pages. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "mapper/op.h"
#include "mapper/peer.h"

struct map_op *op_new(struct mapper *m, struct xseg_request *rq)
{
    struct list *link = list_pop_front(&m->free_ops);
    struct map_op *op =
        link ? LIST_ENTRY(link, struct map_op, link) : malloc(sizeof *op);
    if (!op)
        return NULL;
    memset(op, 0, sizeof *op);
    list_init(&op->link);
    list_init(&op->waiter.link);
    op->m = m;
    op->rq = rq;
    op->op = rq->op;
    op->flags = rq->flags;
    op->offset = rq->offset;
    op->size = rq->size;
    op->data_off = rq->data_off;
    op->data_len = rq->data_len;
    op->generation = rq->arg[0];
    return op;
}

static void op_unpin(struct cached_page **pages, uint32_t nr)
{
    for (uint32_t i = 0; i < nr; i++)
        page_unpin(pages[i]);
    free(pages);
}

void op_reply(struct map_op *op, int64_t result)
{
    struct mapper *m = op->m;
    op_unpin(op->pinned, op->nr_pinned);
    if (op->map)
        map_put(op->map);
    list_push_front(&m->free_ops, &op->link);
    xseg_request_complete(m->port, op->rq, result);
}

void op_end(struct map_op *op, int rc)
{
    struct map *map = op->map;
    uint64_t block = op->offset / map->header.block_bytes;
    if (rc == -EBADMSG && (!map->damage_told || map->damaged_block != block)) {
        map->damage_told = true;
        map->damaged_block = block; /* a client may read it again and again */
        log_line(LOG_ERROR, "mapperd",
                 "\"%s\": bytes from %llu on cannot be read or zeroed: a layer of its "
                 "map is missing or damaged; see docs/damage.md",
                 map->header.name.bytes, (unsigned long long)op->offset);
    }
    op_reply(op, rc);
}

/** Run it again, unless the map went away or what it waited for did not come. */
static void op_again(struct map_op *op, int rc)
{
    if (op->map->state == MAP_CLOSED)
        op_reply(op, -ESTALE);
    else if (rc < 0)
        op_end(op, rc);
    else
        op->start(op);
}

static void op_wake(struct waiter *w, int rc)
{
    struct map_op *op = LIST_ENTRY(w, struct map_op, waiter);
    list_remove(&op->link);
    op_again(op, rc);
}

void op_park(struct map_op *op)
{
    struct mapper *m = op->m;
    struct cached_page **pages = NULL;
    if (m->nr_trail) {
        pages = malloc(m->nr_trail * sizeof(*pages));
        if (!pages) {
            op_reply(op, -ENOMEM);
            return;
        }
        memcpy(pages, m->trail, m->nr_trail * sizeof(*pages));
    }
    for (uint32_t i = 0; i < m->nr_trail; i++)
        page_pin(pages[i]);
    op_unpin(op->pinned, op->nr_pinned);
    op->pinned = pages;
    op->nr_pinned = m->nr_trail;
    op->waiter.wake = op_wake;
    list_push_back(m->wait_on, &op->waiter.link);
    list_push_back(&op->map->parked, &op->link);
}

static void op_deferred(struct reactor_task *task)
{
    struct map_op *op = LIST_ENTRY(task, struct map_op, task);
    struct mapper *m = op->m;
    m->nr_ios--;
    op_again(op, m->stopping ? -ECANCELED : 0);
    m->io_ended(m);
}

void op_defer(struct map_op *op)
{
    op->task.fn = op_deferred;
    op->m->nr_ios++; /* a stop waits for it */
    reactor_defer(op->m->reactor, &op->task);
}
