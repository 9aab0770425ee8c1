/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request to blockerm.
 *
 * What finds no descriptor or buffer waits for a short timer, and so does a request
 * that may be repeated while blockerm is down: it is restarted within a second, and
 * nobody needs to know.
 */
#include <errno.h>
#include <string.h>

#include "mapper/io.h"
#include "mapper/peer.h"

#define RETRY_NS UINT64_C(2000000)

static void attempt(struct map_io *io);

bool map_io_is_away(int64_t result)
{
    return result == -EPIPE || result == -EOWNERDEAD || result == -ECANCELED;
}

static bool has_buffer(const struct map_io *io)
{
    return io->size && (io->op == XSEG_OP_READ || io->op == XSEG_OP_APPEND);
}

const void *map_io_data(const struct map_io *io)
{
    return xseg_heap_ptr(io->m->seg, io->buffer_off, io->size);
}

void map_io_end(struct map_io *io)
{
    if (io->buffer_off)
        xseg_buffer_free(io->m->seg, io->buffer_off);
    io->buffer_off = 0;
}

static void finish(struct map_io *io, int64_t result)
{
    struct mapper *m = io->m;
    io->result = result;
    m->nr_ios--;
    io->done(io);
    m->io_ended(m);
}

static void wait_a_little(struct map_io *io)
{
    struct mapper *m = io->m;
    list_push_back(&m->waiting, &io->link);
    if (!m->retry_timer.armed)
        reactor_arm_timer(m->reactor, &m->retry_timer, RETRY_NS);
}

void map_io_retry(struct reactor_timer *timer)
{
    struct mapper *m = LIST_ENTRY(timer, struct mapper, retry_timer);
    struct list todo, *link;
    list_init(&todo);
    while ((link = list_pop_front(&m->waiting)))
        list_push_back(&todo, link);
    while ((link = list_pop_front(&todo))) {
        struct map_io *io = LIST_ENTRY(link, struct map_io, link);
        if (m->stopping)
            finish(io, -ECANCELED);
        else
            attempt(io);
    }
}

static void on_reply(void *arg, struct xseg_request *rq)
{
    struct map_io *io = arg;
    struct mapper *m = io->m;
    int64_t result = rq->result;
    memcpy(&io->info, rq->inline_data, sizeof io->info);
    xseg_request_free(m->port, rq);
    if (io->op == XSEG_OP_READ && (result > 0 && (uint64_t)result > io->size))
        result = -EIO; /* more than asked: the blocker is not sane */
    if (io->again && map_io_is_away(result) && !m->stopping) {
        if (reactor_now_ns(m->reactor) < io->give_up_ns) {
            wait_a_little(io);
            return;
        }
        result = -EIO; /* not its own error: that would say that the mapper is away */
    }
    finish(io, result);
}

static void attempt(struct map_io *io)
{
    struct mapper *m = io->m;
    struct xseg_request *rq;
    if (has_buffer(io) && !io->buffer_off &&
        xseg_buffer_alloc(m->seg, io->size, &io->buffer_off) < 0) {
        io->buffer_off = 0;
        wait_a_little(io);
        return;
    }
    if (xseg_request_alloc(m->port, &rq) < 0) {
        wait_a_little(io);
        return;
    }
    rq->op = io->op;
    rq->object = io->object;
    rq->offset = io->offset;
    rq->size = io->size;
    rq->arg[0] = io->fence;
    if (io->buffer_off) {
        rq->data_off = io->buffer_off;
        rq->data_len = io->size;
        if (io->fill)
            io->fill(io, xseg_heap_ptr(m->seg, io->buffer_off, io->size));
    }
    reactor_submit(m->reactor, m->port, rq, XSEG_PORT_BLOCKERM, on_reply, io);
}

void map_io_start(struct mapper *m, struct map_io *io)
{
    io->m = m;
    io->buffer_off = 0;
    io->give_up_ns = reactor_now_ns(m->reactor) + m->patience_ns;
    m->nr_ios++;
    attempt(io);
}

void waiters_wake(struct list *waiters, int rc)
{
    struct list todo, *link;
    list_init(&todo);
    while ((link = list_pop_front(waiters)))
        list_push_back(&todo, link);
    while ((link = list_pop_front(&todo))) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        w->wake(w, rc);
    }
}
