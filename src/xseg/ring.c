/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring.  Producers are the senders' threads, the consumer is the port's owner.
 *
 * head and tail wrap at 2^32; positions are compared by signed difference.
 */
#include "xseg/ring.h"

#include <errno.h>
#include <stddef.h>

#include "xseg/atomics.h"

static struct xseg_ring_cell *cell_at(const struct ring *ring, uint32_t pos)
{
    return &ring->cells[pos & ring->mask];
}

void ring_init(const struct ring *ring)
{
    for (uint32_t i = 0; i <= ring->mask; i++) {
        store32_relaxed(&ring->cells[i].sequence, i);
        store32_relaxed(&ring->cells[i].value, RING_HOLE);
    }
    store32_relaxed(&ring->shared->head, 0);
    store32_relaxed(&ring->shared->tail, 0);
}

int ring_push(const struct ring *ring, uint32_t value, uint64_t *intent,
              uint64_t intent_id)
{
    uint32_t pos = load32_relaxed(&ring->shared->head);
    struct xseg_ring_cell *cell;
    for (;;) {
        cell = cell_at(ring, pos);
        /* Pairs with the release in ring_pop: the consumer has read the old value. */
        int32_t turn = (int32_t)(load32_acquire(&cell->sequence) - pos);
        if (turn == 0) {
            /*
             * Said before the reservation can be seen (the swap below releases it), so
             * that whoever finds the cell reserved also finds who may have done it.
             */
            if (intent)
                store64_relaxed(intent, intent_id | pos);
            if (cas32(&ring->shared->head, pos, pos + 1))
                break;
        } else if (turn < 0) {
            if (intent)
                store64_release(intent, 0);
            return -EAGAIN;
        }
        uint32_t head = load32_relaxed(&ring->shared->head);
        if (turn > 0 && head == pos) {
            /* A cell ahead of the head: only scribbling makes that.  Do not spin. */
            if (intent)
                store64_release(intent, 0);
            return -EAGAIN;
        }
        pos = head;
    }
    store32_relaxed(&cell->value, value);
    /*
     * seq_cst: publishes the value (pairs with the loads in ring_pop and ring_ready)
     * and comes before the producer's look at the doorbell and at the port's state.
     */
    store32_seq(&cell->sequence, pos + 1);
    return 0;
}

bool ring_pop(const struct ring *ring, uint32_t *value)
{
    uint32_t pos = load32_relaxed(&ring->shared->tail);
    struct xseg_ring_cell *cell = cell_at(ring, pos);
    if (load32_acquire(&cell->sequence) != pos + 1)
        return false;
    *value = load32_relaxed(&cell->value);
    /* Release: the value has been read before a producer may overwrite it. */
    store32_release(&cell->sequence, pos + ring->mask + 1);
    store32_release(&ring->shared->tail, pos + 1);
    return true;
}

bool ring_ready(const struct ring *ring)
{
    uint32_t pos = load32_relaxed(&ring->shared->tail);
    /* seq_cst: the look of "store bell_sleeping, then look"; partner in ring_push. */
    return load32_seq(&cell_at(ring, pos)->sequence) == pos + 1;
}

void ring_repair_tail(const struct ring *ring)
{
    uint32_t pos = load32_relaxed(&ring->shared->tail);
    if (load32_acquire(&cell_at(ring, pos)->sequence) == pos + ring->mask + 1)
        store32_release(&ring->shared->tail, pos + 1);
}

bool ring_reserved(const struct ring *ring, uint32_t pos)
{
    uint32_t head = load32_seq(&ring->shared->head);
    return (int32_t)(head - pos) > 0 && head - pos <= ring->mask + 1 &&
           load32_seq(&cell_at(ring, pos)->sequence) == pos;
}

void ring_fill_hole(const struct ring *ring, uint32_t pos)
{
    struct xseg_ring_cell *cell = cell_at(ring, pos);
    store32_relaxed(&cell->value, RING_HOLE);
    store32_seq(&cell->sequence, pos + 1);
}
