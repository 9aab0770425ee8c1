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
#include "blocker/file/file.h"

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

/** It is out of use and out of the table. */
static void end(struct file_fd *file)
{
    struct file_drop *drop = file->drop;

    file->store->nr_fds--;
    list_remove(&file->link);
    if (file->first)
        file_fd_put(file->first);
    file->first = NULL;
    if (!drop) {
        close_and_free(file);
        return;
    }
    drop->dirty |= file_sync_needed(file);
    if (drop->sync_error == 0)
        drop->sync_error = file->sync_error;
    list_push_back(&drop->closing, &file->link);
    if (--drop->nr_pending == 0)
        drop->done(drop);
}

static void destroy(struct file_fd *file)
{
    if (!file->detached)
        hashtab_remove(&file->store->fds, &file->node);
    end(file);
}

void file_fds_fini(struct file_store *store)
{
    struct hashtab_node *node = NULL;

    /* Nothing is written any more; references to first files end with all of them. */
    while ((node = hashtab_walk(&store->fds, node)) != NULL)
        HASHTAB_ENTRY(node, struct file_fd, node)->first = NULL;
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
    /* Each append has a reference, which ends after it. */
    if (!file->appending && !list_empty(&file->flush_waiters))
        file_flush_go_on(file);
    if (--file->refs == 0)
        file_fd_settle(file);
}

static void detach(struct file_fd *file, struct list *closing)
{
    struct file_fd *first = file->first;

    hashtab_remove(&file->store->fds, &file->node);
    file->detached = true;
    if (!closing || file->refs > 0) {
        file_fd_settle(file);
        return;
    }
    list_remove(&file->link);
    list_push_back(closing, &file->link);
    file->store->nr_fds--;
    file->first = NULL;
    if (first)
        file_fd_put(first);
}

void file_fd_detach_one(struct file_fd *file)
{
    if (!file->detached)
        detach(file, NULL);
}

/** Any file of an object, of those that are open or of those that are being opened. */
static struct file_fd *find_any(struct hashtab_node *node,
                                const struct xseg_object *object, bool opening)
{
    for (; node; node = hashtab_next(node)) {
        struct file_fd *file = HASHTAB_ENTRY(node, struct file_fd, node);
        if (file->opening == opening && blk_object_equal(&file->object, object))
            return file;
    }
    return NULL;
}

/** Forget all open files; `drop` is told of each of them and of those being opened. */
static void forget(struct file_store *store, const struct xseg_object *object,
                   struct list *closing, struct file_drop *drop)
{
    uint64_t hash = blk_object_hash(object);
    struct file_fd *file;

    /* Not by walking: with one file the reference to the extent's first may end. */
    while ((file = find_any(hashtab_find(&store->fds, hash), object, false)) != NULL) {
        file->drop = drop;
        if (drop)
            drop->nr_pending++;
        detach(file, closing);
    }
    file = find_any(hashtab_find(&store->fds, hash), object, true);
    for (; file; file = find_any(hashtab_next(&file->node), object, true)) {
        file->recheck = true;
        if (!drop || file->drop)
            continue;
        file->drop = drop;
        drop->nr_pending++;
    }
}

void file_fd_detach(struct file_store *store, const struct xseg_object *object,
                    struct list *closing)
{
    forget(store, object, closing, NULL);
}

void file_fd_drop(struct file_store *store, const struct xseg_object *object,
                  struct file_drop *drop)
{
    drop->nr_pending = 1;
    forget(store, object, NULL, drop);
    if (--drop->nr_pending == 0)
        drop->done(drop);
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

    /* A lease is changed by lease.c, through a descriptor of its own. */
    flags |= kind == XSEG_OBJ_CONTENT || kind == XSEG_OBJ_LEASE ? O_RDONLY : O_RDWR;
    if (file->store->direct && (kind == XSEG_OBJ_CONTENT || kind == XSEG_OBJ_EXTENT))
        flags |= O_DIRECT;
    return flags;
}

/** Open without blocking: -EAGAIN unless everything needed is cached. */
static int open_cached(const struct file_fd *file)
{
#if defined(SYS_openat2) && defined(RESOLVE_CACHED)
    if (file->object.kind == XSEG_OBJ_EXTENT)
        return -EAGAIN; /* to compare its identity may block */
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

    /* Spares the store an empty file; taking the hold looks again. */
    if (file->object.kind == XSEG_OBJ_EXTENT && file_is_sealed(store, &file->object))
        return -ESTALE;
    int fd = file_dirs_create_file(store->dirs, path, open_flags(file), store->dir_mode,
                                   store->file_mode);
    file->created = fd >= 0;
    if (fd >= 0)
        file_identity_set(fd, &file->object, file->part);
    return fd;
}

static int open_blocking(struct file_fd *file, bool create)
{
    char path[FILE_PATH_MAX];

    file_path(path, &file->object, file->part);
    int fd = openat(file->store->root_fd, path, open_flags(file));
    if (fd >= 0) {
        int rc = file_identity_check(fd, &file->object, file->part);
        if (rc < 0)
            close(fd);
        return rc < 0 ? rc : fd;
    }
    if (errno != ENOENT || !create)
        return -errno;
    return open_created(file, path);
}

static void open_run(struct reactor_job *job)
{
    struct file_fd *file = LIST_ENTRY(job, struct file_fd, job);
    file->job_result = open_blocking(file, file->open_create);
}

static void start_open(struct file_fd *file);

static void opened(struct file_fd *file, int rc)
{
    struct list waiters;
    struct stat st;

    file->opening = false;
    if (rc >= 0 && file->recheck && (fstat(rc, &st) < 0 || st.st_nlink == 0)) {
        /* Deleted or replaced just after it was opened: what is there now? */
        close(rc);
        file->recheck = false;
        start_open(file);
        return;
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
    if (rc < 0)
        return;
    /* Who dropped it while it was opened waits for those that were just told. */
    if (file->drop)
        file_fd_detach_one(file);
    file_fd_put(file);
}

static void open_done(struct reactor_job *job)
{
    struct file_fd *file = LIST_ENTRY(job, struct file_fd, job);
    opened(file, file->job_result);
}

static void start_open(struct file_fd *file)
{
    file->opening = true;
    file->job.run = open_run;
    file->job.done = open_done;
    file->job.lane = REACTOR_LANE_MAP;
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
    list_init(&file->flush_waiters);
    list_init(&file->hold_waiters);
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
