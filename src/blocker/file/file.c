/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file backend: opening and closing a store, and its table of calls.
 *
 * A store is one directory; docs/format/store.md describes what lies in it.
 */
#include "blocker/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "blocker/lease.h"
#include "xseg/process.h"

#define DEFAULT_QUEUE_DEPTH 256u
#define MAX_QUEUE_DEPTH     4096u
/** So long after an io passed its deadline the store counts as slow [ns]. */
#define SLOW_NS     UINT64_C(60000000000)
#define FORMAT_FILE "format"
#define FORMAT_NAME "archipelago-store"

/** The reason of the last failed open. Opening happens once, on one thread. */
static char reason[512];

static int fail(const char **why, int rc, const char *what, const char *path)
{
    snprintf(reason, sizeof reason, "%s %s: %s", what, path, strerror(-rc));
    *why = reason;
    return rc;
}

void file_answer(struct blk_io *io, int64_t result)
{
    if (io->abandoned)
        file_store_of(io->backend)->nr_abandoned--;
    if (io->lent) {
        if (result > 0 && !io->abandoned)
            memcpy(io->lent, io->data, (uint64_t)result * io->fill_unit);
        free(io->data);
        io->data = io->lent;
        io->lent = NULL;
    }
    io->result = result;
    io->done(io);
}

/** Give the io memory of its own.  0 or -ENOMEM. */
static int io_make_private(struct blk_io *io)
{
    if (!io->data || io->lent)
        return 0;
    void *copy = malloc(io->size);
    if (!copy)
        return -ENOMEM;
    if (io->fill_unit == 0)
        memcpy(copy, io->data, io->size);
    io->lent = io->data;
    io->data = copy;
    return 0;
}

bool file_abandon(struct blk_backend *be, struct blk_io *io)
{
    struct file_store *store = file_store_of(be);

    store->slow_until_ns = reactor_now_ns(be->reactor) + SLOW_NS;
    if (io->nr_lent > 0)
        return false;
    io->abandoned = true;
    store->nr_abandoned++;
    return true;
}

static int file_check(struct blk_backend *be)
{
    struct stat st;

    if (fstat(file_store_of(be)->root_fd, &st) < 0)
        return -errno;
    return st.st_nlink > 0 ? 0 : -ESTALE;
}

void file_io_offload(struct file_store *store, struct blk_io *io,
                     enum reactor_lane lane, void (*run)(struct reactor_job *job),
                     void (*done)(struct reactor_job *job))
{
    io->backend = &store->base;
    if (io_make_private(io) < 0) {
        file_answer(io, -ENOMEM);
        return;
    }
    io->job.run = run;
    io->job.done = done;
    io->job.lane = lane;
    reactor_offload(store->base.reactor, &io->job);
}

void file_io_answer_job(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    file_answer(io, io->result);
}

/* ---- the tree ----------------------------------------------------------- */

static int sync_parent_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    char *slash = strrchr(copy, '/');
    const char *parent = ".";
    if (slash == copy)
        parent = "/";
    else if (slash)
        parent = copy;
    if (slash && slash != copy)
        *slash = '\0';
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;
    /* A parent that we may not read is not ours to make durable. */
    if (rc == -EACCES)
        rc = 0;
    if (fd >= 0)
        rc = file_sync_fd(fd, false);
    if (fd >= 0)
        close(fd);
    free(copy);
    return rc;
}

/** mkdir -p of an absolute or relative path, durably. */
static int make_root(char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0)
        return sync_parent_of(path);
    if (errno == EEXIST)
        return 0;
    char *slash = strrchr(path, '/');
    if (errno != ENOENT || !slash || slash == path)
        return -errno;
    *slash = '\0';
    int rc = make_root(path, mode);
    *slash = '/';
    if (rc < 0)
        return rc;
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return -errno;
    return sync_parent_of(path);
}

static int check_format(struct file_store *store, const char **why)
{
    char text[64] = "";
    char digits[8] = "", rest = '\n';

    int fd = openat(store->root_fd, FORMAT_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT
                   ? -ENOENT
                   : fail(why, -errno, "cannot read the format of", store->root);
    ssize_t got = read(fd, text, sizeof text - 1);
    int rc = got < 0 ? -errno : 0;
    close(fd);
    if (rc < 0)
        return fail(why, rc, "cannot read the format of", store->root);
    int fields = sscanf(text, FORMAT_NAME " %7[0-9]%c", digits, &rest);
    unsigned long version = strtoul(digits, NULL, 10);
    if (fields < 1 || version == 0 || rest != '\n') {
        snprintf(reason, sizeof reason, "%s/%s does not name a store's format",
                 store->root, FORMAT_FILE);
        *why = reason;
        return -EBADMSG;
    }
    if (version > FILE_STORE_VERSION) {
        snprintf(
            reason, sizeof reason,
            "the store %s has format %lu, this program knows up to %u: use a newer "
            "program",
            store->root, version, FILE_STORE_VERSION);
        *why = reason;
        return -EPROTONOSUPPORT;
    }
    return 0;
}

static int write_format(struct file_store *store)
{
    struct file_temp temp;
    char text[64];

    int len = snprintf(text, sizeof text, FORMAT_NAME " %u\n", FILE_STORE_VERSION);
    int rc = file_temp_create(store, &temp);
    if (rc < 0)
        return rc;
    rc = file_temp_fill(&temp, text, (uint64_t)len);
    if (rc < 0) {
        file_temp_discard(store, &temp);
        return rc;
    }
    rc = file_temp_link(store, &temp, FORMAT_FILE);
    if (rc == -EEXIST)
        rc = 0;
    return rc < 0 ? rc : file_dirs_note(store->dirs, ".", true);
}

static int make_tree(struct file_store *store)
{
    int rc = file_dirs_make(store->dirs, "tmp", store->dir_mode);
    for (uint32_t kind = XSEG_OBJ_CONTENT; rc == 0 && kind < XSEG_NR_OBJECT_KINDS;
         kind++)
        rc = file_dirs_make(store->dirs, file_kind_dir(kind), store->dir_mode);
    return rc;
}

/** Prove that we can write here, and with O_DIRECT if that is asked. */
static int try_write(struct file_store *store, const char **why)
{
    struct file_temp temp;
    int rc = file_temp_create(store, &temp);
    /* On a full disk another file must do: what is there can be read and removed. */
    bool full = rc == -ENOSPC || rc == -EDQUOT;
    if (full) {
        snprintf(temp.path, sizeof temp.path, "%s", FORMAT_FILE);
        temp.fd = openat(store->root_fd, FORMAT_FILE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        rc = temp.fd < 0 ? -errno : 0;
    }
    if (rc < 0)
        return fail(why, rc, "cannot write in", store->root);
    if (store->direct) {
        int fd = openat(store->root_fd, temp.path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (fd < 0)
            rc = fail(why, -errno, "no direct I/O (turn `direct` off) in", store->root);
        else
            close(fd);
    }
    store->keeps_times = rc == 0 && !full && file_keeps_times(temp.fd);
    /* What keeps the nodes of a store apart. */
    if (rc == 0 && flock(temp.fd, (full ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
        rc = fail(why, -errno, "no file locks (flock) in", store->root);
    if (full)
        close(temp.fd);
    else
        file_temp_discard(store, &temp);
    return rc;
}

static int open_tree(struct file_store *store, const char **why)
{
    int rc = check_format(store, why);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool fresh = rc == -ENOENT;
    rc = make_tree(store);
    if (rc < 0)
        return fail(why, rc, "cannot make directories in", store->root);
    if (fresh) {
        rc = write_format(store);
        if (rc < 0)
            return fail(why, rc, "cannot write the format of", store->root);
    }
    rc = file_dirs_sync_all(store->dirs);
    if (rc < 0)
        return fail(why, rc, "cannot sync", store->root);
    rc = file_temp_clean(store);
    if (rc < 0)
        return fail(why, rc, "cannot remove old temporary files in", store->root);
    return try_write(store, why);
}

/* ---- life --------------------------------------------------------------- */

static int start_engine(struct file_store *store, const struct blk_options *options,
                        const char **why)
{
    uint32_t depth = options->queue_depth ? options->queue_depth : DEFAULT_QUEUE_DEPTH;
    const char *name = options->engine ? options->engine : "auto";
    struct reactor *r = store->base.reactor;
    bool any = strcmp(name, "auto") == 0;
    int rc;

    if (depth > MAX_QUEUE_DEPTH)
        depth = MAX_QUEUE_DEPTH;
    if (any || strcmp(name, "io_uring") == 0) {
        rc = file_uring_create(r, depth, &store->engine);
        if (rc == 0)
            return 0;
        if (!any)
            return fail(why, rc, "cannot use the engine", name);
    }
    if (any || strcmp(name, "threads") == 0) {
        rc = file_threads_create(r, &store->engine);
        return rc < 0 ? fail(why, rc, "cannot use the engine", name) : 0;
    }
    *why = "no such engine; there are auto, io_uring and threads";
    return -EINVAL;
}

static void free_store(struct file_store *store)
{
    if (store->engine)
        store->engine->destroy(store->engine);
    reactor_disarm_timer(store->base.reactor, &store->retry_timer);
    (void)file_watch_leases(&store->base, NULL);
    file_fds_fini(store);
    file_proven_fini(store);
    file_ops_fini(store);
    file_dirs_destroy(store->dirs);
    if (store->root_fd >= 0)
        close(store->root_fd);
    free(store->root);
    free(store);
}

static int file_open(struct reactor *r, const struct blk_options *options,
                     struct blk_backend **out, const char **why)
{
    int rc;

    *out = NULL;
    *why = "the file backend needs a path";
    if (!options->path || options->path[0] == '\0')
        return -EINVAL;
    *why = "out of memory";
    struct file_store *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    store->base.ops = &blk_file_ops;
    store->base.reactor = r;
    store->root_fd = -1;
    store->direct = options->direct;
    store->file_mode = options->file_mode ? options->file_mode & 0666 : 0660;
    /* Readers of a file may enter its directory. */
    store->dir_mode = store->file_mode | (store->file_mode & 0444) >> 2;
    lease_boot_id(store->boot_id);
    store->pid = (uint32_t)getpid();
    store->pid_start = xseg_process_start(store->pid);
    list_init(&store->retry_waiting);
    list_init(&store->seals);
    file_ops_init(store);
    rc = file_fds_init(store);
    if (rc == 0)
        rc = file_proven_init(store);
    store->root = strdup(options->path);
    if (rc < 0 || !store->root) {
        rc = -ENOMEM;
        goto fail;
    }
    size_t len = strlen(store->root);
    while (len > 1 && store->root[len - 1] == '/')
        store->root[--len] = '\0';
    rc = make_root(store->root, store->dir_mode);
    if (rc < 0) {
        fail(why, rc, "cannot make", store->root);
        goto fail;
    }
    store->root_fd = open(store->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->root_fd < 0) {
        rc = fail(why, -errno, "cannot open", store->root);
        goto fail;
    }
    rc = file_dirs_create(store->root_fd, &store->dirs);
    if (rc < 0)
        goto fail;
    file_syncs_init(store);
    rc = open_tree(store, why);
    if (rc < 0)
        goto fail;
    file_reserve_fill(store);
    rc = start_engine(store, options, why);
    if (rc < 0)
        goto fail;
    *why = NULL;
    *out = &store->base;
    return 0;

fail:
    free_store(store);
    return rc;
}

static void file_close(struct blk_backend *be)
{
    free_store(file_store_of(be));
}

static void file_capabilities(const struct blk_backend *be,
                              struct blk_capabilities *out)
{
    const struct file_store *store = (const struct file_store *)be;
    *out = (struct blk_capabilities){
        .alignment = store->direct ? FILE_DIRECT_ALIGN : 1,
        .shared = true,
        .persistent = true,
    };
}

const struct blk_backend_ops blk_file_ops = {
    .struct_size = sizeof(struct blk_backend_ops),
    .api_version = BLK_API_VERSION,
    .name = "file",
    .open = file_open,
    .close = file_close,
    .capabilities = file_capabilities,
    .abandon = file_abandon,
    .check = file_check,
    .read = file_read,
    .write = file_write,
    .zero = file_zero,
    .flush = file_flush,
    .put_if_absent = file_put_if_absent,
    .put_content_from_extent = file_put_if_absent,
    .replace_if = file_replace_if,
    .append_if = file_append_if,
    .stat = file_stat,
    .list = file_list,
    .remove = file_remove,
    .lease_acquire = file_lease_acquire,
    .lease_release = file_lease_release,
    .extent_release = file_extent_release,
    .changes = file_changes,
    .watch_leases = file_watch_leases,
};
