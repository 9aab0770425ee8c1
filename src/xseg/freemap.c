/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Searching a free map.  Called by any thread of any process.
 */
#include "xseg/freemap.h"

uint32_t freemap_find(const struct freemap *map, uint32_t from)
{
    uint32_t nr_words = freemap_nr_words(map->nr_slots);
    if (from >= map->nr_slots)
        from = 0;
    /* The word of `from` twice: its upper bits first, and whole at the end of the
     * round. */
    uint64_t mask = UINT64_MAX << (from % 64);
    uint32_t w = from / 64;
    for (uint32_t turn = 0; turn <= nr_words && nr_words > 0; turn++) {
        uint64_t bits = load64_acquire(&map->words[w]) & mask;
        if (bits) {
            uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (slot < map->nr_slots)
                return slot;
        }
        mask = UINT64_MAX;
        w = w + 1 < nr_words ? w + 1 : 0;
    }
    return FREEMAP_NONE;
}
