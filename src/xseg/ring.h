/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded ring of request indices: many producers, one consumer at a time.
 *
 * After Vyukov's bounded queue: each cell has a sequence number that says whose turn it
 * is.  For the cell of position p in a ring of capacity c:
 *
 *   sequence == p      empty, or reserved by a producer that has not published yet
 *   sequence == p + 1  published: the value may be read
 *   sequence == p + c  consumed: empty for the next lap
 *
 * An entry is a hint; the truth is the state of the request that it names.  So an entry
 * may be stale or double, and the reader drops it.
 */
#ifndef XSEG_RING_H
#define XSEG_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/layout.h"

/** Entry that means nothing: a dead producer's cell, published in its name. */
#define RING_HOLE UINT32_MAX

/** One process's view of a ring. */
struct ring {
    struct xseg_ring_shared *shared;
    struct xseg_ring_cell *cells;
    uint32_t mask; /* capacity - 1; from the layout, never from shared memory */
};

/** Lay out an empty ring.  Creation only. */
void ring_init(const struct ring *ring);

/**
 * Add `value`.
 * @param intent     the producer's push_intent word, or NULL for one that needs no
 * rescue.
 * @param intent_id  its upper half: which ring this is (ring_intent_id).
 * Returns 0 or -EAGAIN when full.  Thread-safety: any number of producers.
 */
int ring_push(const struct ring *ring, uint32_t value, uint64_t *intent,
              uint64_t intent_id);

/** Take the oldest value.  False when empty or when its producer is not done yet. */
bool ring_pop(const struct ring *ring, uint32_t *value);

/** True if ring_pop would find something. */
bool ring_ready(const struct ring *ring);

/** Finish what a consumer that died inside ring_pop began.  New consumer only. */
void ring_repair_tail(const struct ring *ring);

/** True if `pos` is reserved and not published. */
bool ring_reserved(const struct ring *ring, uint32_t pos);

/** Publish RING_HOLE at a reserved position whose producer is dead. */
void ring_fill_hole(const struct ring *ring, uint32_t pos);

static inline uint64_t ring_intent_id(uint32_t port, bool replies)
{
    return UINT64_C(1) << 63 | (uint64_t)port << 33 | (uint64_t)replies << 32;
}

#endif
