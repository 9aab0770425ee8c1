/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the log (log.h), and dying at a record of it.
 *
 * The test may ask that a process dies after so many more records of some
 * kinds (crash_kill_in): before or after exactly one system call, which no timer hits.
 * Any thread; one lock for each process.
 */
#include "log.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/** What all processes share. */
struct shared {
    _Atomic uint64_t number;
    _Atomic int64_t kill_in;
    _Atomic uint64_t kill_kinds;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared *shared;
static char root[PATH_MAX_BYTES];
static size_t root_len;
static int log_fd = -1;
static bool mortal;

__attribute__((constructor)) static void start(void)
{
    const char *dir = getenv("CRASH_ROOT");
    const char *log = getenv("CRASH_LOG");
    char path[PATH_MAX_BYTES];

    if (!dir || !log)
        return;
    root_len = (size_t)snprintf(root, sizeof root, "%s/", dir);
    snprintf(path, sizeof path, "%s/shared", log);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *shared) < 0)
        abort();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED)
        abort();
    close(fd);
    mortal = getenv("CRASH_MORTAL") != NULL;
}

bool log_is_on(void)
{
    return shared != NULL;
}

static void open_log_locked(uint64_t number)
{
    char path[PATH_MAX_BYTES];
    snprintf(path, sizeof path, "%s/%d.%ju.log", getenv("CRASH_LOG"), (int)getpid(),
             (uintmax_t)number);
    log_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        abort();
}

static void die_if_asked(enum kind kind)
{
    if (!mortal || !(atomic_load(&shared->kill_kinds) >> kind & 1))
        return;
    if (atomic_load(&shared->kill_in) <= 0 ||
        atomic_fetch_sub(&shared->kill_in, 1) != 1)
        return;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/** A log that cannot be written is of no use: abort. */
static uint64_t put(struct record *r, enum kind kind, const char *path,
                    const char *path2, const void *data, size_t data_bytes)
{
    int saved = errno;
    r->path_bytes = path ? (uint32_t)strlen(path) : 0;
    r->path2_bytes = path2 ? (uint32_t)strlen(path2) : 0;
    r->data_bytes = (uint32_t)data_bytes;
    struct iovec parts[] = {
        {r, sizeof *r},
        {(void *)(uintptr_t)path, r->path_bytes},
        {(void *)(uintptr_t)path2, r->path2_bytes},
        {(void *)(uintptr_t)data, data_bytes},
    };
    size_t total = sizeof *r + r->path_bytes + r->path2_bytes + data_bytes;

    pthread_mutex_lock(&lock);
    r->number = atomic_fetch_add(&shared->number, 1) + 1;
    if (!r->id)
        r->id = r->number;
    if (log_fd < 0)
        open_log_locked(r->number);
    /* Not writev(): that is recorded. */
    if (syscall(SYS_writev, log_fd, parts, 4) != (long)total)
        abort();
    die_if_asked(kind);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r->id;
}

uint64_t log_begin(enum kind kind, uint64_t inode, int64_t offset, uint64_t length,
                   const char *path, const char *path2, const void *data,
                   size_t data_bytes)
{
    struct record r = {
        .kind = kind, .inode = inode, .offset = offset, .length = length};
    return put(&r, kind, path, path2, data, data_bytes);
}

void log_end(enum kind kind, uint64_t id, int64_t result, uint64_t inode)
{
    struct record r = {.kind = KIND_END, .id = id, .offset = result, .length = inode};
    if (id)
        put(&r, kind, NULL, NULL, NULL, 0);
}

/* ---- for the test ------------------------------------------ */

/** Put a remark into the log. */
EXPORT void crash_mark(const char *text, const void *data, size_t bytes)
{
    if (shared)
        log_begin(KIND_MARK, 0, 0, 0, text, NULL, data, bytes);
}

/** Say what came of a call that a dead process had begun. */
EXPORT void crash_observed(uint64_t id, int64_t result, uint64_t inode,
                           const void *data, size_t bytes)
{
    struct record r = {
        .kind = KIND_OBSERVED, .id = id, .offset = result, .length = inode};
    put(&r, KIND_OBSERVED, NULL, NULL, data, bytes);
}

/** Let a mortal process die at its `nr`th record of those kinds (bits); 0: none. */
EXPORT void crash_kill_in(int64_t nr, uint64_t kinds)
{
    atomic_store(&shared->kill_in, 0);
    atomic_store(&shared->kill_kinds, kinds);
    atomic_store(&shared->kill_in, nr);
}

/* ---- what is ours -------------------------------------------------------- */

const char *log_below(const char *path)
{
    if (!shared || strncmp(path, root, root_len) != 0)
        return NULL;
    return path + root_len;
}

uint64_t log_inode(int fd, bool *is_dir, char path[PATH_MAX_BYTES])
{
    int saved = errno;
    uint64_t inode = 0;
    char link[64];
    struct stat st;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = shared ? readlink(link, path, PATH_MAX_BYTES - 1) : -1;
    if (len >= 0) {
        path[len] = '\0';
        if (log_below(path) && fstat(fd, &st) == 0) {
            inode = st.st_ino;
            if (is_dir)
                *is_dir = S_ISDIR(st.st_mode);
        }
    }
    errno = saved;
    return inode;
}

uint64_t log_begin_data(enum kind kind, int fd, const void *data, uint64_t length,
                        int64_t offset)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = log_inode(fd, NULL, path);
    if (!inode)
        return 0;
    return log_begin(kind, inode, offset, length, log_below(path), NULL, data,
                     data ? length : 0);
}

uint64_t log_begin_sync(int fd)
{
    char path[PATH_MAX_BYTES];
    bool is_dir = false;
    uint64_t inode = log_inode(fd, &is_dir, path);
    if (!inode)
        return 0;
    return log_begin(is_dir ? KIND_SYNCDIR : KIND_SYNC, inode, 0, 0, log_below(path),
                     NULL, NULL, 0);
}

void *log_next(const char *library, const char *name)
{
    /* A library that came with a module of Python is not in everybody's scope. */
    void *from = library ? dlopen(library, RTLD_LAZY) : RTLD_NEXT;
    void *found = from ? dlsym(from, name) : NULL;
    if (!found)
        abort();
    return found;
}
