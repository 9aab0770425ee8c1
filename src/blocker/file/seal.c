/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RELEASE of an extent: our own hold given up, or with FORCE every holder's.
 *
 * Given up: what is not durable is synced first, since closing a file could lose the only
 * report of a failed writeback; a failure is remembered for later flushes.  Then all
 * open files of the extent are forgotten, and closed when the last io that uses them
 * has ended.
 *
 * Sealed, in steps that are each durable or harmless, so that the next sealer may
 * repeat them all:
 *
 *   1. `<epoch>.sealed` is made.  From now on no process gets a hold
 *   2. our own hold is given up as above, but without the sync: whose writes they were
 *      has lost the volume, and its flushes fail
 *   3. the exclusive lock of the first file is tried for a second
 *   4. each file whose exclusive lock cannot be had, the first file first, is copied
 *      beside, synced, and the copy renamed over it
 *
 * A file whose lock was had has no writer: the mark keeps new holders out, and a
 * holder of the first file's predecessor, which lost its name in a sealing before, has
 * locks on the other files as well.
 *
 * One sealing of an extent at a time in this process; a caller that asks meanwhile gets its
 * result.  Steps are jobs, on the reactor's thread between them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

/** How long a holder is given to let go [ns]. */
#define PATIENCE_NS UINT64_C(1000000000)
/** Between two tries of the lock [ns]. */
#define RETRY_NS UINT64_C(10000000)

struct file_release {
    struct list link; /* in store->seals; nowhere if the hold is only given up */
    struct file_store *store;
    struct xseg_object object;
    struct list ios; /* by their scratch */
    uint32_t nr_syncs;
    int error;
    struct file_drop drop;
    struct reactor_job job;
    struct reactor_timer timer;
    uint64_t patient_until_ns;
};

static void finish(struct file_release *release)
{
    struct list *link, ios;
    int rc = release->error;

    list_remove(&release->link);
    list_init(&ios);
    while ((link = list_pop_front(&release->ios)) != NULL)
        list_push_back(&ios, link);
    free(release);
    while ((link = list_pop_front(&ios)) != NULL)
        file_answer(LIST_ENTRY(link, struct blk_io, scratch), rc);
}

static void offload(struct file_release *release, void (*run)(struct reactor_job *job),
                    void (*done)(struct reactor_job *job))
{
    release->job.run = run;
    release->job.done = done;
    release->job.lane = REACTOR_LANE_BULK;
    reactor_offload(release->store->base.reactor, &release->job);
}

static struct file_release *release_of(struct reactor_job *job)
{
    return LIST_ENTRY(job, struct file_release, job);
}

/* ---- our own files ------------------------------------------------------ */

static void note_drop(struct file_release *release)
{
    struct file_store *store = release->store;

    if (release->drop.sync_error != 0)
        file_prove(store, &release->object, release->drop.sync_error);
    else if (release->drop.dirty)
        file_doubt(store, &release->object);
}

static void close_run(struct reactor_job *job)
{
    /* Frees the blocks of files without a name, which takes its time. */
    file_fd_close_detached(&release_of(job)->drop.closing);
}

static void close_done(struct reactor_job *job)
{
    finish(release_of(job));
}

static void dropped(struct file_drop *drop)
{
    struct file_release *release = LIST_ENTRY(drop, struct file_release, drop);
    note_drop(release);
    offload(release, close_run, close_done);
}

static void drop(struct file_release *release, void (*done)(struct file_drop *drop))
{
    release->drop.done = done;
    file_fd_drop(release->store, &release->object, &release->drop);
}

/* ---- giving up ---------------------------------------------------------- */

static void sync_ended(struct file_release *release)
{
    if (--release->nr_syncs == 0)
        drop(release, dropped);
}

static void synced(struct file_sync_wait *wait, int rc)
{
    struct file_op *op = LIST_ENTRY(wait, struct file_op, sync);
    struct file_release *release = op->release;

    if (rc < 0 && release->error == 0)
        release->error = rc;
    file_op_put(op);
    sync_ended(release);
}

static void give_up(struct file_release *release)
{
    struct file_store *store = release->store;
    struct hashtab_node *node =
        hashtab_find(&store->fds, blk_object_hash(&release->object));

    release->nr_syncs = 1;
    while (node) {
        struct file_fd *file = HASHTAB_ENTRY(node, struct file_fd, node);
        node = hashtab_next(node);
        if (!blk_object_equal(&file->object, &release->object) ||
            !file_sync_needed(file))
            continue;
        struct file_op *op = file_op_get(store, NULL);
        if (!op) {
            release->error = -ENOMEM;
            continue;
        }
        op->release = release;
        op->sync.done = synced;
        release->nr_syncs++;
        file_sync(file, &op->sync);
    }
    sync_ended(release);
}

/* ---- sealing: the files ------------------------------------------------- */

static int make_mark(struct file_release *release)
{
    struct file_store *store = release->store;
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];

    file_path_seal(path, &release->object);
    memcpy(dir, path, sizeof dir);
    file_path_parent(dir);
    int fd = file_dirs_create_file(store->dirs, path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
                                   store->dir_mode, store->file_mode);
    if (fd < 0)
        return fd;
    int rc = file_sync_fd(fd, false);
    close(fd);
    if (rc == 0)
        rc = file_dirs_doubt(store->dirs, dir);
    return rc < 0 ? rc : file_dirs_sync(store->dirs, dir);
}

/** Is `path` still the file that is open as `fd`? */
static bool is_file_at(struct file_store *store, const char *path, int fd)
{
    struct stat open_file, named_file;

    return fstat(fd, &open_file) == 0 &&
           fstatat(store->root_fd, path, &named_file, AT_SYMLINK_NOFOLLOW) == 0 &&
           open_file.st_dev == named_file.st_dev &&
           open_file.st_ino == named_file.st_ino;
}

/** A copy takes the file's name.  -EAGAIN: another sealer's copy has it. */
static int replace(struct file_store *store, const struct xseg_object *object,
                   uint64_t part, const char *path, int fd)
{
    struct file_temp temp;

    int rc = file_temp_create(store, &temp);
    if (rc < 0)
        return rc;
    file_identity_set(temp.fd, object, part);
    rc = file_copy(fd, temp.fd);
    if (rc == 0)
        rc = file_sync_fd(temp.fd, false);
    if (rc == 0 && !is_file_at(store, path, fd))
        rc = -EAGAIN;
    if (rc < 0) {
        file_temp_discard(store, &temp);
        return rc;
    }
    return file_temp_replace(store, &temp, path);
}

/** The file at `path`, locked exclusively for a moment.  0: it has no writer, or it is
 *  not there; -EWOULDBLOCK with *fd open; -errno. */
static int try_lock(struct file_store *store, const char *path, int *fd)
{
    *fd = openat(store->root_fd, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (flock(*fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return -EWOULDBLOCK;
    int rc = flock(*fd, LOCK_UN) < 0 ? -errno : 0;
    /* What its holder wrote and did not flush before it died is read from now on, and no
     * flush of the next epoch covers it: so what is seen must be what stays. */
    if (rc == 0)
        rc = file_sync_fd(*fd, true);
    close(*fd);
    *fd = -1;
    return rc;
}

static int seal_part(struct file_store *store, const struct xseg_object *object,
                     uint64_t part)
{
    char path[FILE_PATH_MAX];
    int fd, rc;

    file_path(path, object, part);
    do {
        rc = try_lock(store, path, &fd);
        if (rc == -EWOULDBLOCK)
            rc = replace(store, object, part, path, fd);
        if (fd >= 0)
            close(fd);
    } while (rc == -EAGAIN);
    if (rc < 0)
        return rc;
    file_path_parent(path);
    return file_dirs_note(store->dirs, path, true);
}

struct parts {
    uint64_t epoch;
    uint64_t *numbers;
    size_t nr;
};

static int add_part(void *arg, int dir_fd, const char *name)
{
    struct parts *parts = arg;
    uint64_t epoch, part;

    (void)dir_fd;
    if (!file_parse_part(name, &epoch, &part) || epoch != parts->epoch || part == 0)
        return 0;
    uint64_t *numbers = realloc(parts->numbers, (parts->nr + 1) * sizeof *numbers);
    if (!numbers)
        return -ENOMEM;
    parts->numbers = numbers;
    numbers[parts->nr++] = part;
    return 0;
}

/** The first file, then the others. */
static int seal_parts(struct file_store *store, const struct xseg_object *object)
{
    struct parts parts = {.epoch = blk_object_number(object)};
    char dir[FILE_PATH_MAX];

    file_path(dir, object, 0);
    file_path_parent(dir);
    int rc = seal_part(store, object, 0);
    if (rc == 0)
        rc = file_scan(store, dir, add_part, &parts);
    for (size_t i = 0; rc == 0 && i < parts.nr; i++)
        rc = seal_part(store, object, parts.numbers[i]);
    free(parts.numbers);
    return rc < 0 ? rc : file_dirs_sync(store->dirs, dir);
}

/* ---- sealing: the steps ------------------------------------------------- */

static void seal_run(struct reactor_job *job)
{
    struct file_release *release = release_of(job);
    release->error = seal_parts(release->store, &release->object);
}

static void seal_done(struct reactor_job *job)
{
    /* What was opened for reading meanwhile may be a file without a name by now. */
    drop(release_of(job), dropped);
}

static void lock_run(struct reactor_job *job)
{
    struct file_release *release = release_of(job);
    char path[FILE_PATH_MAX];
    int fd;

    file_fd_close_detached(&release->drop.closing);
    file_path(path, &release->object, 0);
    release->error = try_lock(release->store, path, &fd);
    if (fd >= 0)
        close(fd);
}

static void lock_done(struct reactor_job *job);

static void lock_again(struct reactor_timer *timer)
{
    struct file_release *release = LIST_ENTRY(timer, struct file_release, timer);
    offload(release, lock_run, lock_done);
}

static void lock_done(struct reactor_job *job)
{
    struct file_release *release = release_of(job);
    struct reactor *r = release->store->base.reactor;

    if (release->error == -EWOULDBLOCK && reactor_now_ns(r) < release->patient_until_ns)
        reactor_arm_timer(r, &release->timer, RETRY_NS);
    else if (release->error < 0 && release->error != -EWOULDBLOCK)
        finish(release);
    else
        offload(release, seal_run, seal_done);
}

static void own_dropped(struct file_drop *dropped)
{
    struct file_release *release = LIST_ENTRY(dropped, struct file_release, drop);
    struct reactor *r = release->store->base.reactor;

    note_drop(release);
    release->patient_until_ns = reactor_now_ns(r) + PATIENCE_NS;
    release->timer.on_fire = lock_again;
    offload(release, lock_run, lock_done);
}

static void mark_run(struct reactor_job *job)
{
    struct file_release *release = release_of(job);
    release->error = make_mark(release);
}

static void mark_done(struct reactor_job *job)
{
    struct file_release *release = release_of(job);
    if (release->error < 0)
        finish(release);
    else
        drop(release, own_dropped);
}

/* ---- the call ----------------------------------------------------------- */

static struct file_release *find_seal(struct file_store *store,
                                      const struct xseg_object *object)
{
    LIST_FOR_EACH(link, next, &store->seals)
    {
        struct file_release *release = LIST_ENTRY(link, struct file_release, link);
        if (blk_object_equal(&release->object, object))
            return release;
    }
    return NULL;
}

void file_extent_release(struct blk_backend *be, struct blk_io *io)
{
    struct file_store *store = file_store_of(be);
    bool seals = (io->flags & XSEG_F_FORCE) != 0;
    struct file_release *release = seals ? find_seal(store, &io->object) : NULL;
    struct list *link = (struct list *)(void *)io->scratch;

    static_assert(sizeof *link <= sizeof io->scratch, "link fits");
    if (release) {
        list_push_back(&release->ios, link);
        return;
    }
    release = calloc(1, sizeof *release);
    if (!release) {
        file_answer(io, -ENOMEM);
        return;
    }
    release->store = store;
    release->object = io->object;
    list_init(&release->link);
    list_init(&release->ios);
    list_init(&release->drop.closing);
    list_push_back(&release->ios, link);
    if (!seals) {
        give_up(release);
        return;
    }
    list_push_back(&store->seals, &release->link);
    offload(release, mark_run, mark_done);
}
