/* SPDX-License-Identifier: Apache-2.0 */
/* Two slots in a file (see slot.h). */
#include "blocker/file/slot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"

#define SLOT_STRIDE 4096

/** Both slots are read in turn; so often a writer may overtake a reader, which has no
 *  lock.  The writer needs the time of two changes for that, each with an open and a
 *  lock. */
#define MAX_OVERTAKEN 8

static uint32_t slot_crc(const struct file_slot *slot)
{
    struct file_slot copy = *slot;
    copy.crc = 0;
    return crc32c(0, &copy, sizeof copy);
}

static int slot_load_once(int fd, uint64_t magic, uint32_t version,
                          struct file_slot *out, int *index)
{
    struct file_slot slot;
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
        if (call.moved != sizeof slot || slot.magic != magic ||
            slot.crc != slot_crc(&slot))
            continue;
        if (slot.version > version)
            return -EPROTONOSUPPORT;
        if (rc < 0 || slot.sequence > out->sequence) {
            *out = slot;
            *index = i;
            rc = 0;
        }
    }
    return rc;
}

int file_slot_load(int fd, uint64_t magic, uint32_t version, struct file_slot *out,
                   int *index)
{
    int rc = -EBADMSG;
    for (int i = 0; i < MAX_OVERTAKEN && rc == -EBADMSG; i++)
        rc = slot_load_once(fd, magic, version, out, index);
    return rc;
}

int file_slot_store(struct file_store *store, int fd, struct file_slot *slot,
                    int old_index, bool durable)
{
    struct file_call call = {
        .verb = durable ? FILE_WRITE_DSYNC : FILE_WRITE,
        .fd = fd,
        .offset = (uint64_t)(1 - old_index) * SLOT_STRIDE,
        .data = (uint8_t *)slot,
        .size = sizeof *slot,
    };
    slot->sequence++;
    slot->crc = slot_crc(slot);
    int rc = durable ? file_sync_fd(fd, true) : 0;
    if (rc < 0)
        return rc;
    do {
        struct file_call try = call;
        /* The second slot may need a block of its own. */
        file_call_run(&try);
        rc = try.result;
    } while ((rc == -ENOSPC || rc == -EDQUOT) && file_reserve_give(store));
    return rc;
}

/** Make a file with one slot, under its name.  0, also if there is one; -errno. */
static int slot_create(struct file_store *store, const char *path,
                       struct file_slot *slot)
{
    struct file_temp temp;

    slot->sequence = 1;
    slot->crc = slot_crc(slot);
    int rc = file_temp_make(store, &temp, slot, sizeof *slot);
    if (rc < 0)
        return rc;
    rc = file_temp_link(store, &temp, path);
    return rc == -EEXIST ? 0 : rc;
}

int file_slot_open_locked(struct file_store *store, const struct xseg_object *object,
                          struct file_slot *first)
{
    char path[FILE_PATH_MAX];
    int fd;

    file_path(path, object, 0);
    while ((fd = openat(store->root_fd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC)) < 0) {
        if (errno != ENOENT || !first)
            return -errno;
        int made = slot_create(store, path, first);
        if (made < 0)
            return made;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int rc = errno == EWOULDBLOCK ? -EAGAIN : -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int file_slot_sync_name(struct file_store *store, const struct xseg_object *object)
{
    const char *dir = file_kind_dir(object->kind);
    int rc = file_dirs_note(store->dirs, dir, true);
    return rc < 0 ? rc : file_dirs_sync(store->dirs, dir);
}
