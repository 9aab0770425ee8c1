/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which extents and layers this process has flushed.
 *
 * A process before it may have acknowledged writes and died; they lie in the page
 * cache, not on the disk, and this process does not know them as dirty.  So the first FLUSH of
 * an object syncs all its files and their directories, whatever is known of them.  If
 * that fails the object is lost for good: the kernel reports a lost page only once.  So
 * a caller that asks for the same meanwhile waits for its result.
 *
 * An extent or a layer has one writer, whose end is known before another relies on what
 * it wrote.  To a journal a node that is late may append at any time, and die before the
 * record is durable: no flush of it relies on an earlier one.
 *
 * The table is the reactor thread's; file_prove_blocking runs anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

struct proven {
    struct hashtab_node node;
    struct xseg_object object;
    int error; /* 0: proven; else what every later flush answers */
};

int file_proven_init(struct file_store *store)
{
    list_init(&store->proofs);
    list_init(&store->waiting_proofs);
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

static struct proven *find(struct file_store *store, const struct xseg_object *object)
{
    struct hashtab_node *node = hashtab_find(&store->proven, blk_object_hash(object));
    for (; node; node = hashtab_next(node)) {
        struct proven *proven = HASHTAB_ENTRY(node, struct proven, node);
        if (blk_object_equal(&proven->object, object))
            return proven;
    }
    return NULL;
}

int file_proven(struct file_store *store, const struct xseg_object *object)
{
    const struct proven *proven = find(store, object);
    if (proven)
        return proven->error ? proven->error : 1;
    return store->all_proven;
}

void file_prove(struct file_store *store, const struct xseg_object *object, int error)
{
    struct proven *proven = find(store, object);
    if (!proven) {
        proven = calloc(1, sizeof *proven);
        if (!proven)
            return; /* then it is proven once more, next time */
        proven->object = *object;
        hashtab_insert(&store->proven, &proven->node, blk_object_hash(object));
    }
    if (proven->error == 0)
        proven->error = error;
}

void file_unprove(struct file_store *store, const struct xseg_object *object)
{
    struct proven *proven = find(store, object);
    if (!proven)
        return;
    hashtab_remove(&store->proven, &proven->node);
    free(proven);
}

void file_doubt(struct file_store *store, const struct xseg_object *object)
{
    const struct proven *proven = find(store, object);
    if (proven && proven->error == 0)
        file_unprove(store, object);
    store->all_proven = false;
}

struct proof {
    const struct xseg_object *object;
    bool lost;
};

static int sync_name(struct proof *proof, int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int rc = file_sync_fd(fd, false);
    proof->lost = rc < 0;
    close(fd);
    return rc;
}

static int sync_part(void *arg, int dir_fd, const char *name)
{
    struct proof *proof = arg;
    uint64_t epoch, part;

    if (!file_parse_part(name, &epoch, &part) ||
        epoch != blk_object_number(proof->object))
        return 0;
    return sync_name(proof, dir_fd, name);
}

int file_prove_blocking(struct file_store *store, const struct xseg_object *object,
                        bool *lost)
{
    struct proof proof = {.object = object};
    char path[FILE_PATH_MAX];
    int rc;

    *lost = false;
    file_path(path, object, 0);
    if (object->kind == XSEG_OBJ_EXTENT) {
        file_path_parent(path);
        rc = file_scan(store, path, sync_part, &proof);
        if (rc == -ENOENT)
            return 0;
    } else {
        rc = sync_name(&proof, store->root_fd, path);
        file_path_parent(path);
    }
    *lost = proof.lost;
    /* Only a volume's own directory comes and goes. */
    if (rc == 0 && object->kind == XSEG_OBJ_EXTENT)
        rc = file_dirs_doubt(store->dirs, path);
    else if (rc == 0)
        rc = file_dirs_note(store->dirs, path, true);
    return rc < 0 ? rc : file_dirs_sync(store->dirs, path);
}
