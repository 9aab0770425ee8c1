/* SPDX-License-Identifier: Apache-2.0 */
/* Worker threads of one reactor (see jobs.h). */
#include "reactor/jobs.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

static struct reactor_job *wait_for_job(struct reactor_jobs *jobs)
{
    struct reactor_job *job;

    pthread_mutex_lock(&jobs->lock);
    while (!jobs->queue_first && !jobs->ending)
        pthread_cond_wait(&jobs->work, &jobs->lock);
    job = jobs->queue_first;
    if (job) {
        jobs->queue_first = job->next;
        if (!jobs->queue_first)
            jobs->queue_last = NULL;
    }
    pthread_mutex_unlock(&jobs->lock);
    return job;
}

static void give_back(struct reactor_jobs *jobs, struct reactor_job *job)
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
    struct reactor_jobs *jobs = arg;
    struct reactor_job *job;

    while ((job = wait_for_job(jobs))) {
        job->run(job);
        give_back(jobs, job);
    }
    return NULL;
}

/** Start the threads with all signals blocked: handlers run on the caller's threads. */
static int start_workers(struct reactor_jobs *jobs, uint32_t nr_workers)
{
    sigset_t all, before;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!rc && jobs->nr_workers < nr_workers) {
        rc = -pthread_create(&jobs->workers[jobs->nr_workers], NULL, worker_main, jobs);
        if (!rc)
            pthread_setname_np(jobs->workers[jobs->nr_workers++], "reactor-job");
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int reactor_jobs_init(struct reactor_jobs *jobs, uint32_t nr_workers,
                      struct reactor_wake *wake)
{
    int rc;

    *jobs = (struct reactor_jobs){.wake = wake};
    atomic_init(&jobs->finished, NULL);
    jobs->workers = calloc(nr_workers, sizeof *jobs->workers);
    if (!jobs->workers)
        return -ENOMEM;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->work, NULL);
    rc = start_workers(jobs, nr_workers);
    if (rc)
        reactor_jobs_fini(jobs);
    return rc;
}

void reactor_jobs_fini(struct reactor_jobs *jobs)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->ending = true;
    pthread_cond_broadcast(&jobs->work);
    pthread_mutex_unlock(&jobs->lock);
    for (uint32_t i = 0; i < jobs->nr_workers; i++)
        pthread_join(jobs->workers[i], NULL);
    pthread_cond_destroy(&jobs->work);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs->workers);
    jobs->workers = NULL;
}

void reactor_jobs_push(struct reactor_jobs *jobs, struct reactor_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&jobs->lock);
    if (jobs->queue_last)
        jobs->queue_last->next = job;
    else
        jobs->queue_first = job;
    jobs->queue_last = job;
    pthread_cond_signal(&jobs->work);
    pthread_mutex_unlock(&jobs->lock);
}

unsigned reactor_jobs_run_finished(struct reactor_jobs *jobs)
{
    struct reactor_job *newest, *oldest = NULL;
    unsigned nr = 0;

    if (!atomic_load_explicit(&jobs->finished, memory_order_relaxed))
        return 0;
    /* Acquires what the workers' run() wrote; partner: give_back. */
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
