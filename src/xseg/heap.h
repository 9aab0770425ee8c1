/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer heap: slabs of power-of-two buffers and a table that says who owns each.
 *
 * Heap table, at heap_table_off: the free map of each class (freemap.h), 4 KiB first,
 * each padded to a cache line; then one owner word for each buffer, classes in the same
 * order. The heap itself is laid out largest class first.  Both follow from heap_bytes
 * alone, so every process works them out for itself and trusts nothing it finds in the
 * segment.
 *
 * Owner word (atomic): pid << 42 | start time; 0 while the buffer is free.
 */
#ifndef XSEG_HEAP_H
#define XSEG_HEAP_H

#include <stdint.h>

#include "xseg/freemap.h"
#include "xseg/layout.h"

#define HEAP_MIN_SHIFT  12
#define HEAP_NR_CLASSES 11 /* 4 KiB to 4 MiB */

struct xseg_segment;

/** Where the buffers of each class lie. */
struct heap_geometry {
    uint64_t start[HEAP_NR_CLASSES];      /* [bytes] from heap_off */
    uint64_t map_off[HEAP_NR_CLASSES];    /* [bytes] of the free map in the table */
    uint32_t nr_slots[HEAP_NR_CLASSES];   /* buffers */
    uint32_t first_slot[HEAP_NR_CLASSES]; /* index of the first owner word */
    uint32_t nr_slots_total;
    uint64_t owners_off; /* [bytes] of the owner words in the table */
    uint64_t table_bytes;
};

/** Divide `heap_bytes` among the classes. */
void heap_geometry_init(struct heap_geometry *geo, uint64_t heap_bytes);

/** Say of all free buffers that they are.  At creation, and to mend what a death left.
 */
void heap_mend(struct xseg_segment *seg);

/** The slot whose buffer holds heap byte `off` (segment offset), or FREEMAP_NONE. */
uint32_t heap_slot_of(const struct xseg_segment *seg, uint64_t off);

/** Segment offset and size of the buffer of a slot. */
void heap_slot_range(const struct xseg_segment *seg, uint32_t slot, uint64_t *off,
                     uint64_t *len);

/** The owner word of a slot. */
uint64_t *heap_slot_owner(const struct xseg_segment *seg, uint32_t slot);

/** Free the buffer of `slot` if `owner` still has it, else -EINVAL. */
int heap_release(struct xseg_segment *seg, uint32_t slot, uint64_t owner);

#endif
