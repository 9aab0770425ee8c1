/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making acknowledged writes durable, one open file at a time.
 *
 * A file counts its acknowledged writes and how many of them a finished sync covers.
 * At most one sync of a file runs.  A caller that asks while it runs and has newer
 * writes waits for the next one, which covers all that asked.  A failed sync sticks: the
 * kernel reports a lost page once and then calls it clean, so a later success would be a
 * lie.  So the failure is also the answer to those that wait for the next sync, and to
 * those whose sync ended well after a durable write had been told of the loss.
 *
 *   NONE --file_sync, file_sync_wrote--> QUEUED --sync_schedule--> RUNNING --> NONE
 *                                          ^--------- again, alone ---'
 *
 * The files of one volume are synced one after another, and only so many files of the
 * store at once: ext4 has answered -ENOSPC with space free when several files with very
 * many scattered new blocks were synced side by side.  For the same reason the
 * write-back of a file on ext4 starts when it has got many new blocks, long before its
 * sync.  Overwrites take no new block, and are left to the kernel: a page that is written
 * again and again goes to the disk once.
 *
 * -ENOSPC with space free: ext4 then keeps the pages dirty and lets its caller try again
 * (mpage_map_and_submit_extent in fs/ext4/inode.c gives pages up only when it counts no
 * free cluster).  So on ext4, and if there was space before this sync and there is after
 * it, the sync is done again, while no other runs.  All other failures stick.  See
 * docs/format/store.md.
 *
 * Reactor's thread.
 */
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "blocker/file/file.h"

/** Files of one store that are synced at once. */
#define SYNCS_AT_ONCE 16u
/** New blocks since the last write-back that start one; looked at each time that so much
 *  was written [bytes]. */
#define WRITE_BACK_BYTES (UINT64_C(512) << 20)
/** Tries alone of a sync that failed for want of space. */
#define ALONE_TRIES 3u
/** Less than this is no free space: blocks come and go [bytes]. */
#define PLENTY_BYTES (UINT64_C(256) << 20)

void file_syncs_init(struct file_store *store)
{
    struct statfs fs;

    list_init(&store->sync_queue);
    list_init(&store->syncs);
    store->enospc_keeps =
        fstatfs(store->root_fd, &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
}

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

/* ---- which sync runs when ----------------------------------------------- */

static uint64_t sync_free_bytes(const struct file_store *store)
{
    struct statvfs fs;

    if (!store->enospc_keeps || fstatvfs(store->root_fd, &fs) < 0)
        return 0;
    return (uint64_t)fs.f_bfree * fs.f_frsize;
}

/** What a file takes on disk; ext4 counts blocks in that it has only promised. */
static uint64_t sync_space_bytes(const struct file_fd *file)
{
    struct stat st;

    if (!file->store->enospc_keeps || fstat(file->fd, &st) < 0)
        return 0;
    return (uint64_t)st.st_blocks * 512;
}

static void sync_finished(struct file_call *call);

static void sync_start(struct file_fd *file)
{
    struct file_store *store = file->store;

    list_remove(&file->sync_link);
    list_push_back(&store->syncs, &file->sync_link);
    if (store->nr_syncs++ == 0)
        store->sync_progress_ns = reactor_now_ns(store->base.reactor);
    store->sync_alone = file->sync_alone;
    file->syncing = FILE_SYNC_RUNNING;
    file->nr_syncing = file->sync_writes_back ? 0 : file->nr_writes;
    file->nr_unwritten = 0;
    file->space_bytes = sync_space_bytes(file);
    file->sync_free_bytes = sync_free_bytes(store);
    file->sync_call = (struct file_call){
        .verb = file->sync_writes_back ? FILE_WRITE_BACK
                : file->created        ? FILE_SYNC
                                       : FILE_DATASYNC,
        .fd = file->fd,
        .done = sync_finished,
    };
    store->engine->submit(store->engine, &file->sync_call);
}

static bool sync_of_same_volume(const struct file_store *store,
                                const struct file_fd *file)
{
    if (file->object.kind != XSEG_OBJ_EXTENT)
        return false;
    LIST_FOR_EACH(link, next, &store->syncs)
    {
        const struct file_fd *other = LIST_ENTRY(link, struct file_fd, sync_link);
        if (other->object.kind == XSEG_OBJ_EXTENT &&
            memcmp(other->object.id, file->object.id, 16) == 0)
            return true;
    }
    return false;
}

static void sync_schedule(struct file_store *store)
{
    LIST_FOR_EACH(link, next, &store->sync_queue)
    {
        struct file_fd *file = LIST_ENTRY(link, struct file_fd, sync_link);
        if (store->nr_syncs > 0 && (store->sync_alone || file->sync_alone))
            return;
        if (store->nr_syncs >= SYNCS_AT_ONCE)
            return;
        if (!sync_of_same_volume(store, file))
            sync_start(file);
    }
}

static void sync_queue(struct file_fd *file, bool writes_back)
{
    file->refs++;
    file->syncing = FILE_SYNC_QUEUED;
    file->sync_writes_back = writes_back;
    list_push_back(&file->store->sync_queue, &file->sync_link);
    sync_schedule(file->store);
}

/* ---- the end of one ----------------------------------------------------- */

/** There was room before, and there is room now: the pages are still there. */
static bool sync_kept_pages(const struct file_fd *file, int rc)
{
    return rc == -ENOSPC && file->sync_free_bytes >= PLENTY_BYTES &&
           sync_free_bytes(file->store) >= PLENTY_BYTES;
}

/** What a failure of this call says of pages that were written before.  A kernel that
 *  cannot start a write-back says nothing of them. */
static bool sync_tells_loss(const struct file_fd *file, int rc)
{
    if (!file->sync_writes_back)
        return rc < 0;
    bool io_failed = rc == -EIO || rc == -ENOSPC || rc == -EDQUOT || rc == -EROFS;
    return io_failed && !sync_kept_pages(file, rc);
}

/** True if it is done again. */
static bool sync_again(struct file_fd *file, int rc)
{
    struct file_store *store = file->store;

    if (!sync_kept_pages(file, rc) || file->sync_error != 0 ||
        file->sync_tries >= ALONE_TRIES)
        return false;
    file->sync_tries++;
    file->sync_alone = true;
    file->syncing = FILE_SYNC_QUEUED;
    list_push_front(&store->sync_queue, &file->sync_link);
    sync_schedule(store);
    return true;
}

static void sync_tell(struct list *waiters, int rc)
{
    struct list *link;

    while ((link = list_pop_front(waiters)) != NULL) {
        struct file_sync_wait *wait = LIST_ENTRY(link, struct file_sync_wait, link);
        wait->done(wait, rc);
    }
}

static void sync_finished(struct file_call *call)
{
    struct file_fd *file = LIST_ENTRY(call, struct file_fd, sync_call);
    struct file_store *store = file->store;
    struct list *link, waiters;
    int rc = call->result;

    list_remove(&file->sync_link);
    store->nr_syncs--;
    store->sync_progress_ns = reactor_now_ns(store->base.reactor);
    store->sync_alone = false;
    if (!file->sync_writes_back && sync_again(file, rc))
        return;
    file->syncing = FILE_SYNC_NONE;
    file->sync_alone = false;
    file->sync_tries = 0;
    /* What it wrote back is not known to be durable; its failure may be the only report
     * of a lost page. */
    if (sync_tells_loss(file, rc))
        file_sync_fail(file, rc);
    rc = file->sync_error;
    if (rc == 0 && !file->sync_writes_back) {
        file->nr_durable = file->nr_syncing;
        file->created = file->created && call->verb != FILE_SYNC;
    }
    list_init(&waiters);
    while ((link = list_pop_front(&file->sync_waiters)) != NULL)
        list_push_back(&waiters, link);
    while ((link = list_pop_front(&file->next_sync_waiters)) != NULL)
        list_push_back(rc == 0 ? &file->sync_waiters : &waiters, link);
    if (!list_empty(&file->sync_waiters))
        sync_queue(file, false);
    sync_schedule(store);
    sync_tell(&waiters, rc);
    file_fd_settle(file);
    file_fd_put(file); /* sync_queue's */
}

/* ---- what the others call ----------------------------------------------- */

void file_sync(struct file_fd *file, struct file_sync_wait *wait)
{
    if (file->sync_error != 0) {
        wait->done(wait, file->sync_error);
    } else if (file->nr_durable == file->nr_writes) {
        wait->done(wait, 0);
    } else if (file->syncing == FILE_SYNC_RUNNING &&
               file->nr_syncing != file->nr_writes) {
        list_push_back(&file->next_sync_waiters, &wait->link);
    } else {
        list_push_back(&file->sync_waiters, &wait->link);
        if (file->syncing == FILE_SYNC_NONE)
            sync_queue(file, false);
        else if (file->syncing == FILE_SYNC_QUEUED)
            file->sync_writes_back = false;
    }
}

void file_sync_wrote(struct file_fd *file, uint64_t bytes)
{
    if (file->space_bytes == 0)
        file->space_bytes = sync_space_bytes(file);
    file->nr_unwritten += bytes;
    if (file->nr_unwritten < WRITE_BACK_BYTES || file->syncing != FILE_SYNC_NONE)
        return;
    file->nr_unwritten = 0;
    if (sync_space_bytes(file) >= file->space_bytes + WRITE_BACK_BYTES &&
        file->sync_error == 0 && !file->detached)
        sync_queue(file, true);
}
