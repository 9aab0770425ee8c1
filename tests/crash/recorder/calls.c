/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that change files, as libc has them; each logged around the real one.
 *
 * What is missing here shows: the files that the log makes are compared with the files
 * that there are after each workload, and a sync that is not logged keeps nothing.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name)                                                                     \
    static __typeof__(&name) next;                                                     \
    if (!next)                                                                         \
    next = (__typeof__(next))log_next(NULL, #name)

static int64_t result_of(int64_t rc)
{
    return rc < 0 ? -errno : rc;
}

/* ---- data ---------------------------------------------------------------- */

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    REAL(pwrite);
    uint64_t id = log_begin_data(KIND_WRITE, fd, data, size, offset);
    ssize_t rc = next(fd, data, size, offset);
    log_end(KIND_WRITE, id, result_of(rc), 0);
    return rc;
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    char path[PATH_MAX_BYTES];
    struct stat st;
    uint64_t id = 0, inode = log_inode(fd, NULL, path);
    if (inode) {
        bool appends = (fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &st) == 0;
        id = log_begin(KIND_WRITE, inode, appends ? st.st_size : lseek(fd, 0, SEEK_CUR),
                       size, NULL, NULL, data, size);
    }
    ssize_t rc = next(fd, data, size);
    log_end(KIND_WRITE, id, result_of(rc), 0);
    return rc;
}

/** Log a copy between files as a write of what it copies. */
static uint64_t begin_copy(int from, off_t from_offset, int to, off_t offset,
                           size_t size)
{
    char path[PATH_MAX_BYTES];
    struct stat st;
    uint64_t inode = log_inode(to, NULL, path);
    if (!inode || fstat(from, &st) < 0)
        return 0;
    size_t most = st.st_size > from_offset ? (size_t)(st.st_size - from_offset) : 0;
    if (size == 0 || size > most)
        size = most;
    void *data = malloc(size + 1);
    if (!data || pread(from, data, size, from_offset) != (ssize_t)size)
        abort();
    uint64_t id = log_begin(KIND_WRITE, inode, offset, size, NULL, NULL, data, size);
    free(data);
    return id;
}

EXPORT ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *offset,
                               size_t size, unsigned flags)
{
    REAL(copy_file_range);
    uint64_t id =
        begin_copy(from, from_offset ? *from_offset : lseek(from, 0, SEEK_CUR), to,
                   offset ? *offset : lseek(to, 0, SEEK_CUR), size);
    ssize_t rc = next(from, from_offset, to, offset, size, flags);
    log_end(KIND_WRITE, id, result_of(rc), 0);
    return rc;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list args;
    va_start(args, request);
    void *arg = va_arg(args, void *);
    va_end(args);
    uint64_t id = 0;
    if (request == FICLONE) {
        id = begin_copy((int)(intptr_t)arg, 0, fd, 0, 0);
    } else if (request == FICLONERANGE) {
        const struct file_clone_range *range = arg;
        id = begin_copy((int)range->src_fd, (off_t)range->src_offset, fd,
                        (off_t)range->dest_offset, range->src_length);
    }
    int rc = next(fd, request, arg);
    int64_t result = result_of(rc);
    log_end(KIND_WRITE, id, result == 0 ? INT64_MAX : result, 0);
    return rc;
}

/** Room for a file that grows: to the log it is a change of size. */
static int allocate(int fd, int (*next)(int, int, off_t, off_t), off_t offset,
                    off_t length)
{
    uint64_t id = log_begin_data(KIND_TRUNCATE, fd, NULL, 0, offset + length);
    int rc = next(fd, 0, offset, length);
    log_end(KIND_TRUNCATE, id, result_of(rc), 0);
    return rc;
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
    REAL(fallocate);
    char path[PATH_MAX_BYTES];
    struct stat st;
    if (mode == 0 && fstat(fd, &st) == 0 && st.st_size < offset + length)
        return allocate(fd, next, offset, length);
    if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) &&
        mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE) &&
        log_inode(fd, NULL, path))
        abort();
    uint64_t id = log_begin_data(KIND_PUNCH, fd, NULL, (uint64_t)length, offset);
    int rc = next(fd, mode, offset, length);
    log_end(KIND_PUNCH, id, result_of(rc), 0);
    return rc;
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length)
{
    return fallocate(fd, mode, offset, length);
}

EXPORT int ftruncate(int fd, off_t size)
{
    REAL(ftruncate);
    uint64_t id = log_begin_data(KIND_TRUNCATE, fd, NULL, 0, size);
    int rc = next(fd, size);
    log_end(KIND_TRUNCATE, id, result_of(rc), 0);
    return rc;
}

EXPORT int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

EXPORT int fsync(int fd)
{
    REAL(fsync);
    uint64_t id = log_begin_sync(fd);
    int rc = next(fd);
    log_end(KIND_SYNC, id, result_of(rc), 0);
    return rc;
}

EXPORT int fdatasync(int fd)
{
    REAL(fdatasync);
    uint64_t id = log_begin_sync(fd);
    int rc = next(fd);
    log_end(KIND_SYNC, id, result_of(rc), 0);
    return rc;
}

EXPORT int syncfs(int fd)
{
    REAL(syncfs);
    char path[PATH_MAX_BYTES];
    uint64_t inode = log_inode(fd, NULL, path);
    uint64_t id = 0;
    if (inode) /* of which store does not matter: it covers all */
        id = log_begin(KIND_SYNCFS, inode, 0, 0, NULL, NULL, NULL, 0);
    int rc = next(fd);
    log_end(KIND_SYNCFS, id, result_of(rc), 0);
    return rc;
}

/* ---- names --------------------------------------------------------------- */

/** Path below the root of a name as the calls take it; NULL if it is elsewhere. */
static const char *resolve(int dir, const char *path, char full[PATH_MAX_BYTES])
{
    int saved = errno;
    const char *found = NULL;
    char link[64];

    if (!log_is_on())
        return NULL;
    if (path[0] == '/') {
        snprintf(full, PATH_MAX_BYTES, "%s", path);
        found = log_below(full);
    } else if (dir != AT_FDCWD) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t len = readlink(link, full, PATH_MAX_BYTES - 1);
        if (len >= 0) {
            snprintf(full + len, PATH_MAX_BYTES - (size_t)len, "/%s", path);
            found = log_below(full);
        }
    }
    errno = saved;
    return found;
}

static int open_recorded(int dir, const char *name, int flags, mode_t mode)
{
    REAL(openat);
    char full[PATH_MAX_BYTES];
    struct stat st;
    const char *path = flags & O_CREAT ? resolve(dir, name, full) : NULL;
    bool creates = path && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
    uint64_t id = 0;

    if (creates)
        id = log_begin(KIND_CREATE, 0, 0, 0, path, NULL, NULL, 0);
    int fd = next(dir, name, flags, mode);
    if (creates) {
        int64_t rc = result_of(fd);
        if (fd >= 0 && fstat(fd, &st) < 0)
            abort();
        log_end(KIND_CREATE, id, rc < 0 ? rc : 0, fd < 0 ? 0 : st.st_ino);
    }
    return fd;
}

EXPORT int openat(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_recorded(dir, name, flags, mode);
}

EXPORT int openat64(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_recorded(dir, name, flags, mode);
}

static uint64_t begin_names(enum kind kind, int dir, const char *name, int dir2,
                            const char *name2)
{
    char full[PATH_MAX_BYTES], full2[PATH_MAX_BYTES];
    const char *path = resolve(dir, name, full);
    const char *path2 = name2 ? resolve(dir2, name2, full2) : NULL;
    if (!path)
        return 0;
    return log_begin(kind, 0, 0, 0, path, path2, NULL, 0);
}

EXPORT int renameat(int dir, const char *name, int dir2, const char *name2)
{
    REAL(renameat);
    uint64_t id = begin_names(KIND_RENAME, dir, name, dir2, name2);
    int rc = next(dir, name, dir2, name2);
    log_end(KIND_RENAME, id, result_of(rc), 0);
    return rc;
}

EXPORT int renameat2(int dir, const char *name, int dir2, const char *name2,
                     unsigned flags)
{
    REAL(renameat2);
    uint64_t id = begin_names(KIND_RENAME, dir, name, dir2, name2);
    int rc = next(dir, name, dir2, name2, flags);
    log_end(KIND_RENAME, id, result_of(rc), 0);
    return rc;
}

EXPORT int linkat(int dir, const char *name, int dir2, const char *name2, int flags)
{
    REAL(linkat);
    uint64_t id = begin_names(KIND_LINK, dir, name, dir2, name2);
    int rc = next(dir, name, dir2, name2, flags);
    log_end(KIND_LINK, id, result_of(rc), 0);
    return rc;
}

EXPORT int unlinkat(int dir, const char *name, int flags)
{
    REAL(unlinkat);
    enum kind kind = flags & AT_REMOVEDIR ? KIND_RMDIR : KIND_UNLINK;
    uint64_t id = begin_names(kind, dir, name, -1, NULL);
    int rc = next(dir, name, flags);
    log_end(kind, id, result_of(rc), 0);
    return rc;
}

EXPORT int mkdirat(int dir, const char *name, mode_t mode)
{
    REAL(mkdirat);
    uint64_t id = begin_names(KIND_MKDIR, dir, name, -1, NULL);
    int rc = next(dir, name, mode);
    log_end(KIND_MKDIR, id, result_of(rc), 0);
    return rc;
}

EXPORT int mkdir(const char *name, mode_t mode)
{
    return mkdirat(AT_FDCWD, name, mode);
}
