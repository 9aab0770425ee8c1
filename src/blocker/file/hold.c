/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holds: the right of this process to write to an extent, and what readers look at
 * because there are such rights.
 *
 * A hold is a shared flock on the file that is written and on the extent's first file,
 * which is made if there is none.  Taking it, in this order:
 *
 *   first file    flock, then look: is there `<epoch>.sealed`, has the file no name?
 *   another file  hold the first, open, flock, then look: has the first file no name?
 *
 * A sealer (seal.c) makes the mark first and tries the exclusive lock then: so either it
 * meets our lock, or we meet its mark.  A file that it cannot lock it replaces by a
 * copy, the first file first.  A holder of the old file then writes to a file without a
 * name.
 *
 * A hold ends when the file is closed: released, evicted, or by the end of the process.
 * It costs nothing once taken.  Reactor's thread, but for hold_run.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file/file.h"

bool file_is_sealed(struct file_store *store, const struct xseg_object *extent)
{
    char path[FILE_PATH_MAX];
    file_path_seal(path, extent);
    /* What cannot be looked at counts as sealed: that harms nothing. */
    return faccessat(store->root_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
           errno != ENOENT;
}

static bool has_name(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

bool file_is_current(struct file_fd *file, bool live)
{
    /* While we hold it, a sealer that replaces it makes our flushes fail. */
    if (live ? file->held : file->known_final)
        return true;
    if (!has_name(file->fd))
        return false;
    if (!live)
        file->known_final = true;
    return true;
}

/* ---- taking ------------------------------------------------------------- */

static int hold_blocking(struct file_fd *file)
{
    const struct file_fd *first = file->first ? file->first : file;

    /* Only a sealer takes the exclusive lock. */
    if (flock(file->fd, LOCK_SH | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -ESTALE : -errno;
    if (has_name(first->fd) &&
        (first != file || !file_is_sealed(file->store, &file->object)))
        return 0;
    (void)flock(file->fd, LOCK_UN);
    return -ESTALE;
}

static void hold_run(struct reactor_job *job)
{
    struct file_fd *file = LIST_ENTRY(job, struct file_fd, job);
    file->job_result = hold_blocking(file);
}

static void finish(struct file_fd *file, int rc)
{
    struct list *link, waiters;

    file->held = rc == 0;
    if (file->held && file->first && file->first->created)
        file_sync_dirty(file->first); /* so that a flush takes the inode along */
    if (rc < 0 && file->first) {
        file_fd_put(file->first);
        file->first = NULL;
    }
    list_init(&waiters);
    while ((link = list_pop_front(&file->hold_waiters)) != NULL)
        list_push_back(&waiters, link);
    while ((link = list_pop_front(&waiters)) != NULL) {
        struct file_hold_wait *wait = LIST_ENTRY(link, struct file_hold_wait, link);
        wait->done(wait, rc);
    }
}

static void hold_done(struct reactor_job *job)
{
    struct file_fd *file = LIST_ENTRY(job, struct file_fd, job);
    finish(file, file->job_result);
}

static void start(struct file_fd *file)
{
    file->job.run = hold_run;
    file->job.done = hold_done;
    file->job.lane = REACTOR_LANE_MAP;
    reactor_offload(file->store->base.reactor, &file->job);
}

static void first_held(struct file_hold_wait *wait, int rc)
{
    struct file_fd *file = LIST_ENTRY(wait, struct file_fd, first_hold);
    if (rc < 0)
        finish(file, rc);
    else
        start(file);
}

static void first_opened(struct file_fd_wait *wait, struct file_fd *first, int rc)
{
    struct file_fd *file = LIST_ENTRY(wait, struct file_fd, first_open);

    file->first = first;
    if (rc < 0) {
        finish(file, rc);
        return;
    }
    file->first_hold.done = first_held;
    file_hold_get(first, &file->first_hold);
}

void file_hold_get(struct file_fd *file, struct file_hold_wait *wait)
{
    if (file->held) {
        wait->done(wait, 0);
        return;
    }
    bool under_way = !list_empty(&file->hold_waiters);
    list_push_back(&file->hold_waiters, &wait->link);
    if (under_way)
        return;
    if (file->part == 0) {
        start(file);
        return;
    }
    file->first_open.create = true;
    file->first_open.ready = first_opened;
    file_fd_get(file->store, &file->object, 0, &file->first_open);
}
