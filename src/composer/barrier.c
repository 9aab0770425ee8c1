/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FLUSH and FUA: what was answered before is durable when they are answered.
 *
 * Every MAPW carries a generation.  A flush closes the current generation g, waits for
 * the MAPWs of g that are on their way, makes the extent durable (blockerb), and only
 * then has the mapper journal the marks up to g: a journaled mark never refers to data
 * that a power cut could take back.  One flush runs at a time per volume; those that
 * arrive meanwhile share the next one, since a flush that already closed its generation
 * may miss what was answered since.
 *
 * When the map dies under a flush, the flush begins again with the data: in the map that
 * comes back all marks are of generation 0, also those whose data was not made durable.
 */
#include <stdlib.h>
#include <string.h>

#include "composer/internal.h"

static void flush_start(struct volume *v);
static void flush_data(struct volume *v);

static void flush_resume(struct waiter *w)
{
    flush_data(LIST_ENTRY(w, struct volume, flush_waiter));
}

void barrier_init(struct volume *v)
{
    list_init(&v->flush_next);
    list_init(&v->flush_now);
    list_init(&v->flush_waiter.link);
    v->flush_waiter.resume = flush_resume;
    list_init(&v->relief.link);
    v->relief.flushed = relief_flushed;
    v->generation = 1;
}

static void flush_end(struct volume *v, int64_t result)
{
    struct list served;

    list_init(&served);
    for (struct list *link; (link = list_pop_front(&v->flush_now));)
        list_push_back(&served, link);
    v->flushing = false;
    if (!list_empty(&v->flush_next))
        flush_start(v);
    /* last, since a waiter may free the volume */
    for (struct list *link; (link = list_pop_front(&served));) {
        struct flush_wait *w = LIST_ENTRY(link, struct flush_wait, link);
        w->flushed(w, result);
    }
}

/** Begin again with the data: when the map is back, or after a pause. */
static void flush_again(struct volume *v)
{
    if (volume_reviving(v))
        revive_wait(v, &v->flush_waiter);
    else
        again_wait(v->c, &v->flush_waiter);
}

static void flush_journaled(void *arg, struct xseg_request *rq)
{
    struct volume *v = arg;
    int64_t result = rq->result;

    composer_release(v->c, rq);
    if (result >= 0) {
        flush_end(v, 0);
        return;
    }
    bool busy = result == -EAGAIN;
    if (!again_may(v, &result, XSEG_PORT_MAPPERD, &v->flush_since)) {
        flush_end(v, result);
        return;
    }
    if (!busy)
        revive(v);
    flush_again(v);
}

static void flush_data_done(void *arg, struct xseg_request *rq)
{
    struct volume *v = arg;

    if (rq->result < 0 &&
        again(v, rq, XSEG_PORT_BLOCKERB, flush_data_done, v, &v->flush_since))
        return;
    if (rq->result < 0 || v->lost) {
        int64_t result = v->lost ? -ESTALE : rq->result;
        composer_release(v->c, rq);
        flush_end(v, result);
        return;
    }
    if (volume_reviving(v) || v->flush_revivals != v->revivals) {
        composer_release(v->c, rq);
        flush_again(v);
        return;
    }
    /* the same descriptor goes on to the mapper: no second allocation to wait for */
    rq->op = XSEG_OP_FLUSH;
    rq->flags = 0;
    memset(&rq->object, 0, sizeof rq->object);
    rq->handle = v->info.map_handle;
    rq->arg[0] = v->flush_generation;
    composer_send(v->c, rq, XSEG_PORT_MAPPERD, flush_journaled, v);
}

/** All marks of the generation are in the mapper: make their data durable. */
static void flush_data(struct volume *v)
{
    /* of a lost volume nothing is flushed; a PING ends this flush like any other */
    struct xseg_request *rq =
        composer_request(v->c, v->lost ? XSEG_OP_PING : XSEG_OP_FLUSH);
    if (!rq) {
        composer_starve(v->c, &v->flush_waiter);
        return;
    }
    v->flush_revivals = v->revivals;
    rq->object.kind = XSEG_OBJ_EXTENT;
    memcpy(rq->object.id, v->info.uuid, 16);
    memcpy(rq->object.id + 16, &v->info.epoch, 8);
    composer_send(v->c, rq, XSEG_PORT_BLOCKERB, flush_data_done, v);
}

static void flush_start(struct volume *v)
{
    v->flushing = true;
    v->flush_since = 0;
    for (struct list *link; (link = list_pop_front(&v->flush_next));)
        list_push_back(&v->flush_now, link);
    v->flush_generation = v->generation++;
    if (v->marks[v->flush_generation & 1] == 0)
        flush_data(v);
}

void barrier_flush(struct volume *v, struct flush_wait *w)
{
    if (volume_read_only(v) && !v->lost) {
        w->flushed(w, 0);
        return;
    }
    list_push_back(&v->flush_next, &w->link);
    if (!v->flushing)
        flush_start(v);
}

uint64_t barrier_mark_begin(struct volume *v)
{
    v->marks[v->generation & 1]++;
    return v->generation;
}

void barrier_mark_end(struct volume *v, uint64_t generation)
{
    if (--v->marks[generation & 1] == 0 && v->flushing &&
        v->flush_generation == generation)
        flush_data(v);
}

/* ---- FLUSH of a client ------------------------------------------------------------
 */

struct client_flush {
    struct flush_wait wait;
    struct volume *v;
    struct xseg_request *rq;
};

static void client_flushed(struct flush_wait *w, int64_t result)
{
    struct client_flush *f = (struct client_flush *)w;
    struct volume *v = f->v;

    composer_reply(v->c, f->rq, result);
    free(f);
    volume_leave(v);
}

void vol_serve_flush(struct composer *c, struct volume *v, struct xseg_request *rq)
{
    struct client_flush *f = malloc(sizeof *f);
    if (!f) {
        composer_reply(c, rq, -ENOMEM);
        volume_leave(v);
        return;
    }
    f->wait.flushed = client_flushed;
    f->v = v;
    f->rq = rq;
    barrier_flush(v, &f->wait);
}
