/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers.  Called by any thread of any process; lock-free.
 *
 * Invariant: a buffer belongs to whoever swapped its slot's owner word from 0 to
 * itself, in one step, so that a death at any instruction leaves it either free or
 * owned by the dead.  The free maps only say where to look.
 */
#include "xseg/heap.h"

#include <errno.h>
#include <string.h>

#include "xseg/atomics.h"
#include "xseg/buffer.h"
#include "xseg/internal.h"
#include "xseg/owner.h"

/*
 * Shares of the heap in 1/64, 4 KiB first.  Half for whole blocks; 1 MiB, 256 KiB and
 * 64 KiB for large requests; 4 KiB for the smallest; the rest fill the gaps.
 */
static const uint8_t shares[HEAP_NR_CLASSES] = {4, 1, 3, 2, 4, 2, 4, 2, 8, 2, 32};

static uint64_t class_bytes(uint32_t class)
{
    return UINT64_C(1) << (HEAP_MIN_SHIFT + class);
}

void heap_geometry_init(struct heap_geometry *geo, uint64_t heap_bytes)
{
    uint64_t left = heap_bytes, start = 0;
    memset(geo, 0, sizeof(*geo));
    for (uint32_t c = 0; c < HEAP_NR_CLASSES; c++) {
        geo->nr_slots[c] = (uint32_t)(heap_bytes / 64 * shares[c] / class_bytes(c));
        left -= geo->nr_slots[c] * class_bytes(c);
    }
    for (uint32_t c = HEAP_NR_CLASSES; c-- > 0;) {
        uint32_t more = (uint32_t)(left / class_bytes(c));
        geo->nr_slots[c] += more;
        left -= more * class_bytes(c);
        geo->start[c] = start;
        start += geo->nr_slots[c] * class_bytes(c);
    }
    for (uint32_t c = 0; c < HEAP_NR_CLASSES; c++) {
        geo->first_slot[c] = geo->nr_slots_total;
        geo->nr_slots_total += geo->nr_slots[c];
        geo->map_off[c] = geo->owners_off;
        /* Whole cache lines of 8 words: classes do not disturb one another. */
        geo->owners_off +=
            (freemap_nr_words(geo->nr_slots[c]) + 7) / 8 * XSEG_CACHE_LINE;
    }
    geo->table_bytes = geo->owners_off + geo->nr_slots_total * sizeof(uint64_t);
}

static unsigned char *table(const struct xseg_segment *seg)
{
    return seg->base + seg->geo.heap_table_off;
}

uint64_t *heap_slot_owner(const struct xseg_segment *seg, uint32_t slot)
{
    return (uint64_t *)(void *)(table(seg) + seg->heap.owners_off) + slot;
}

static struct freemap class_map(const struct xseg_segment *seg, uint32_t class)
{
    return (struct freemap){
        .words = (uint64_t *)(void *)(table(seg) + seg->heap.map_off[class]),
        .nr_slots = seg->heap.nr_slots[class],
    };
}

void heap_mend(struct xseg_segment *seg)
{
    for (uint32_t c = 0; c < HEAP_NR_CLASSES; c++) {
        struct freemap map = class_map(seg, c);
        for (uint32_t i = 0; i < map.nr_slots; i++) {
            if (!freemap_test(&map, i) &&
                load64_acquire(heap_slot_owner(seg, seg->heap.first_slot[c] + i)) == 0)
                freemap_set(&map, i);
        }
    }
}

static uint32_t class_of_slot(const struct xseg_segment *seg, uint32_t slot)
{
    uint32_t c = HEAP_NR_CLASSES - 1;
    while (slot < seg->heap.first_slot[c])
        c--;
    return c;
}

void heap_slot_range(const struct xseg_segment *seg, uint32_t slot, uint64_t *off,
                     uint64_t *len)
{
    uint32_t c = class_of_slot(seg, slot);
    *len = class_bytes(c);
    *off = seg->geo.heap_off + seg->heap.start[c] +
           (slot - seg->heap.first_slot[c]) * class_bytes(c);
}

uint32_t heap_slot_of(const struct xseg_segment *seg, uint64_t off)
{
    if (off < seg->geo.heap_off || off - seg->geo.heap_off >= seg->geo.heap_bytes)
        return FREEMAP_NONE;
    uint64_t rel = off - seg->geo.heap_off;
    /* Largest class first in the heap, so starts fall as classes rise. */
    for (uint32_t c = HEAP_NR_CLASSES; c-- > 0;) {
        uint64_t index = (rel - seg->heap.start[c]) >> (HEAP_MIN_SHIFT + c);
        if (rel >= seg->heap.start[c] && index < seg->heap.nr_slots[c])
            return seg->heap.first_slot[c] + (uint32_t)index;
    }
    return FREEMAP_NONE;
}

static uint32_t claim_in_class(struct xseg_segment *seg, uint32_t class)
{
    struct freemap map = class_map(seg, class);
    uint32_t i;
    /* From what this process freed last: those bytes are in its cache. */
    while ((i = freemap_find(&map, load32_relaxed(&seg->heap_hint[class]))) !=
           FREEMAP_NONE) {
        uint32_t slot = seg->heap.first_slot[class] + i;
        uint64_t owner = 0;
        bool mine = cas64(heap_slot_owner(seg, slot), &owner, seg->self);
        freemap_clear(&map, i);
        if (mine)
            return slot;
        /* Its owner may have freed it, and set the bit, before we cleared it. */
        if (load64_acquire(heap_slot_owner(seg, slot)) == 0)
            freemap_set(&map, i);
    }
    return FREEMAP_NONE;
}

int64_t xseg_buffer_alloc(struct xseg_segment *seg, uint64_t size, uint64_t *off)
{
    if (size == 0 || size > XSEG_BUFFER_MAX_BYTES)
        return -EINVAL;
    uint32_t class = 0;
    while (class_bytes(class) < size)
        class ++;
    for (; class < HEAP_NR_CLASSES; class ++) {
        uint32_t slot = claim_in_class(seg, class);
        if (slot != FREEMAP_NONE) {
            uint64_t len;
            heap_slot_range(seg, slot, off, &len);
            return (int64_t)len;
        }
    }
    return -ENOBUFS;
}

int heap_release(struct xseg_segment *seg, uint32_t slot, uint64_t owner)
{
    if (owner == 0 || !cas64(heap_slot_owner(seg, slot), &owner, 0))
        return -EINVAL;
    uint32_t c = class_of_slot(seg, slot);
    struct freemap map = class_map(seg, c);
    uint32_t i = slot - seg->heap.first_slot[c];
    freemap_set(&map, i);
    store32_relaxed(&seg->heap_hint[c], i);
    return 0;
}

int xseg_buffer_free(struct xseg_segment *seg, uint64_t off)
{
    uint32_t slot = heap_slot_of(seg, off);
    if (slot == FREEMAP_NONE)
        return -EINVAL;
    uint64_t start, len;
    heap_slot_range(seg, slot, &start, &len);
    if (off != start)
        return -EINVAL;
    return heap_release(seg, slot, load64_relaxed(heap_slot_owner(seg, slot)));
}

void xseg_heap_usage(const struct xseg_segment *seg, struct xseg_heap_usage *usage)
{
    memset(usage, 0, sizeof(*usage));
    usage->total_bytes = seg->geo.heap_bytes;
    usage->nr_buffers = seg->heap.nr_slots_total;
    for (uint32_t c = 0; c < HEAP_NR_CLASSES; c++) {
        uint32_t nr_used = 0;
        for (uint32_t i = 0; i < seg->heap.nr_slots[c]; i++) {
            uint32_t slot = seg->heap.first_slot[c] + i;
            nr_used += load64_relaxed(heap_slot_owner(seg, slot)) != 0;
        }
        usage->nr_used_buffers += nr_used;
        usage->used_bytes += nr_used * class_bytes(c);
    }
}

void *xseg_heap_ptr(const struct xseg_segment *seg, uint64_t off, uint64_t len)
{
    const struct segment_geometry *geo = &seg->geo;
    if (off < geo->heap_off || off - geo->heap_off > geo->heap_bytes ||
        len > geo->heap_bytes - (off - geo->heap_off))
        return NULL;
    return seg->base + off;
}

uint64_t xseg_heap_off(const struct xseg_segment *seg, const void *ptr)
{
    uintptr_t at = (uintptr_t)ptr;
    uintptr_t heap = (uintptr_t)seg->base + seg->geo.heap_off;
    if (at < heap || at - heap >= seg->geo.heap_bytes)
        return 0;
    return seg->geo.heap_off + (at - heap);
}
