/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The robust lock of a segment, for what is rare: bind, unbind, reap.
 *
 * The lock word is its holder.  A holder that is proven dead is replaced in one swap;
 * what it left half done is recognisable (a port that is neither FREE nor BOUND, an owner that
 * is dead) and every step under the lock can be done again.
 */
#include <sched.h>
#include <time.h>

#include "xseg/internal.h"

bool segment_trylock(struct xseg_segment *seg)
{
    uint64_t holder = 0;
    if (cas64(&seg->header->lock_owner, &holder, seg->self))
        return true;
    /* Our own process holds it: another thread, which is alive. */
    if (holder == seg->self || owner_life(seg, holder) != XSEG_LIFE_DEAD)
        return false;
    return cas64(&seg->header->lock_owner, &holder, seg->self);
}

void segment_lock(struct xseg_segment *seg)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000};
    for (uint32_t turn = 0; !segment_trylock(seg); turn++) {
        if (turn < 16)
            sched_yield();
        else
            nanosleep(&pause, NULL);
    }
}

void segment_unlock(struct xseg_segment *seg)
{
    store64_release(&seg->header->lock_owner, 0);
}
