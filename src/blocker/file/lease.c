/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases in files: ACQUIRE, RELEASE, and reading them.
 *
 * A lease file never moves and has two slots (slot.h), so that its flock orders all
 * processes that change it.  A change that must last is written so that one durable slot
 * always has the newest fence that was ever granted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blocker/file/presence.h"
#include "blocker/file/slot.h"
#include "blocker/lease.h"
#include "blocker/presence.h"

#define LEASE_MAGIC   UINT64_C(0x315341454c504341) /* "ACPLEAS1" */
#define LEASE_VERSION 1u

static int lease_load(int fd, struct file_slot *slot, int *index)
{
    return file_slot_load(fd, LEASE_MAGIC, LEASE_VERSION, slot, index);
}

int file_lease_load_fd(int fd, struct xseg_lease *out)
{
    struct file_slot slot;
    int index;
    int rc = lease_load(fd, &slot, &index);
    if (rc == 0)
        memcpy(out, slot.record, sizeof *out);
    return rc;
}

/* ---- changing ----------------------------------------------------------- */

static int lease_open(struct file_store *store, const struct xseg_object *object,
                      bool create)
{
    struct file_slot slot = {.magic = LEASE_MAGIC, .version = LEASE_VERSION};
    char path[FILE_PATH_MAX];
    int fd;

    file_path(path, object, 0);
    while ((fd = file_slot_open_locked(store, object)) == -ENOENT && create) {
        int rc = file_slot_create(store, path, &slot);
        if (rc < 0)
            return rc;
    }
    return fd;
}

static int lease_change(struct file_store *store, struct blk_io *io, bool acquire)
{
    enum lease_change change = LEASE_GRANTED;
    struct xseg_lease lease;
    struct file_slot slot;
    int index;

    int fd = lease_open(store, &io->object, acquire);
    if (fd < 0)
        return fd;
    int rc = lease_load(fd, &slot, &index);
    if (rc == -ESTALE)
        rc = -EAGAIN; /* deleted between open and lock */
    if (rc < 0)
        goto out;
    memcpy(&lease, slot.record, sizeof lease);
    if (acquire)
        rc = lease_acquire(&lease, &io->lease, presence_now_ns(), &change);
    else
        rc = lease_release(&lease, &io->lease, (io->flags & XSEG_F_FORCE) != 0);
    if (rc == -EBUSY || rc == -ESTALE)
        io->lease = lease;
    if (rc < 0)
        goto out;
    memcpy(slot.record, &lease, sizeof lease);
    rc = file_slot_store(fd, &slot, index, change == LEASE_GRANTED);
    /* A process that made the file may have died before its name was durable. */
    if (rc == 0 && change == LEASE_GRANTED)
        rc = file_slot_sync_name(store, &io->object);
    if (rc == 0)
        io->lease = lease;
out:
    close(fd); /* unlocks */
    return rc;
}

static int64_t job_change(struct blk_io *io, bool acquire)
{
    struct file_store *store = file_store_of(io->backend);

    if (io->object.kind == XSEG_OBJ_PRESENCE)
        return file_presence_change(store, io, acquire);
    return lease_change(store, io, acquire);
}

static void acquire_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    io->result = job_change(io, true);
}

static void release_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    io->result = job_change(io, false);
}

void file_lease_acquire(struct blk_backend *be, struct blk_io *io)
{
    /* A renewal writes one page and syncs nothing; a new lease syncs three times. */
    bool renews = io->lease.fence != 0 &&
                  !(io->lease.flags & (XSEG_LEASE_UNLOCK | XSEG_LEASE_INHERIT));
    file_io_offload(file_store_of(be), io,
                    renews ? REACTOR_LANE_VITAL : REACTOR_LANE_MAP, acquire_run,
                    file_io_answer_or_retry);
}

void file_lease_release(struct blk_backend *be, struct blk_io *io)
{
    file_io_offload(file_store_of(be), io, REACTOR_LANE_MAP, release_run,
                    file_io_answer_or_retry);
}

/* ---- reading ------------------------------------------------------------ */

int file_lease_read(struct file_store *store, const struct xseg_object *object,
                    struct xseg_lease *out)
{
    char path[FILE_PATH_MAX];

    file_path(path, object, 0);
    int fd = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = file_lease_load_fd(fd, out);
    if (rc == -ESTALE)
        rc = -ENOENT;
    close(fd);
    return rc;
}
