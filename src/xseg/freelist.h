/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock-free stack of free slots, by index (Treiber, with a tag against ABA).
 *
 * The list only says where free slots are likely to be; who owns a slot is decided by
 * the slot's own word, by compare-and-swap.  A process that dies between taking a slot
 * off the list and claiming it therefore loses nothing but the shortcut: a scan finds
 * the slot.
 *
 * Link word of a slot: bits 0-30 index + 1 of the next free slot, 0 ends the list; bit
 * 31 (LISTED) set while the slot is on the list, so that it is never on it twice.
 */
#ifndef XSEG_FREELIST_H
#define XSEG_FREELIST_H

#include <stddef.h>
#include <stdint.h>

#define FREELIST_NONE UINT32_MAX

struct freelist {
    uint64_t *head;    /* in the segment: tag << 32 | index + 1 */
    char *links;       /* in the segment: the first slot's link word */
    size_t stride;     /* [bytes] from one link word to the next */
    uint32_t nr_slots; /* an index at or beyond it is rubbish */
};

/** Link all slots in order.  For creation, before anybody else can see them. */
void freelist_init(const struct freelist *list);

/** Take the last slot given back, or FREELIST_NONE.  The caller must still claim it. */
uint32_t freelist_pop(const struct freelist *list);

/** Put a slot back, unless it is there already. */
void freelist_push(const struct freelist *list, uint32_t index);

#endif
