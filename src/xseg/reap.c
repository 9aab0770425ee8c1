/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reclaiming what the dead held.  Everything here runs under the segment's lock, and can
 * be broken off and done again at any step.  Only the process that looks after the
 * segment reaps others (the supervisor); a client unbinds its own port and no more.
 *
 * Data safety decides the order.  The data of a request is its sender's again once it
 * is answered.  A request whose server died must not be answered while a third peer,
 * asked by the dead one, still works on the same bytes: it becomes an *orphan*
 * (SERVING, dst_port NONE, result set) and is answered when that peer is done.  A dead
 * sender's buffer is not freed while a living peer serves a request that names it.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "xseg/internal.h"

/* How often to let a living peer finish a few instructions before putting a port off.
 */
#define PATIENCE 1000

/* How long a request may wait at a port whose ring is empty [ns]. */
#define LOST_NS UINT64_C(2000000000)

static bool port_alive(const struct xseg_segment *seg, uint32_t id,
                       struct owner_memo *memo)
{
    return id < seg->geo.nr_ports &&
           load32_acquire(&seg->ports[id].state) == XSEG_PORT_BOUND &&
           !owner_dead(seg, memo, port_owner(&seg->ports[id]));
}

/* ---- a push that its producer did not finish -------------------- */

static bool other_may_finish(const struct xseg_segment *seg, uint32_t self,
                             uint64_t intent, struct owner_memo *memo)
{
    for (uint32_t p = 0; p < seg->geo.nr_ports; p++) {
        if (p != self && load64_acquire(&seg->ports[p].push_intent) == intent &&
            port_alive(seg, p, memo))
            return true;
    }
    return false;
}

/*
 * If port `id` died between reserving and publishing a cell, publish a hole there.  The
 * intent says which cell; a living port with the same intent either reserved the
 * cell, and will publish it, or lost the race for it, and will move on.
 */
static int finish_push(struct xseg_segment *seg, uint32_t id, struct owner_memo *memo)
{
    uint64_t intent = load64_acquire(&seg->ports[id].push_intent);
    uint32_t dst = (uint32_t)(intent >> 33) & (UINT32_MAX >> 2);
    if (!(intent >> 63) || dst >= seg->geo.nr_ports)
        return 0;
    struct ring ring = segment_ring(seg, dst, (intent >> 32) & 1);
    for (int turn = 0; ring_reserved(&ring, (uint32_t)intent); turn++) {
        if (!other_may_finish(seg, id, intent, memo)) {
            /* It may have published and moved on between the two looks. */
            if (ring_reserved(&ring, (uint32_t)intent)) {
                ring_fill_hole(&ring, (uint32_t)intent);
                bell_force(seg, &seg->ports[dst]);
            }
            return 0;
        }
        if (turn == PATIENCE)
            return -EAGAIN;
        sched_yield();
    }
    return 0;
}

/* ---- descriptors -------------------- */

/* True if the descriptor is of this binding of the port: signed, or claimed for it. */
static bool held_by(const struct xseg_segment *seg, const struct xseg_request *rq,
                    uint32_t id)
{
    uint32_t op = load32_acquire(&rq->op);
    /* Until it is signed, what stands there is of an earlier owner. */
    if ((op & UINT32_C(0xffff0000)) == REQUEST_CLAIM_MARK &&
        load32_seq(&rq->state) == XSEG_RS_ALLOCATED)
        return op == (REQUEST_CLAIM_MARK | id);
    return request_is_of(rq, id, load32_relaxed(&seg->ports[id].generation));
}

/* A request seized by mistake goes back to the port it was sent to. */
static void give_back(struct xseg_segment *seg, struct xseg_request *rq)
{
    uint32_t dst = load32_relaxed(&rq->dst_port);
    store32_seq(&rq->state, XSEG_RS_SUBMITTED);
    if (dst < seg->geo.nr_ports) {
        or32_acqrel(&seg->ports[dst].rescan, PORT_RESCAN_REQUESTS);
        bell_force(seg, &seg->ports[dst]);
    }
}

/* Take a sent request away from its receiver, if that has not accepted it. */
static bool revoke(struct xseg_segment *seg, uint32_t index, uint32_t id)
{
    struct xseg_request *rq = &seg->requests[index];
    if (!cas32(&rq->state, XSEG_RS_SUBMITTED, XSEG_RS_SERVING))
        return false;
    if (held_by(seg, rq, id))
        return request_release(seg, index, XSEG_RS_SERVING);
    /* Served, freed and sent again by somebody else since we looked. */
    give_back(seg, rq);
    return false;
}

/*
 * A request of the port that somebody serves is freed by the server, who finds nobody
 * to answer.  If it is answering just now it may have looked before the port was DEAD:
 * wait for it; then the answer is ours to free.
 */
static int await_answer(struct xseg_segment *seg, uint32_t index,
                        struct owner_memo *memo)
{
    struct xseg_request *rq = &seg->requests[index];
    uint32_t dst = load32_relaxed(&rq->dst_port);
    if (dst >= seg->geo.nr_ports)
        return 0;
    for (int turn = 0; load32_seq(&rq->state) == XSEG_RS_SERVING &&
                       load32_seq(&seg->ports[dst].complete_intent) == index + 1;
         turn++) {
        if (!port_alive(seg, dst, memo))
            return 0;
        if (turn == PATIENCE)
            return -EAGAIN;
        sched_yield();
    }
    return 0;
}

/* Free what the port sent, but for what others are serving. */
static int release_sent(struct xseg_segment *seg, uint32_t id, struct owner_memo *memo,
                        struct xseg_reap_result *result)
{
    int rc = 0;
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        struct xseg_request *rq = &seg->requests[i];
        bool freed = false;
        /* The receiver may move it on while we look: SUBMITTED, SERVING, DONE. */
        if (load32_seq(&rq->state) == XSEG_RS_SUBMITTED && held_by(seg, rq, id))
            freed = revoke(seg, i, id);
        if (load32_seq(&rq->state) == XSEG_RS_SERVING && held_by(seg, rq, id) &&
            await_answer(seg, i, memo) < 0)
            rc = -EAGAIN;
        uint32_t state = load32_seq(&rq->state);
        if ((state == XSEG_RS_ALLOCATED || state == XSEG_RS_DONE) &&
            held_by(seg, rq, id))
            freed = request_release(seg, i, state);
        result->requests += freed;
    }
    return rc;
}

/* If the port died answering a sender that went away too, the reply is nobody's. */
static void release_unclaimed_answer(struct xseg_segment *seg, uint32_t id,
                                     struct xseg_reap_result *result)
{
    uint32_t index = load32_acquire(&seg->ports[id].complete_intent) - 1;
    if (index >= seg->geo.nr_requests)
        return;
    const struct xseg_request *rq = &seg->requests[index];
    if (load32_seq(&rq->state) == XSEG_RS_DONE && load32_relaxed(&rq->dst_port) == id &&
        !request_sender_bound(seg, rq))
        result->requests += request_release(seg, index, XSEG_RS_DONE);
}

/*
 * True if the descriptor is being served by `port` (NONE: is an orphan).  Looked at in
 * this order: one that is freed, and used for another port, between two looks fails the
 * last.
 */
static bool served_by(const struct xseg_request *rq, uint32_t port)
{
    return load32_acquire(&rq->dst_port) == port &&
           load32_seq(&rq->state) == XSEG_RS_SERVING &&
           load32_seq(&rq->dst_port) == port;
}

/* Orphan what was sent to the port; answer_orphans answers what can be answered. */
static void orphan_received(struct xseg_segment *seg, uint32_t id, int error)
{
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        struct xseg_request *rq = &seg->requests[i];
        if (load32_relaxed(&rq->dst_port) != id)
            continue;
        if (cas32(&rq->state, XSEG_RS_SUBMITTED, XSEG_RS_SERVING) &&
            load32_seq(&rq->dst_port) != id)
            give_back(seg, rq);
        if (!served_by(rq, id))
            continue;
        rq->result = error;
        add32_seq(&seg->header->nr_orphans, 1);
        store32_release(&rq->dst_port, XSEG_PORT_NONE);
    }
}

static bool overlap(const struct xseg_request *a, const struct xseg_request *b)
{
    return a->data_off - b->data_off < b->data_len ||
           b->data_off - a->data_off < a->data_len;
}

/* True if a living peer, asked by somebody who is gone, may touch the data of `rq`. */
static bool data_in_use(const struct xseg_segment *seg, const struct xseg_request *rq,
                        struct owner_memo *memo)
{
    if (rq->data_len == 0)
        return false;
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        const struct xseg_request *other = &seg->requests[i];
        uint32_t state = load32_seq(&other->state);
        if (other == rq || (state != XSEG_RS_SERVING && state != XSEG_RS_SUBMITTED) ||
            !overlap(rq, other) ||
            !port_alive(seg, load32_relaxed(&other->dst_port), memo))
            continue;
        if (!request_sender_bound(seg, other) ||
            !port_alive(seg, load32_relaxed(&other->src_port), memo))
            return true;
    }
    return false;
}

static uint32_t answer_orphans(struct xseg_segment *seg, struct owner_memo *memo)
{
    uint32_t nr_answered = 0, nr_left = 0;
    if (load32_seq(&seg->header->nr_orphans) == 0)
        return 0;
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        struct xseg_request *rq = &seg->requests[i];
        if (!served_by(rq, XSEG_PORT_NONE))
            continue;
        if (data_in_use(seg, rq, memo)) {
            nr_left++;
            continue;
        }
        nr_answered++;
        if (!request_sender_bound(seg, rq)) {
            request_release(seg, i, XSEG_RS_SERVING);
            continue;
        }
        struct xseg_port_shared *src = &seg->ports[load32_relaxed(&rq->src_port)];
        if (cas32(&rq->state, XSEG_RS_SERVING, XSEG_RS_DONE)) {
            or32_acqrel(&src->rescan, PORT_RESCAN_REPLIES);
            bell_force(seg, src);
        }
    }
    store32_seq(&seg->header->nr_orphans, nr_left);
    return nr_answered;
}

void reap_orphans(struct xseg_segment *seg)
{
    struct owner_memo memo = {0};
    answer_orphans(seg, &memo);
}

/* ---- buffers -------------------- */

/* Mark the buffers that requests on their way name. */
static void pin_buffers(const struct xseg_segment *seg, uint8_t *pinned)
{
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        const struct xseg_request *rq = &seg->requests[i];
        uint32_t state = load32_acquire(&rq->state);
        if (state != XSEG_RS_SUBMITTED && state != XSEG_RS_SERVING)
            continue;
        uint64_t at = rq->data_off, len = rq->data_len;
        if (len == 0 || !xseg_heap_ptr(seg, at, len))
            continue;
        for (uint64_t end = at + len; at < end;) {
            uint32_t slot = heap_slot_of(seg, at);
            if (slot == FREEMAP_NONE)
                break;
            pinned[slot] = 1;
            uint64_t start, bytes;
            heap_slot_range(seg, slot, &start, &bytes);
            at = start + bytes;
        }
    }
}

static int release_buffers(struct xseg_segment *seg, struct owner_memo *memo,
                           struct xseg_reap_result *result)
{
    uint8_t *pinned = NULL;
    for (uint32_t s = 0; s < seg->heap.nr_slots_total; s++) {
        uint64_t owner = load64_acquire(heap_slot_owner(seg, s));
        if (owner == 0 || !owner_dead(seg, memo, owner))
            continue;
        if (!pinned) {
            pinned = calloc(seg->heap.nr_slots_total, 1);
            if (!pinned)
                return -ENOMEM;
            pin_buffers(seg, pinned);
        }
        if (!pinned[s] && heap_release(seg, s, owner) == 0)
            result->buffers++;
    }
    free(pinned);
    return 0;
}

/* ---- ports -------------------- */

/*
 * A request that has waited long at a port whose ring is empty has lost its entry: some
 * process wrote nonsense over it.  Its receiver finds it in the table.
 */
static void revive_lost(struct xseg_segment *seg)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns =
        (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++) {
        const struct xseg_request *rq = &seg->requests[i];
        uint32_t state = load32_acquire(&rq->state);
        bool sent = state == XSEG_RS_SUBMITTED;
        if ((!sent && state != XSEG_RS_DONE) ||
            now_ns - load64_relaxed(&rq->submitted_ns) < LOST_NS)
            continue;
        uint32_t port = load32_relaxed(sent ? &rq->dst_port : &rq->src_port);
        if (port >= seg->geo.nr_ports)
            continue;
        struct ring ring = segment_ring(seg, port, !sent);
        if (ring_ready(&ring))
            continue;
        or32_acqrel(&seg->ports[port].rescan,
                    sent ? PORT_RESCAN_REQUESTS : PORT_RESCAN_REPLIES);
        bell_force(seg, &seg->ports[port]);
    }
}

static int retire_port(struct xseg_segment *seg, uint32_t id, int error,
                       struct owner_memo *memo, struct xseg_reap_result *result)
{
    struct xseg_port_shared *slot = &seg->ports[id];
    /* seq_cst: before the looks at states below; partner in xseg_request_submit. */
    store32_seq(&slot->state, XSEG_PORT_DEAD);
    int rc = finish_push(seg, id, memo);
    if (rc == 0)
        rc = release_sent(seg, id, memo, result);
    if (rc < 0)
        return rc; /* it stays DEAD, for the next reap */
    release_unclaimed_answer(seg, id, result);
    orphan_received(seg, id, error);
    store64_relaxed(&slot->push_intent, 0);
    store32_relaxed(&slot->complete_intent, 0);
    store64_relaxed(&slot->owner, 0);
    store32_relaxed(&slot->owner_pid, 0);
    store64_relaxed(&slot->owner_start, 0);
    memset(slot->role, 0, sizeof(slot->role));
    store32_seq(&slot->state, XSEG_PORT_FREE);
    result->ports++;
    return 0;
}

int reap_port_locked(struct xseg_segment *seg, uint32_t id, int error,
                     struct xseg_reap_result *result)
{
    struct owner_memo memo = {0};
    return retire_port(seg, id, error, &memo, result);
}

int reap_locked(struct xseg_segment *seg, struct xseg_reap_result *result)
{
    struct owner_memo memo = {0};
    for (uint32_t p = 0; p < seg->geo.nr_ports; p++) {
        struct xseg_port_shared *slot = &seg->ports[p];
        uint32_t state = load32_acquire(&slot->state);
        /* BINDING or DEAD, and we have the lock: whoever was at it died. */
        if (state != XSEG_PORT_FREE &&
            (state != XSEG_PORT_BOUND || owner_dead(seg, &memo, port_owner(slot))))
            retire_port(seg, p, -EOWNERDEAD, &memo, result);
    }
    result->requests += answer_orphans(seg, &memo);
    int rc = release_buffers(seg, &memo, result);
    request_mend(seg);
    heap_mend(seg);
    revive_lost(seg);
    if (result->ports == 0)
        return rc;
    /* Answers whose entry, and bells whose ring, died with their sender. */
    for (uint32_t p = 0; p < seg->geo.nr_ports; p++) {
        struct xseg_port_shared *slot = &seg->ports[p];
        if (load32_acquire(&slot->state) == XSEG_PORT_BOUND) {
            or32_acqrel(&slot->rescan, PORT_RESCAN_REPLIES | PORT_RESCAN_REQUESTS);
            bell_force(seg, slot);
        }
    }
    return rc;
}

int xseg_reap(struct xseg_segment *seg, struct xseg_reap_result *result)
{
    memset(result, 0, sizeof(*result));
    if (!segment_trylock(seg))
        return 0;
    int rc = reap_locked(seg, result);
    segment_unlock(seg);
    return rc;
}
