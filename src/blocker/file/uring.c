/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring engine: one ring, polled by the reactor.
 *
 * submit() only fills a submission entry; the poller hands all of a turn's entries to
 * the kernel with one system call and takes completions from the shared queue without
 * any.  While the reactor sleeps, the ring's own descriptor wakes it.
 *
 * Buffered writes of more than one piece (engine.h) are jobs: the kernel would do
 * them on a worker thread of its own anyway, and here they can be cut without a round
 * trip for each piece.  What the kernel refuses to do here (-EAGAIN, -EOPNOTSUPP) runs
 * as a blocking job, so that both engines behave alike.  Calls beyond the ring's depth
 * wait in `waiting`.
 *
 * The kernel does syncs, and writes that it cannot do at once, on worker threads of its
 * own, which all rings of this thread share.  So that slow syncs leave workers for the
 * writes, only so many syncs are with the kernel at once; the others wait in
 * `waiting_syncs`.  Everything on the reactor's thread.
 */
#include "blocker/file/engine.h"

#include <errno.h>

#include "blocker/backend.h"

#ifndef HAVE_LIBURING

int file_uring_create(struct reactor *r, uint32_t depth, struct file_engine **out)
{
    (void)r;
    (void)depth;
    *out = NULL;
    return -ENOSYS;
}

const char *blk_default_engine(void)
{
    return "threads";
}

#else

#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

/** One transfer's longest length: the kernel counts in 32 bits. */
#define MAX_TRANSFER_BYTES (UINT64_C(1) << 30)

/** Worker threads of the kernel for one reactor, and how many of them may sync for one
 *  ring; without the right to set the first (Linux before 5.15) there may be as few as
 *  four. */
#define KERNEL_WORKERS     64u
#define SYNCS_MAX          16u
#define SYNCS_MAX_OLD      2u

/** So many reads in one turn make batches worth while. */
#define MANY_READS         4u

/** Completions taken at once.  (Also: the call that takes them can be interposed, and
 *  tests/crash does.) */
#define REAP_BATCH         32u

struct uring_engine {
    struct file_engine base;
    struct io_uring ring;
    uint32_t depth;
    uint32_t nr_in_flight; /* entries filled and not completed: never above depth */
    uint32_t nr_unsubmitted;
    struct list waiting;          /* calls that found no entry */
    uint32_t nr_syncs, max_syncs; /* with the kernel, at most */
    struct list waiting_syncs;
    struct reactor_poller poller;
    struct reactor_fd ready;
};

static void uring_fill(struct io_uring_sqe *sqe, struct file_call *call)
{
    uint64_t left = call->size - call->moved;
    unsigned part = (unsigned)(left < MAX_TRANSFER_BYTES ? left : MAX_TRANSFER_BYTES);

    switch (call->verb) {
    case FILE_READ:
        io_uring_prep_read(sqe, call->fd, call->data + call->moved, part,
                           call->offset + call->moved);
        break;
    case FILE_WRITE:
    case FILE_WRITE_DSYNC:
        io_uring_prep_write(sqe, call->fd, call->data + call->moved, part,
                            call->offset + call->moved);
        if (call->verb == FILE_WRITE_DSYNC)
            sqe->rw_flags = RWF_DSYNC;
        break;
    case FILE_DATASYNC:
        io_uring_prep_fsync(sqe, call->fd, IORING_FSYNC_DATASYNC);
        break;
    case FILE_SYNC:
        io_uring_prep_fsync(sqe, call->fd, 0);
        break;
    case FILE_WRITE_BACK:
        io_uring_prep_sync_file_range(sqe, call->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        break;
    case FILE_PUNCH:
        io_uring_prep_fallocate(sqe, call->fd,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (off_t)call->offset, (off_t)call->size);
        break;
    }
    io_uring_sqe_set_data(sqe, call);
}

static bool uring_is_sync(const struct file_call *call)
{
    return file_call_lane(call) == REACTOR_LANE_SYNC;
}

static void uring_start(struct uring_engine *e, struct file_call *call)
{
    if (uring_is_sync(call) && e->nr_syncs >= e->max_syncs) {
        list_push_back(&e->waiting_syncs, &call->link);
        return;
    }
    struct io_uring_sqe *sqe =
        e->nr_in_flight < e->depth ? io_uring_get_sqe(&e->ring) : NULL;
    if (!sqe) {
        list_push_back(&e->waiting, &call->link);
        return;
    }
    uring_fill(sqe, call);
    e->nr_in_flight++;
    e->nr_unsubmitted++;
    e->nr_syncs += uring_is_sync(call);
}

/** Start what waited, as far as there is room. */
static void uring_start_waiting(struct uring_engine *e)
{
    struct list *link;

    for (uint32_t nr = e->nr_syncs; nr < e->max_syncs; nr++)
        if ((link = list_pop_front(&e->waiting_syncs)) != NULL)
            list_push_back(&e->waiting, link);
    while (e->nr_in_flight < e->depth && (link = list_pop_front(&e->waiting)) != NULL) {
        uring_start(e, LIST_ENTRY(link, struct file_call, link));
        /* The submission queue itself is full: push it before more goes in. */
        if (io_uring_sq_space_left(&e->ring) == 0)
            break;
    }
}

static bool uring_is_long_write(const struct file_call *call)
{
    return (call->verb == FILE_WRITE || call->verb == FILE_WRITE_DSYNC) &&
           !call->direct && call->size > FILE_PIECE_BYTES;
}

static void uring_submit(struct file_engine *engine, struct file_call *call)
{
    call->engine = engine;
    call->moved = 0;
    call->result = 0;
    if (uring_is_long_write(call)) {
        file_call_offload(engine->reactor, call, file_call_lane(call));
        return;
    }
    uring_start((struct uring_engine *)engine, call);
}

static void uring_push(struct uring_engine *e)
{
    if (e->nr_unsubmitted == 0)
        return;
    int rc = io_uring_submit(&e->ring);
    /* -EBUSY, -EAGAIN, -EINTR: the entries stay, the next turn tries again. */
    if (rc > 0)
        e->nr_unsubmitted -=
            (uint32_t)rc < e->nr_unsubmitted ? (uint32_t)rc : e->nr_unsubmitted;
}

static void uring_complete(struct uring_engine *e, struct file_call *call, int res)
{
    bool moves = call->verb == FILE_READ || call->verb == FILE_WRITE ||
                 call->verb == FILE_WRITE_DSYNC;

    if (res == -EINTR) {
        uring_start(e, call);
        return;
    }
    if (res == -EAGAIN || res == -EOPNOTSUPP) {
        file_call_offload(e->base.reactor, call, file_call_lane(call));
        return;
    }
    if (res > 0 && moves)
        call->moved += (uint64_t)res;
    if (res > 0 && moves && file_call_may_go_on(call)) {
        uring_start(e, call);
        return;
    }
    call->result = res < 0 ? res : 0;
    if (res == 0 && moves && call->verb != FILE_READ)
        call->result = -EIO;
    call->done(call);
}

static int uring_reap(struct uring_engine *e)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    struct reaped {
        struct file_call *call;
        int res;
    } reaped[REAP_BATCH];
    unsigned nr_ready;
    int nr = 0;

    while ((nr_ready = io_uring_peek_batch_cqe(&e->ring, cqes, REAP_BATCH)) > 0) {
        for (unsigned i = 0; i < nr_ready; i++)
            reaped[i] = (struct reaped){io_uring_cqe_get_data(cqes[i]), cqes[i]->res};
        io_uring_cq_advance(&e->ring, nr_ready);
        e->nr_in_flight -= nr_ready;
        for (unsigned i = 0; i < nr_ready; i++)
            e->nr_syncs -= uring_is_sync(reaped[i].call);
        for (unsigned i = 0; i < nr_ready; i++)
            uring_complete(e, reaped[i].call, reaped[i].res);
        nr += (int)nr_ready;
    }
    uring_start_waiting(e);
    return nr;
}

static int uring_poll(struct reactor_poller *self)
{
    struct uring_engine *e = LIST_ENTRY(self, struct uring_engine, poller);
    int nr = 0;

    if (e->base.nr_reads > 0) {
        e->base.reads_come_in_numbers = e->base.nr_reads >= MANY_READS;
        e->base.nr_reads = 0;
    }
    if (e->nr_in_flight == 0)
        return 0;
    nr += (int)e->nr_unsubmitted;
    uring_push(e);
    nr += uring_reap(e);
    uring_push(e);
    return nr;
}

static void uring_ready(struct reactor_fd *self, uint32_t events)
{
    struct uring_engine *e = LIST_ENTRY(self, struct uring_engine, ready);
    (void)events;
    uring_reap(e);
}

static void uring_destroy(struct file_engine *engine)
{
    struct uring_engine *e = (struct uring_engine *)engine;
    reactor_remove_poller(e->base.reactor, &e->poller);
    reactor_del_fd(e->base.reactor, &e->ready);
    close(e->ready.fd);
    io_uring_queue_exit(&e->ring);
    free(e);
}

int file_uring_create(struct reactor *r, uint32_t depth, struct file_engine **out)
{
    *out = NULL;
    struct uring_engine *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    int rc = io_uring_queue_init(depth, &e->ring, 0);
    if (rc < 0)
        goto fail_free;
    e->base.name = "io_uring";
    e->base.reactor = r;
    e->base.submit = uring_submit;
    e->base.destroy = uring_destroy;
    e->depth = depth;
    list_init(&e->waiting);
    list_init(&e->waiting_syncs);
    unsigned workers[2] = {KERNEL_WORKERS, 0}; /* 0: as it is */
    e->max_syncs = io_uring_register_iowq_max_workers(&e->ring, workers) < 0
                       ? SYNCS_MAX_OLD
                       : SYNCS_MAX;
    e->poller.poll = uring_poll;
    /* A duplicate: liburing closes the ring's own descriptor unseen by thread
     * sanitizers, which then take the next use of its number for a race. */
    e->ready.fd = fcntl(e->ring.ring_fd, F_DUPFD_CLOEXEC, 0);
    if (e->ready.fd < 0) {
        rc = -errno;
        goto fail_ring;
    }
    e->ready.events = EPOLLIN;
    e->ready.on_ready = uring_ready;
    rc = reactor_add_fd(r, &e->ready);
    if (rc < 0)
        goto fail_dup;
    reactor_add_poller(r, &e->poller);
    *out = &e->base;
    return 0;

fail_dup:
    close(e->ready.fd);
fail_ring:
    io_uring_queue_exit(&e->ring);
fail_free:
    free(e);
    return rc;
}

const char *blk_default_engine(void)
{
    struct io_uring ring;
    if (io_uring_queue_init(2, &ring, 0) < 0)
        return "threads";
    io_uring_queue_exit(&ring);
    return "io_uring";
}

#endif
