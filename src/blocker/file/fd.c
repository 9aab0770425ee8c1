/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache of open files: extents, content, layers, journals, and leases to compare with.
 *
 * A file stays open while it is referenced, while it has writes that are not durable
 * (closing it could lose the only report of a failed writeback) and after a failed
 * sync; else it waits in the idle list.
 *
 * Open files have a budget.  When it is used up, the longest idle file is closed; if
 * none is idle, the dirty files that are longest out of use are synced and closed, and
 * what is to be opened waits for that.
 *
 * Opening: at once if the kernel has the path in its cache, else in a job.  Callers that
 * ask for the same file meanwhile wait with the first.  Reactor's thread, but for
 * open_run.
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

/** Open files of a store at most; and at least, however few the process may have. */
#define MAX_OPEN_FILES 65536u
#define MIN_OPEN_FILES 16u
/** Dirty files that are synced at once so that they can be closed. */
#define EVICTIONS_AT_ONCE 8u

int file_fds_init(struct file_store *store)
{
    struct rlimit limit;

    list_init(&store->idle_fds);
    list_init(&store->dirty_fds);
    list_init(&store->failed_fds);
    list_init(&store->waiting_opens);
    store->max_fds = MAX_OPEN_FILES;
    /* A quarter of what the process may open: there is the other store, and the sockets
     * and segments of the peers beside them. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 4 < MAX_OPEN_FILES)
        store->max_fds = (uint32_t)(limit.rlim_cur / 4);
    if (store->max_fds < MIN_OPEN_FILES)
        store->max_fds = MIN_OPEN_FILES;
    return hashtab_init(&store->fds);
}

static void close_and_free(struct file_fd *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

static void uncount(struct file_fd *file)
{
    file->store->nr_fds -= file->admitted;
    file->admitted = false;
}

/** It is out of use and out of the table. */
static void end(struct file_fd *file)
{
    struct file_drop *drop = file->drop;

    uncount(file);
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

/* ---- the budget --------------------------------------------------------- */

static void admit(struct file_fd *file);

/** Close idle files until one more may be opened, or none is left. */
static void evict_idle(struct file_store *store)
{
    while (store->nr_fds >= store->max_fds) {
        struct list *link = list_pop_front(&store->idle_fds);
        if (!link)
            return;
        destroy(LIST_ENTRY(link, struct file_fd, link));
    }
}

static void evict_synced(struct file_sync_wait *wait, int rc)
{
    struct file_fd *file = LIST_ENTRY(wait, struct file_fd, evict_wait);
    struct file_store *store = file->store;

    (void)rc; /* it sticks to the file, which then stays open */
    file->evicting = false;
    store->nr_evicting--;
    file_fd_put(file);
    evict_idle(store);
    while (!list_empty(&store->waiting_opens) &&
           (store->nr_fds < store->max_fds || store->nr_evicting == 0)) {
        struct list *link = list_pop_front(&store->waiting_opens);
        admit(LIST_ENTRY(link, struct file_fd, link));
    }
}

/** Sync the dirty files that are longest out of use, so that they can be closed. */
static void evict_dirty(struct file_store *store)
{
    LIST_FOR_EACH(link, next, &store->dirty_fds)
    {
        struct file_fd *file = LIST_ENTRY(link, struct file_fd, link);
        if (store->nr_evicting >= EVICTIONS_AT_ONCE)
            return;
        if (file->refs > 0 || file->evicting || file->detached)
            continue;
        file->refs++;
        file->evicting = true;
        store->nr_evicting++;
        file->evict_wait.done = evict_synced;
        file_sync(file, &file->evict_wait);
    }
}

/** May one more file be opened now?  If all are in use it may, over the budget: those
 *  that use them may need it to go on. */
static bool has_room(struct file_store *store)
{
    evict_idle(store);
    if (store->nr_fds < store->max_fds)
        return true;
    evict_dirty(store);
    return store->nr_evicting == 0;
}

void file_fd_settle(struct file_fd *file)
{
    struct file_store *store = file->store;

    if (file->opening)
        return; /* nowhere, or in waiting_opens */
    list_remove(&file->link);
    if (file->refs == 0 && file->detached) {
        destroy(file);
        return;
    }
    if (file->detached)
        return;
    if (file->sync_error != 0) {
        list_push_back(&store->failed_fds, &file->link);
    } else if (file_sync_needed(file)) {
        list_push_back(&store->dirty_fds, &file->link);
    } else if (file->refs == 0) {
        list_push_back(&store->idle_fds, &file->link);
        if (store->nr_fds > store->max_fds)
            evict_idle(store);
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
    uncount(file);
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
static bool retry_with_fewer(struct file_fd *file);

static void opened(struct file_fd *file, int rc)
{
    struct list waiters;
    struct stat st;

    if ((rc == -EMFILE || rc == -ENFILE) && retry_with_fewer(file))
        return;
    file->opening = false;
    if (rc >= 0 && file->recheck && (fstat(rc, &st) < 0 || st.st_nlink == 0)) {
        /* Deleted or replaced just after it was opened: what is there now? */
        close(rc);
        file->recheck = false;
        file->opening = true;
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
        /* Callers that would create it came while it was only looked for: once more. */
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
        file->opening = true;
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
    /* A drop that came while it was opened waits for the callers that were just told. */
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
    file->job.run = open_run;
    file->job.done = open_done;
    file->job.lane = REACTOR_LANE_MAP;
    reactor_offload(file->store->base.reactor, &file->job);
}

/** It may be opened: at once if the kernel has the path in its cache. */
static void admit(struct file_fd *file)
{
    file->admitted = true;
    file->store->nr_fds++;
    int fd = open_cached(file);
    if (fd >= 0)
        opened(file, fd);
    else
        start_open(file);
}

/** Open it as soon as the budget allows. */
static void request_open(struct file_fd *file)
{
    if (has_room(file->store))
        admit(file);
    else
        list_push_back(&file->store->waiting_opens, &file->link);
}

/** The process or the machine has no descriptor left: live with fewer.  Each try closes
 *  a file; false if there is none to close. */
static bool retry_with_fewer(struct file_fd *file)
{
    struct file_store *store = file->store;
    struct list *link = list_pop_front(&store->idle_fds);

    uncount(file);
    if (store->max_fds > store->nr_fds && store->nr_fds > MIN_OPEN_FILES)
        store->max_fds = store->nr_fds;
    if (link) {
        destroy(LIST_ENTRY(link, struct file_fd, link));
        admit(file);
        return true;
    }
    evict_dirty(store);
    if (store->nr_evicting == 0)
        return false;
    list_push_back(&store->waiting_opens, &file->link);
    return true;
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
    file->opening = true;
    list_init(&file->link);
    list_init(&file->sync_link);
    list_init(&file->waiters);
    list_init(&file->sync_waiters);
    list_init(&file->next_sync_waiters);
    list_init(&file->append_queue);
    list_init(&file->flush_waiters);
    list_init(&file->hold_waiters);
    list_init(&file->changes);
    hashtab_insert(&store->fds, &file->node, blk_object_hash(object));
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
        file->open_create = wait->create;
        request_open(file);
        return;
    }
    list_push_back(&file->waiters, &wait->link);
}
