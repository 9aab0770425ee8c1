/* SPDX-License-Identifier: Apache-2.0 */
/* Worker threads of one reactor, by lane (see jobs.h). */
#include "reactor/jobs.h"

#include <errno.h>
#include <signal.h>

/** Threads of a lane at most.  A blocked thread costs memory and no time, and one that
 *  waits for a disk lets others share its flush. */
static const uint32_t lane_workers[REACTOR_NR_LANES] = {
    [REACTOR_LANE_BULK] = 4, [REACTOR_LANE_SYNC] = 8,  [REACTOR_LANE_DATA] = 4,
    [REACTOR_LANE_MAP] = 8,  [REACTOR_LANE_VITAL] = 2,
};

static struct reactor_job *lane_take(struct reactor_lane_queue *lane)
{
    struct reactor_job *job;

    pthread_mutex_lock(&lane->lock);
    lane->nr_idle++;
    while (!lane->first && !lane->ending)
        pthread_cond_wait(&lane->work, &lane->lock);
    lane->nr_idle--;
    job = lane->first;
    if (job) {
        lane->first = job->next;
        lane->nr_queued--;
        if (!lane->first)
            lane->last = NULL;
    }
    pthread_mutex_unlock(&lane->lock);
    return job;
}

static void job_give_back(struct reactor_jobs *jobs, struct reactor_job *job)
{
    struct reactor_job *head =
        atomic_load_explicit(&jobs->finished, memory_order_relaxed);

    do {
        job->next = head;
        /* Releases what run() wrote to the reactor's exchange; sequentially consistent
         * because reactor_wake_kick looks at the sleep flag after it. */
    } while (!atomic_compare_exchange_weak(&jobs->finished, &head, job));
    reactor_wake_kick(jobs->wake);
}

static void *worker_main(void *arg)
{
    struct reactor_lane_queue *lane = arg;
    struct reactor_job *job;

    while ((job = lane_take(lane))) {
        job->run(job);
        job_give_back(lane->jobs, job);
    }
    return NULL;
}

/** Start a thread with all signals blocked: handlers run on the caller's threads. */
static int lane_start_worker_locked(struct reactor_lane_queue *lane)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(&lane->workers[lane->nr_workers], NULL, worker_main, lane);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_setname_np(lane->workers[lane->nr_workers++], "reactor-job");
    return rc;
}

static int lane_init(struct reactor_lane_queue *lane, struct reactor_jobs *jobs,
                     uint32_t max_workers)
{
    *lane = (struct reactor_lane_queue){.jobs = jobs, .max_workers = max_workers};
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->work, NULL);
    pthread_mutex_lock(&lane->lock);
    int rc = lane_start_worker_locked(lane);
    pthread_mutex_unlock(&lane->lock);
    return rc;
}

static void lane_fini(struct reactor_lane_queue *lane)
{
    pthread_mutex_lock(&lane->lock);
    lane->ending = true;
    pthread_cond_broadcast(&lane->work);
    pthread_mutex_unlock(&lane->lock);
    for (uint32_t i = 0; i < lane->nr_workers; i++)
        pthread_join(lane->workers[i], NULL);
    pthread_cond_destroy(&lane->work);
    pthread_mutex_destroy(&lane->lock);
}

int reactor_jobs_init(struct reactor_jobs *jobs, uint32_t max_workers,
                      struct reactor_wake *wake)
{
    jobs->wake = wake;
    atomic_init(&jobs->finished, NULL);
    for (uint32_t i = 0; i < REACTOR_NR_LANES; i++) {
        uint32_t max = lane_workers[i];
        if (max_workers && max_workers < REACTOR_LANE_WORKERS_MAX)
            max = max_workers;
        int rc = lane_init(&jobs->lanes[i], jobs, max);
        if (rc == 0)
            continue;
        for (uint32_t begun = 0; begun <= i; begun++)
            lane_fini(&jobs->lanes[begun]);
        return rc;
    }
    return 0;
}

void reactor_jobs_fini(struct reactor_jobs *jobs)
{
    for (uint32_t i = 0; i < REACTOR_NR_LANES; i++)
        lane_fini(&jobs->lanes[i]);
}

void reactor_jobs_push(struct reactor_jobs *jobs, struct reactor_job *job)
{
    struct reactor_lane_queue *lane = &jobs->lanes[job->lane];

    job->next = NULL;
    pthread_mutex_lock(&lane->lock);
    if (lane->last)
        lane->last->next = job;
    else
        lane->first = job;
    lane->last = job;
    lane->nr_queued++;
    /* If no thread can be had, the ones that are there do it later. */
    if (lane->nr_idle < lane->nr_queued && lane->nr_workers < lane->max_workers)
        (void)lane_start_worker_locked(lane);
    pthread_cond_signal(&lane->work);
    pthread_mutex_unlock(&lane->lock);
}

unsigned reactor_jobs_run_finished(struct reactor_jobs *jobs)
{
    struct reactor_job *newest, *oldest = NULL;
    unsigned nr = 0;

    if (!atomic_load_explicit(&jobs->finished, memory_order_relaxed))
        return 0;
    /* Acquires what the workers' run() wrote; partner: job_give_back. */
    newest = atomic_exchange_explicit(&jobs->finished, NULL, memory_order_acquire);
    while (newest) {
        struct reactor_job *job = newest;
        newest = job->next;
        job->next = oldest;
        oldest = job;
    }
    while (oldest) {
        struct reactor_job *job = oldest;
        oldest = job->next; /* done() may free or offload the job again */
        job->done(job);
        nr++;
    }
    return nr;
}
