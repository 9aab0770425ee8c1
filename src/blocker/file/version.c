/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Versions and generations, told by the modification time of a file.
 *
 *   HEADER          the version, as nanoseconds: LIST tells which headers changed without
 *                   opening them.  Only where times are kept to the nanosecond
 *   CONTENT, LAYER  the generation, as seconds
 *
 * Such a file never changes its bytes, so nothing else needs this time.  It is there on
 * every filesystem, needs no attributes, costs LIST nothing, and copies of a store keep it.
 * A copy that lost it has the time of the copy, which is a generation that is not reached
 * for ever: a block is kept too long then, and never removed too early.
 *
 * A raise and a conditional removal exclude each other by flock on the file itself.  Who
 * has the lock looks whether the file still has a name.  The lock is never waited for
 * (retry.c).  Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

#define NS_PER_S UINT64_C(1000000000)

static int set_time(int fd, uint64_t seconds, uint64_t ns)
{
    const struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = (time_t)seconds, .tv_nsec = (long)ns},
    };
    return futimens(fd, times) < 0 ? -errno : 0;
}

bool file_keeps_times(int fd)
{
    const uint64_t seconds = 1234567891, ns = 123456789;
    struct stat st;

    return set_time(fd, seconds, ns) == 0 && fstat(fd, &st) == 0 &&
           file_ns(&st.st_mtim) == seconds * NS_PER_S + ns;
}

/** A header's version, the generation of content or a layer, as the time of a new file. */
static int put_version(const struct file_store *store, int fd, const struct blk_io *io)
{
    struct xseg_versioned prefix;

    if (blk_object_has_generation(&io->object))
        return set_time(fd, io->generation, 0);
    if (io->object.kind != XSEG_OBJ_HEADER || !store->keeps_times)
        return 0;
    memcpy(&prefix, io->data, sizeof prefix); /* it is valid: it has a prefix */
    return set_time(fd, prefix.version / NS_PER_S, prefix.version % NS_PER_S);
}

int file_version_fill(struct file_store *store, struct file_temp *temp,
                      const struct blk_io *io)
{
    int rc;

    if (io->source.kind) {
        rc = file_content_fill(store, temp, io);
    } else {
        struct file_call call = {
            .verb = FILE_WRITE,
            .fd = temp->fd,
            .data = io->data,
            .size = io->size,
        };
        file_call_run(&call);
        rc = call.result;
    }
    /* Between the two: a write sets the time, and the sync takes it along. */
    if (rc == 0)
        rc = put_version(store, temp->fd, io);
    return rc < 0 ? rc : file_sync_fd(temp->fd, true);
}

uint64_t file_version_get(const struct file_store *store,
                          const struct xseg_object *object, const struct stat *st)
{
    if (blk_object_has_generation(object))
        return (uint64_t)st->st_mtim.tv_sec;
    if (object->kind == XSEG_OBJ_HEADER && store->keeps_times)
        return file_ns(&st->st_mtim);
    return 0;
}

/** Open and lock an object that has its name.  The fd; -ENOENT; -EAGAIN; -errno. */
static int open_locked(struct file_store *store, const char *path, struct stat *st)
{
    int fd = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = 0;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        rc = errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
    else if (fstat(fd, st) < 0)
        rc = -errno;
    else if (st->st_nlink == 0)
        rc = -ENOENT;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int file_generation_raise(struct file_store *store, const char *path,
                          const struct blk_io *io)
{
    struct stat st;

    int fd = open_locked(store, path, &st);
    if (fd < 0)
        return fd;
    int rc = 0;
    if (file_version_get(store, &io->object, &st) < io->generation) {
        rc = set_time(fd, io->generation, 0);
        /* Another user's file: we may write to it, but only its owner sets a time that is
         * not the present one.  That one is later than any generation. */
        if (rc == -EPERM)
            rc = futimens(fd, NULL) < 0 ? -errno : 0;
        /* Deferred: the header that needs the object keeps it after a power cut. */
        if (rc == 0 && !(io->flags & XSEG_F_NOSYNC))
            rc = file_sync_fd(fd, false);
    }
    close(fd); /* unlocks */
    return rc;
}

int file_generation_hold(struct file_store *store, const char *path,
                         const struct blk_io *io)
{
    struct stat st;

    int fd = open_locked(store, path, &st);
    if (fd < 0)
        return fd;
    if (file_version_get(store, &io->object, &st) <= io->generation)
        return fd;
    close(fd);
    return -ESTALE;
}
