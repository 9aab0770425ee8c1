/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache of open files: extents, content, layers, journals, and leases to compare with.
 *
 * A file stays open while it is referenced, while it has writes that are not durable
 * (closing it could lose the only report of a failed writeback) and after a failed
 * sync; else it waits in the idle list, and the longest idle is closed when there are
 * too many.
 *
 * Opening: at once if the kernel has the path in its cache, else in a job.  Those who
 * ask meanwhile wait with the first.  Reactor's thread, but for open_run.
 */
#include "blocker/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blocker/object.h"

#define MAX_OPEN_FILES 4096u

int file_fds_init(struct file_store *store)
{
    struct rlimit limit;

    list_init(&store->idle_fds);
    list_init(&store->dirty_fds);
    store->max_fds = MAX_OPEN_FILES;
    /* Half of what the process may open; sockets and the other store need the rest. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 4 < MAX_OPEN_FILES)
        store->max_fds = limit.rlim_cur / 4 < 16 ? 16 : (uint32_t)(limit.rlim_cur / 4);
    return hashtab_init(&store->fds);
}

static void close_and_free(struct file_fd *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

static void destroy(struct file_fd *file)
{
    struct file_store *store = file->store;

    list_remove(&file->link);
    if (!file->detached)
        hashtab_remove(&store->fds, &file->node);
    store->nr_fds--;
    close_and_free(file);
}

void file_fds_fini(struct file_store *store)
{
    struct hashtab_node *node;
    while ((node = hashtab_walk(&store->fds, NULL)) != NULL)
        destroy(HASHTAB_ENTRY(node, struct file_fd, node));
    hashtab_fini(&store->fds);
}

struct file_fd *file_fd_find(struct file_store *store, const struct xseg_object *object,
                             uint64_t part)
{
    struct hashtab_node *node = hashtab_find(&store->fds, blk_object_hash(object));
    for (; node; node = hashtab_next(node)) {
        struct file_fd *file = HASHTAB_ENTRY(node, struct file_fd, node);
        if (file->part == part && blk_object_equal(&file->object, object))
            return file;
    }
    return NULL;
}

static void evict(struct file_store *store)
{
    while (store->nr_fds > store->max_fds) {
        struct list *link = list_pop_front(&store->idle_fds);
        if (!link)
            return;
        destroy(LIST_ENTRY(link, struct file_fd, link));
    }
}

void file_fd_settle(struct file_fd *file)
{
    struct file_store *store = file->store;

    list_remove(&file->link);
    if (file->refs == 0 && file->detached) {
        destroy(file);
        return;
    }
    if (file->detached)
        return;
    if (file_sync_needed(file)) {
        list_push_back(&store->dirty_fds, &file->link);
    } else if (file->refs == 0) {
        list_push_back(&store->idle_fds, &file->link);
        evict(store);
    }
}

void file_fd_put(struct file_fd *file)
{
    if (--file->refs == 0)
        file_fd_settle(file);
}

void file_fd_detach(struct file_store *store, const struct xseg_object *object,
                    struct list *closing)
{
    struct hashtab_node *node = hashtab_find(&store->fds, blk_object_hash(object));
    while (node) {
        struct file_fd *file = HASHTAB_ENTRY(node, struct file_fd, node);
        node = hashtab_next(node);
        if (!blk_object_equal(&file->object, object))
            continue;
        if (file->opening) {
            file->recheck = true;
            continue;
        }
        hashtab_remove(&store->fds, &file->node);
        file->detached = true;
        if (closing && file->refs == 0) {
            list_remove(&file->link);
            list_push_back(closing, &file->link);
            store->nr_fds--;
        } else {
            file_fd_settle(file);
        }
    }
}

void file_fd_close_detached(struct list *closing)
{
    struct list *link;
    while ((link = list_pop_front(closing)) != NULL)
        close_and_free(LIST_ENTRY(link, struct file_fd, link));
}

/* ---- opening ------------------------------------------------------------ */

static int open_flags(const struct file_fd *file)
{
    uint32_t kind = file->object.kind;
    int flags = O_CLOEXEC | O_NOFOLLOW;

    /* A lease is changed by file_lease.c, through a descriptor of its own. */
    flags |= kind == XSEG_OBJ_CONTENT || kind == XSEG_OBJ_LEASE ? O_RDONLY : O_RDWR;
    if (file->store->direct && (kind == XSEG_OBJ_CONTENT || kind == XSEG_OBJ_EXTENT))
        flags |= O_DIRECT;
    return flags;
}

/** Open without blocking: -EAGAIN unless everything needed is cached. */
static int open_cached(const struct file_fd *file)
{
#if defined(SYS_openat2) && defined(RESOLVE_CACHED)
    char path[FILE_PATH_MAX];
    struct open_how how = {
        .flags = (uint64_t)open_flags(file),
        .resolve = RESOLVE_CACHED | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    file_path(path, &file->object, file->part);
    long fd = syscall(SYS_openat2, file->store->root_fd, path, &how, sizeof how);
    return fd < 0 ? -EAGAIN : (int)fd;
#else
    (void)file;
    return -EAGAIN;
#endif
}

static int open_created(struct file_fd *file, const char *path)
{
    struct file_store *store = file->store;
    char dir[FILE_PATH_MAX];
    int fd = -1, rc = 0;

    memcpy(dir, path, sizeof dir);
    file_path_parent(dir);
    /* A DELETE may remove the directory between the two steps: once more then. */
    for (int attempt = 0; attempt < 8; attempt++) {
        rc = file_dirs_make(store->dirs, dir, store->dir_mode);
        if (rc < 0)
            return rc;
        fd = openat(store->root_fd, path, open_flags(file) | O_CREAT, store->file_mode);
        if (fd >= 0 || errno != ENOENT)
            break;
    }
    if (fd < 0)
        return -errno;
    file->created = true;
    rc = file_dirs_note(store->dirs, dir, true);
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

static int open_blocking(struct file_fd *file, bool create)
{
    char path[FILE_PATH_MAX];

    file_path(path, &file->object, file->part);
    int fd = openat(file->store->root_fd, path, open_flags(file));
    if (fd >= 0)
        return fd;
    if (errno != ENOENT || !create)
        return -errno;
    return open_created(file, path);
}

static void open_run(struct reactor_job *job)
{
    struct file_fd *file = LIST_ENTRY(job, struct file_fd, job);
    file->open_result = open_blocking(file, file->open_create);
}

static void start_open(struct file_fd *file);

static void opened(struct file_fd *file, int rc)
{
    struct list waiters;

    struct stat st;

    file->opening = false;
    if (rc >= 0 && file->recheck && (fstat(rc, &st) < 0 || st.st_nlink == 0)) {
        /* Deleted just after it was opened. */
        close(rc);
        rc = -ENOENT;
        file->open_create = false;
    }
    file->recheck = false;
    if (rc >= 0)
        file->fd = rc;
    list_init(&waiters);
    LIST_FOR_EACH(link, next, &file->waiters)
    {
        struct file_fd_wait *wait = LIST_ENTRY(link, struct file_fd_wait, link);
        /* Those who would create it came while somebody only looked: once more. */
        if (rc == -ENOENT && wait->create && !file->open_create)
            continue;
        list_remove(link);
        list_push_back(&waiters, link);
    }
    if (rc >= 0)
        file->refs++; /* keep it while the waiters are told */
    struct list *link;
    if (rc < 0 && !list_empty(&file->waiters)) {
        file->open_create = true;
        start_open(file);
    } else if (rc < 0) {
        destroy(file);
        file = NULL;
    }
    while ((link = list_pop_front(&waiters)) != NULL) {
        struct file_fd_wait *wait = LIST_ENTRY(link, struct file_fd_wait, link);
        if (rc >= 0)
            file->refs++;
        wait->ready(wait, rc >= 0 ? file : NULL, rc < 0 ? rc : 0);
    }
    if (rc >= 0)
        file_fd_put(file);
}

static void open_done(struct reactor_job *job)
{
    struct file_fd *file = LIST_ENTRY(job, struct file_fd, job);
    opened(file, file->open_result);
}

static void start_open(struct file_fd *file)
{
    file->opening = true;
    file->job.run = open_run;
    file->job.done = open_done;
    reactor_offload(file->store->base.reactor, &file->job);
}

static struct file_fd *new_file(struct file_store *store,
                                const struct xseg_object *object, uint64_t part)
{
    struct file_fd *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    file->store = store;
    file->object = *object;
    file->part = part;
    file->fd = -1;
    list_init(&file->link);
    list_init(&file->waiters);
    list_init(&file->sync_waiters);
    list_init(&file->next_sync_waiters);
    list_init(&file->append_queue);
    hashtab_insert(&store->fds, &file->node, blk_object_hash(object));
    store->nr_fds++;
    evict(store);
    return file;
}

void file_fd_get(struct file_store *store, const struct xseg_object *object,
                 uint64_t part, struct file_fd_wait *wait)
{
    struct file_fd *file = file_fd_find(store, object, part);

    if (file && !file->opening) {
        if (file->refs++ == 0)
            file_fd_settle(file); /* no longer idle */
        wait->ready(wait, file, 0);
        return;
    }
    if (!file) {
        file = new_file(store, object, part);
        if (!file) {
            wait->ready(wait, NULL, -ENOMEM);
            return;
        }
        list_push_back(&file->waiters, &wait->link);
        int fd = open_cached(file);
        if (fd >= 0) {
            opened(file, fd);
            return;
        }
        file->open_create = wait->create;
        start_open(file);
        return;
    }
    list_push_back(&file->waiters, &wait->link);
}
