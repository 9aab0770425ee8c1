/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks that other threads hand to a reactor: a lock-free stack, which the reactor
 * empties once per turn.
 */
#ifndef REACTOR_POSTS_H
#define REACTOR_POSTS_H

#include <stdatomic.h>

#include "reactor/reactor.h"
#include "reactor/wake.h"

struct reactor_posts {
    _Atomic(struct reactor_task *) newest;
    struct reactor_wake *wake;
};

/** `wake` outlives it. */
void reactor_posts_init(struct reactor_posts *posts, struct reactor_wake *wake);

/** Any thread. */
void reactor_posts_push(struct reactor_posts *posts, struct reactor_task *task);

/** Run what was posted, oldest first.  Returns how many. */
unsigned reactor_posts_run(struct reactor_posts *posts);

static inline bool reactor_posts_any(struct reactor_posts *posts)
{
    /* Sequentially consistent: looked at after reactor_wake_arm, see wake.c. */
    return atomic_load(&posts->newest) != NULL;
}

#endif
