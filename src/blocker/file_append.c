/* SPDX-License-Identifier: Apache-2.0 */
/*
 * APPEND to a journal: fence, length, one durable write.
 *
 * It is on the way of every flush, so it costs two cached descriptors, a few
 * system calls that never wait and one write with RWF_DSYNC (for the tail of a file the
 * same as write + fdatasync, with one submission).
 *
 *   1. shared flock on the lease file, so that a lease cannot move while we write
 *   2. its fence must not be above ours, the journal's length must be the offset
 *   3. the write; if it fails, the journal is cut back to its old length
 *   4. unlock
 *
 * Appends to one journal go one at a time.  The first of this process in a journal, any
 * whose lock is taken, and the cutting back run as blocking jobs.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file.h"
#include "blocker/object.h"

static void start_next(struct file_fd *file);

static void finish(struct file_op *op, int rc)
{
    struct blk_io *io = op->io;
    struct file_fd *file = op->file;

    if (file) {
        if (file->lease_fd >= 0)
            (void)flock(file->lease_fd, LOCK_UN);
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

/* ---- the checks --------------------------------------------------------- */

/** With the lease locked: may this append go on?  0 or -errno. */
static int check(struct file_op *op)
{
    const struct blk_io *io = op->io;
    struct file_fd *file = op->file;
    struct xseg_lease lease;
    struct stat st;

    if (file->sync_error != 0)
        return file->sync_error;
    if (file->lease_fd >= 0) {
        int rc = file_lease_load_fd(file->lease_fd, &lease);
        if (rc < 0)
            return rc;
        if (io->fence < lease.fence)
            return -ESTALE;
    }
    if (fstat(file->fd, &st) < 0)
        return -errno;
    if (st.st_nlink == 0 || (uint64_t)st.st_size != io->offset)
        return -ESTALE;
    op->old_length = io->offset;
    return 0;
}

static int open_lease(struct file_op *op)
{
    struct xseg_object lease = blk_object_lease_of(&op->io->object);
    struct file_fd *file = op->file;
    char path[FILE_PATH_MAX];
    struct stat st;

    if (file->lease_fd >= 0 && (fstat(file->lease_fd, &st) < 0 || st.st_nlink == 0)) {
        close(file->lease_fd);
        file->lease_fd = -1;
    }
    if (file->lease_fd >= 0)
        return 0;
    file_path(path, &lease, 0);
    file->lease_fd =
        openat(op->store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return file->lease_fd < 0 && errno != ENOENT ? -errno : 0;
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

    int rc = open_lease(op);
    if (rc < 0)
        return rc;
    while (file->lease_fd >= 0 && flock(file->lease_fd, LOCK_SH) < 0)
        if (errno != EINTR)
            return -errno;
    rc = check(op);
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
            rc = file_dirs_note(op->store->dirs, dir, false);
        if (rc == 0)
            rc = file_dirs_sync(op->store->dirs, dir);
    }
    if (rc < 0 && !is_unborn(file) && cut_back(op) < 0)
        file->sync_error = rc; /* nobody knows what it holds now */
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
    if (op->call.result == 0)
        op->file->appended = true;
    else if (is_unborn(op->file))
        file_fd_detach(op->store, &op->io->object, NULL);
    finish(op, op->call.result);
}

static void offload(struct file_op *op, void (*run)(struct reactor_job *job))
{
    op->job.run = run;
    op->job.done = append_done;
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
        finish(op, 0);
    else
        offload(op, cut_back_run);
}

static void start(struct file_op *op)
{
    struct file_fd *file = op->file;
    struct stat st;

    file->appending = true;
    /* Without a lease file only a job can tell that there is still none. */
    if (!file->appended || file->lease_fd < 0 || fstat(file->lease_fd, &st) < 0 ||
        st.st_nlink == 0 || flock(file->lease_fd, LOCK_SH | LOCK_NB) < 0) {
        offload(op, append_run);
        return;
    }
    int rc = check(op);
    if (rc < 0) {
        finish(op, rc);
        return;
    }
    op->store->engine->submit(op->store->engine, &op->call);
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
        struct blk_io *io = op->io;
        file_op_put(op);
        file_answer(io, rc);
        return;
    }
    op->call.fd = file->fd;
    list_push_back(&file->append_queue, &op->link);
    start_next(file);
}

void file_append_if(struct blk_backend *be, struct blk_io *io)
{
    struct file_store *store = file_store_of(be);
    struct file_op *op = file_op_get(store, io);

    if (!op) {
        file_answer(io, -ENOMEM);
        return;
    }
    op->call = (struct file_call){.verb = FILE_WRITE_DSYNC,
                                  .offset = io->offset,
                                  .data = io->data,
                                  .size = io->size,
                                  .done = called};
    op->open.create = io->offset == 0;
    op->open.ready = opened;
    file_fd_get(store, &io->object, 0, &op->open);
}
