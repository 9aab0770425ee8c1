/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bitmap that says which slots are likely to be free: descriptors, or buffers of a
 * class.
 *
 * A set bit is a hint.  Who owns a slot is decided by the slot's own word, by
 * compare-and-swap: claim it, then clear the bit; free it, then set the bit.  A process
 * that dies in between leaves a wrong bit, and a wrong bit does no harm: a set one
 * costs a failed claim, a clear one hides a free slot until xseg_reap sets it.  Setting
 * the bit of any free slot is always right, so the repair needs no rest.
 */
#ifndef XSEG_FREEMAP_H
#define XSEG_FREEMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/atomics.h"

#define FREEMAP_NONE UINT32_MAX

struct freemap {
    uint64_t *words;   /* in the segment; atomic */
    uint32_t nr_slots; /* bits at or beyond it are never looked at */
};

static inline uint32_t freemap_nr_words(uint32_t nr_slots)
{
    return (nr_slots + 63) / 64;
}

/** The first slot at or after `from`, round the end, whose bit is set; FREEMAP_NONE. */
uint32_t freemap_find(const struct freemap *map, uint32_t from);

static inline bool freemap_test(const struct freemap *map, uint32_t slot)
{
    return load64_relaxed(&map->words[slot / 64]) >> (slot % 64) & 1;
}

/* Release: after the slot was freed, so whoever sees the bit can claim the slot. */
static inline void freemap_set(const struct freemap *map, uint32_t slot)
{
    or64_acqrel(&map->words[slot / 64], UINT64_C(1) << (slot % 64));
}

static inline void freemap_clear(const struct freemap *map, uint32_t slot)
{
    and64_acqrel(&map->words[slot / 64], ~(UINT64_C(1) << (slot % 64)));
}

#endif
