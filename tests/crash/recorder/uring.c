/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes through io_uring: liburing's calls of the io_uring engine.
 *
 * Entries are logged when they are about to be submitted, before the kernel can see
 * them, and ended when their completions are looked at.  An entry that this file does
 * not understand would make a log with holes: abort.
 */
#include "log.h"

#include <errno.h>

#if __has_include(<liburing.h>)

#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/uio.h>

#define LIBRARY        "liburing.so.2"
#define MOST_IN_FLIGHT 8192u

struct flight {
    struct io_uring *ring;
    uint64_t user_data;
    uint64_t id;
    enum kind kind;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct flight flights[MOST_IN_FLIGHT];
static size_t nr_flights;

static void take_off(struct io_uring *ring, const struct io_uring_sqe *sqe,
                     enum kind kind, uint64_t id)
{
    if (!id)
        return;
    pthread_mutex_lock(&lock);
    if (nr_flights == MOST_IN_FLIGHT)
        abort();
    flights[nr_flights++] = (struct flight){ring, sqe->user_data, id, kind};
    pthread_mutex_unlock(&lock);
}

static void land(struct io_uring *ring, const struct io_uring_cqe *cqe)
{
    struct flight found = {0};
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < nr_flights; i++) {
        if (flights[i].ring == ring && flights[i].user_data == cqe->user_data) {
            found = flights[i];
            flights[i] = flights[--nr_flights];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    log_end(found.kind, found.id, cqe->res, 0);
}

static void begin(struct io_uring *ring, const struct io_uring_sqe *sqe)
{
    const void *data = (const void *)(uintptr_t)sqe->addr;
    enum kind kind = KIND_END;
    uint64_t id = 0;

    if (sqe->flags & IOSQE_FIXED_FILE)
        abort();
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_READ_FIXED:
    case IORING_OP_NOP:
    case IORING_OP_POLL_ADD:
        return;
    case IORING_OP_WRITE:
    case IORING_OP_WRITE_FIXED:
        kind = sqe->rw_flags & (RWF_DSYNC | RWF_SYNC) ? KIND_WRITE_DSYNC : KIND_WRITE;
        id = log_begin_data(kind, sqe->fd, data, sqe->len, (int64_t)sqe->off);
        break;
    case IORING_OP_FSYNC:
        kind = KIND_SYNC;
        id = log_begin_sync(sqe->fd);
        break;
    case IORING_OP_FALLOCATE:
        if (sqe->len != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
            abort();
        kind = KIND_PUNCH;
        id = log_begin_data(kind, sqe->fd, NULL, sqe->addr, (int64_t)sqe->off);
        break;
    default:
        abort();
    }
    take_off(ring, sqe, kind, id);
}

static void begin_all(struct io_uring *ring)
{
    const struct io_uring_sq *sq = &ring->sq;
    if (!log_is_on())
        return;
    /* What an earlier submission could not hand over is not between the two again. */
    for (unsigned i = sq->sqe_head; i != sq->sqe_tail; i++)
        begin(ring, &sq->sqes[i & *sq->kring_mask]);
}

EXPORT int io_uring_submit(struct io_uring *ring)
{
    static __typeof__(&io_uring_submit) next;
    if (!next)
        next = (__typeof__(next))log_next(LIBRARY, "io_uring_submit");
    begin_all(ring);
    return next(ring);
}

EXPORT int io_uring_submit_and_wait(struct io_uring *ring, unsigned nr)
{
    static __typeof__(&io_uring_submit_and_wait) next;
    if (!next)
        next = (__typeof__(next))log_next(LIBRARY, "io_uring_submit_and_wait");
    begin_all(ring);
    return next(ring, nr);
}

EXPORT unsigned io_uring_peek_batch_cqe(struct io_uring *ring,
                                        struct io_uring_cqe **cqes, unsigned most)
{
    static __typeof__(&io_uring_peek_batch_cqe) next;
    if (!next)
        next = (__typeof__(next))log_next(LIBRARY, "io_uring_peek_batch_cqe");
    unsigned nr = next(ring, cqes, most);
    if (log_is_on())
        for (unsigned i = 0; i < nr; i++)
            land(ring, cqes[i]);
    return nr;
}

#endif
