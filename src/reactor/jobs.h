/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads for what blocks.
 *
 * Jobs go to the workers through a locked queue and come back through a lock-free
 * stack, which the reactor empties once per turn.
 */
#ifndef REACTOR_JOBS_H
#define REACTOR_JOBS_H

#include <pthread.h>
#include <stdatomic.h>

#include "reactor/reactor.h"
#include "reactor/wake.h"

struct reactor_jobs {
    pthread_mutex_t lock; /* guards queue_first, queue_last, ending */
    pthread_cond_t work;
    struct reactor_job *queue_first, *queue_last;
    bool ending;
    uint32_t nr_workers;
    pthread_t *workers;
    _Atomic(struct reactor_job *) finished; /* newest first */
    struct reactor_wake *wake;
};

/** Start `nr_workers` threads.  `wake` outlives them.  0 or -errno. */
int reactor_jobs_init(struct reactor_jobs *jobs, uint32_t nr_workers,
                      struct reactor_wake *wake);

/** Let the workers run what is queued and end.  `done` of those is not called. */
void reactor_jobs_fini(struct reactor_jobs *jobs);

void reactor_jobs_push(struct reactor_jobs *jobs, struct reactor_job *job);

/** Call `done` of finished jobs, oldest first.  Returns how many. */
unsigned reactor_jobs_run_finished(struct reactor_jobs *jobs);

static inline bool reactor_jobs_any_finished(struct reactor_jobs *jobs)
{
    /* Sequentially consistent: looked at after reactor_wake_arm, see wake.c. */
    return atomic_load(&jobs->finished) != NULL;
}

#endif
