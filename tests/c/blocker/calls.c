/* SPDX-License-Identifier: Apache-2.0 */
/* See calls.h. */
#include "blocker/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_syncfs(int fd);
ssize_t __real_pwrite(int fd, const void *buf, size_t nr, off_t off);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to,
                     unsigned flags);
int __real_unlinkat(int fd, const char *path, int flags);
int __real_mkdirat(int fd, const char *path, mode_t mode);
int __real_openat(int fd, const char *path, int flags, ...);

int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_syncfs(int fd);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t nr, off_t off);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to,
                     unsigned flags);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_mkdirat(int fd, const char *path, mode_t mode);
int __wrap_openat(int fd, const char *path, int flags, ...);

#define MAX_DIRTY 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ino_t dirty[MAX_DIRTY];
static size_t nr_dirty;
static unsigned nr_syncs;   /* fsync, fdatasync, syncfs */
static unsigned nr_calls;   /* all that can fail */
static unsigned fail_at;    /* the one of them that fails; 0: none */
static bool named_unsynced; /* a rename gave a name to bytes that were not durable */
static pthread_cond_t held_changed = PTHREAD_COND_INITIALIZER;
static enum { NOT_HELD, TO_HOLD, HELD } held; /* a sync */
static int held_error;                        /* what it answers */

static unsigned failing_syncs; /* the next so many syncs fail */
static int failing_error;      /* with this */

static void mark(ino_t ino)
{
    for (size_t i = 0; i < nr_dirty; i++)
        if (dirty[i] == ino)
            return;
    CHECK(nr_dirty < MAX_DIRTY);
    dirty[nr_dirty++] = ino;
}

static bool unmark(ino_t ino)
{
    for (size_t i = 0; i < nr_dirty; i++)
        if (dirty[i] == ino) {
            dirty[i] = dirty[--nr_dirty];
            return true;
        }
    return false;
}

static ino_t inode_of(int fd)
{
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    return st.st_ino;
}

/** A name in tmp/ does not have to last. */
static bool is_temporary(const char *path)
{
    return strncmp(path, "tmp/", 4) == 0;
}

static void mark_parent(int dir_fd, const char *path)
{
    char dir[512];
    struct stat st;

    if (is_temporary(path))
        return;
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        *slash = '\0';
    CHECK_EQ(fstatat(dir_fd, slash ? dir : ".", &st, 0), 0);
    mark(st.st_ino);
}

/** Count a call; true if it is the one to fail. */
static bool strikes(void)
{
    return ++nr_calls == fail_at;
}

/** Stop if this sync is to stop.  What it answers then, or 0.  Locked. */
static int stop_if_wanted(void)
{
    if (held != TO_HOLD)
        return 0;
    held = HELD;
    pthread_cond_broadcast(&held_changed);
    while (held == HELD)
        pthread_cond_wait(&held_changed, &lock);
    return held_error;
}

static int sync_call(int fd, int (*call)(int))
{
    pthread_mutex_lock(&lock);
    nr_syncs++;
    int error = strikes() ? EIO : stop_if_wanted();
    if (!error && failing_syncs > 0) {
        failing_syncs--;
        error = failing_error;
    }
    if (!error)
        unmark(inode_of(fd));
    pthread_mutex_unlock(&lock);
    if (!error)
        return call(fd);
    errno = error;
    return -1;
}

int __wrap_fsync(int fd)
{
    return sync_call(fd, __real_fsync);
}

int __wrap_fdatasync(int fd)
{
    return sync_call(fd, __real_fdatasync);
}

int __wrap_syncfs(int fd)
{
    pthread_mutex_lock(&lock);
    nr_syncs++;
    int error = strikes() ? EIO : stop_if_wanted();
    if (!error)
        nr_dirty = 0;
    pthread_mutex_unlock(&lock);
    if (!error)
        return __real_syncfs(fd);
    errno = error;
    return -1;
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t nr, off_t off)
{
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    mark(inode_of(fd));
    pthread_mutex_unlock(&lock);
    if (!fails)
        return __real_pwrite(fd, buf, nr, off);
    /* a torn write: half of it is there */
    (void)__real_pwrite(fd, buf, nr / 2, off);
    errno = EIO;
    return -1;
}

static bool rename_fails(int from_fd, const char *from)
{
    struct stat st;

    pthread_mutex_lock(&lock);
    bool fails = strikes();
    if (!fails && fstatat(from_fd, from, &st, 0) == 0 && unmark(st.st_ino)) {
        named_unsynced = true;
        mark(st.st_ino);
    }
    pthread_mutex_unlock(&lock);
    errno = EIO;
    return fails;
}

static int renamed(int rc, int to_fd, const char *to)
{
    int error = errno;
    pthread_mutex_lock(&lock);
    if (rc == 0)
        mark_parent(to_fd, to);
    pthread_mutex_unlock(&lock);
    errno = error;
    return rc;
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    if (rename_fails(from_fd, from))
        return -1;
    return renamed(__real_renameat(from_fd, from, to_fd, to), to_fd, to);
}

int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to,
                     unsigned flags)
{
    if (rename_fails(from_fd, from))
        return -1;
    return renamed(__real_renameat2(from_fd, from, to_fd, to, flags), to_fd, to);
}

int __wrap_unlinkat(int fd, const char *path, int flags)
{
    struct stat st = {0};
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    int rc = -1;
    errno = EIO;
    if (!fails) {
        bool known = fstatat(fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
        rc = __real_unlinkat(fd, path, flags);
        int error = errno;
        if (rc == 0) {
            mark_parent(fd, path);
            if (known)
                unmark(st.st_ino);
        }
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int __wrap_mkdirat(int fd, const char *path, mode_t mode)
{
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    int rc = -1;
    errno = EIO;
    if (!fails) {
        rc = __real_mkdirat(fd, path, mode);
        int error = errno;
        if (rc == 0)
            mark_parent(fd, path);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int __wrap_openat(int fd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    int rc = -1;
    errno = EIO;
    if (!fails) {
        bool there = faccessat(fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        rc = __real_openat(fd, path, flags, mode);
        int error = errno;
        /* The reserve does not have to last: it only takes room. */
        if (rc >= 0 && !there && strcmp(path, "reserve") != 0) {
            mark_parent(fd, path);
            mark(inode_of(rc));
        }
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- what tests ask -------------------------------------------------------- */

size_t calls_not_durable(void)
{
    pthread_mutex_lock(&lock);
    size_t nr = nr_dirty;
    pthread_mutex_unlock(&lock);
    return nr;
}

unsigned calls_syncs(void)
{
    pthread_mutex_lock(&lock);
    unsigned nr = nr_syncs;
    pthread_mutex_unlock(&lock);
    return nr;
}

bool calls_named_unsynced(void)
{
    pthread_mutex_lock(&lock);
    bool named = named_unsynced;
    pthread_mutex_unlock(&lock);
    return named;
}

void calls_arm(unsigned k)
{
    pthread_mutex_lock(&lock);
    nr_calls = 0;
    fail_at = k;
    pthread_mutex_unlock(&lock);
}

bool calls_disarm(void)
{
    pthread_mutex_lock(&lock);
    bool struck = fail_at != 0 && nr_calls >= fail_at;
    fail_at = 0;
    pthread_mutex_unlock(&lock);
    return struck;
}

void calls_hold(int error)
{
    pthread_mutex_lock(&lock);
    held = TO_HOLD;
    held_error = error;
    pthread_mutex_unlock(&lock);
}

void calls_await_held(void)
{
    pthread_mutex_lock(&lock);
    while (held != HELD)
        pthread_cond_wait(&held_changed, &lock);
    pthread_mutex_unlock(&lock);
}

void calls_let_go(void)
{
    pthread_mutex_lock(&lock);
    held = NOT_HELD;
    pthread_cond_broadcast(&held_changed);
    pthread_mutex_unlock(&lock);
}

void calls_fail_syncs(unsigned nr, int error)
{
    pthread_mutex_lock(&lock);
    failing_syncs = nr;
    failing_error = error;
    pthread_mutex_unlock(&lock);
}
