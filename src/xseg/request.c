/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a request descriptor.  Called by the owner of the port concerned, on its
 * thread.
 *
 * Invariants
 *  - Every change of `state` but the first submit is a compare-and-swap: of two parties
 * that want the same descriptor, one gets it.
 *  - Ring entries are hints.  accept and reap believe an entry only if the state and
 * the ports of the descriptor it names say the same.
 *  - A sender that finds the receiver's port gone after the push takes the request
 * back; a port that goes away looks at all states after it said so.  One of the two
 * sees it.
 */
#include "xseg/request.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "xseg/atomics.h"
#include "xseg/internal.h"
#include "xseg/port.h"

/* dst_port of a descriptor in a port's reserve: not the caller's, so not to be freed.
 */
#define REQUEST_PARKED UINT32_MAX

static struct freemap request_map(const struct xseg_segment *seg)
{
    return (struct freemap){
        .words = (uint64_t *)(void *)(seg->base + seg->geo.request_map_off),
        .nr_slots = seg->geo.nr_requests,
    };
}

void request_mend(struct xseg_segment *seg)
{
    struct freemap map = request_map(seg);
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        if (!freemap_test(&map, i) &&
            load32_acquire(&seg->requests[i].state) == XSEG_RS_FREE)
            freemap_set(&map, i);
    }
}

bool request_release(struct xseg_segment *seg, uint32_t index, uint32_t from_state)
{
    /* seq_cst: before the look at header.nr_orphans in complete_to_nobody. */
    if (!cas32(&seg->requests[index].state, from_state, XSEG_RS_FREE))
        return false;
    struct freemap map = request_map(seg);
    freemap_set(&map, index);
    return true;
}

static void request_reset(struct xseg_request *rq)
{
    store32_relaxed(&rq->op, 0);
    rq->flags = 0;
    store32_relaxed(&rq->dst_port, 0);
    memset(&rq->result, 0, sizeof(*rq) - offsetof(struct xseg_request, result));
}

/*
 * Swap state and op of a free descriptor for ours.  Not for ThreadSanitizer, which takes
 * a swap that fails for a write to both words, and so for a race with whoever owns the
 * descriptor by then; the caller's acquire shows it the order that the swap makes.
 */
__attribute__((no_sanitize("thread"), noinline)) static bool claim_word(uint64_t *word,
                                                                        uint64_t mine)
{
    uint64_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    return (uint32_t)seen == XSEG_RS_FREE &&
           __atomic_compare_exchange_n(word, &seen, mine, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

/* Make a free descriptor the port's.  False if somebody else has it. */
static bool claim(struct xseg_port *port, uint32_t index)
{
    struct xseg_request *rq = &port->seg->requests[index];
    uint64_t *word = (uint64_t *)(void *)&rq->state; /* state, then op */
    uint64_t mine = (uint64_t)(REQUEST_CLAIM_MARK | port->id) << 32 | XSEG_RS_ALLOCATED;
    /* The state first: `op` of a descriptor that is in use is not ours to read. */
    if (load32_acquire(&rq->state) != XSEG_RS_FREE || !claim_word(word, mine))
        return false;
    (void)load32_acquire(&rq->state); /* what the last owner did came before us */
    store32_relaxed(&rq->src_port, port->id);
    store32_relaxed(&rq->generation, port->generation);
    store64_relaxed(&rq->owner_start, port->seg->start);
    store32_relaxed(&rq->owner_pid, port->seg->pid);
    /* Release: whoever finds the mark gone finds the owner signed (held_by). */
    store32_release(&rq->op, 0);
    return true;
}

static uint32_t claim_any(struct xseg_port *port)
{
    struct xseg_segment *seg = port->seg;
    struct freemap map = request_map(seg);
    uint32_t i;
    while ((i = freemap_find(&map, port->request_hint)) != FREEMAP_NONE) {
        bool mine = claim(port, i);
        freemap_clear(&map, i);
        if (mine)
            return i;
        /* Its owner may have freed it, and set the bit, before we cleared it. */
        if (load32_acquire(&seg->requests[i].state) == XSEG_RS_FREE)
            freemap_set(&map, i);
    }
    return FREEMAP_NONE;
}

int xseg_request_alloc(struct xseg_port *port, struct xseg_request **out)
{
    uint32_t index;
    if (port->nr_reserve > 0)
        index = port->reserve[--port->nr_reserve];
    else
        index = claim_any(port);
    if (index == FREEMAP_NONE) {
        *out = NULL;
        return -ENOBUFS;
    }
    *out = &port->seg->requests[index];
    request_reset(*out);
    return 0;
}

/* True if the descriptor is this port's to use: allocated, or answered. */
static bool owned(const struct xseg_port *port, const struct xseg_request *rq)
{
    return request_is_of(rq, port->id, port->generation);
}

static void drop(struct xseg_port *port)
{
    count64(&port->slot->stats.dropped, 1);
}

void xseg_request_free(struct xseg_port *port, struct xseg_request *rq)
{
    uint32_t index = segment_request_index(port->seg, rq);
    if (index == FREEMAP_NONE || !owned(port, rq) ||
        load32_relaxed(&rq->dst_port) == REQUEST_PARKED) {
        drop(port);
        return;
    }
    uint32_t state = load32_acquire(&rq->state);
    if (state != XSEG_RS_ALLOCATED && state != XSEG_RS_DONE) {
        drop(port);
        return;
    }
    if (port->nr_reserve < port->reserve_target) {
        store32_relaxed(&rq->dst_port, REQUEST_PARKED);
        store32_release(&rq->state, XSEG_RS_ALLOCATED);
        port->reserve[port->nr_reserve++] = index;
    } else {
        port->request_hint = index;
        request_release(port->seg, index, state);
    }
}

int xseg_request_submit(struct xseg_port *port, struct xseg_request *rq,
                        uint32_t dst_port)
{
    struct xseg_segment *seg = port->seg;
    uint32_t index = segment_request_index(seg, rq);
    if (index == FREEMAP_NONE || dst_port >= seg->geo.nr_ports || !owned(port, rq) ||
        load32_acquire(&rq->state) != XSEG_RS_ALLOCATED ||
        load32_relaxed(&rq->dst_port) == REQUEST_PARKED)
        return -EINVAL;
    struct xseg_port_shared *dst = &seg->ports[dst_port];
    if (load32_acquire(&dst->state) != XSEG_PORT_BOUND)
        return -EPIPE;

    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    /* Relaxed: the scan for lost requests reads it at any time (reap.c). */
    store64_relaxed(&rq->submitted_ns, (uint64_t)now.tv_sec * UINT64_C(1000000000) +
                                           (uint64_t)now.tv_nsec);
    store32_relaxed(&rq->dst_port, dst_port);
    /* seq_cst: hands the fields over, and comes before the look at dst->state below. */
    store32_seq(&rq->state, XSEG_RS_SUBMITTED);
    struct ring ring = segment_ring(seg, dst_port, false);
    int rc = ring_push(&ring, index, &port->slot->push_intent,
                       ring_intent_id(dst_port, false));
    if (rc == 0 && load32_seq(&dst->state) != XSEG_PORT_BOUND)
        rc = -EPIPE;
    /* Take it back, unless somebody has answered or accepted it meanwhile. */
    if (rc < 0 && cas32(&rq->state, XSEG_RS_SUBMITTED, XSEG_RS_ALLOCATED))
        return rc;
    count64(&port->slot->stats.submitted, 1);
    bell_ring(seg, dst);
    return 0;
}

/* Take a request sent to this port.  False if `index` names none. */
static bool accept_index(struct xseg_port *port, uint32_t index)
{
    struct xseg_segment *seg = port->seg;
    if (index >= seg->geo.nr_requests)
        return false;
    struct xseg_request *rq = &seg->requests[index];
    if (load32_relaxed(&rq->dst_port) != port->id ||
        !cas32(&rq->state, XSEG_RS_SUBMITTED, XSEG_RS_SERVING))
        return false;
    uint32_t dst = load32_relaxed(&rq->dst_port);
    if (dst == port->id)
        return true;
    /*
     * Between the two looks its sender took it back and sent it elsewhere.  Give it to
     * the port it is for, which may have dropped its entry while we held it.
     */
    store32_seq(&rq->state, XSEG_RS_SUBMITTED);
    if (dst < seg->geo.nr_ports) {
        or32_acqrel(&seg->ports[dst].rescan, PORT_RESCAN_REQUESTS);
        bell_force(seg, &seg->ports[dst]);
    }
    return false;
}

/* Take a reply to this port.  False if `index` names none. */
static bool reap_index(struct xseg_port *port, uint32_t index)
{
    if (index >= port->seg->geo.nr_requests)
        return false;
    struct xseg_request *rq = &port->seg->requests[index];
    return owned(port, rq) && cas32(&rq->state, XSEG_RS_DONE, XSEG_RS_ALLOCATED);
}

/*
 * Next request or reply: from the ring; and when that is empty and somebody left word
 * that the ring may not tell all, from a scan of the table.
 */
static struct xseg_request *take(struct xseg_port *port, const struct ring *ring,
                                 uint32_t rescan_bit, uint32_t *rescan_at,
                                 bool (*take_index)(struct xseg_port *, uint32_t))
{
    struct xseg_segment *seg = port->seg;
    uint32_t index;
    while (ring_pop(ring, &index)) {
        if (index == RING_HOLE)
            continue;
        if (take_index(port, index))
            return &seg->requests[index];
        drop(port);
    }
    if (load32_acquire(&port->slot->rescan) & rescan_bit) {
        and32_acqrel(&port->slot->rescan, ~rescan_bit);
        *rescan_at = 0;
    }
    while (*rescan_at < seg->geo.nr_requests) {
        index = (*rescan_at)++;
        if (take_index(port, index))
            return &seg->requests[index];
    }
    return NULL;
}

struct xseg_request *xseg_port_accept(struct xseg_port *port)
{
    struct xseg_request *rq = take(port, &port->requests, PORT_RESCAN_REQUESTS,
                                   &port->requests_rescan_at, accept_index);
    if (rq)
        count64(&port->slot->stats.accepted, 1);
    return rq;
}

struct xseg_request *xseg_port_reap(struct xseg_port *port)
{
    struct xseg_request *rq = take(port, &port->replies, PORT_RESCAN_REPLIES,
                                   &port->replies_rescan_at, reap_index);
    if (rq)
        count64(&port->slot->stats.reaped, 1);
    return rq;
}

bool request_sender_bound(const struct xseg_segment *seg, const struct xseg_request *rq)
{
    uint32_t src = load32_relaxed(&rq->src_port);
    if (src >= seg->geo.nr_ports)
        return false;
    const struct xseg_port_shared *slot = &seg->ports[src];
    /* seq_cst: after complete_intent or the state was set; partner in retire_port. */
    return load32_seq(&slot->state) == XSEG_PORT_BOUND &&
           request_is_of(rq, src, load32_relaxed(&slot->generation));
}

static void count_answer(struct xseg_port *port, const struct xseg_request *rq,
                         int64_t result)
{
    struct xseg_port_stats *stats = &port->slot->stats;
    count64(&stats->completed, 1);
    if (result < 0)
        count64(&stats->errors, 1);
    else if (rq->op == XSEG_OP_READ)
        count64(&stats->read_bytes, (uint64_t)result);
    else if (rq->op == XSEG_OP_WRITE)
        count64(&stats->write_bytes, (uint64_t)result);
}

/* The sender is gone: free the descriptor. */
static int complete_to_nobody(struct xseg_segment *seg, uint32_t index)
{
    request_release(seg, index, XSEG_RS_SERVING);
    /* This may have been the last user of data whose owner waits for an answer. */
    if (load32_seq(&seg->header->nr_orphans) != 0) {
        segment_lock(seg);
        reap_orphans(seg);
        segment_unlock(seg);
    }
    return -EPIPE;
}

int xseg_request_complete(struct xseg_port *port, struct xseg_request *rq,
                          int64_t result)
{
    struct xseg_segment *seg = port->seg;
    uint32_t index = segment_request_index(seg, rq);
    if (index == FREEMAP_NONE || load32_relaxed(&rq->dst_port) != port->id ||
        load32_acquire(&rq->state) != XSEG_RS_SERVING) {
        drop(port);
        return -EINVAL;
    }
    count_answer(port, rq, result);
    /*
     * seq_cst, before the look at the sender: one that goes away says so and then looks
     * here, and waits until this word moves on (await_answer in reap.c).  So nobody
     * frees the descriptor between the look and the swap.
     */
    store32_seq(&port->slot->complete_intent, index + 1);
    bool bound = request_sender_bound(seg, rq);
    if (bound) {
        uint32_t src = load32_relaxed(&rq->src_port);
        rq->result = result;
        /* From the swap on it is the sender's: only the index may be used. */
        bound = cas32(&rq->state, XSEG_RS_SERVING, XSEG_RS_DONE);
        struct ring ring = segment_ring(seg, src, true);
        if (bound && ring_push(&ring, index, &port->slot->push_intent,
                               ring_intent_id(src, true)) < 0)
            or32_acqrel(&seg->ports[src].rescan, PORT_RESCAN_REPLIES);
        store32_release(&port->slot->complete_intent, 0);
        bell_ring(seg, &seg->ports[src]);
        return bound ? 0 : -EPIPE;
    }
    store32_release(&port->slot->complete_intent, 0);
    return complete_to_nobody(seg, index);
}
