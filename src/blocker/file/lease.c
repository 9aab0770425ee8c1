/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases in files: ACQUIRE, RELEASE, and reading them.
 *
 * A lease file never moves, so that flock(2) on it orders everybody, in any process:
 * exclusive to change it.  It has two slots, written in turn; the valid one with the
 * higher sequence counts.  Readers take no lock: while one slot is written, the other is
 * whole, and so they see the record before the change or after it.  A change that must last syncs the other slot first, then writes, then syncs: at every
 * instant one durable slot has the newest fence that was ever granted.  A renewal
 * changes no fence and is not synced: a power cut ends its holder anyway.
 *
 *   slot, at 0 and 4096:
 *     0   8  magic "ACPLEAS1"      16  8  sequence
 *     8   4  version 1             24 216 struct xseg_lease
 *     12  4  CRC-32C of the slot, with this field 0      (512 bytes, the rest zeros)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/lease.h"
#include "common/crc32c.h"

#define SLOT_MAGIC   UINT64_C(0x315341454c504341) /* "ACPLEAS1" */
#define SLOT_VERSION 1u
#define SLOT_STRIDE  4096

struct lease_slot {
    uint64_t magic;
    uint32_t version;
    uint32_t crc;
    uint64_t sequence;
    struct xseg_lease lease;
    uint8_t zeros[272];
};
static_assert(sizeof(struct lease_slot) == 512, "one sector");

static uint32_t slot_crc(const struct lease_slot *slot)
{
    struct lease_slot copy = *slot;
    copy.crc = 0;
    return crc32c(0, &copy, sizeof copy);
}

static uint64_t realtime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- slots -------------------------------------------------------------- */

/** Both slots are read in turn; so often a writer may overtake a reader without its
 *  lock.  He needs the time of two changes for that, each with an open and a lock. */
#define MAX_OVERTAKEN 8

/** The newest valid slot of a file and where it lies (0 or 1). */
static int load_once(int fd, struct lease_slot *out, int *index)
{
    struct lease_slot slot;
    struct stat st;
    int rc = -EBADMSG;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_nlink == 0)
        return -ESTALE;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < 2; i++) {
        struct file_call call = {.verb = FILE_READ,
                                 .fd = fd,
                                 .offset = (uint64_t)i * SLOT_STRIDE,
                                 .data = (uint8_t *)&slot,
                                 .size = sizeof slot};
        /* A short read must not hide the newer slot: read on. */
        file_call_run(&call);
        if (call.result < 0)
            return call.result;
        if (call.moved != sizeof slot || slot.magic != SLOT_MAGIC ||
            slot.crc != slot_crc(&slot))
            continue;
        if (slot.version != SLOT_VERSION)
            return -EPROTONOSUPPORT;
        if (rc < 0 || slot.sequence > out->sequence) {
            *out = slot;
            *index = i;
            rc = 0;
        }
    }
    return rc;
}

static int load(int fd, struct lease_slot *out, int *index)
{
    int rc = -EBADMSG;
    for (int i = 0; i < MAX_OVERTAKEN && rc == -EBADMSG; i++)
        rc = load_once(fd, out, index);
    return rc;
}

int file_lease_load_fd(int fd, struct xseg_lease *out)
{
    struct lease_slot slot;
    int index;
    int rc = load(fd, &slot, &index);
    if (rc == 0)
        *out = slot.lease;
    return rc;
}

static void seal(struct lease_slot *slot)
{
    slot->magic = SLOT_MAGIC;
    slot->version = SLOT_VERSION;
    slot->crc = slot_crc(slot);
}

static int store_slot(int fd, struct lease_slot *slot, int old_index, bool durable)
{
    struct file_call call = {
        .verb = durable ? FILE_WRITE_DSYNC : FILE_WRITE,
        .fd = fd,
        .offset = (uint64_t)(1 - old_index) * SLOT_STRIDE,
        .data = (uint8_t *)slot,
        .size = sizeof *slot,
    };
    slot->sequence++;
    seal(slot);
    int rc = durable ? file_sync_fd(fd, true) : 0;
    if (rc < 0)
        return rc;
    file_call_run(&call);
    return call.result;
}

/** A lease file that nobody has held, under its name. */
static int make_file(struct file_store *store, const char *path)
{
    struct lease_slot slot = {.sequence = 1};
    struct file_temp temp;

    int rc = file_temp_create(store, &temp);
    if (rc < 0)
        return rc;
    seal(&slot);
    rc = file_temp_fill(&temp, &slot, sizeof slot);
    if (rc < 0) {
        file_temp_discard(store, &temp);
        return rc;
    }
    rc = file_temp_link(store, &temp, path);
    return rc == -EEXIST ? 0 : rc;
}

/* ---- changing ----------------------------------------------------------- */

static int open_locked(struct file_store *store, const struct blk_io *io, bool create)
{
    char path[FILE_PATH_MAX];
    int fd, rc;

    file_path(path, &io->object, 0);
    while ((fd = openat(store->root_fd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC)) < 0) {
        if (errno != ENOENT || !create)
            return -errno;
        rc = make_file(store, path);
        if (rc < 0)
            return rc;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        rc = errno == EWOULDBLOCK ? -EAGAIN : -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static int change(struct file_store *store, struct blk_io *io, bool acquire)
{
    enum lease_change change = LEASE_GRANTED;
    struct lease_slot slot;
    int index;

    int fd = open_locked(store, io, acquire);
    if (fd < 0)
        return fd;
    int rc = load(fd, &slot, &index);
    if (rc == -ESTALE) {
        rc = -EAGAIN; /* deleted between open and lock */
        goto out;
    }
    if (rc < 0)
        goto out;
    if (acquire)
        rc = lease_acquire(&slot.lease, &io->lease, realtime_ns(), &change);
    else
        rc = lease_release(&slot.lease, &io->lease, (io->flags & XSEG_F_FORCE) != 0);
    if (rc == -EBUSY || rc == -ESTALE)
        io->lease = slot.lease;
    if (rc < 0)
        goto out;
    rc = store_slot(fd, &slot, index, change == LEASE_GRANTED);
    /* Whoever made the file may have died before its name was durable. */
    if (rc == 0 && change == LEASE_GRANTED)
        rc = file_dirs_note(store->dirs, file_kind_dir(XSEG_OBJ_LEASE), true);
    if (rc == 0 && change == LEASE_GRANTED)
        rc = file_dirs_sync(store->dirs, file_kind_dir(XSEG_OBJ_LEASE));
    if (rc == 0)
        io->lease = slot.lease;
out:
    close(fd); /* unlocks */
    return rc;
}

static void acquire_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    io->result = change(file_store_of(io->backend), io, true);
}

static void release_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    io->result = change(file_store_of(io->backend), io, false);
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
