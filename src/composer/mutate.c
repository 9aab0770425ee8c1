/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WRITE, ZERO and DISCARD: data first, then marks, then the answer.
 *
 * A mutation owns the whole sectors it touches; one that overlaps an earlier one waits
 * for it.  Sectors it covers only in part are read, merged and written whole, into the
 * current extent: no block is ever copied.  The marks follow the data, so a read never
 * meets a sector that is marked and not yet written.
 *
 *   wait for overlap -> [edge sectors read and merged] -> data -> marks -> [flush] ->
 * done
 */
#include <stdlib.h>
#include <string.h>

#include "composer/internal.h"

static void mutation_step(struct mutation *m);
static void mutation_edges(struct mutation *m);

/* ---- overlap -------------------------------------------------------------------- */

static bool overlaps(const struct mutation *a, const struct mutation *b)
{
    return a->first < b->end && b->first < a->end;
}

/** Join the volume's queue; true if nothing earlier is in the way. */
static bool range_enter(struct mutation *m)
{
    m->blockers = 0;
    LIST_FOR_EACH(it, n, &m->v->mutations)
    if (overlaps(LIST_ENTRY(it, struct mutation, link), m))
        m->blockers++;
    list_push_back(&m->v->mutations, &m->link);
    return m->blockers == 0;
}

/** Leave the queue and start those that waited for this one alone. */
static void range_leave(struct mutation *m)
{
    struct list *head = &m->v->mutations, ready;
    struct list *it = m->link.next;

    list_init(&ready);
    list_remove(&m->link);
    while (it != head) {
        struct mutation *later = LIST_ENTRY(it, struct mutation, link);
        it = it->next;
        if (overlaps(m, later) && --later->blockers == 0)
            list_push_back(&ready, &later->waiter.link);
    }
    for (struct list *link; (link = list_pop_front(&ready));)
        mutation_edges(LIST_ENTRY(link, struct mutation, waiter.link));
}

/* ---- end ----------------------------------------------------------------------------
 */

static void mutation_end(struct mutation *m, int64_t result)
{
    void (*done)(struct mutation *, int64_t) = m->done;

    if (m->edge_off)
        composer_edge_put(m->v->c, m->edge_off);
    m->edge_off = 0;
    done(m, result);
}

static void mutation_flushed(struct flush_wait *w, int64_t result)
{
    mutation_end(LIST_ENTRY(w, struct mutation, flush), result);
}

static void mutation_finish(struct mutation *m)
{
    range_leave(m);
    if (m->error || !m->durable) {
        mutation_end(m, m->error);
        return;
    }
    m->flush.flushed = mutation_flushed;
    barrier_flush(m->v, &m->flush);
}

/* ---- data, then marks ---------------------------------------------------------------
 */

static void mutation_resume(struct waiter *w)
{
    mutation_step(LIST_ENTRY(w, struct mutation, waiter));
}

static void mutation_part_done(void *arg, struct xseg_request *rq)
{
    struct mutation *m = arg;

    if (m->marking && rq->result == -EAGAIN)
        m->refused = true;
    else if (rq->result < 0 &&
             again(m->v, rq, m->marking ? XSEG_PORT_MAPPERD : XSEG_PORT_BLOCKERB,
                   mutation_part_done, m, &m->since))
        return;
    else if (rq->result < 0 && !m->error)
        m->error = rq->result;
    else if (rq->op == XSEG_OP_WRITE && (uint64_t)rq->result != rq->size && !m->error)
        m->error = -EIO;
    m->pending--;
    composer_release(m->v->c, rq);
    mutation_step(m);
}

static void mutation_send_data(struct mutation *m, struct xseg_request *rq)
{
    const struct piece *p = &m->pieces[m->next++];

    rq->op = p->data_off ? XSEG_OP_WRITE : XSEG_OP_DISCARD;
    rq->object.kind = XSEG_OBJ_EXTENT;
    memcpy(rq->object.id, m->v->info.uuid, 16);
    memcpy(rq->object.id + 16, &m->v->info.epoch, 8);
    rq->offset = p->offset;
    rq->size = p->size;
    rq->data_off = p->data_off;
    rq->data_len = p->data_off ? p->size : 0;
    m->pending++;
    composer_send(m->v->c, rq, XSEG_PORT_BLOCKERB, mutation_part_done, m);
}

/** One mark for as many neighbouring pieces of one kind as there are. */
static void mutation_send_mark(struct mutation *m, struct xseg_request *rq)
{
    const struct piece *p = &m->pieces[m->next++];

    rq->handle = m->v->info.map_handle;
    rq->offset = p->offset;
    rq->size = p->size;
    rq->flags = p->data_off ? 0 : XSEG_F_ZERO;
    while (m->next < m->nr_pieces && !m->pieces[m->next].data_off == !p->data_off)
        rq->size += m->pieces[m->next++].size;
    rq->arg[0] = m->mark_generation;
    m->pending++;
    composer_send(m->v->c, rq, XSEG_PORT_MAPPERD, mutation_part_done, m);
}

/** The data is there: mark it, in the generation that is current now. */
static void mutation_mark(struct mutation *m)
{
    m->marking = true;
    m->refused = false;
    m->mark_generation = barrier_mark_begin(m->v);
    m->next = 0;
    mutation_step(m);
}

static void relieved(struct waiter *w)
{
    struct mutation *m = LIST_ENTRY(w, struct mutation, waiter);

    m->waiter.resume = mutation_resume;
    if (!m->error)
        m->error = m->v->relief_result;
    if (m->error)
        mutation_finish(m);
    else
        mutation_mark(m);
}

/** No room for a mark: not before a flush.  It counts in no generation meanwhile. */
static void mutation_relieve(struct mutation *m)
{
    int64_t result = -EAGAIN;

    if (!again_may(m->v, &result, XSEG_PORT_MAPPERD, &m->since)) {
        m->error = result;
        mutation_finish(m);
        return;
    }
    m->waiter.resume = relieved;
    relief_wait(m->c, &m->waiter);
}

static void mutation_step(struct mutation *m)
{
    if (m->v->lost && !m->error)
        m->error = -ESTALE;
    while (m->next < m->nr_pieces && !m->error && !m->refused) {
        struct xseg_request *rq =
            composer_request(m->v->c, m->marking ? XSEG_OP_MAPW : XSEG_OP_WRITE);
        if (!rq) {
            if (m->pending == 0)
                composer_starve(m->v->c, &m->waiter);
            return;
        }
        if (m->marking)
            mutation_send_mark(m, rq);
        else
            mutation_send_data(m, rq);
    }
    if (m->pending)
        return;
    if (m->marking)
        barrier_mark_end(m->v, m->mark_generation);
    if (m->refused && !m->error)
        mutation_relieve(m);
    else if (m->marking || m->error)
        mutation_finish(m);
    else
        mutation_mark(m);
}

/* ---- pieces and edges
 * ----------------------------------------------------------------- */

static void add_piece(struct mutation *m, uint64_t offset, uint64_t size,
                      uint64_t data_off)
{
    m->pieces[m->nr_pieces++] = (struct piece){offset, size, data_off};
}

/** Lay the client's bytes (or zeros) over the edge sector that starts at `sector`. */
static void merge_edge(struct mutation *m, uint64_t sector, uint64_t edge_off)
{
    uint64_t from = m->offset > sector ? m->offset : sector;
    uint64_t to = m->offset + m->size;
    if (to > sector + SECTOR)
        to = sector + SECTOR;
    uint8_t *edge = xseg_heap_ptr(m->v->c->seg, edge_off, SECTOR);
    if (m->data_off)
        memcpy(edge + (from - sector),
               xseg_heap_ptr(m->v->c->seg, m->data_off + (from - m->offset), to - from),
               to - from);
    else
        memset(edge + (from - sector), 0, to - from);
}

static bool head_is_partial(const struct mutation *m)
{
    return m->offset != m->first ||
           (m->end - m->first == SECTOR && m->offset + m->size != m->end);
}

static bool tail_is_partial(const struct mutation *m)
{
    return m->offset + m->size != m->end &&
           !(m->end - m->first == SECTOR && head_is_partial(m));
}

static void mutation_pieces(struct mutation *m)
{
    uint64_t middle = m->first + (head_is_partial(m) ? SECTOR : 0);
    uint64_t middle_end = m->end - (tail_is_partial(m) ? SECTOR : 0);

    m->nr_pieces = 0;
    if (head_is_partial(m)) {
        merge_edge(m, m->first, m->edge_off);
        add_piece(m, m->first, SECTOR, m->edge_off);
    }
    if (middle < middle_end)
        add_piece(m, middle, middle_end - middle,
                  m->data_off ? m->data_off + (middle - m->offset) : 0);
    if (tail_is_partial(m)) {
        merge_edge(m, m->end - SECTOR, m->edge_off + SECTOR);
        add_piece(m, m->end - SECTOR, SECTOR, m->edge_off + SECTOR);
    }
    m->next = 0;
    mutation_step(m);
}

static void tail_read(struct reader *r)
{
    struct mutation *m = LIST_ENTRY(r, struct mutation, reader);

    if (r->error) {
        m->error = r->error;
        mutation_finish(m);
        return;
    }
    mutation_pieces(m);
}

static void read_tail(struct mutation *m)
{
    if (tail_is_partial(m))
        reader_start(&m->reader, m->v, m->end - SECTOR, SECTOR, m->edge_off + SECTOR,
                     tail_read);
    else
        mutation_pieces(m);
}

static void head_read(struct reader *r)
{
    struct mutation *m = LIST_ENTRY(r, struct mutation, reader);

    if (r->error) {
        m->error = r->error;
        mutation_finish(m);
        return;
    }
    read_tail(m);
}

static void edges_resume(struct waiter *w)
{
    mutation_edges(LIST_ENTRY(w, struct mutation, waiter));
}

/** The range is ours: read the edge sectors, if there are any. */
static void mutation_edges(struct mutation *m)
{
    if (!head_is_partial(m) && !tail_is_partial(m)) {
        m->waiter.resume = mutation_resume;
        mutation_pieces(m);
        return;
    }
    m->edge_off = composer_edge_get(m->v->c);
    if (!m->edge_off) {
        m->waiter.resume = edges_resume;
        list_push_back(&m->v->c->edge_waiters, &m->waiter.link);
        return;
    }
    m->waiter.resume = mutation_resume;
    if (head_is_partial(m))
        reader_start(&m->reader, m->v, m->first, SECTOR, m->edge_off, head_read);
    else
        read_tail(m);
}

static void mutation_begin(struct mutation *m)
{
    m->first = sector_floor(m->offset);
    m->end = sector_ceil(m->offset + m->size);
    if (range_enter(m))
        mutation_edges(m);
}

/* ---- starts ------------------------------------------------------------------------
 */

static void mutation_init(struct mutation *m, struct volume *v)
{
    memset(m, 0, sizeof *m);
    list_init(&m->link);
    list_init(&m->waiter.link);
    list_init(&m->flush.link);
    m->c = v->c;
    m->v = v;
}

static struct mutation *mutation_get(struct composer *c, struct volume *v)
{
    struct list *link = list_pop_front(&c->free_ops);
    if (!link)
        return NULL;
    struct mutation *m = LIST_ENTRY(link, struct mutation, link);
    mutation_init(m, v);
    return m;
}

static void mutation_put(struct mutation *m)
{
    list_push_front(&m->c->free_ops, &m->link);
}

static void client_mutated(struct mutation *m, int64_t result)
{
    struct composer *c = m->c;
    struct volume *v = m->v;

    composer_reply(c, m->rq, result < 0 ? result : (int64_t)m->rq->size);
    mutation_put(m);
    mutate_resume_waiters(c);
    volume_leave(v);
}

static void flushed_before(struct flush_wait *w, int64_t result)
{
    struct mutation *m = LIST_ENTRY(w, struct mutation, flush);

    if (result < 0)
        mutation_end(m, result);
    else
        mutation_begin(m);
}

void mutate_resume_waiters(struct composer *c)
{
    while (!list_empty(&c->op_waiters) && !list_empty(&c->free_ops)) {
        struct volume *v;
        struct xseg_request *rq = composer_dequeue(&c->op_waiters, &v);
        vol_serve_mutate(c, v, rq);
    }
}

void vol_serve_mutate(struct composer *c, struct volume *v, struct xseg_request *rq)
{
    bool write = rq->op == XSEG_OP_WRITE;
    uint64_t size = rq->size, offset = rq->offset, data_off = rq->data_off;

    if (size > v->info.size_bytes || offset > v->info.size_bytes - size ||
        (write && size &&
         (size > rq->data_len || !xseg_heap_ptr(c->seg, data_off, size)))) {
        composer_reply(c, rq, -EINVAL);
        volume_leave(v);
        return;
    }
    if (size == 0) {
        if (rq->flags & (XSEG_F_FUA | XSEG_F_FLUSH)) {
            vol_serve_flush(c, v, rq);
            return;
        }
        composer_reply(c, rq, 0);
        volume_leave(v);
        return;
    }
    struct mutation *m = mutation_get(c, v);
    if (!m) {
        if (!composer_queue(c, &c->op_waiters, rq, v))
            volume_leave(v);
        return;
    }
    m->rq = rq;
    m->offset = offset;
    m->size = size;
    m->data_off = write ? data_off : 0;
    m->durable = rq->flags & XSEG_F_FUA;
    m->done = client_mutated;
    /* zeros up to the very end need not keep what lies behind it: nothing does */
    if (!write && offset + size == v->info.size_bytes)
        m->size = sector_ceil(offset + size) - offset;
    if (rq->flags & XSEG_F_FLUSH) {
        m->flush.flushed = flushed_before;
        barrier_flush(v, &m->flush);
    } else {
        mutation_begin(m);
    }
}

/* ---- the composer's own ---------------------------------------------------------- */

struct tail_zero {
    struct mutation mutation;
    void (*done)(void *arg, int64_t result);
    void *arg;
};

static void tail_zeroed(struct mutation *m, int64_t result)
{
    struct tail_zero *t = LIST_ENTRY(m, struct tail_zero, mutation);

    t->done(t->arg, result);
    free(t);
}

void mutate_zero_tail(struct volume *v, void (*done)(void *arg, int64_t result),
                      void *arg)
{
    uint64_t end = v->info.size_bytes;
    struct tail_zero *t = end % SECTOR ? calloc(1, sizeof *t) : NULL;
    if (!t) {
        done(arg, end % SECTOR ? -ENOMEM : 0);
        return;
    }
    t->done = done;
    t->arg = arg;
    mutation_init(&t->mutation, v);
    t->mutation.offset = end;
    t->mutation.size = sector_ceil(end) - end;
    t->mutation.durable = true;
    t->mutation.done = tail_zeroed;
    mutation_begin(&t->mutation);
}
