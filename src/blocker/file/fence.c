/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing the fence of an APPEND with the newest of its lease; APPEND of nothing, which
 * does only that.
 *
 * Every flush ends here, so it costs three system calls that never wait, on the reactor's
 * thread: the lease file stays open among the other files.  A lease file that was deleted,
 * and maybe made anew, is seen by its link count and read by its name again; that and
 * the first time are blocking jobs.  No lock is taken: a paused process would keep it.
 */
#include <errno.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

static void tell(struct file_op *op, int rc, uint64_t newest)
{
    if (rc == -ENOENT)
        rc = op->io->fence ? -ESTALE : 0; /* removed with its volume, or never there */
    else if (rc == 0 && op->io->fence < newest)
        rc = -ESTALE;
    op->compared(op, rc);
}

static void read_run(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    struct xseg_object name = blk_object_lease_of(&op->io->object);
    struct xseg_lease lease = {.fence = 0};

    op->call.result = file_lease_read(op->store, &name, &lease);
    op->newest_fence = lease.fence;
}

static void read_done(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    tell(op, op->call.result, op->newest_fence);
}

static void opened(struct file_fd_wait *wait, struct file_fd *file, int rc)
{
    struct file_op *op = LIST_ENTRY(wait, struct file_op, open);
    struct xseg_lease lease = {.fence = 0};

    if (rc < 0) {
        tell(op, rc, 0);
        return;
    }
    rc = file_lease_load_fd(file->fd, &lease);
    if (rc == -ESTALE) {
        file_fd_detach(op->store, &file->object, NULL);
        op->job.run = read_run;
        op->job.done = read_done;
        op->job.lane = REACTOR_LANE_MAP;
        reactor_offload(op->store->base.reactor, &op->job);
    }
    file_fd_put(file);
    if (rc != -ESTALE)
        tell(op, rc, lease.fence);
}

void file_fence_compare(struct file_op *op)
{
    struct xseg_object lease = blk_object_lease_of(&op->io->object);

    op->open.create = false;
    op->open.ready = opened;
    file_fd_get(op->store, &lease, 0, &op->open);
}
