/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free lists of descriptors and buffers.  Called by any thread of any process.
 *
 * Invariant: a slot whose LISTED bit is clear is not on the list.  (The converse may
 * fail for an instant, or for good after a death: see freelist.h.)
 */
#include "xseg/freelist.h"

#include "xseg/atomics.h"

#define LISTED (UINT32_C(1) << 31)

static uint32_t *link_of(const struct freelist *list, uint32_t index)
{
    return (uint32_t *)(void *)(list->links + (size_t)index * list->stride);
}

static uint64_t next_head(uint64_t head, uint32_t link)
{
    return ((head >> 32) + 1) << 32 | link;
}

void freelist_init(const struct freelist *list)
{
    for (uint32_t i = 0; i < list->nr_slots; i++) {
        uint32_t next = i + 1 < list->nr_slots ? i + 2 : 0;
        store32_relaxed(link_of(list, i), LISTED | next);
    }
    store64_release(list->head, list->nr_slots ? 1 : 0);
}

uint32_t freelist_pop(const struct freelist *list)
{
    /* Acquire pairs with the release in freelist_push: the link is the pusher's. */
    uint64_t head = load64_acquire(list->head);
    for (;;) {
        uint32_t first = (uint32_t)head;
        if (first == 0 || first > list->nr_slots)
            return FREELIST_NONE;
        uint32_t *link = link_of(list, first - 1);
        /* May be stale if another took the slot meanwhile; then the tag has moved on.
         */
        uint32_t next = load32_acquire(link) & ~LISTED;
        if (cas64(list->head, &head, next_head(head, next))) {
            and32_acqrel(link, ~LISTED);
            return first - 1;
        }
    }
}

void freelist_push(const struct freelist *list, uint32_t index)
{
    uint32_t *link = link_of(list, index);
    if (or32_acqrel(link, LISTED) & LISTED)
        return;
    uint64_t head = load64_acquire(list->head);
    do {
        store32_release(link, LISTED | (uint32_t)head);
    } while (!cas64(list->head, &head, next_head(head, index + 1)));
}
