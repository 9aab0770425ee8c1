/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process keeps about its attachment and its ports, and the shared words they
 * name.
 *
 * Nothing that bounds an access is read from the segment after attaching: sizes and
 * offsets live here, in private memory.
 */
#ifndef XSEG_INTERNAL_H
#define XSEG_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "xseg/atomics.h"
#include "xseg/heap.h"
#include "xseg/layout.h"
#include "xseg/owner.h"
#include "xseg/request.h"
#include "xseg/ring.h"
#include "xseg/segment.h"

/** Sizes and places of everything; a function of three numbers (segment_geometry_init).
 */
struct segment_geometry {
    uint32_t nr_ports;
    uint32_t nr_requests;
    uint64_t ports_off;
    uint64_t rings_off;
    uint64_t requests_off;
    uint64_t request_map_off;
    uint64_t heap_table_off;
    uint64_t heap_off;
    uint64_t heap_bytes;
    uint64_t size_bytes;
};

/* Bits of a port's `rescan` word: what its owner must look for in the table. */
#define PORT_RESCAN_REPLIES  1u
#define PORT_RESCAN_REQUESTS 2u

/* dst_port of a descriptor in a port's reserve: not the caller's, so not to be freed.
 */
#define REQUEST_PARKED UINT32_MAX

struct xseg_segment {
    unsigned char *base;
    struct xseg_header *header;
    struct xseg_port_shared *ports;
    struct xseg_request *requests;
    struct segment_geometry geo;
    struct heap_geometry heap;
    int fd;              /* of its file: for owner words that are locks */
    uint8_t boot_id[16]; /* what owner words that name a pid belong to */
    uint64_t pid_namespace;
    uint64_t self; /* owner word of this attachment (owner.h) */
    uint32_t pid;
    uint64_t start;
    uint32_t heap_hint[HEAP_NR_CLASSES]; /* atomic; where to look first */
    char name[201];
};

struct xseg_port {
    struct xseg_segment *seg;
    struct xseg_port_shared *slot;
    struct ring requests, replies;
    uint32_t id;
    uint32_t generation;   /* of this binding */
    uint32_t request_hint; /* where to look for a free descriptor first */
    uint32_t spin;         /* turns of the next spin before a sleep; follows success */
    /* descriptors kept for this port alone, as indices */
    uint32_t *reserve;
    uint32_t nr_reserve;     /* now in it */
    uint32_t reserve_target; /* kept */
    /* next descriptor of a running scan of the table; nr_requests: none runs */
    uint32_t requests_rescan_at;
    uint32_t replies_rescan_at;
    /* doorbell as an eventfd (bell.c) */
    int bell_fd;
    bool bell_running;
    uint32_t bell_quit;    /* atomic */
    uint32_t bell_seen;    /* bell_word when the helper was started */
    uint32_t bell_written; /* atomic; times the helper wrote the eventfd */
    uint32_t bell_drained; /* bell_written when it was last emptied */
    pthread_t bell_thread;
};

/* ---- segment.c ---- */
struct ring segment_ring(const struct xseg_segment *seg, uint32_t port, bool replies);

/** Index of a descriptor of this segment, or FREEMAP_NONE for any other address. */
uint32_t segment_request_index(const struct xseg_segment *seg,
                               const struct xseg_request *rq);

/* ---- request.c ---- */
/** Say of all free descriptors that they are.  At creation, and after a death. */
void request_mend(struct xseg_segment *seg);

/** Free a descriptor that is in `from_state`.  False if it no longer is. */
bool request_release(struct xseg_segment *seg, uint32_t index, uint32_t from_state);

/** True if the sender of `rq` is still bound to its port. */
bool request_sender_bound(const struct xseg_segment *seg,
                          const struct xseg_request *rq);

/** What `op` holds from the claim of a descriptor until its owner is signed. */
#define REQUEST_CLAIM_MARK UINT32_C(0xc1a10000) /* | port */

/** True if `rq` was allocated by that binding of that port.  For a signed descriptor.
 */
static inline bool request_is_of(const struct xseg_request *rq, uint32_t port,
                                 uint32_t generation)
{
    return load32_relaxed(&rq->src_port) == port &&
           load32_relaxed(&rq->generation) == generation;
}

static inline uint64_t port_owner(const struct xseg_port_shared *slot)
{
    return load64_relaxed(&slot->owner);
}

/* ---- wait.c ---- */
/** Wake the owner of a port if it sleeps; no system call if it does not. */
void bell_ring(const struct xseg_segment *seg, struct xseg_port_shared *slot);
/** Wake it in any case: a sender may have died half-way through ringing. */
void bell_force(const struct xseg_segment *seg, struct xseg_port_shared *slot);
struct xseg_port_shared *bell_slot(const struct xseg_port *port);

/* ---- bell.c ---- */
void bell_stop(struct xseg_port *port);

/* ---- rlock.c ---- */
/** Take the segment's lock: for bind, unbind and reap.  A holder that is proven dead is
 * replaced. */
void segment_lock(struct xseg_segment *seg);
bool segment_trylock(struct xseg_segment *seg);
void segment_unlock(struct xseg_segment *seg);

/* ---- reap.c ---- */
/** Reclaim all that dead processes hold. */
int reap_locked(struct xseg_segment *seg, struct xseg_reap_result *result);

/**
 * Take port `id` out of use: its own descriptors are freed, what was sent to it fails
 * with `error`.  Returns 0, or -EAGAIN if a ring cannot be mended yet; the port is then
 * DEAD.
 */
int reap_port_locked(struct xseg_segment *seg, uint32_t id, int error,
                     struct xseg_reap_result *result);

/** Answer the orphans whose data nobody touches any more. */
void reap_orphans(struct xseg_segment *seg);

#endif
