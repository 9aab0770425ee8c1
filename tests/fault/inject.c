/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the calls that a process does on files under one directory fail on demand.
 *
 * A library for LD_PRELOAD, so that nothing of it is in the product.  The calls of the
 * file backend come here first: those of its threads by their names in libc, those of
 * io_uring as entries of the submission queue, which are changed before the kernel sees
 * them (a write becomes a no-op with the wanted result, or a shorter write).
 *
 *   FAULT_ROOT     the directory
 *   FAULT_CONTROL  a file of struct control, shared with the test (plan.py)
 *
 * A call that fails does nothing; a short one does its first half.  Any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef FAULT_URING
#include <liburing.h>
/* Linux 6.10; newer than the headers of Debian 12 */
#define NOP_INJECT_RESULT 1u
#endif

#define EXPORT         __attribute__((visibility("default")))
#define PATH_MAX_BYTES 4096u

enum kind {
    KIND_READ,
    KIND_WRITE,
    KIND_SYNC,
    KIND_PUNCH,
    KIND_TRUNCATE,
    KIND_OPEN,
    KIND_CREATE,
    KIND_MKDIR,
    KIND_RENAME,
    KIND_LINK,
    KIND_UNLINK,
    NR_KINDS,
};

/** As in plan.py. */
struct control {
    uint32_t kinds;     /* bits of what may fail; 0: nothing does */
    int32_t error;      /* what it fails with; 0: it is short */
    uint64_t first;     /* the first of them that fails, from 1 */
    uint64_t last;      /* the last that does */
    uint32_t only_full; /* only what needs space, as on a full disk */
    uint32_t reserved;
    char only[64];               /* only below paths with this text; empty: all */
    atomic_uint_fast64_t nr;     /* that could have failed */
    atomic_uint_fast64_t struck; /* that did */
    atomic_uint_fast64_t seen[NR_KINDS];
};

static struct control *control;
static char root[PATH_MAX_BYTES];
static size_t root_len;

__attribute__((constructor)) static void start(void)
{
    const char *dir = getenv("FAULT_ROOT");
    const char *path = getenv("FAULT_CONTROL");
    if (!dir || !path)
        return;
    root_len = (size_t)snprintf(root, sizeof root, "%s/", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return; /* a process that has nothing to do with the test any more */
    void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        abort();
    control = at;
}

/* ---- whose turn it is ---------------------------------------------------- */

static bool is_ours(const char *path)
{
    return strncmp(path, root, root_len) == 0;
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

static bool path_at(int dir, const char *name, char path[PATH_MAX_BYTES])
{
    if (name[0] == '/') {
        snprintf(path, PATH_MAX_BYTES, "%s", name);
        return true;
    }
    if (dir == AT_FDCWD || !path_of_fd(dir, path))
        return false;
    size_t len = strlen(path);
    snprintf(path + len, PATH_MAX_BYTES - len, "/%s", name);
    return true;
}

/** Is the call on this path to fail? */
static bool strikes(enum kind kind, const char *path)
{
    if (!is_ours(path))
        return false;
    atomic_fetch_add(&control->seen[kind], 1);
    if (!(control->kinds & (1u << kind)))
        return false;
    if (control->only[0] && !strstr(path + root_len, control->only))
        return false;
    uint64_t nr = atomic_fetch_add(&control->nr, 1) + 1;
    if (nr < control->first || nr > control->last)
        return false;
    atomic_fetch_add(&control->struck, 1);
    return true;
}

static bool strikes_fd(enum kind kind, int fd)
{
    char path[PATH_MAX_BYTES];
    int saved = errno;
    bool yes = control && path_of_fd(fd, path) && strikes(kind, path);
    errno = saved;
    return yes;
}

static bool strikes_at(enum kind kind, int dir, const char *name)
{
    char path[PATH_MAX_BYTES];
    int saved = errno;
    bool yes = control && path_at(dir, name, path) && strikes(kind, path);
    errno = saved;
    return yes;
}

/** True if all of the range is stored already, so that it needs no space. */
static bool is_stored(int fd, off_t offset, size_t size)
{
    int saved = errno;
    bool yes = lseek(fd, offset, SEEK_DATA) == offset &&
               lseek(fd, offset, SEEK_HOLE) >= offset + (off_t)size;
    errno = saved;
    return yes;
}

static bool write_strikes(int fd, off_t offset, size_t size)
{
    if (control && control->only_full && is_stored(fd, offset, size))
        return false;
    return strikes_fd(KIND_WRITE, fd);
}

static int fail(void)
{
    errno = control->error ? control->error : EIO;
    return -1;
}

/** What a short transfer still moves [bytes]. */
static size_t half(size_t size)
{
    return size > 1 ? size / 2 : size;
}

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

/* ---- libc ---------------------------------------------------------------- */

EXPORT ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    if (strikes_fd(KIND_READ, fd)) {
        if (control->error)
            return fail();
        size = half(size);
    }
    return REAL(pread)(fd, data, size, offset);
}

EXPORT ssize_t pread64(int fd, void *data, size_t size, off_t offset)
{
    return pread(fd, data, size, offset);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int nr, off_t offset, int flags)
{
    if (strikes_fd(KIND_READ, fd))
        return control->error ? fail() : 0;
    return REAL(preadv2)(fd, iov, nr, offset, flags);
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int nr, off_t offset,
                          int flags)
{
    return preadv2(fd, iov, nr, offset, flags);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (write_strikes(fd, offset, size)) {
        if (control->error)
            return fail();
        size = half(size);
    }
    return REAL(pwrite)(fd, data, size, offset);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int nr, off_t offset,
                        int flags)
{
    if (write_strikes(fd, offset, nr > 0 ? iov[0].iov_len : 0)) {
        if (control->error || nr < 1)
            return fail();
        struct iovec part = {iov[0].iov_base, half(iov[0].iov_len)};
        return REAL(pwritev2)(fd, &part, 1, offset, flags);
    }
    return REAL(pwritev2)(fd, iov, nr, offset, flags);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int nr, off_t offset,
                           int flags)
{
    return pwritev2(fd, iov, nr, offset, flags);
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (strikes_fd(KIND_PUNCH, fd))
        return fail();
    return REAL(fallocate)(fd, mode, offset, length);
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length)
{
    return fallocate(fd, mode, offset, length);
}

EXPORT int ftruncate(int fd, off_t size)
{
    return strikes_fd(KIND_TRUNCATE, fd) ? fail() : REAL(ftruncate)(fd, size);
}

EXPORT int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

EXPORT int fsync(int fd)
{
    return strikes_fd(KIND_SYNC, fd) ? fail() : REAL(fsync)(fd);
}

EXPORT int fdatasync(int fd)
{
    return strikes_fd(KIND_SYNC, fd) ? fail() : REAL(fdatasync)(fd);
}

EXPORT int syncfs(int fd)
{
    return strikes_fd(KIND_SYNC, fd) ? fail() : REAL(syncfs)(fd);
}

EXPORT int openat(int dir, const char *name, int flags, ...)
{
    struct stat st;
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    bool creates = control && (flags & O_CREAT) &&
                   fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
    if (strikes_at(creates ? KIND_CREATE : KIND_OPEN, dir, name))
        return fail();
    return REAL(openat)(dir, name, flags, mode);
}

EXPORT int openat64(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return openat(dir, name, flags, mode);
}

EXPORT int renameat(int dir, const char *name, int dir2, const char *name2)
{
    if (strikes_at(KIND_RENAME, dir2, name2))
        return fail();
    return REAL(renameat)(dir, name, dir2, name2);
}

EXPORT int renameat2(int dir, const char *name, int dir2, const char *name2,
                     unsigned flags)
{
    if (strikes_at(KIND_RENAME, dir2, name2))
        return fail();
    return REAL(renameat2)(dir, name, dir2, name2, flags);
}

EXPORT int linkat(int dir, const char *name, int dir2, const char *name2, int flags)
{
    if (strikes_at(KIND_LINK, dir2, name2))
        return fail();
    return REAL(linkat)(dir, name, dir2, name2, flags);
}

EXPORT int unlinkat(int dir, const char *name, int flags)
{
    if (strikes_at(KIND_UNLINK, dir, name))
        return fail();
    return REAL(unlinkat)(dir, name, flags);
}

EXPORT int mkdirat(int dir, const char *name, mode_t mode)
{
    struct stat st;
    /* One that is there already fails by itself. */
    if (control && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 &&
        strikes_at(KIND_MKDIR, dir, name))
        return fail();
    return REAL(mkdirat)(dir, name, mode);
}

/* ---- io_uring ------------------------------------------------------------ */

#ifdef FAULT_URING

static bool kind_of(const struct io_uring_sqe *sqe, enum kind *kind)
{
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_READ_FIXED:
        *kind = KIND_READ;
        return true;
    case IORING_OP_WRITE:
    case IORING_OP_WRITE_FIXED:
        *kind = KIND_WRITE;
        return true;
    case IORING_OP_FSYNC:
        *kind = KIND_SYNC;
        return true;
    case IORING_OP_FALLOCATE:
        *kind = KIND_PUNCH;
        return true;
    default:
        return false;
    }
}

static void spoil(struct io_uring_sqe *sqe)
{
    enum kind kind;
    if (!kind_of(sqe, &kind))
        return;
    bool hit = kind == KIND_WRITE ? write_strikes(sqe->fd, (off_t)sqe->off, sqe->len)
                                  : strikes_fd(kind, sqe->fd);
    if (!hit)
        return;
    if (control->error == 0) {
        sqe->len = (uint32_t)half(sqe->len);
        return;
    }
    uint64_t user_data = sqe->user_data;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_NOP;
    sqe->fd = -1;
    sqe->rw_flags = NOP_INJECT_RESULT;
    sqe->len = (uint32_t)-control->error;
    sqe->user_data = user_data;
}

/** Of the library that its user brought along, where RTLD_NEXT does not look. */
static void *real_submit(void)
{
    void *library = dlopen("liburing.so.2", RTLD_LAZY | RTLD_NOLOAD);
    void *found = library ? dlsym(library, "io_uring_submit") : NULL;
    if (!found)
        abort();
    return found;
}

EXPORT int io_uring_submit(struct io_uring *ring)
{
    struct io_uring_sq *sq = &ring->sq;
    /* Each entry once: liburing moves sqe_head past what it has shown to the kernel. */
    if (control)
        for (unsigned i = sq->sqe_head; i != sq->sqe_tail; i++)
            spoil(&sq->sqes[i & *sq->kring_mask]);
    return ((__typeof__(&io_uring_submit))real_submit())(ring);
}

#endif
