/* SPDX-License-Identifier: Apache-2.0 */
/*
 * APPEND to a journal: fence, length, one durable write, and the fence again.
 *
 *   1. the fence of the lease must not be above ours
 *   2. the journal's length must be the offset.  If not, -ERANGE: an append that hung came
 *      late, or one was torn; it says nothing about the lease
 *   3. the write and its sync; if they fail, the journal is cut back to its old length
 *   4. the fence once more: if it is still ours, a node that takes the volume over later
 *      reads the journal later and finds the record.  If not, -ESTALE: the record may be
 *      there, behind the length that the new holder's header freezes
 *
 * No lock: a process that is paused between two steps would keep it from the others.
 * Step 1 spares the journal of a holder that is known late; only step 4 decides.
 *
 * It is on the way of every flush, so it costs two cached descriptors and a few
 * system calls that never wait besides the write.  Appends to one journal go one at a
 * time.  The first of this process in a journal and the cutting back run as blocking
 * jobs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

static void start_next(struct file_fd *file);

static void finish(struct file_op *op, int rc)
{
    struct blk_io *io = op->io;
    struct file_fd *file = op->file;

    if (file) {
        file->appending = false;
        file->refs++;
    }
    file_op_put(op);
    file_answer(io, rc);
    if (file) {
        start_next(file);
        file_fd_put(file);
    }
}

/** The record is durable: was the fence still ours? */
static void finish_if_newest(struct file_op *op)
{
    op->compared = finish;
    file_fence_compare(op);
}

/** May this append go on?  0 or -errno. */
static int check(struct file_op *op)
{
    const struct blk_io *io = op->io;
    struct file_fd *file = op->file;
    struct stat st;

    if (file->sync_error != 0)
        return file->sync_error;
    if (fstat(file->fd, &st) < 0)
        return -errno;
    if (st.st_nlink == 0)
        return -ESTALE;
    if ((uint64_t)st.st_size != io->offset)
        return -ERANGE;
    op->old_length = io->offset;
    return 0;
}

/* ---- the blocking form -------------------------------------------------- */

/** Back to the old length, durably: a torn record must not stay before the next one. */
static int cut_back(struct file_op *op)
{
    int rc;
    do {
        rc = ftruncate(op->file->fd, (off_t)op->old_length);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : file_sync_fd(op->file->fd, true);
}

/** A journal that this append made and could not write is not to be seen. */
static bool is_unborn(const struct file_fd *file)
{
    return file->created && !file->appended;
}

static int append_blocking(struct file_op *op)
{
    struct file_fd *file = op->file;
    char dir[FILE_PATH_MAX];

    int rc = check(op);
    if (rc < 0)
        return rc;
    op->call.moved = 0;
    file_call_run(&op->call);
    rc = op->call.result;
    if (rc == 0 && !file->appended) {
        file_path(dir, &file->object, 0);
        file_path_parent(dir);
        rc = file_sync_fd(file->fd, false);
        if (rc == 0)
            rc = file_dirs_note(op->store->dirs, dir, true);
        if (rc == 0)
            rc = file_dirs_sync(op->store->dirs, dir);
    }
    if (rc < 0 && !is_unborn(file) && cut_back(op) < 0)
        file->sync_error = rc; /* what it holds now is not known */
    return rc;
}

static void append_run(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    char path[FILE_PATH_MAX];

    op->call.result = append_blocking(op);
    if (op->call.result < 0 && is_unborn(op->file)) {
        file_path(path, &op->file->object, 0);
        (void)unlinkat(op->store->root_fd, path, 0);
    }
}

static void append_done(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    if (op->call.result == 0) {
        op->file->appended = true;
        finish_if_newest(op);
        return;
    }
    if (is_unborn(op->file))
        file_fd_detach(op->store, &op->io->object, NULL);
    finish(op, op->call.result);
}

static void offload(struct file_op *op, void (*run)(struct reactor_job *job))
{
    op->job.run = run;
    op->job.done = append_done;
    op->job.lane = REACTOR_LANE_MAP;
    reactor_offload(op->store->base.reactor, &op->job);
}

/* ---- the quick form ----------------------------------------------------- */

static void cut_back_run(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    if (cut_back(op) < 0)
        op->file->sync_error = op->call.result;
}

static void called(struct file_call *call)
{
    struct file_op *op = LIST_ENTRY(call, struct file_op, call);
    if (call->result == 0)
        finish_if_newest(op);
    else
        offload(op, cut_back_run);
}

static void start(struct file_op *op)
{
    struct file_fd *file = op->file;

    file->appending = true;
    if (op->io->abandoned) {
        finish(op, -ETIMEDOUT);
        return;
    }
    if (!file->appended) {
        offload(op, append_run);
        return;
    }
    int rc = check(op);
    if (rc < 0) {
        finish(op, rc);
        return;
    }
    /* Not by the engine: there it could wait behind the flushes of data. */
    file_call_offload(op->store->base.reactor, &op->call, REACTOR_LANE_MAP);
}

static void start_next(struct file_fd *file)
{
    struct list *link = file->appending ? NULL : list_pop_front(&file->append_queue);
    if (link)
        start(LIST_ENTRY(link, struct file_op, link));
}

static void opened(struct file_fd_wait *wait, struct file_fd *file, int rc)
{
    struct file_op *op = LIST_ENTRY(wait, struct file_op, open);

    op->file = file;
    if (rc == -ENOENT)
        rc = -ESTALE; /* the journal it means is gone */
    if (rc < 0) {
        finish(op, rc);
        return;
    }
    op->call.fd = file->fd;
    list_push_back(&file->append_queue, &op->link);
    start_next(file);
}

/** The fence of the lease was not above ours a moment ago. */
static void compared(struct file_op *op, int rc)
{
    struct blk_io *io = op->io;

    if (rc == 0 && io->abandoned)
        rc = -ETIMEDOUT;
    if (rc == 0 && io->size > 0) {
        /* Private, so that the io can be abandoned. */
        op->bounce = malloc(io->size);
        rc = op->bounce ? 0 : -ENOMEM;
    }
    if (rc < 0 || io->size == 0) {
        finish(op, rc);
        return;
    }
    memcpy(op->bounce, io->data, io->size);
    op->call = (struct file_call){.verb = FILE_WRITE_DSYNC,
                                  .offset = io->offset,
                                  .data = op->bounce,
                                  .size = io->size,
                                  .done = called};
    op->open.create = io->offset == 0;
    op->open.ready = opened;
    file_fd_get(op->store, &io->object, 0, &op->open);
}

void file_append_if(struct blk_backend *be, struct blk_io *io)
{
    struct file_op *op = file_op_get(file_store_of(be), io);

    if (!op) {
        file_answer(io, -ENOMEM);
        return;
    }
    op->compared = compared;
    file_fence_compare(op);
}
