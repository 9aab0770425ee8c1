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
#include "blocker/object.h"
#include "blocker/presence.h"

#define LEASE_MAGIC   UINT64_C(0x315341454c504341) /* "ACPLEAS1" */
#define LEASE_VERSION 2u

/** A lease of version 1, which had a time of its own and no nonce. */
struct lease_v1 {
    uint64_t fence;
    uint64_t ttl_ns;
    uint64_t expires_ns; /* 0: free */
    uint32_t pid;
    uint32_t flags;
    uint64_t pid_start;
    char boot_id[40];
    char owner[64]; /* hex */
    char host[64];
    uint64_t since;
};
static_assert(sizeof(struct lease_v1) == 216, "version 1");

/** One that was not given back is some run's that is over: its program ran before this
 * version of it did. */
static void lease_from_v1(struct file_slot *slot)
{
    struct xseg_lease lease = {0};
    struct lease_v1 old;

    memcpy(&old, slot->record, sizeof old);
    lease.fence = old.fence;
    lease.since = old.since;
    lease.pid = old.pid;
    lease.flags = old.flags;
    if (!blk_parse_hex(old.owner, lease.owner, sizeof lease.owner))
        memset(lease.owner, 0, sizeof lease.owner);
    if (old.expires_ns != 0)
        memset(lease.nonce, 0xff, sizeof lease.nonce);
    memcpy(lease.host, old.host, sizeof lease.host);
    lease.host[sizeof lease.host - 1] = '\0';
    memset(slot->record, 0, sizeof slot->record);
    memcpy(slot->record, &lease, sizeof lease);
    slot->version = LEASE_VERSION;
}

static int lease_load(int fd, struct file_slot *slot, int *index)
{
    int rc = file_slot_load(fd, LEASE_MAGIC, LEASE_VERSION, slot, index);
    if (rc == 0 && slot->version == 1)
        lease_from_v1(slot);
    return rc;
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
    return file_slot_open_locked(store, object, create ? &slot : NULL);
}

/** Judge the holder of a lease that another run asks for. */
static bool lease_judge(struct file_store *store, const struct xseg_lease *lease)
{
    struct xseg_object name = {.kind = XSEG_OBJ_PRESENCE};
    struct xseg_presence presence;

    memcpy(name.id, lease->owner, sizeof lease->owner);
    int rc = file_presence_read(store, &name, &presence);
    return lease_holder_over(lease, rc, &presence, presence_now_ns());
}

/** Change a record that was read.  0, with *change; -errno. */
static int lease_decide(struct file_store *store, struct xseg_lease *lease,
                        const struct blk_io *io, bool acquire,
                        enum lease_change *change)
{
    *change = LEASE_GRANTED;
    if (!acquire)
        return lease_release(lease, &io->lease, (io->flags & XSEG_F_FORCE) != 0);
    return lease_acquire(lease, &io->lease, lease_judge(store, lease), change);
}

static int lease_change(struct file_store *store, struct blk_io *io, bool acquire)
{
    enum lease_change change;
    struct xseg_lease lease;
    struct file_slot slot;
    int index = 0;

    if (acquire && !lease_ask_valid(&io->lease))
        return -EINVAL;
    int fd = lease_open(store, &io->object, acquire);
    if (fd < 0)
        return fd;
    int rc = lease_load(fd, &slot, &index);
    if (rc == -ESTALE)
        rc = -EAGAIN; /* deleted between open and lock */
    if (rc == -EBADMSG && !acquire && (io->flags & XSEG_F_FORCE)) {
        slot = (struct file_slot){.magic = LEASE_MAGIC, .version = LEASE_VERSION};
        lease = lease_of_damaged(io->lease.fence);
        memcpy(slot.record, &lease, sizeof lease);
        rc = 0;
    }
    if (rc < 0)
        goto out;
    memcpy(&lease, slot.record, sizeof lease);
    rc = lease_decide(store, &lease, io, acquire, &change);
    if (rc == -EBUSY || rc == -ESTALE)
        io->lease = lease;
    if (rc < 0)
        goto out;
    memcpy(slot.record, &lease, sizeof lease);
    if (change == LEASE_GRANTED)
        rc = file_slot_store(store, fd, &slot, index, true);
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
    bool vital = io->object.kind == XSEG_OBJ_PRESENCE;
    file_io_offload(file_store_of(be), io,
                    vital ? REACTOR_LANE_VITAL : REACTOR_LANE_MAP, acquire_run,
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
