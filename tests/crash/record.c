/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records what a process does to the files under one directory.
 *
 * A library for LD_PRELOAD, so that nothing of the recorder is in the product: the calls
 * of the file backend (its engine of threads, which does the same as io_uring's) come
 * here first.  Each is logged when it is issued and when it has returned, in one order
 * for all threads, because calls in flight overlap.  crash_mark() puts the caller's own
 * remarks into the same order.
 *
 *   CRASH_ROOT  the directory
 *   CRASH_LOG   the log; a record is struct record, two paths, data
 *
 * Files are named by inode number; a record of CREATE says which path got it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT         __attribute__((visibility("default")))
#define PATH_MAX_BYTES 4096u

enum kind {
    KIND_END = 0, /* id: of the record that began it; offset: result; length: inode */
    KIND_MARK = 1,
    KIND_CREATE = 2,
    KIND_WRITE = 3,
    KIND_PUNCH = 4,
    KIND_TRUNCATE = 5,
    KIND_SYNC = 6,
    KIND_SYNCFS = 7,
    KIND_RENAME = 8,
    KIND_LINK = 9,
    KIND_UNLINK = 10,
    KIND_MKDIR = 11,
    KIND_RMDIR = 12,
    KIND_SYNCDIR = 13,
};

struct record {
    uint32_t kind;
    uint32_t path_bytes;
    uint32_t path2_bytes;
    uint32_t data_bytes;
    uint64_t id;
    uint64_t inode;
    int64_t offset;
    uint64_t length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *out;
static char root[PATH_MAX_BYTES];
static size_t root_len;
static uint64_t next_id = 1;

__attribute__((constructor)) static void start(void)
{
    const char *dir = getenv("CRASH_ROOT");
    const char *log = getenv("CRASH_LOG");
    if (!dir || !log)
        return;
    root_len = (size_t)snprintf(root, sizeof root, "%s/", dir);
    out = fopen(log, "wbe");
    if (!out)
        abort();
}

__attribute__((destructor)) static void end(void)
{
    if (out)
        fclose(out);
    out = NULL;
}

/** Log one record.  A log that cannot be written is of no use: abort. */
static uint64_t put(enum kind kind, uint64_t of, uint64_t inode, int64_t offset,
                    uint64_t length, const char *path, const char *path2,
                    const void *data, size_t data_bytes)
{
    struct record r = {
        .kind = kind,
        .path_bytes = path ? (uint32_t)strlen(path) : 0,
        .path2_bytes = path2 ? (uint32_t)strlen(path2) : 0,
        .data_bytes = (uint32_t)data_bytes,
        .inode = inode,
        .offset = offset,
        .length = length,
    };
    pthread_mutex_lock(&lock);
    r.id = kind == KIND_END ? of : next_id++;
    if (fwrite(&r, sizeof r, 1, out) != 1 ||
        fwrite(path, 1, r.path_bytes, out) != r.path_bytes ||
        fwrite(path2, 1, r.path2_bytes, out) != r.path2_bytes ||
        fwrite(data, 1, data_bytes, out) != data_bytes)
        abort();
    pthread_mutex_unlock(&lock);
    return r.id;
}

static void put_end(uint64_t id, int64_t result, uint64_t inode)
{
    int saved = errno;
    if (id)
        put(KIND_END, id, 0, result, inode, NULL, NULL, NULL, 0);
    errno = saved;
}

EXPORT void crash_mark(const char *text)
{
    if (out)
        put(KIND_MARK, 0, 0, 0, 0, text, NULL, NULL, 0);
}

/* ---- what is ours -------------------------------------------------------- */

/** Path below the root, or NULL if it is not there. */
static const char *below(const char *path)
{
    if (!out || strncmp(path, root, root_len) != 0)
        return NULL;
    return path + root_len;
}

static bool path_of_fd(int fd, char path[PATH_MAX_BYTES])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX_BYTES - 1);
    if (len < 0)
        return false;
    path[len] = '\0';
    return true;
}

static const char *resolve(int dir, const char *path, char full[PATH_MAX_BYTES])
{
    int saved = errno;
    const char *found = NULL;
    if (!out)
        return NULL;
    if (path[0] == '/') {
        snprintf(full, PATH_MAX_BYTES, "%s", path);
        found = below(full);
    } else if (dir != AT_FDCWD && path_of_fd(dir, full)) {
        size_t len = strlen(full);
        snprintf(full + len, PATH_MAX_BYTES - len, "/%s", path);
        found = below(full);
    }
    errno = saved;
    return found;
}

/** Inode of an open file under the root; 0 if it is elsewhere. */
static uint64_t inode_of(int fd, bool *is_dir, char path[PATH_MAX_BYTES])
{
    int saved = errno;
    uint64_t inode = 0;
    struct stat st;
    if (out && path_of_fd(fd, path) && below(path) && fstat(fd, &st) == 0) {
        inode = st.st_ino;
        if (is_dir)
            *is_dir = S_ISDIR(st.st_mode);
    }
    errno = saved;
    return inode;
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

/* ---- data ---------------------------------------------------------------- */

static uint64_t begin_data(enum kind kind, int fd, const void *data, uint64_t length,
                           int64_t offset)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = inode_of(fd, NULL, path);
    if (!inode)
        return 0;
    return put(kind, 0, inode, offset, length, NULL, NULL, data, data ? length : 0);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    static __typeof__(&pwrite) next;
    if (!next)
        next = REAL(pwrite);
    uint64_t id = begin_data(KIND_WRITE, fd, data, size, offset);
    ssize_t rc = next(fd, data, size, offset);
    put_end(id, rc < 0 ? -errno : rc, 0);
    return rc;
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
    uint64_t id = begin_data(KIND_PUNCH, fd, NULL, (uint64_t)length, offset);
    int rc = REAL(fallocate)(fd, mode, offset, length);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length)
{
    return fallocate(fd, mode, offset, length);
}

EXPORT int ftruncate(int fd, off_t size)
{
    uint64_t id = begin_data(KIND_TRUNCATE, fd, NULL, 0, size);
    int rc = REAL(ftruncate)(fd, size);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

static uint64_t begin_sync(int fd)
{
    char path[PATH_MAX_BYTES];
    bool is_dir = false;
    uint64_t inode = inode_of(fd, &is_dir, path);
    if (!inode)
        return 0;
    return put(is_dir ? KIND_SYNCDIR : KIND_SYNC, 0, inode, 0, 0, below(path), NULL,
               NULL, 0);
}

EXPORT int fsync(int fd)
{
    uint64_t id = begin_sync(fd);
    int rc = REAL(fsync)(fd);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int fdatasync(int fd)
{
    uint64_t id = begin_sync(fd);
    int rc = REAL(fdatasync)(fd);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int syncfs(int fd)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = inode_of(fd, NULL, path);
    uint64_t id = 0;
    if (inode) /* of which store does not matter: it covers all */
        id = put(KIND_SYNCFS, 0, inode, 0, 0, NULL, NULL, NULL, 0);
    int rc = REAL(syncfs)(fd);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

/* ---- names --------------------------------------------------------------- */

static int open_recorded(int dir, const char *name, int flags, mode_t mode)
{
    char full[PATH_MAX_BYTES];
    struct stat st;
    const char *path = flags & O_CREAT ? resolve(dir, name, full) : NULL;
    bool creates = path && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
    uint64_t id = 0;

    if (creates)
        id = put(KIND_CREATE, 0, 0, 0, 0, path, NULL, NULL, 0);
    int fd = REAL(openat)(dir, name, flags, mode);
    if (creates) {
        int rc = fd < 0 ? -errno : fstat(fd, &st);
        put_end(id, rc, fd < 0 ? 0 : st.st_ino);
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
    return put(kind, 0, 0, 0, 0, path, path2, NULL, 0);
}

EXPORT int renameat(int dir, const char *name, int dir2, const char *name2)
{
    uint64_t id = begin_names(KIND_RENAME, dir, name, dir2, name2);
    int rc = REAL(renameat)(dir, name, dir2, name2);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int renameat2(int dir, const char *name, int dir2, const char *name2,
                     unsigned flags)
{
    uint64_t id = begin_names(KIND_RENAME, dir, name, dir2, name2);
    int rc = REAL(renameat2)(dir, name, dir2, name2, flags);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int linkat(int dir, const char *name, int dir2, const char *name2, int flags)
{
    uint64_t id = begin_names(KIND_LINK, dir, name, dir2, name2);
    int rc = REAL(linkat)(dir, name, dir2, name2, flags);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int unlinkat(int dir, const char *name, int flags)
{
    enum kind kind = flags & AT_REMOVEDIR ? KIND_RMDIR : KIND_UNLINK;
    uint64_t id = begin_names(kind, dir, name, -1, NULL);
    int rc = REAL(unlinkat)(dir, name, flags);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int mkdirat(int dir, const char *name, mode_t mode)
{
    uint64_t id = begin_names(KIND_MKDIR, dir, name, -1, NULL);
    int rc = REAL(mkdirat)(dir, name, mode);
    put_end(id, rc < 0 ? -errno : 0, 0);
    return rc;
}

EXPORT int mkdir(const char *name, mode_t mode)
{
    return mkdirat(AT_FDCWD, name, mode);
}
