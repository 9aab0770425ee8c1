/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reactor's loop (see reactor.h).
 *
 * A turn: deferred and posted tasks, requests that could not be sent, ports, pollers,
 * timers, finished jobs.  While turns make progress no system call is made, except that file
 * descriptors are looked at once in a while.  A turn without progress is followed by a
 * sleep in epoll_wait, and that one call is also how sockets are read at low load: so a
 * request over a socket costs one epoll_wait.  After the sleep there is always a full
 * turn.
 *
 * Runs on the thread that calls reactor_run; other threads only touch `stop` and what
 * wake.h and jobs.h own.
 */
#include "reactor/reactor.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "reactor/fds.h"
#include "reactor/jobs.h"
#include "reactor/pending.h"
#include "reactor/ports.h"
#include "reactor/posts.h"
#include "reactor/timers.h"
#include "reactor/wake.h"

/** Busy turns between two looks at the file descriptors. */
#define TURNS_PER_POLL 8u
/** Longest look at the rings before a sleep [rounds; one takes some ten ns]. */
#define SPIN_MAX 64u
#define SPIN_MIN 4u
/** Sleeps after which a reactor that gave up spinning tries it again. */
#define SPIN_RETRY 64u

struct reactor {
    struct xseg_segment *seg;
    bool running;
    uint64_t now_ns; /* 0: not read in this turn */
    atomic_uint stop;
    int error; /* -errno of the loop itself: ends reactor_run */

    struct reactor_fds fds;
    struct reactor_pending pending;
    struct reactor_ports ports;
    struct reactor_timers timers;
    struct reactor_jobs jobs;
    struct reactor_posts posts;
    struct reactor_wake wake;
    struct reactor_fd wake_fd;

    struct reactor_poller *pollers;
    struct reactor_poller *next_poller; /* to visit in this turn */
    struct reactor_task *tasks_first, *tasks_last;

    uint32_t turns_since_poll;
    uint32_t spin_rounds;
    uint32_t sleeps_since_spin;
    struct reactor_statistics statistics;
};

static void on_wake(struct reactor_fd *self, uint32_t events)
{
    struct reactor *r =
        (struct reactor *)(void *)((char *)self - offsetof(struct reactor, wake_fd));
    (void)events;
    reactor_wake_drain(&r->wake);
}

int reactor_create(struct xseg_segment *seg, const struct reactor_options *options,
                   struct reactor **out)
{
    uint32_t nr_workers = options ? options->nr_workers : 0;
    struct reactor *r = calloc(1, sizeof *r);
    int rc;

    *out = NULL;
    if (!r)
        return -ENOMEM;
    r->seg = seg;
    r->spin_rounds = SPIN_MAX;
    atomic_init(&r->stop, 0);
    rc = reactor_fds_init(&r->fds);
    if (rc)
        goto fail_free;
    rc = reactor_pending_init(&r->pending, seg);
    if (rc)
        goto fail_fds;
    reactor_ports_init(&r->ports, &r->fds, &r->pending);
    rc = reactor_wake_init(&r->wake);
    if (rc)
        goto fail_pending;
    reactor_posts_init(&r->posts, &r->wake);
    r->wake_fd = (struct reactor_fd){r->wake.fd, EPOLLIN, on_wake};
    rc = reactor_fds_add(&r->fds, &r->wake_fd);
    if (rc)
        goto fail_wake;
    rc = reactor_jobs_init(&r->jobs, nr_workers, &r->wake);
    if (rc)
        goto fail_wake;
    *out = r;
    return 0;

fail_wake:
    reactor_wake_fini(&r->wake);
fail_pending:
    reactor_pending_fini(&r->pending);
fail_fds:
    reactor_fds_fini(&r->fds);
fail_free:
    free(r);
    return rc;
}

void reactor_destroy(struct reactor *r)
{
    if (!r)
        return;
    reactor_jobs_fini(&r->jobs);
    reactor_ports_fini(&r->ports);
    reactor_wake_fini(&r->wake);
    reactor_pending_fini(&r->pending);
    reactor_fds_fini(&r->fds);
    free(r);
}

struct xseg_segment *reactor_segment(struct reactor *r)
{
    return r->seg;
}

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t reactor_now_ns(struct reactor *r)
{
    if (!r->running)
        return clock_ns();
    if (!r->now_ns)
        r->now_ns = clock_ns();
    return r->now_ns;
}

void reactor_statistics(const struct reactor *r, struct reactor_statistics *out)
{
    *out = r->statistics;
    out->unknown_replies = r->pending.nr_unknown;
}

/* ---- one turn ------------------------------------------------------------------ */

static unsigned run_tasks(struct reactor *r)
{
    struct reactor_task *task = r->tasks_first;
    unsigned nr = 0;

    r->tasks_first = r->tasks_last = NULL;
    while (task) {
        struct reactor_task *next = task->next; /* fn may free it or defer it again */

        task->next = NULL;
        task->fn(task);
        task = next;
        nr++;
    }
    return nr;
}

static unsigned run_pollers(struct reactor *r)
{
    struct reactor_poller *poller = r->pollers;
    unsigned nr = 0;

    while (poller) {
        int handled;

        r->next_poller = poller->next; /* kept right by reactor_remove_poller */
        handled = poller->poll(poller);
        if (handled > 0)
            nr += (unsigned)handled;
        poller = r->next_poller;
    }
    r->next_poller = NULL;
    return nr;
}

static unsigned run_timers(struct reactor *r)
{
    if (!r->timers.first)
        return 0;
    return reactor_timers_run(&r->timers, reactor_now_ns(r));
}

/** Returns how much was done; 0 means nothing is left but to wait. */
static unsigned run_turn(struct reactor *r)
{
    unsigned nr = 0;

    r->now_ns = 0;
    r->statistics.turns++;
    nr += run_tasks(r);
    nr += reactor_posts_run(&r->posts);
    nr += reactor_pending_run_failed(&r->pending);
    nr += reactor_ports_visit(&r->ports);
    nr += run_pollers(r);
    nr += run_timers(r);
    nr += reactor_jobs_run_finished(&r->jobs);
    return nr;
}

static void fetch_and_run_fds(struct reactor *r, int timeout_ms)
{
    int nr = reactor_fds_wait(&r->fds, timeout_ms);

    r->turns_since_poll = 0;
    r->now_ns = 0;
    if (nr < 0)
        r->error = nr;
    else if (nr > 0)
        reactor_fds_run(&r->fds);
}

/* ---- sleeping ------------------------------------------------------------------ */

/** Is there anything that does not come through a file descriptor? */
static bool work_waiting(struct reactor *r)
{
    return r->tasks_first || r->pending.failed_first || r->error ||
           atomic_load(&r->stop) || reactor_jobs_any_finished(&r->jobs) ||
           reactor_posts_any(&r->posts) || reactor_ports_waiting(&r->ports);
}

/**
 * Look at the rings a little longer before paying for a sleep.  Worth it where peers
 * in other processes answer at once, useless where all news comes from sockets: the
 * length follows what it gained.
 */
static bool spin(struct reactor *r)
{
    if (r->spin_rounds < SPIN_MIN && ++r->sleeps_since_spin < SPIN_RETRY)
        return false;
    if (r->spin_rounds < SPIN_MIN)
        r->spin_rounds = SPIN_MIN;
    r->sleeps_since_spin = 0;
    for (uint32_t i = 0; i < r->spin_rounds; i++) {
        if (work_waiting(r)) {
            r->spin_rounds = SPIN_MAX;
            return true;
        }
    }
    r->spin_rounds /= 2;
    return false;
}

/** How long nothing is due [ms], rounded up; -1: for ever. */
static int sleep_ms(struct reactor *r)
{
    uint64_t now, left_ms;

    if (!r->timers.first)
        return -1;
    now = clock_ns();
    if (r->timers.first->deadline_ns <= now)
        return 0;
    left_ms = (r->timers.first->deadline_ns - now + 999999) / 1000000;
    return left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

static void sleep_until_news(struct reactor *r)
{
    struct xseg_port *bell = r->ports.bell;

    reactor_wake_arm(&r->wake);
    if (bell)
        xseg_bell_arm(bell);
    /* what arrived before the bells were armed rang none: look once more */
    if (work_waiting(r)) {
        if (bell)
            xseg_bell_disarm(bell);
        reactor_wake_disarm(&r->wake);
        return;
    }
    r->statistics.sleeps++;
    r->now_ns = 0;
    r->turns_since_poll = 0;
    int nr = reactor_fds_wait(&r->fds, sleep_ms(r));
    if (bell)
        xseg_bell_disarm(bell);
    reactor_wake_disarm(&r->wake);
    if (nr < 0)
        r->error = nr;
    else
        reactor_fds_run(&r->fds);
}

int reactor_run(struct reactor *r)
{
    r->running = true;
    while (!atomic_load_explicit(&r->stop, memory_order_relaxed) && !r->error) {
        if (run_turn(r)) {
            if (++r->turns_since_poll >= TURNS_PER_POLL)
                fetch_and_run_fds(r, 0);
        } else if (!spin(r)) {
            sleep_until_news(r);
        }
    }
    r->running = false;
    /* acquires what the stopping thread wrote before reactor_stop */
    atomic_exchange_explicit(&r->stop, 0, memory_order_acquire);
    return r->error;
}

void reactor_stop(struct reactor *r)
{
    atomic_store(&r->stop, 1);
    reactor_wake_kick(&r->wake);
}

void reactor_fail(struct reactor *r, int error)
{
    if (!r->error)
        r->error = error;
}

/* ---- ports and requests ------------------------------------------------------------
 */

int reactor_add_port(struct reactor *r, struct xseg_port *port,
                     reactor_request_fn *on_request, void *ctx)
{
    return reactor_ports_add(&r->ports, port, on_request, ctx);
}

void reactor_remove_port(struct reactor *r, struct xseg_port *port)
{
    int rc = reactor_ports_remove(&r->ports, port);

    if (rc && !r->error)
        r->error = rc; /* without a doorbell the loop could sleep through requests */
}

void reactor_submit(struct reactor *r, struct xseg_port *port, struct xseg_request *rq,
                    uint32_t dst_port, reactor_reply_fn *done, void *arg)
{
    int rc;

    /* before it is sent: afterwards the descriptor is the receiver's */
    reactor_pending_add(&r->pending, rq, xseg_port_id(port), done, arg);
    rc = xseg_request_submit(port, rq, dst_port);
    if (rc)
        reactor_pending_fail(&r->pending, rq, rc);
}

/* ---- descriptors, timers, pollers, tasks, jobs
 * --------------------------------------- */

int reactor_add_fd(struct reactor *r, struct reactor_fd *fd)
{
    return reactor_fds_add(&r->fds, fd);
}

int reactor_mod_fd(struct reactor *r, struct reactor_fd *fd, uint32_t events)
{
    return reactor_fds_mod(&r->fds, fd, events);
}

void reactor_del_fd(struct reactor *r, struct reactor_fd *fd)
{
    reactor_fds_del(&r->fds, fd);
}

void reactor_arm_timer(struct reactor *r, struct reactor_timer *t, uint64_t delay_ns)
{
    uint64_t now = reactor_now_ns(r);

    if (delay_ns == 0)
        delay_ns =
            1; /* the next turn: a timer that re-arms itself must not stay in this */
    if (delay_ns > UINT64_MAX - now)
        delay_ns = UINT64_MAX - now;
    reactor_timers_arm(&r->timers, t, now + delay_ns);
}

void reactor_disarm_timer(struct reactor *r, struct reactor_timer *t)
{
    reactor_timers_disarm(&r->timers, t);
}

void reactor_add_poller(struct reactor *r, struct reactor_poller *p)
{
    p->next = r->pollers;
    r->pollers = p;
}

void reactor_remove_poller(struct reactor *r, struct reactor_poller *p)
{
    struct reactor_poller **at = &r->pollers;

    while (*at && *at != p)
        at = &(*at)->next;
    if (!*at)
        return;
    if (r->next_poller == p)
        r->next_poller = p->next;
    *at = p->next;
    p->next = NULL;
}

void reactor_defer(struct reactor *r, struct reactor_task *t)
{
    t->next = NULL;
    if (r->tasks_last)
        r->tasks_last->next = t;
    else
        r->tasks_first = t;
    r->tasks_last = t;
}

void reactor_post(struct reactor *r, struct reactor_task *t)
{
    reactor_posts_push(&r->posts, t);
}

void reactor_offload(struct reactor *r, struct reactor_job *job)
{
    reactor_jobs_push(&r->jobs, job);
}
