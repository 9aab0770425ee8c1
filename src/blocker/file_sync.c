/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making acknowledged writes durable, one open file at a time.
 *
 * A file counts its acknowledged writes and how many of them a finished sync covers.
 * At most one sync of a file runs; who asks while it runs and has newer writes waits
 * for the next one, which covers all that asked.  A failed sync sticks: the kernel
 * reports a lost page once and then calls it clean, so a later success would be a lie.
 *
 * "Proven" objects: the first FLUSH of an extent or layer in the life of this
 * process also syncs what is not known dirty, for a process before it may have
 * acknowledged writes and died.
 */
#include "blocker/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blocker/object.h"

void file_sync_dirty(struct file_fd *file)
{
    bool was_clean = !file_sync_needed(file);
    file->nr_writes++;
    if (was_clean)
        file_fd_settle(file);
}

void file_sync_fail(struct file_fd *file, int error)
{
    if (file->sync_error == 0)
        file->sync_error = error;
    file_fd_settle(file);
}

static void start(struct file_fd *file);

static void finished(struct file_call *call)
{
    struct file_fd *file = LIST_ENTRY(call, struct file_fd, sync_call);
    struct list *link, waiters;
    int rc = call->result;

    file->syncing = false;
    if (rc < 0)
        file_sync_fail(file, rc);
    else
        file->nr_durable = file->nr_syncing;
    list_init(&waiters);
    while ((link = list_pop_front(&file->sync_waiters)) != NULL)
        list_push_back(&waiters, link);
    while ((link = list_pop_front(&file->next_sync_waiters)) != NULL)
        list_push_back(&file->sync_waiters, link);
    if (!list_empty(&file->sync_waiters))
        start(file);
    while ((link = list_pop_front(&waiters)) != NULL) {
        struct file_sync_wait *wait = LIST_ENTRY(link, struct file_sync_wait, link);
        wait->done(wait, rc);
    }
    file_fd_settle(file);
    file_fd_put(file); /* start's */
}

static void start(struct file_fd *file)
{
    struct file_engine *engine = file->store->engine;

    file->refs++;
    file->syncing = true;
    file->nr_syncing = file->nr_writes;
    file->sync_call = (struct file_call){
        .verb = file->created ? FILE_SYNC : FILE_DATASYNC,
        .fd = file->fd,
        .done = finished,
    };
    /* If it fails, nothing is asked of this file again. */
    file->created = false;
    engine->submit(engine, &file->sync_call);
}

void file_sync(struct file_fd *file, struct file_sync_wait *wait)
{
    if (file->sync_error != 0) {
        wait->done(wait, file->sync_error);
    } else if (file->nr_durable == file->nr_writes) {
        wait->done(wait, 0);
    } else if (!file->syncing) {
        list_push_back(&file->sync_waiters, &wait->link);
        start(file);
    } else if (file->nr_syncing == file->nr_writes) {
        list_push_back(&file->sync_waiters, &wait->link);
    } else {
        list_push_back(&file->next_sync_waiters, &wait->link);
    }
}

/* ---- proven objects
 * -------------------------------------------------------------------- */

struct proven {
    struct hashtab_node node;
    struct xseg_object object;
};

int file_proven_init(struct file_store *store)
{
    return hashtab_init(&store->proven);
}

void file_proven_fini(struct file_store *store)
{
    struct hashtab_node *node;
    while ((node = hashtab_walk(&store->proven, NULL)) != NULL) {
        hashtab_remove(&store->proven, node);
        free(HASHTAB_ENTRY(node, struct proven, node));
    }
    hashtab_fini(&store->proven);
}

static struct proven *find_proven(struct file_store *store,
                                  const struct xseg_object *object)
{
    struct hashtab_node *node = hashtab_find(&store->proven, blk_object_hash(object));
    for (; node; node = hashtab_next(node)) {
        struct proven *proven = HASHTAB_ENTRY(node, struct proven, node);
        if (blk_object_equal(&proven->object, object))
            return proven;
    }
    return NULL;
}

bool file_proven(struct file_store *store, const struct xseg_object *object)
{
    return store->all_proven || find_proven(store, object) != NULL;
}

void file_prove(struct file_store *store, const struct xseg_object *object)
{
    if (file_proven(store, object))
        return;
    struct proven *proven = calloc(1, sizeof *proven);
    if (!proven)
        return; /* then it is proven once more, next time */
    proven->object = *object;
    hashtab_insert(&store->proven, &proven->node, blk_object_hash(object));
}

void file_unprove(struct file_store *store, const struct xseg_object *object)
{
    struct proven *proven = find_proven(store, object);
    if (!proven)
        return;
    hashtab_remove(&store->proven, &proven->node);
    free(proven);
}

static int sync_name(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int sync_part(void *arg, int dir_fd, const char *name)
{
    const struct xseg_object *object = arg;
    uint64_t epoch, part;

    if (!file_parse_part(name, &epoch, &part) || epoch != blk_object_number(object))
        return 0;
    return sync_name(dir_fd, name);
}

int file_prove_blocking(struct file_store *store, const struct xseg_object *object)
{
    char path[FILE_PATH_MAX];
    int rc;

    file_path(path, object, 0);
    if (object->kind == XSEG_OBJ_EXTENT) {
        file_path_parent(path);
        rc = file_scan(store, path, sync_part, (void *)(uintptr_t)object);
        if (rc == -ENOENT)
            return 0;
    } else {
        rc = sync_name(store->root_fd, path);
        file_path_parent(path);
    }
    if (rc == 0)
        rc = file_dirs_note(store->dirs, path, false);
    return rc < 0 ? rc : file_dirs_sync(store->dirs, path);
}
