/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers.  Called by any thread of any process; lock-free.
 *
 * Invariant: a buffer belongs to whoever swapped its slot's owner word from 0 to
 * itself, in one step, so that a death at any instruction leaves it either free or
 * owned by the dead. The free lists are a shortcut (freelist.h); a class whose list is
 * empty is scanned once for each raise of header.lost_epoch.
 */
#include "xseg/heap.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "xseg/atomics.h"
#include "xseg/buffer.h"
#include "xseg/internal.h"
#include "xseg/process.h"

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
    }
    geo->table_bytes = HEAP_NR_CLASSES * sizeof(struct heap_class_shared) +
                       (uint64_t)geo->nr_slots_total * sizeof(struct heap_slot);
}

static struct heap_class_shared *class_at(const struct xseg_segment *seg,
                                          uint32_t class)
{
    return (struct heap_class_shared *)(void *)(seg->base + seg->geo.heap_table_off) +
           class;
}

struct heap_slot *heap_slot_at(const struct xseg_segment *seg, uint32_t slot)
{
    return (struct heap_slot *)(void *)class_at(seg, HEAP_NR_CLASSES) + slot;
}

static struct freelist class_list(const struct xseg_segment *seg, uint32_t class)
{
    uint32_t first = seg->heap.first_slot[class];
    return (struct freelist){
        .head = &class_at(seg, class)->free_head,
        .links = (char *)heap_slot_at(seg, first) + offsetof(struct heap_slot, link),
        .stride = sizeof(struct heap_slot),
        .nr_slots = seg->heap.nr_slots[class],
    };
}

void heap_init(struct xseg_segment *seg)
{
    for (uint32_t c = 0; c < HEAP_NR_CLASSES; c++) {
        struct freelist list = class_list(seg, c);
        freelist_init(&list);
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
        return FREELIST_NONE;
    uint64_t rel = off - seg->geo.heap_off;
    /* Largest class first in the heap, so starts fall as classes rise. */
    for (uint32_t c = HEAP_NR_CLASSES; c-- > 0;) {
        uint64_t index = (rel - seg->heap.start[c]) >> (HEAP_MIN_SHIFT + c);
        if (rel >= seg->heap.start[c] && index < seg->heap.nr_slots[c])
            return seg->heap.first_slot[c] + (uint32_t)index;
    }
    return FREELIST_NONE;
}

static bool claim(struct xseg_segment *seg, uint32_t slot)
{
    uint64_t nobody = 0;
    return cas64(&heap_slot_at(seg, slot)->owner, &nobody, seg->self);
}

/* Look at every buffer of a class: some may be free and on no list (freelist.h). */
static uint32_t claim_by_scan(struct xseg_segment *seg, uint32_t class)
{
    struct heap_class_shared *shared = class_at(seg, class);
    uint32_t epoch = load32_acquire(&seg->header->lost_epoch);
    if (load32_relaxed(&shared->scanned_epoch) == epoch)
        return FREELIST_NONE;
    uint32_t first = seg->heap.first_slot[class];
    for (uint32_t i = 0; i < seg->heap.nr_slots[class]; i++) {
        if (load64_relaxed(&heap_slot_at(seg, first + i)->owner) == 0 &&
            claim(seg, first + i))
            return first + i;
    }
    store32_relaxed(&shared->scanned_epoch, epoch);
    return FREELIST_NONE;
}

static uint32_t claim_in_class(struct xseg_segment *seg, uint32_t class)
{
    struct freelist list = class_list(seg, class);
    for (;;) {
        uint32_t i = freelist_pop(&list);
        if (i == FREELIST_NONE)
            return claim_by_scan(seg, class);
        /* Fails if a scan was faster; its owner puts the buffer back one day. */
        if (claim(seg, seg->heap.first_slot[class] + i))
            return seg->heap.first_slot[class] + i;
    }
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
        if (slot != FREELIST_NONE) {
            uint64_t len;
            heap_slot_range(seg, slot, off, &len);
            return (int64_t)len;
        }
    }
    return -ENOBUFS;
}

int heap_release(struct xseg_segment *seg, uint32_t slot, uint64_t owner)
{
    if (owner == 0 || !cas64(&heap_slot_at(seg, slot)->owner, &owner, 0))
        return -EINVAL;
    uint32_t c = class_of_slot(seg, slot);
    struct freelist list = class_list(seg, c);
    freelist_push(&list, slot - seg->heap.first_slot[c]);
    return 0;
}

int xseg_buffer_free(struct xseg_segment *seg, uint64_t off)
{
    uint32_t slot = heap_slot_of(seg, off);
    if (slot == FREELIST_NONE)
        return -EINVAL;
    uint64_t start, len;
    heap_slot_range(seg, slot, &start, &len);
    if (off != start)
        return -EINVAL;
    return heap_release(seg, slot, load64_relaxed(&heap_slot_at(seg, slot)->owner));
}

void xseg_heap_usage(const struct xseg_segment *seg, struct xseg_heap_usage *usage)
{
    memset(usage, 0, sizeof(*usage));
    usage->total_bytes = seg->geo.heap_bytes;
    usage->nr_buffers = seg->heap.nr_slots_total;
    for (uint32_t c = 0; c < HEAP_NR_CLASSES; c++) {
        uint32_t nr_used = 0;
        for (uint32_t i = 0; i < seg->heap.nr_slots[c]; i++) {
            struct heap_slot *slot = heap_slot_at(seg, seg->heap.first_slot[c] + i);
            nr_used += load64_relaxed(&slot->owner) != 0;
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
