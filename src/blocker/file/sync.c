/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making acknowledged writes durable, one open file at a time.
 *
 * A file counts its acknowledged writes and how many of them a finished sync covers.
 * At most one sync of a file runs; who asks while it runs and has newer writes waits
 * for the next one, which covers all that asked.  A failed sync sticks: the kernel
 * reports a lost page once and then calls it clean, so a later success would be a lie.
 * So it is also the answer to those who wait for the next one, and to those whose sync
 * ended well after a durable write had been told of the loss.
 */
#include "blocker/file/file.h"

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
    rc = file->sync_error;
    if (rc == 0)
        file->nr_durable = file->nr_syncing;
    list_init(&waiters);
    while ((link = list_pop_front(&file->sync_waiters)) != NULL)
        list_push_back(&waiters, link);
    while ((link = list_pop_front(&file->next_sync_waiters)) != NULL)
        list_push_back(rc == 0 ? &file->sync_waiters : &waiters, link);
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
