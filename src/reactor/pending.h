/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that this reactor sent and whose replies are due: which callback gets each.
 *
 * The table is in private memory and indexed by the request's place in the segment,
 * so that nothing another process writes there can choose what is called here.
 */
#ifndef REACTOR_PENDING_H
#define REACTOR_PENDING_H

#include "reactor/reactor.h"

struct reactor_pending_entry {
    reactor_reply_fn *done; /* NULL: nothing is due */
    void *arg;
    uint32_t port;        /* that sent it and must get the reply */
    uint32_t next_failed; /* index + 1 of the next that could not be sent; 0 ends */
    int32_t error;        /* -errno of one that could not be sent */
};

struct reactor_pending {
    struct xseg_segment *seg;
    struct reactor_pending_entry *entries;
    uint32_t nr_entries;
    uint32_t failed_first, failed_last; /* index + 1 */
    uint32_t nr_failed;
    uint64_t nr_unknown; /* replies that no request waited for */
};

/** 0 or -ENOMEM. */
int reactor_pending_init(struct reactor_pending *p, struct xseg_segment *seg);
void reactor_pending_fini(struct reactor_pending *p);

/** Remember which callback gets the reply to `rq`. */
void reactor_pending_add(struct reactor_pending *p, const struct xseg_request *rq,
                         uint32_t port, reactor_reply_fn *done, void *arg);

/** `rq`, just added, could not be sent: queue its callback for the next turn. */
void reactor_pending_fail(struct reactor_pending *p, const struct xseg_request *rq,
                          int error);

/** Call those whose requests could not be sent before this call.  Returns how many. */
unsigned reactor_pending_run_failed(struct reactor_pending *p);

/** Hand a reply that came to `port` to its callback; drop and count an unknown one. */
void reactor_pending_reply(struct reactor_pending *p, uint32_t port,
                           struct xseg_request *rq);

/** Forget what `port` sent: its replies will not come. */
void reactor_pending_forget_port(struct reactor_pending *p, uint32_t port);

#endif
