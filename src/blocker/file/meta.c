/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CREATE, UPDATE, INFO and DELETE: whole objects and their names.
 *
 * Each is one blocking job.  Changes of headers hold an exclusive flock on the header's
 * directory, which orders them among threads and processes and leaves no lock files.  It
 * is taken late, when only a rename and a sync are left, and never waited for: a process
 * that is paused with it holds the others up, but not their threads.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/lease.h"
#include "blocker/object.h"

int file_scan(struct file_store *store, const char *dir,
              int (*fn)(void *arg, int dir_fd, const char *name), void *arg)
{
    int rc = 0;
    int fd = openat(store->root_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        rc = -errno;
        close(fd);
        return rc;
    }
    while (rc == 0) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (!entry) {
            rc = -errno;
            break;
        }
        if (entry->d_name[0] != '.')
            rc = fn(arg, fd, entry->d_name);
    }
    closedir(stream);
    return rc;
}

/** Open and lock the directory of a header; close it to unlock.  fd; -EAGAIN; -errno. */
static int lock_header_dir(struct file_store *store, const char *dir)
{
    int fd = openat(store->root_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    int rc = errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
    close(fd);
    return rc;
}

static void split(char path[FILE_PATH_MAX], char dir[FILE_PATH_MAX],
                  const struct xseg_object *object)
{
    file_path(path, object, 0);
    memcpy(dir, path, FILE_PATH_MAX);
    file_path_parent(dir);
}

/** Headers are small and commands wait for them; content, layers and what is swept away
 *  come in numbers. */
static enum reactor_lane lane_of(const struct blk_io *io)
{
    return blk_object_is_versioned(&io->object) ? REACTOR_LANE_MAP : REACTOR_LANE_BULK;
}

/* ---- CREATE ------------------------------------------------------------- */

static int put(struct file_store *store, const struct blk_io *io)
{
    bool deferred = (io->flags & XSEG_F_NOSYNC) != 0;
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];
    struct file_temp temp;

    split(path, dir, &io->object);
    if (blk_object_is_versioned(&io->object) && !versioned_valid(io->data, io->size))
        return -EINVAL;
    /* Most writers of content meet what is there already: look before writing. */
    int rc =
        faccessat(store->root_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? -EEXIST : 0;
    if (rc == 0) {
        rc = file_temp_create(store, &temp);
        if (rc < 0)
            return rc;
        /* Durable before it has its name, deferred or not: a crash must never leave
         * other bytes under a digest. */
        rc = file_version_fill(store, &temp, io);
        if (rc == 0)
            rc = file_dirs_make(store->dirs, dir, store->dir_mode);
        if (rc < 0) {
            file_temp_discard(store, &temp);
            return rc;
        }
        rc = file_temp_link(store, &temp, path);
    }
    if (rc < 0 && rc != -EEXIST)
        return rc;
    if (rc == -EEXIST && io->generation) {
        int raised = file_generation_raise(store, path, io);
        /* Removed since we met it: put it there, after all. */
        if (raised < 0)
            return raised == -ENOENT ? -EAGAIN : raised;
    }
    /* Who is told that it exists relies on it as if he had stored it; and who did may
     * have died before its name was durable, also since we synced the directory. */
    int noted = file_dirs_note(store->dirs, dir, true);
    if (noted == 0 && !deferred)
        noted = file_dirs_sync(store->dirs, dir);
    return noted < 0 ? noted : rc;
}

static void put_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    io->result = put(file_store_of(io->backend), io);
}

void file_put_if_absent(struct blk_backend *be, struct blk_io *io)
{
    file_io_offload(file_store_of(be), io, lane_of(io), put_run,
                    file_io_answer_or_retry);
}

/* ---- UPDATE ------------------------------------------------------------- */

/**
 * Is the stored header the one that io may replace, or remove if it brings no data?  Its
 * directory is locked.
 */
static int check_stored(struct file_store *store, const char *path,
                        const struct blk_io *io)
{
    struct xseg_versioned prefix;
    struct stat st;

    int fd = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct file_call call = {
        .verb = FILE_READ, .fd = fd, .data = (uint8_t *)&prefix, .size = sizeof prefix};
    file_call_run(&call);
    int rc = call.result;
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = -errno;
    close(fd);
    if (rc < 0)
        return rc;
    if (call.moved < sizeof prefix)
        return -EBADMSG;
    if (!io->data)
        return versioned_may_remove(&prefix, (uint64_t)st.st_size, io->version);
    return versioned_may_replace(&prefix, (uint64_t)st.st_size, io->data, io->size,
                                 io->version);
}

/** What an UPDATE keeps in io->scratch while it waits for the lock. */
struct update {
    struct list link; /* retry.c */
    struct file_temp *temp;
};

static struct update *update_of(struct blk_io *io)
{
    static_assert(sizeof(struct update) <= sizeof io->scratch, "update fits");
    return (struct update *)(void *)io->scratch;
}

/** The new header, durable but without its name. */
static int prepare(struct file_store *store, struct blk_io *io)
{
    struct update *update = update_of(io);

    if (update->temp)
        return 0;
    if (!versioned_valid(io->data, io->size))
        return -EINVAL;
    struct file_temp *temp = malloc(sizeof *temp);
    if (!temp)
        return -ENOMEM;
    int rc;
    do {
        rc = file_temp_create(store, temp);
        if (rc == 0) {
            rc = file_version_fill(store, temp, io);
            if (rc < 0)
                file_temp_discard(store, temp);
        }
    } while ((rc == -ENOSPC || rc == -EDQUOT) && file_reserve_give(store));
    if (rc < 0) {
        free(temp);
        return rc;
    }
    update->temp = temp;
    return 0;
}

static int replace(struct file_store *store, struct blk_io *io)
{
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];
    struct update *update = update_of(io);
    bool named = false;

    split(path, dir, &io->object);
    int rc = prepare(store, io);
    if (rc < 0)
        return rc;
    int lock = lock_header_dir(store, dir);
    if (lock == -EAGAIN)
        return lock;
    rc = lock < 0 ? lock : check_stored(store, path, io);
    if (rc == 0) {
        rc = file_temp_replace(store, update->temp, path);
        named = true;
        if (rc == 0)
            rc = file_dirs_note(store->dirs, dir, true);
    }
    /* Under the lock, so that nobody acts on a header that a crash could take back. */
    if (rc == 0)
        rc = file_dirs_sync(store->dirs, dir);
    if (lock >= 0)
        close(lock);
    if (!named)
        file_temp_discard(store, update->temp);
    free(update->temp);
    return rc;
}

static void replace_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    io->result = replace(file_store_of(io->backend), io);
}

void file_replace_if(struct blk_backend *be, struct blk_io *io)
{
    update_of(io)->temp = NULL;
    file_io_offload(file_store_of(be), io, REACTOR_LANE_MAP, replace_run,
                    file_io_answer_or_retry);
}

/* ---- INFO --------------------------------------------------------------- */

struct usage {
    const struct xseg_object *object;
    uint64_t size_bytes, allocated_bytes, modified_ns;
    bool found;
};

static void add_file(struct usage *usage, const struct stat *st, uint64_t part)
{
    uint64_t end = st->st_size > 0 ? part * FILE_PART_BYTES + (uint64_t)st->st_size : 0;
    /* Of some kinds the other time tells a version (version.c). */
    uint64_t modified = file_ns(&st->st_ctim);

    usage->found = true;
    usage->allocated_bytes += (uint64_t)st->st_blocks * 512;
    if (usage->size_bytes < end)
        usage->size_bytes = end;
    if (usage->modified_ns < modified)
        usage->modified_ns = modified;
}

static int add_part(void *arg, int dir_fd, const char *name)
{
    struct usage *usage = arg;
    uint64_t epoch, part;
    struct stat st;

    if (!file_parse_part(name, &epoch, &part) ||
        epoch != blk_object_number(usage->object))
        return 0;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    add_file(usage, &st, part);
    return 0;
}

int file_object_usage(struct file_store *store, struct xseg_list_entry *entry)
{
    const struct xseg_object *object = &entry->object;
    struct usage usage = {.object = object};
    char path[FILE_PATH_MAX];
    struct stat st;
    int rc = 0;

    file_path(path, object, 0);
    if (object->kind == XSEG_OBJ_EXTENT) {
        file_path_parent(path);
        rc = file_scan(store, path, add_part, &usage);
    } else if (fstatat(store->root_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        rc = -errno;
    } else {
        add_file(&usage, &st, 0);
        entry->version = file_version_get(store, object, &st);
    }
    if (rc < 0)
        return rc;
    entry->size_bytes = usage.size_bytes;
    entry->allocated_bytes = usage.allocated_bytes;
    entry->modified_ns = usage.modified_ns;
    return usage.found ? 0 : -ENOENT;
}

static int stat_store(struct file_store *store, struct xseg_object_info *info)
{
    struct statvfs fs;

    if (fstatvfs(store->root_fd, &fs) < 0)
        return -errno;
    info->size_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    info->allocated_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    snprintf(info->backend, sizeof info->backend, "file");
    snprintf(info->engine, sizeof info->engine, "%s", store->engine->name);
    info->direct = store->direct;
    return 0;
}

static int stat_version(struct file_store *store, struct blk_io *io)
{
    struct xseg_versioned prefix;
    struct xseg_lease lease;
    char path[FILE_PATH_MAX];

    /* Of records the size that READ gives, not the file's. */
    if (io->object.kind == XSEG_OBJ_PRESENCE) {
        io->info.size_bytes = sizeof(struct xseg_presence);
        return 0;
    }
    if (io->object.kind == XSEG_OBJ_LEASE) {
        int rc = file_lease_read(store, &io->object, &lease);
        io->info.version = rc == 0 ? lease.fence : 0;
        io->info.size_bytes = sizeof lease;
        return rc;
    }
    file_path(path, &io->object, 0);
    int fd = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = pread(fd, &prefix, sizeof prefix, 0);
    int rc = got < 0 ? -errno : 0;
    if (got == sizeof prefix)
        io->info.version = prefix.version;
    close(fd);
    return rc;
}

static void stat_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);
    struct xseg_object_info *info = &io->info;
    struct xseg_list_entry entry = {.object = io->object};

    memset(info, 0, sizeof *info);
    if (io->object.kind == XSEG_OBJ_NONE) {
        io->result = stat_store(store, info);
        return;
    }
    io->result = file_object_usage(store, &entry);
    info->size_bytes = entry.size_bytes;
    info->allocated_bytes = entry.allocated_bytes;
    info->modified_ns = entry.modified_ns;
    info->version = entry.version;
    if (io->result == 0 &&
        (blk_object_is_versioned(&io->object) || io->object.kind == XSEG_OBJ_LEASE ||
         io->object.kind == XSEG_OBJ_PRESENCE))
        io->result = stat_version(store, io);
}

void file_stat(struct blk_backend *be, struct blk_io *io)
{
    bool wide = io->object.kind == XSEG_OBJ_EXTENT;
    file_io_offload(file_store_of(be), io, wide ? REACTOR_LANE_BULK : REACTOR_LANE_MAP,
                    stat_run, file_io_answer_job);
}

/* ---- DELETE ------------------------------------------------------------- */

static int remove_part(void *arg, int dir_fd, const char *name)
{
    struct usage *usage = arg;
    uint64_t epoch, part;

    if (!file_parse_part(name, &epoch, &part) ||
        epoch != blk_object_number(usage->object))
        return 0;
    if (unlinkat(dir_fd, name, 0) < 0)
        return errno == ENOENT ? 0 : -errno;
    usage->found = true;
    return 0;
}

static int remove_extent(struct file_store *store, const struct xseg_object *object)
{
    struct usage usage = {.object = object};
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];

    split(path, dir, object);
    int rc = file_scan(store, dir, remove_part, &usage);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    /* The mark goes last, and also if a crash left it alone. */
    file_path_seal(path, object);
    bool marked = unlinkat(store->root_fd, path, 0) == 0;
    if (!marked && errno != ENOENT)
        return -errno;
    if (!usage.found && !marked)
        return -ENOENT;
    if (unlinkat(store->root_fd, dir, AT_REMOVEDIR) == 0) {
        file_dirs_forget(store->dirs, dir);
        file_path_parent(dir);
    }
    rc = file_dirs_note(store->dirs, dir, true);
    if (rc == 0)
        rc = file_dirs_sync(store->dirs, dir);
    return rc == 0 && !usage.found ? -ENOENT : rc;
}

static int remove_file(struct file_store *store, const struct blk_io *io)
{
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];
    int lock = -1, rc = 0;

    split(path, dir, &io->object);
    /* Else a replacement under way would bring the header back. */
    if (io->object.kind == XSEG_OBJ_HEADER) {
        lock = lock_header_dir(store, dir);
        if (lock < 0)
            return lock;
        rc = io->version ? check_stored(store, path, io) : 0;
    } else if (io->generation) {
        lock = file_generation_hold(store, path, io);
        if (lock == -EAGAIN || lock == -ESTALE)
            return lock;
        rc = lock < 0 ? lock : 0;
    }
    if (rc == 0)
        rc = unlinkat(store->root_fd, path, 0) < 0 ? -errno : 0;
    if (lock >= 0)
        close(lock);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    /* Who removed it may have been killed before that was durable, also since we synced
     * its directory; who is told that a header is gone removes what it referred to. */
    bool changed = rc == 0 || io->object.kind == XSEG_OBJ_HEADER;
    int noted = file_dirs_note(store->dirs, dir, changed);
    if (noted == 0)
        noted = file_dirs_sync(store->dirs, dir);
    return noted < 0 ? noted : rc;
}

static struct list *closing_of(struct blk_io *io)
{
    static_assert(sizeof(struct list) <= sizeof io->scratch, "list fits");
    return (struct list *)(void *)io->scratch;
}

static void remove_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);

    if (io->object.kind == XSEG_OBJ_EXTENT)
        io->result = remove_extent(store, &io->object);
    else
        io->result = remove_file(store, io);
    /* Frees the blocks, which takes its time for a large file. */
    file_fd_close_detached(closing_of(io));
    if (io->object.kind == XSEG_OBJ_HEADER && io->result == 0)
        file_reserve_fill(store);
}

static void remove_done(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);

    /* What was opened while the job ran. */
    file_fd_detach(store, &io->object, NULL);
    file_unprove(store, &io->object);
    /* Still there, and nobody knows any more what of it is dirty. */
    if (io->result < 0 && io->result != -ENOENT && io->result != -EAGAIN)
        store->all_proven = false;
    file_io_answer_or_retry(job);
}

void file_remove(struct blk_backend *be, struct blk_io *io)
{
    struct file_store *store = file_store_of(be);

    list_init(closing_of(io));
    file_fd_detach(store, &io->object, closing_of(io));
    file_io_offload(store, io, lane_of(io), remove_run, remove_done);
}
