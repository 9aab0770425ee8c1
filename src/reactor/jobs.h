/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads for what blocks, by lane: each lane has a queue and threads of its own,
 * so that jobs of one never wait for jobs of another.
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

#define REACTOR_LANE_WORKERS_MAX 8u

struct reactor_jobs;

struct reactor_lane_queue {
    struct reactor_jobs *jobs;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct reactor_job *first, *last;
    uint32_t nr_queued;
    uint32_t nr_idle; /* workers that wait for a job */
    uint32_t nr_workers, max_workers;
    bool ending;
    pthread_t workers[REACTOR_LANE_WORKERS_MAX];
};

struct reactor_jobs {
    struct reactor_lane_queue lanes[REACTOR_NR_LANES];
    _Atomic(struct reactor_job *) finished; /* newest first */
    struct reactor_wake *wake;
};

/**
 * Start one thread for each lane; more are started when they are needed.
 * @param max_workers  threads of a lane at most; 0: as many as the lane usually has.
 * @param wake         outlives the threads.
 * Returns 0 or -errno.
 */
int reactor_jobs_init(struct reactor_jobs *jobs, uint32_t max_workers,
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
