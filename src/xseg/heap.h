/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer heap: slabs of power-of-two buffers and a table that says who owns each.
 *
 * Heap table, at heap_table_off: one struct heap_class_shared for each class, 4 KiB
 * first, then one struct heap_slot for each buffer, classes in the same order.  The
 * heap itself is laid out largest class first.  Both follow from heap_bytes alone, so
 * every process works them out for itself and trusts nothing it finds in the segment.
 */
#ifndef XSEG_HEAP_H
#define XSEG_HEAP_H

#include <assert.h>
#include <stdint.h>

#include "xseg/freelist.h"
#include "xseg/layout.h"

#define HEAP_MIN_SHIFT  12
#define HEAP_NR_CLASSES 11 /* 4 KiB to 4 MiB */

struct xseg_segment;

struct heap_class_shared {
    uint64_t free_head;     /* atomic; see freelist.h */
    uint32_t scanned_epoch; /* atomic; header.lost_epoch when last scanned in full */
    uint8_t pad[52];
};
static_assert(sizeof(struct heap_class_shared) == 64, "heap class");

struct heap_slot {
    uint64_t owner; /* atomic; pid << 42 | start time; 0 while free */
    uint32_t link;  /* atomic; see freelist.h */
    uint32_t pad;
};
static_assert(sizeof(struct heap_slot) == 16, "heap slot");

/** Where the buffers of each class lie. */
struct heap_geometry {
    uint64_t start[HEAP_NR_CLASSES];      /* [bytes] from heap_off */
    uint32_t nr_slots[HEAP_NR_CLASSES];   /* buffers */
    uint32_t first_slot[HEAP_NR_CLASSES]; /* index into the slot table */
    uint32_t nr_slots_total;
    uint64_t table_bytes;
};

/** Divide `heap_bytes` among the classes. */
void heap_geometry_init(struct heap_geometry *geo, uint64_t heap_bytes);

/** Link all buffers as free.  Creation only. */
void heap_init(struct xseg_segment *seg);

/** The slot whose buffer holds heap byte `off` (segment offset), or FREELIST_NONE. */
uint32_t heap_slot_of(const struct xseg_segment *seg, uint64_t off);

/** Segment offset and size of the buffer of a slot. */
void heap_slot_range(const struct xseg_segment *seg, uint32_t slot, uint64_t *off,
                     uint64_t *len);

/** The table entry of a slot. */
struct heap_slot *heap_slot_at(const struct xseg_segment *seg, uint32_t slot);

/** Free the buffer of `slot` if `owner` still has it.  True if this call freed it. */
int heap_release(struct xseg_segment *seg, uint32_t slot, uint64_t owner);

#endif
