/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the wire and the backend: a request becomes a checked blk_io, a finished
 * blk_io becomes a reply.
 */
#ifndef BLOCKER_REQUEST_H
#define BLOCKER_REQUEST_H

#include "blocker/backend.h"

/** What to call on the backend for a request that passed the checks. */
typedef void (*request_call_fn)(struct blk_backend *be, struct blk_io *io);

/**
 * Check `rq` and fill `io` from it.
 *
 * The descriptor lies in shared memory and its sender may go on writing it: every field
 * is read once, into io, and checked there.
 *
 * @param op     the descriptor's op, read once by the caller.
 * @param port   XSEG_PORT_BLOCKERB or _BLOCKERM: which kinds are served.
 * @param align  the backend's alignment of EXTENT writes [bytes].
 * @param call   out: the backend's call, or NULL: the blocker's own affair (PING, NOTIFY).
 * Returns 0; -EINVAL, -EOPNOTSUPP.
 */
int request_decode(struct xseg_segment *seg, uint32_t port, uint32_t align,
                   const struct blk_backend_ops *ops, uint32_t op,
                   const struct xseg_request *rq, struct blk_io *io,
                   request_call_fn *call);

/** Put what the op returns besides its result into the request. */
void request_encode(struct xseg_request *rq, uint32_t op, const struct blk_io *io);

#endif
