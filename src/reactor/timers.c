/* SPDX-License-Identifier: Apache-2.0 */
/* Timers of one reactor (see timers.h). */
#include "reactor/timers.h"

#include <stddef.h>

void reactor_timers_arm(struct reactor_timers *t, struct reactor_timer *timer,
                        uint64_t deadline_ns)
{
    struct reactor_timer **at = &t->first;

    reactor_timers_disarm(t, timer);
    while (*at && (*at)->deadline_ns <= deadline_ns)
        at = &(*at)->next;
    timer->deadline_ns = deadline_ns;
    timer->next = *at;
    timer->armed = true;
    *at = timer;
}

void reactor_timers_disarm(struct reactor_timers *t, struct reactor_timer *timer)
{
    struct reactor_timer **at = &t->first;

    if (!timer->armed)
        return;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    timer->next = NULL;
    timer->armed = false;
}

unsigned reactor_timers_run(struct reactor_timers *t, uint64_t now_ns)
{
    unsigned nr = 0;

    while (t->first && t->first->deadline_ns <= now_ns) {
        struct reactor_timer *timer = t->first;

        /* off the list first: the callback may arm it again, or free it */
        t->first = timer->next;
        timer->next = NULL;
        timer->armed = false;
        timer->on_fire(timer);
        nr++;
    }
    return nr;
}
