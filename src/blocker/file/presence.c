/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presences in files (see presence.h): one file for each instance, with two slots (slot.h).
 *
 * Beginning a presence and giving it back are durable.  A renewal is not synced: a power
 * cut ends the instance anyway.  A file that no slot can be read of does not keep its own
 * instance from starting: it is written anew.  That is safe because leases name the nonce
 * of their holder, so that an incarnation that is written over here loses them.
 */
#include "blocker/file/presence.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "blocker/file/slot.h"
#include "blocker/presence.h"

#define PRESENCE_MAGIC   UINT64_C(0x3153455250504341) /* "ACPPRES1" */
#define PRESENCE_VERSION 1u

static int presence_load(int fd, struct file_slot *slot, int *index)
{
    return file_slot_load(fd, PRESENCE_MAGIC, PRESENCE_VERSION, slot, index);
}

static int presence_open(struct file_store *store, const struct xseg_object *object,
                         bool create)
{
    struct file_slot slot = {.magic = PRESENCE_MAGIC, .version = PRESENCE_VERSION};
    return file_slot_open_locked(store, object, create ? &slot : NULL);
}

int file_presence_change(struct file_store *store, struct blk_io *io, bool acquire)
{
    enum presence_change change = PRESENCE_BEGUN;
    struct xseg_presence presence;
    struct file_slot slot;
    int index = 0;

    if (acquire && !presence_ask_valid(&io->presence))
        return -EINVAL;
    int fd = presence_open(store, &io->object, acquire);
    if (fd < 0)
        return fd;
    int rc = presence_load(fd, &slot, &index);
    if (rc == -ESTALE)
        rc = -EAGAIN; /* deleted between open and lock */
    if (rc == -EBADMSG && acquire) {
        slot = (struct file_slot){.magic = PRESENCE_MAGIC, .version = PRESENCE_VERSION};
        rc = 0;
    }
    if (rc < 0)
        goto out;
    memcpy(&presence, slot.record, sizeof presence);
    if (acquire)
        rc = presence_acquire(&presence, &io->presence, presence_now_ns(), &change);
    else
        rc = presence_release(&presence, &io->presence);
    if (rc == -EBUSY || rc == -ESTALE)
        io->presence = presence;
    if (rc < 0)
        goto out;
    memcpy(slot.record, &presence, sizeof presence);
    rc = file_slot_store(store, fd, &slot, index, change == PRESENCE_BEGUN);
    if (rc == 0 && change == PRESENCE_BEGUN)
        rc = file_slot_sync_name(store, &io->object);
    if (rc == 0)
        io->presence = presence;
out:
    close(fd); /* unlocks */
    return rc;
}

int file_presence_read(struct file_store *store, const struct xseg_object *object,
                       struct xseg_presence *out)
{
    struct file_slot slot;
    char path[FILE_PATH_MAX];
    int index;

    file_path(path, object, 0);
    int fd = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = presence_load(fd, &slot, &index);
    if (rc == -ESTALE)
        rc = -ENOENT;
    if (rc == 0)
        memcpy(out, slot.record, sizeof *out);
    close(fd);
    return rc;
}
