/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks from other threads (see posts.h). */
#include "reactor/posts.h"

void reactor_posts_init(struct reactor_posts *posts, struct reactor_wake *wake)
{
    atomic_init(&posts->newest, NULL);
    posts->wake = wake;
}

void reactor_posts_push(struct reactor_posts *posts, struct reactor_task *task)
{
    struct reactor_task *head =
        atomic_load_explicit(&posts->newest, memory_order_relaxed);

    do {
        task->next = head;
        /* Releases what the thread wrote to reactor_posts_run's exchange; sequentially
         * consistent because reactor_wake_kick looks at the sleep flag after it. */
    } while (!atomic_compare_exchange_weak(&posts->newest, &head, task));
    reactor_wake_kick(posts->wake);
}

unsigned reactor_posts_run(struct reactor_posts *posts)
{
    struct reactor_task *newest, *oldest = NULL;
    unsigned nr = 0;

    if (!atomic_load_explicit(&posts->newest, memory_order_relaxed))
        return 0;
    /* Acquires what the posting threads wrote; partner: reactor_posts_push. */
    newest = atomic_exchange_explicit(&posts->newest, NULL, memory_order_acquire);
    while (newest) {
        struct reactor_task *task = newest;
        newest = task->next;
        task->next = oldest;
        oldest = task;
    }
    while (oldest) {
        struct reactor_task *task = oldest;
        oldest = task->next; /* fn may free the task, or post it again */
        task->next = NULL;
        task->fn(task);
        nr++;
    }
    return nr;
}
