/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a range of a volume: ask the mapper for runs, send one blocker READ for each
 * run that is stored, fill the others with zeros.
 *
 * The reader is restartable at `pos`: when no descriptor is free in the middle of a
 * list of runs, the rest is simply asked for again later.
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "composer/internal.h"

/** Ranges from this size on get a buffer for their runs instead of five inline ones. */
#define MANY_RUNS_BYTES   (64u << 10)
#define RUNS_BUFFER_BYTES (16u << 10)

static void reader_step(struct reader *r);

static void reader_resume(struct waiter *w)
{
    reader_step(LIST_ENTRY(w, struct reader, waiter));
}

static void reader_finish(struct reader *r)
{
    if (r->runs_off)
        xseg_buffer_free(r->v->c->seg, r->runs_off);
    r->runs_off = 0;
    r->done(r);
}

static void reader_fail(struct reader *r, int64_t error)
{
    if (!r->error)
        r->error = error;
}

static void reader_data_done(void *arg, struct xseg_request *rq)
{
    struct reader *r = arg;

    if (rq->result < 0 &&
        again(r->v, rq, XSEG_PORT_BLOCKERB, reader_data_done, r, &r->since))
        return;
    if (rq->result < 0) {
        /* a run the map promised is not there: damage, not a caller's mistake */
        missing_tell(r->v, rq, r->base + (rq->data_off - r->data_off));
        reader_fail(r, rq->result == -ENOENT ? -EIO : rq->result);
    } else if ((uint64_t)rq->result != rq->size) {
        reader_fail(r, -EIO);
    }
    r->pending--;
    composer_release(r->v->c, rq);
    reader_step(r);
}

/** Send for the part of `run` that is wanted.  False: no descriptor was free. */
static bool reader_take_run(struct reader *r, const struct xseg_run *run)
{
    struct composer *c = r->v->c;
    uint64_t end = run->offset + run->size;
    uint64_t size = (end < r->end ? end : r->end) - r->pos;
    uint64_t data_off = r->data_off + (r->pos - r->base);

    if (run->kind == XSEG_REF_ZERO) {
        memset(xseg_heap_ptr(c->seg, data_off, size), 0, size);
        r->pos += size;
        return true;
    }
    struct xseg_request *rq = composer_request(c, XSEG_OP_READ);
    if (!rq)
        return false;
    rq->object.kind =
        run->kind == XSEG_REF_CONTENT ? XSEG_OBJ_CONTENT : XSEG_OBJ_EXTENT;
    memcpy(rq->object.id, run->id, sizeof run->id);
    rq->flags = run->flags & (XSEG_RUN_OWNED | XSEG_RUN_LIVE) ? XSEG_F_LIVE : 0;
    rq->offset = run->object_off + (r->pos - run->offset);
    rq->size = size;
    rq->data_off = data_off;
    rq->data_len = size;
    r->pos += size;
    r->pending++;
    composer_send(c, rq, XSEG_PORT_BLOCKERB, reader_data_done, r);
    return true;
}

static void reader_take_runs(struct reader *r, const struct xseg_run *runs, uint64_t nr)
{
    for (uint64_t i = 0; i < nr && r->pos < r->end; i++) {
        struct xseg_run run = runs[i]; /* a copy: the other side cannot change it now */
        if (run.offset > r->pos || run.size == 0 ||
            run.size > UINT64_MAX - run.offset || run.offset + run.size <= r->pos ||
            run.kind > XSEG_REF_EXTENT) {
            log_line(LOG_ERROR, "vlmcd", "mapper answered runs that leave a gap");
            reader_fail(r, -EIO);
            return;
        }
        if (!reader_take_run(r, &run))
            return;
    }
}

static void reader_mapped(void *arg, struct xseg_request *rq)
{
    struct reader *r = arg;
    struct composer *c = r->v->c;

    if (rq->result < 0 &&
        again(r->v, rq, XSEG_PORT_MAPPERD, reader_mapped, r, &r->since))
        return;
    r->mapping = false;
    r->pending--;
    if (rq->result <= 0) {
        reader_fail(r, rq->result < 0 ? rq->result : -EIO);
    } else {
        uint64_t room =
            r->runs_off ? r->runs_bytes / sizeof(struct xseg_run) : XSEG_INLINE_RUNS;
        const struct xseg_run *runs =
            r->runs_off ? xseg_heap_ptr(c->seg, r->runs_off, r->runs_bytes)
                        : (const void *)rq->inline_data;
        uint64_t nr = (uint64_t)rq->result;
        reader_take_runs(r, runs, nr < room ? nr : room);
    }
    composer_release(c, rq);
    reader_step(r);
}

static void reader_map(struct reader *r, struct xseg_request *rq)
{
    rq->handle = r->v->info.map_handle;
    rq->offset = sector_floor(r->pos);
    rq->size = sector_ceil(r->end) - rq->offset;
    rq->data_off = r->runs_off;
    rq->data_len = r->runs_bytes;
    r->mapping = true;
    r->pending++;
    composer_send(r->v->c, rq, XSEG_PORT_MAPPERD, reader_mapped, r);
}

static void reader_step(struct reader *r)
{
    if (r->mapping)
        return;
    if (r->v->lost)
        reader_fail(r, -ESTALE);
    if (r->error || r->pos >= r->end) {
        if (r->pending == 0)
            reader_finish(r);
        return;
    }
    struct xseg_request *rq = composer_request(r->v->c, XSEG_OP_MAPR);
    if (rq)
        reader_map(r, rq);
    else if (r->pending == 0)
        composer_starve(r->v->c, &r->waiter);
}

void reader_start(struct reader *r, struct volume *v, uint64_t offset, uint64_t size,
                  uint64_t data_off, void (*done)(struct reader *self))
{
    memset(r, 0, sizeof *r);
    list_init(&r->waiter.link);
    r->waiter.resume = reader_resume;
    r->v = v;
    r->pos = r->base = offset;
    r->end = offset + size;
    r->data_off = data_off;
    r->done = done;
    if (size >= MANY_RUNS_BYTES) {
        int64_t got = xseg_buffer_alloc(v->c->seg, RUNS_BUFFER_BYTES, &r->runs_off);
        r->runs_bytes = got > 0 ? RUNS_BUFFER_BYTES : 0; /* without one: inline */
        if (got <= 0)
            r->runs_off = 0;
    }
    reader_step(r);
}

/* ---- READ of a client --------------------------------------------------------- */

struct client_read {
    struct reader reader;
    struct xseg_request *rq;
};

static void client_read_done(struct reader *r)
{
    struct client_read *read = LIST_ENTRY(r, struct client_read, reader);
    struct volume *v = r->v;

    composer_reply(v->c, read->rq, r->error ? r->error : (int64_t)read->rq->size);
    free(read);
    volume_leave(v);
}

void vol_serve_read(struct composer *c, struct volume *v, struct xseg_request *rq)
{
    uint64_t size = rq->size, offset = rq->offset, data_off = rq->data_off;

    int64_t error = 0;
    struct client_read *read = NULL;
    if (size > v->info.size_bytes || offset > v->info.size_bytes - size ||
        size > rq->data_len || (size && !xseg_heap_ptr(c->seg, data_off, size)))
        error = -EINVAL;
    else if (size && !(read = malloc(sizeof *read)))
        error = -ENOMEM;
    if (error || size == 0) {
        composer_reply(c, rq, error);
        volume_leave(v);
        return;
    }
    read->rq = rq;
    reader_start(&read->reader, v, offset, size, data_off, client_read_done);
}

/* ---- MAPR of a client: where its data is, for block status --------------------------
 */

struct client_map {
    struct waiter waiter;
    struct volume *v;
    struct xseg_request *rq;
    uint64_t since; /* when it first failed, 0: it did not */
};

static void client_map_try(struct client_map *m);

static void client_map_resume(struct waiter *w)
{
    client_map_try(LIST_ENTRY(w, struct client_map, waiter));
}

static void client_mapped(void *arg, struct xseg_request *child)
{
    struct client_map *m = arg;
    struct volume *v = m->v;

    if (child->result < 0 &&
        again(v, child, XSEG_PORT_MAPPERD, client_mapped, m, &m->since))
        return;
    int64_t result = child->result;
    if (result > 0 && !m->rq->data_off)
        memcpy(m->rq->inline_data, child->inline_data, sizeof m->rq->inline_data);
    composer_release(v->c, child);
    composer_reply(v->c, m->rq, result);
    free(m);
    volume_leave(v);
}

static void client_map_try(struct client_map *m)
{
    struct xseg_request *child = composer_request(m->v->c, XSEG_OP_MAPR);
    if (!child) {
        composer_starve(m->v->c, &m->waiter);
        return;
    }
    child->handle = m->v->info.map_handle;
    child->offset = m->rq->offset;
    child->size = m->rq->size;
    child->data_off = m->rq->data_off;
    child->data_len = m->rq->data_len;
    composer_send(m->v->c, child, XSEG_PORT_MAPPERD, client_mapped, m);
}

void vol_serve_mapr(struct composer *c, struct volume *v, struct xseg_request *rq)
{
    struct client_map *m = malloc(sizeof *m);
    if (!m) {
        composer_reply(c, rq, -ENOMEM);
        volume_leave(v);
        return;
    }
    list_init(&m->waiter.link);
    m->waiter.resume = client_map_resume;
    m->v = v;
    m->rq = rq;
    m->since = 0;
    client_map_try(m);
}
