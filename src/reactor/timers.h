/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of one reactor: a list sorted by deadline; equal deadlines fire in the order
 * in which they were armed.  There are few, and they are mostly disarmed early.
 */
#ifndef REACTOR_TIMERS_H
#define REACTOR_TIMERS_H

#include "reactor/reactor.h"

struct reactor_timers {
    struct reactor_timer *first;
};

void reactor_timers_arm(struct reactor_timers *t, struct reactor_timer *timer,
                        uint64_t deadline_ns);
void reactor_timers_disarm(struct reactor_timers *t, struct reactor_timer *timer);

/** Fire what is due at `now_ns`.  Returns how many fired. */
unsigned reactor_timers_run(struct reactor_timers *t, uint64_t now_ns);

#endif
