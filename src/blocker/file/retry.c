/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ios whose job found a lock taken (io->result is -EAGAIN): they give their thread back and
 * are tried again soon.  The job that has the lock may need that thread to finish, and a
 * paused node may keep it for long.  Reactor's thread.
 */
#include <errno.h>

#include "blocker/file/file.h"

#define RETRY_WAIT_NS UINT64_C(1000000)

static void retry(struct reactor_timer *timer)
{
    struct file_store *store = LIST_ENTRY(timer, struct file_store, retry_timer);
    struct list *link, waiting;

    list_init(&waiting);
    while ((link = list_pop_front(&store->retry_waiting)) != NULL)
        list_push_back(&waiting, link);
    while ((link = list_pop_front(&waiting)) != NULL) {
        struct blk_io *io = LIST_ENTRY(link, struct blk_io, scratch);
        reactor_offload(store->base.reactor, &io->job);
    }
}

void file_io_answer_or_retry(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);

    if (io->result != -EAGAIN) {
        file_answer(io, io->result);
        return;
    }
    static_assert(sizeof(struct list) <= sizeof io->scratch, "link fits");
    list_push_back(&store->retry_waiting, (struct list *)(void *)io->scratch);
    store->retry_timer.on_fire = retry;
    if (!store->retry_timer.armed)
        reactor_arm_timer(store->base.reactor, &store->retry_timer, RETRY_WAIT_NS);
}
