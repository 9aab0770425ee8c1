/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories whose entries may not be durable (see file.h).
 *
 * Changes are numbered, over all directories; each known directory has the number of
 * its last change and the one up to which a finished fsync covered it.  A directory
 * that is not in the table was never synced by this process. Any thread; one lock,
 * never held over a system call.
 *
 * A directory is a name itself and needs a sync of the one above, but only up to the
 * change that made it: if a later sync of that fails, which sticks, those that were
 * durable before go on.
 *
 * Other nodes change directories too, and may die before they sync them, also after our
 * last sync of the same.  So a directory that is new to us is a change of the one above,
 * and a caller that relies on a name of another node says so (changed), or that
 * the directory itself may be another's (doubt).
 */
#include "blocker/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** More directories than this are synced with one syncfs: it costs less than so many
 *  journal commits and device flushes, though it waits for other files' data too. */
#define SYNCFS_THRESHOLD 64u

struct dir {
    struct hashtab_node node;
    uint64_t changed;
    uint64_t durable;
    uint64_t name; /* change of the directory above that covers this one's name */
    int error;     /* of a failed sync: sticks, the kernel tells it only once */
    char path[];
};

struct file_dirs {
    int root_fd;
    pthread_mutex_t lock; /* all below */
    struct hashtab table;
    uint64_t sequence;   /* number of the last change */
    uint64_t nr_pending; /* directories with durable < changed */
};

int file_dirs_create(int root_fd, struct file_dirs **out)
{
    struct file_dirs *dirs = calloc(1, sizeof *dirs);
    *out = NULL;
    if (!dirs)
        return -ENOMEM;
    int rc = hashtab_init(&dirs->table);
    if (rc < 0) {
        free(dirs);
        return rc;
    }
    dirs->root_fd = root_fd;
    pthread_mutex_init(&dirs->lock, NULL);
    *out = dirs;
    return 0;
}

void file_dirs_destroy(struct file_dirs *dirs)
{
    struct hashtab_node *node;
    if (!dirs)
        return;
    while ((node = hashtab_walk(&dirs->table, NULL)) != NULL) {
        hashtab_remove(&dirs->table, node);
        free(HASHTAB_ENTRY(node, struct dir, node));
    }
    hashtab_fini(&dirs->table);
    pthread_mutex_destroy(&dirs->lock);
    free(dirs);
}

static struct dir *find_locked(struct file_dirs *dirs, const char *path)
{
    size_t len = strlen(path);
    struct hashtab_node *node = hashtab_find(&dirs->table, hash_bytes(path, len));
    for (; node; node = hashtab_next(node)) {
        struct dir *dir = HASHTAB_ENTRY(node, struct dir, node);
        if (strcmp(dir->path, path) == 0)
            return dir;
    }
    return NULL;
}

/** Note a change, or only that it is relied upon; `*fresh` if it was not known. */
static struct dir *note_locked(struct file_dirs *dirs, const char *path, bool changed,
                               bool *fresh)
{
    struct dir *dir = find_locked(dirs, path);

    *fresh = !dir;
    if (dir && !changed)
        return dir;
    if (!dir) {
        size_t len = strlen(path);
        dir = calloc(1, sizeof *dir + len + 1);
        if (!dir)
            return NULL;
        memcpy(dir->path, path, len + 1);
        hashtab_insert(&dirs->table, &dir->node, hash_bytes(path, len));
    }
    if (dir->durable == dir->changed)
        dirs->nr_pending++;
    dir->changed = ++dirs->sequence;
    return dir;
}

/** @param anew  the directory itself may have been made since we knew it */
static int note(struct file_dirs *dirs, const char *dir, bool changed, bool anew)
{
    char path[FILE_PATH_MAX];
    bool fresh, above_is_fresh;

    memcpy(path, dir, strlen(dir) + 1);
    pthread_mutex_lock(&dirs->lock);
    struct dir *at = note_locked(dirs, path, changed, &fresh);
    fresh = fresh || anew;
    /* The directory itself is a name in the one above. */
    while (at && strcmp(path, ".") != 0) {
        file_path_parent(path);
        struct dir *above = note_locked(dirs, path, fresh, &above_is_fresh);
        if (above && fresh)
            at->name = above->changed;
        at = above;
        fresh = above_is_fresh;
    }
    pthread_mutex_unlock(&dirs->lock);
    return at ? 0 : -ENOMEM;
}

int file_dirs_note(struct file_dirs *dirs, const char *dir, bool changed)
{
    return note(dirs, dir, changed, false);
}

int file_dirs_doubt(struct file_dirs *dirs, const char *dir)
{
    return note(dirs, dir, true, true);
}

static bool pending_locked(const struct dir *dir)
{
    return dir && dir->durable < dir->changed;
}

/**
 * Go one directory up.
 * @param path  becomes the one above; "." is the top
 * @param need  in: unused; out: up to which change the one above must be durable, so
 *              that this one's name is
 * Returns false at the top.
 */
static bool ascend_locked(struct file_dirs *dirs, char path[FILE_PATH_MAX],
                          uint64_t *need)
{
    const struct dir *dir = find_locked(dirs, path);
    if (strcmp(path, ".") == 0)
        return false;
    *need = dir ? dir->name : UINT64_MAX;
    file_path_parent(path);
    return true;
}

/** Is a change up to `need` not durable?  All ones: any change. */
static bool short_of_locked(const struct dir *dir, uint64_t need)
{
    return pending_locked(dir) && dir->durable < need;
}

bool file_dirs_pending(struct file_dirs *dirs, const char *dir)
{
    char path[FILE_PATH_MAX];
    uint64_t need = UINT64_MAX;
    bool pending;

    memcpy(path, dir, strlen(dir) + 1);
    pthread_mutex_lock(&dirs->lock);
    do {
        pending = short_of_locked(find_locked(dirs, path), need);
    } while (!pending && ascend_locked(dirs, path, &need));
    pthread_mutex_unlock(&dirs->lock);
    return pending;
}

bool file_dirs_any_pending(struct file_dirs *dirs)
{
    pthread_mutex_lock(&dirs->lock);
    bool pending = dirs->nr_pending > 0;
    pthread_mutex_unlock(&dirs->lock);
    return pending;
}

bool file_dirs_failed(struct file_dirs *dirs, const char *dir)
{
    char path[FILE_PATH_MAX];
    uint64_t need;
    bool failed;

    memcpy(path, dir, strlen(dir) + 1);
    pthread_mutex_lock(&dirs->lock);
    do {
        const struct dir *at = find_locked(dirs, path);
        failed = at && at->error != 0;
    } while (!failed && ascend_locked(dirs, path, &need));
    pthread_mutex_unlock(&dirs->lock);
    return failed;
}

static void mark_durable_locked(struct file_dirs *dirs, struct dir *dir, uint64_t upto)
{
    if (dir->durable >= upto)
        return;
    bool was_pending = pending_locked(dir);
    /* A directory made anew under this path has changes with later numbers. */
    dir->durable = upto < dir->changed ? upto : dir->changed;
    if (was_pending && !pending_locked(dir))
        dirs->nr_pending--;
}

/** Sync one directory if a change up to `need` is not durable. */
static int sync_one(struct file_dirs *dirs, const char *path, uint64_t need)
{
    pthread_mutex_lock(&dirs->lock);
    struct dir *dir = find_locked(dirs, path);
    bool pending = short_of_locked(dir, need);
    uint64_t upto = dir ? dir->changed : 0;
    int rc = dir ? dir->error : 0;
    pthread_mutex_unlock(&dirs->lock);
    if (!pending)
        return 0;
    if (rc < 0)
        return rc;

    int fd = openat(dirs->root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return -errno;
    /* Removed meanwhile: the directory above records that. */
    rc = fd >= 0 ? file_sync_fd(fd, false) : 0;
    if (fd >= 0)
        close(fd);
    pthread_mutex_lock(&dirs->lock);
    dir = find_locked(dirs, path);
    if (dir && rc == 0)
        mark_durable_locked(dirs, dir, upto);
    else if (dir)
        dir->error = rc;
    pthread_mutex_unlock(&dirs->lock);
    return rc;
}

int file_dirs_sync(struct file_dirs *dirs, const char *dir)
{
    char path[FILE_PATH_MAX];
    uint64_t need = UINT64_MAX;
    bool more = true;
    int rc = 0;

    memcpy(path, dir, strlen(dir) + 1);
    while (rc == 0 && more) {
        rc = sync_one(dirs, path, need);
        pthread_mutex_lock(&dirs->lock);
        more = ascend_locked(dirs, path, &need);
        pthread_mutex_unlock(&dirs->lock);
    }
    return rc;
}

/** What a sync of everything covers: a copy of the table's state. */
struct snapshot {
    char (*paths)[FILE_PATH_MAX];
    uint64_t *upto;
    size_t nr;
};

static int take_snapshot(struct file_dirs *dirs, struct snapshot *snap)
{
    struct hashtab_node *node = NULL;
    int rc = 0;

    memset(snap, 0, sizeof *snap);
    pthread_mutex_lock(&dirs->lock);
    snap->paths = calloc(dirs->nr_pending + 1, FILE_PATH_MAX);
    snap->upto = calloc(dirs->nr_pending + 1, sizeof *snap->upto);
    if (!snap->paths || !snap->upto)
        rc = -ENOMEM;
    while (rc == 0 && (node = hashtab_walk(&dirs->table, node)) != NULL) {
        struct dir *dir = HASHTAB_ENTRY(node, struct dir, node);
        if (!pending_locked(dir))
            continue;
        memcpy(snap->paths[snap->nr], dir->path, strlen(dir->path) + 1);
        snap->upto[snap->nr++] = dir->changed;
    }
    pthread_mutex_unlock(&dirs->lock);
    return rc;
}

int file_dirs_sync_all(struct file_dirs *dirs)
{
    struct snapshot snap;
    int rc = take_snapshot(dirs, &snap);

    if (rc == 0 && snap.nr > SYNCFS_THRESHOLD) {
        if (syncfs(dirs->root_fd) < 0)
            rc = -errno;
        pthread_mutex_lock(&dirs->lock);
        for (size_t i = 0; i < snap.nr; i++) {
            struct dir *dir = find_locked(dirs, snap.paths[i]);
            if (dir && rc == 0)
                mark_durable_locked(dirs, dir, snap.upto[i]);
            else if (dir)
                dir->error = rc;
        }
        pthread_mutex_unlock(&dirs->lock);
    } else {
        for (size_t i = 0; rc == 0 && i < snap.nr; i++)
            rc = sync_one(dirs, snap.paths[i], UINT64_MAX);
    }
    free(snap.paths);
    free(snap.upto);
    return rc;
}

void file_dirs_forget(struct file_dirs *dirs, const char *path)
{
    pthread_mutex_lock(&dirs->lock);
    struct dir *dir = find_locked(dirs, path);
    if (dir) {
        if (pending_locked(dir))
            dirs->nr_pending--;
        hashtab_remove(&dirs->table, &dir->node);
        free(dir);
    }
    pthread_mutex_unlock(&dirs->lock);
}

int file_dirs_make(struct file_dirs *dirs, const char *dir, mode_t mode)
{
    char parent[FILE_PATH_MAX];
    int rc;

    if (mkdirat(dirs->root_fd, dir, mode) == 0)
        goto made;
    if (errno == EEXIST)
        return 0;
    if (errno != ENOENT)
        return -errno;
    memcpy(parent, dir, strlen(dir) + 1);
    file_path_parent(parent);
    if (strcmp(parent, ".") == 0)
        return -ENOENT;
    rc = file_dirs_make(dirs, parent, mode);
    if (rc < 0)
        return rc;
    if (mkdirat(dirs->root_fd, dir, mode) < 0)
        return errno == EEXIST ? 0 : -errno;
made:
    memcpy(parent, dir, strlen(dir) + 1);
    file_path_parent(parent);
    rc = file_dirs_note(dirs, parent, true);
    pthread_mutex_lock(&dirs->lock);
    /* One of that name was known, and another process removed it. */
    struct dir *again = find_locked(dirs, dir);
    struct dir *above = find_locked(dirs, parent);
    if (again && above)
        again->name = above->changed;
    pthread_mutex_unlock(&dirs->lock);
    return rc;
}

int file_dirs_create_file(struct file_dirs *dirs, const char *path, int flags,
                          mode_t dir_mode, mode_t file_mode)
{
    char dir[FILE_PATH_MAX];
    int fd = -1, rc = 0;

    memcpy(dir, path, strlen(path) + 1);
    file_path_parent(dir);
    /* A DELETE may remove the directory between the two steps: once more then. */
    for (int attempt = 0; attempt < 8; attempt++) {
        rc = file_dirs_make(dirs, dir, dir_mode);
        if (rc < 0)
            return rc;
        fd = openat(dirs->root_fd, path, flags | O_CREAT, file_mode);
        if (fd >= 0 || errno != ENOENT)
            break;
    }
    if (fd < 0)
        return -errno;
    rc = file_dirs_note(dirs, dir, true);
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}
