/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reactor: one thread that runs peers to completion.
 *
 * One loop over segment ports, file descriptors, timers, polled sources (an io_uring)
 * and finished blocking jobs.  A callback never blocks; what must block is a job.
 * Everything here is called on the reactor's thread unless it says otherwise.
 *
 * Submitting to a port of the same reactor is a queue push: the loop visits all its
 * ports before it sleeps, so no system call is made.
 */
#ifndef REACTOR_REACTOR_H
#define REACTOR_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/xseg.h"

struct reactor;

struct reactor_options {
    uint32_t nr_workers; /* threads of each lane of jobs; 0: as the lanes need */
};

/**
 * Make a reactor.
 *
 * @param seg      attached segment; must outlive the reactor.
 * @param options  NULL takes every default.
 * @param out      the reactor, to be freed with reactor_destroy; NULL on failure.
 * Returns 0; -ENOMEM; -EMFILE, -ENFILE when descriptors, -EAGAIN when threads run out.
 */
int reactor_create(struct xseg_segment *seg, const struct reactor_options *options,
                   struct reactor **out);

/**
 * Free it.  Not while it runs; fds, timers, pollers and ports are removed first.
 * Jobs that were offloaded still run, without their `done`.  Blocks until they ended.
 */
void reactor_destroy(struct reactor *r);

/** Run until reactor_stop.  Returns 0, or -errno if the loop itself failed. */
int reactor_run(struct reactor *r);

/**
 * Make reactor_run return after the current turn, or at once if it does not run yet.
 * Any thread, signal-safe.
 */
void reactor_stop(struct reactor *r);

/** Make reactor_run return `error` (-errno): what this loop serves cannot go on. */
void reactor_fail(struct reactor *r, int error);

struct xseg_segment *reactor_segment(struct reactor *r);
uint64_t reactor_now_ns(struct reactor *r); /* CLOCK_MONOTONIC, cached per turn */

/** What the loop did since it was made.  For tests and benchmarks. */
struct reactor_statistics {
    uint64_t turns;
    uint64_t sleeps;          /* waits in epoll_wait */
    uint64_t unknown_replies; /* dropped: no request waited for them */
};
void reactor_statistics(const struct reactor *r, struct reactor_statistics *out);

/* ---- ports ------------------------------------------------------------------- */

/** What a peer does with a request sent to its port: answer now or later, once. */
typedef void reactor_request_fn(void *ctx, struct xseg_request *rq);

/**
 * Serve a port.  All ports of a reactor share one doorbell.
 *
 * @param port        bound by the caller; stays bound until after reactor_remove_port.
 * @param on_request  NULL for a port that only sends: requests to it get -EOPNOTSUPP.
 * Returns 0; -ENOMEM; the error of the doorbell's thread or descriptor for the first.
 */
int reactor_add_port(struct reactor *r, struct xseg_port *port,
                     reactor_request_fn *on_request, void *ctx);
/** Replies to what it sent are dropped from now on: their callbacks are forgotten. */
void reactor_remove_port(struct reactor *r, struct xseg_port *port);

/** Reply to a request this reactor sent.  `rq` is the sender's again; it frees it. */
typedef void reactor_reply_fn(void *arg, struct xseg_request *rq);

/**
 * Send `rq` from `port` (one of this reactor's) and call `done(arg, rq)` with the
 * reply. If it cannot be sent (-EPIPE, ...), `done` is called on the next turn with
 * that error in rq->result: callers have one error path.
 */
void reactor_submit(struct reactor *r, struct xseg_port *port, struct xseg_request *rq,
                    uint32_t dst_port, reactor_reply_fn *done, void *arg);

/* ---- file descriptors ---------------------------------------------------------- */

struct reactor_fd {
    int fd;
    uint32_t events; /* EPOLLIN | EPOLLOUT | ...; level triggered */
    void (*on_ready)(struct reactor_fd *self, uint32_t events);
};
int reactor_add_fd(struct reactor *r, struct reactor_fd *fd);
int reactor_mod_fd(struct reactor *r, struct reactor_fd *fd, uint32_t events);
/** Safe from inside callbacks: an event already fetched for it is dropped. */
void reactor_del_fd(struct reactor *r, struct reactor_fd *fd);

/* ---- timers ------------------------------------------------------------------ */

struct reactor_timer {
    uint64_t deadline_ns; /* CLOCK_MONOTONIC */
    void (*on_fire)(struct reactor_timer *self);
    struct reactor_timer *next; /* private: sorted list */
    bool armed;                 /* private */
};
/** Fire once after `delay_ns`; re-arming an armed timer moves it. */
void reactor_arm_timer(struct reactor *r, struct reactor_timer *t, uint64_t delay_ns);
void reactor_disarm_timer(struct reactor *r, struct reactor_timer *t);

/* ---- polled sources and deferred work ---------------------------------------- */

/**
 * A source visited once per turn: it pushes what it has queued (submits its SQEs) and
 * handles what is ready.  Returns how many completions it handled.
 */
struct reactor_poller {
    int (*poll)(struct reactor_poller *self);
    struct reactor_poller *next; /* private */
};
void reactor_add_poller(struct reactor *r, struct reactor_poller *p);
void reactor_remove_poller(struct reactor *r, struct reactor_poller *p);

/** Run `fn(self)` on the next turn, before ports are visited.  Not while it waits to.
 */
struct reactor_task {
    void (*fn)(struct reactor_task *self);
    struct reactor_task *next; /* private */
};
void reactor_defer(struct reactor *r, struct reactor_task *t);

/**
 * Run `fn(self)` on the reactor's thread, soon.  From any thread, also one that the
 * reactor does not know (a client library's).  The task is the caller's memory until fn
 * runs, and waits only once at a time: so posting never fails.  Tasks run in the order
 * in which they were posted; those that wait when the reactor is destroyed never run.
 */
void reactor_post(struct reactor *r, struct reactor_task *t);

/* ---- blocking jobs -------------------------------------------------------------- */

/** Jobs of one lane never wait for jobs of another. */
enum reactor_lane {
    REACTOR_LANE_BULK,  /* may take long: content, copies, seals, listings, removals */
    REACTOR_LANE_SYNC,  /* flushes of data */
    REACTOR_LANE_DATA,  /* reads and writes of data */
    REACTOR_LANE_MAP,   /* short: headers, journals, leases, opening of files */
    REACTOR_LANE_VITAL, /* an instance's heartbeat, and nothing else */
    REACTOR_NR_LANES,
};

struct reactor_job {
    void (*run)(struct reactor_job *self);  /* on a worker thread; may block */
    void (*done)(struct reactor_job *self); /* on the reactor's thread */
    enum reactor_lane lane;
    struct reactor_job *next; /* private */
};
/** In one lane, jobs start in the order of their offloading; several run at once. */
void reactor_offload(struct reactor *r, struct reactor_job *job);

/* ---- peers -------------------------------------------------------------------- */

/**
 * What a peer looks like to its starter (src/peer/native.c).  Each peer's public
 * header has one `<peer>_create(struct reactor *, const struct <peer>_options *,
 * struct peer **)`; stop() begins an orderly end (drain, flush, close) and calls
 * `stopped(arg)` on the reactor's thread when nothing is left in flight.
 *
 * hurry(), which may be NULL, comes before the first stop() of peers that end together:
 * a peer that ends first may wait for answers of the others, which must then no longer
 * wait for the dead.
 */
struct peer {
    const char *role;
    void (*stop)(struct peer *self, void (*stopped)(void *arg), void *arg);
    void (*hurry)(struct peer *self);
    void (*destroy)(struct peer *self);
};

#endif
