/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NOTIFY: who was granted a lease through this port is told when it is another's.
 */
#ifndef BLOCKER_LEASE_WATCH_H
#define BLOCKER_LEASE_WATCH_H

#include <stdbool.h>

#include "blocker/backend.h"
#include "common/list.h"

struct lease_watch;

/** Watch leases of `backend`, answer from `port`.  0 or -ENOMEM. */
int lease_watch_create(struct reactor *r, struct blk_backend *backend,
                       struct xseg_port *port, struct lease_watch **out);
/** Not while it is busy.  The one that waits is answered -ECANCELED.  NULL is fine. */
void lease_watch_destroy(struct lease_watch *w);

/** An op that came through this port, from its start to its end. */
struct lease_watch_op {
    struct list link;
    const struct blk_io *io;
};

/** It starts; what is found of its lease meanwhile may be its own doing. */
void lease_watch_begin(struct lease_watch *w, struct lease_watch_op *op,
                       const struct blk_io *io);
/** It ended, with its result in the io.  @param what  enum xseg_op */
void lease_watch_end(struct lease_watch *w, struct lease_watch_op *op, uint32_t what);

/** Answer `rq`, now or later; who waited before is answered -ECANCELED. */
void lease_watch_wait(struct lease_watch *w, struct xseg_request *rq);

/** Cancel who waits and look at nothing more; idle(arg) when that is so, maybe at once.
 */
void lease_watch_stop(struct lease_watch *w, void (*idle)(void *arg), void *arg);

#endif
