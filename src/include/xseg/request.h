/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request: one record, in shared memory, of one thing a peer asks another.
 *
 * Life: alloc (by the sender) -> fill -> submit -> accept (by the receiver) ->
 * complete -> reap (by the sender) -> free.  From submit to reap the record
 * belongs to the receiver; at all other times to the sender.  Data lies in a
 * heap buffer that the sender owns and lends until the reply is reaped; a peer
 * that splits a request lends parts of the same buffer on.
 *
 * What each op reads and writes is the table in payload.h.
 */
#ifndef XSEG_REQUEST_H
#define XSEG_REQUEST_H

#include <assert.h>
#include <stdint.h>

#include "xseg/layout.h"

struct xseg_port;

/** Operations.  The first 22 keep the numbers of the 2010 protocol. */
enum xseg_op {
    XSEG_OP_PING = 0,
    XSEG_OP_READ = 1,
    XSEG_OP_WRITE = 2,
    XSEG_OP_SYNC = 3,
    XSEG_OP_TRUNCATE = 4,
    XSEG_OP_DELETE = 5,
    XSEG_OP_ACQUIRE = 6,
    XSEG_OP_RELEASE = 7,
    XSEG_OP_COPY = 8,
    XSEG_OP_CLONE = 9,
    XSEG_OP_COMMIT = 10,
    XSEG_OP_INFO = 11,
    XSEG_OP_MAPR = 12,
    XSEG_OP_MAPW = 13,
    XSEG_OP_OPEN = 14,
    XSEG_OP_CLOSE = 15,
    XSEG_OP_SNAPSHOT = 16,
    XSEG_OP_HASH = 17,
    XSEG_OP_CREATE = 18,
    XSEG_OP_RENAME = 19,
    XSEG_OP_FLUSH = 20,
    XSEG_OP_UPDATE = 21,
    XSEG_OP_DISCARD = 22,
    XSEG_OP_ZERO = 23,
    XSEG_OP_APPEND = 24,
    XSEG_OP_LIST = 25,
    XSEG_OP_NOTIFY = 26,
    XSEG_OP_CHANGES = 27,
    XSEG_OP_USAGE = 28,
    XSEG_NR_OPS = 29,
};

/** Request flags. */
enum xseg_flag {
    XSEG_F_FUA = 1u << 0,   /* answer after the data of this request is durable */
    XSEG_F_FLUSH = 1u << 1, /* flush what came before, first */
    XSEG_F_NOSYNC =
        1u << 2, /* do not wait: ACQUIRE fails at once, CREATE may defer sync */
    XSEG_F_FORCE = 1u << 3,  /* RELEASE breaks another's lease; CLOSE ignores users, and
                                at the mapper what was not flushed */
    XSEG_F_RDONLY = 1u << 4, /* OPEN without the lease */
    XSEG_F_HOLD = 1u << 5,   /* OPEN/CLOSE of the administrator, idempotent */
    XSEG_F_ZERO = 1u << 6,   /* MAPW: the range becomes zeros */
    XSEG_F_MORE = 1u << 7,   /* UPDATE of the mapper: first half of a two-step change */
    XSEG_F_LIVE = 1u << 8,   /* READ of an extent that may still change its file */
};

enum xseg_request_state {
    XSEG_RS_FREE = 0,
    XSEG_RS_ALLOCATED = 1, /* the sender fills it */
    XSEG_RS_SUBMITTED = 2, /* in the receiver's request ring */
    XSEG_RS_SERVING = 3,   /* accepted */
    XSEG_RS_DONE = 4,      /* in the sender's reply ring */
};

/** Kinds of stored objects that a blocker names. */
enum xseg_object_kind {
    XSEG_OBJ_NONE = 0,     /* FLUSH/INFO: the whole store of that blocker */
    XSEG_OBJ_CONTENT = 1,  /* id = SHA-256 of the bytes, trailing zeros stripped */
    XSEG_OBJ_EXTENT = 2,   /* id = volume uuid (16) + epoch (u64 LE) + 8 zero bytes */
    XSEG_OBJ_LAYER = 3,    /* id = layer uuid (16) + 16 zero bytes */
    XSEG_OBJ_HEADER = 4,   /* id = SHA-256 of the map's name */
    XSEG_OBJ_JOURNAL = 5,  /* id = volume uuid (16) + journal number (u64 LE) + zeros */
    XSEG_OBJ_LEASE = 6,    /* id = volume uuid (16) + 16 zero bytes */
    XSEG_OBJ_PRESENCE = 7, /* id = instance uuid (16) + 16 zero bytes */
    XSEG_OBJ_CANDIDATES = 8, /* id = instance uuid (16) + batch (u64 LE) + zeros */
    XSEG_OBJ_GENERATION = 9, /* id = zeros: there is one */
    XSEG_NR_OBJECT_KINDS = 10,
};

/** Names one stored object.  Compared as bytes: unused bytes are zero. */
struct xseg_object {
    uint32_t kind; /* enum xseg_object_kind */
    uint32_t reserved;
    uint8_t id[32];
};
static_assert(sizeof(struct xseg_object) == 40, "object name");

#define XSEG_INLINE_BYTES 336u

/** One request: 512 bytes, eight cache lines. */
struct xseg_request {
    uint32_t index;      /* own position in the table; never changes */
    uint32_t generation; /* of src_port when it was allocated */
    uint32_t state;      /* atomic enum xseg_request_state */
    uint32_t op;         /* enum xseg_op */
    uint32_t flags;      /* enum xseg_flag */
    uint32_t src_port;   /* who asked; gets the reply */
    uint32_t dst_port;   /* who serves */
    uint32_t owner_pid;  /* process of src_port */
    uint64_t owner_start;
    int64_t result;        /* bytes or count, or -errno */
    uint64_t handle;       /* open volume, from OPEN's reply */
    uint64_t offset;       /* [bytes] in the volume or object */
    uint64_t size;         /* [bytes] asked */
    uint64_t data_off;     /* segment offset of the data, 0 if none */
    uint64_t data_len;     /* [bytes] lent there */
    uint64_t arg[5];       /* per op, see payload.h */
    uint64_t submitted_ns; /* CLOCK_MONOTONIC at submit, for queue age */
    struct xseg_object object;
    uint8_t inline_data[XSEG_INLINE_BYTES]; /* name on the way in, small results out */
};
static_assert(sizeof(struct xseg_request) == 512, "request");

/**
 * Take a free request descriptor.
 *
 * @param port  the sender's own port; its process becomes the owner.
 * @param out   the descriptor, zeroed but for its identity; NULL on failure.
 * Returns 0, or -ENOBUFS when neither the port's reserve nor the segment has one.
 * Thread-safety: a port is used by one thread at a time.  Blocks: never.
 * After fork / peer death: the descriptor is reclaimed by xseg_reap().
 */
int xseg_request_alloc(struct xseg_port *port, struct xseg_request **out);

/**
 * Give a descriptor back.  It must be ALLOCATED or DONE, and owned by `port`.
 * The data buffer it names is not touched: it stays the caller's.
 */
void xseg_request_free(struct xseg_port *port, struct xseg_request *rq);

/**
 * Send a filled descriptor to `dst_port`, ringing its doorbell if it sleeps.
 *
 * Returns 0; -EPIPE when nobody is bound there; -EAGAIN when the ring is full
 * (the caller still owns the descriptor in both cases); -EINVAL for a port
 * number outside the segment.
 * Thread-safety: many senders may submit to one port at once.  Blocks: never.
 */
int xseg_request_submit(struct xseg_port *port, struct xseg_request *rq,
                        uint32_t dst_port);

/** Take the next request sent to this port, or NULL.  Its state becomes SERVING. */
struct xseg_request *xseg_port_accept(struct xseg_port *port);

/**
 * Answer an accepted request: set its result and put it in the sender's reply
 * ring, ringing the sender's doorbell if it sleeps.
 *
 * @param result  bytes or count, or a negated errno.
 * Returns 0; -EPIPE when the sender's port is gone (the descriptor is freed); -EINVAL
 * when this port is not serving `rq` (nothing happens but a count in stats.dropped).
 */
int xseg_request_complete(struct xseg_port *port, struct xseg_request *rq,
                          int64_t result);

/** Take the next reply to this port, or NULL.  The descriptor is the caller's again. */
struct xseg_request *xseg_port_reap(struct xseg_port *port);

/** The op's name, "READ"; "?" for a number outside the enumeration. */
const char *xseg_op_name(uint32_t op);

/** The state's name in lower case, "serving"; "?" if unknown. */
const char *xseg_request_state_name(uint32_t state);

#endif
