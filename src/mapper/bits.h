/* SPDX-License-Identifier: Apache-2.0 */
/* Runs in the sector bitmap of one block: set, count, find. */
#ifndef MAPPER_BITS_H
#define MAPPER_BITS_H

#include <stdbool.h>
#include <stdint.h>

/** The bits of word `w` that lie in [start, start + nr). */
static inline uint64_t bits_mask(uint32_t w, uint32_t start, uint32_t nr)
{
    uint32_t lo = w * 64, end = start + nr;
    if (end <= lo || start >= lo + 64)
        return 0;
    uint64_t mask = UINT64_MAX;
    if (start > lo)
        mask &= UINT64_MAX << (start - lo);
    if (end < lo + 64)
        mask &= UINT64_MAX >> (lo + 64 - end);
    return mask;
}

static inline void bits_set(uint64_t *bits, uint32_t words, uint32_t start, uint32_t nr)
{
    for (uint32_t w = start / 64; w < words && w * 64 < start + nr; w++)
        bits[w] |= bits_mask(w, start, nr);
}

static inline void bits_clear(uint64_t *bits, uint32_t words, uint32_t start,
                              uint32_t nr)
{
    for (uint32_t w = start / 64; w < words && w * 64 < start + nr; w++)
        bits[w] &= ~bits_mask(w, start, nr);
}

static inline uint32_t bits_count(const uint64_t *bits, uint32_t words)
{
    uint32_t nr = 0;
    for (uint32_t w = 0; w < words; w++)
        nr += (uint32_t)__builtin_popcountll(bits[w]);
    return nr;
}

static inline bool bits_any(const uint64_t *bits, uint32_t words)
{
    for (uint32_t w = 0; w < words; w++)
        if (bits[w])
            return true;
    return false;
}

/** First bit at or after `from` that equals `value`; `nr_bits` if there is none. */
static inline uint32_t bits_find(const uint64_t *bits, uint32_t nr_bits, uint32_t from,
                                 bool value)
{
    while (from < nr_bits) {
        uint64_t word = value ? bits[from / 64] : ~bits[from / 64];
        word &= UINT64_MAX << (from % 64);
        if (word) {
            uint32_t at = from / 64 * 64 + (uint32_t)__builtin_ctzll(word);
            return at < nr_bits ? at : nr_bits;
        }
        from = from / 64 * 64 + 64;
    }
    return nr_bits;
}

/** Next run of set bits at or after `from`: true and its place, or false. */
static inline bool bits_run(const uint64_t *bits, uint32_t nr_bits, uint32_t from,
                            uint32_t *start, uint32_t *nr)
{
    *start = bits_find(bits, nr_bits, from, true);
    if (*start >= nr_bits)
        return false;
    *nr = bits_find(bits, nr_bits, *start, false) - *start;
    return true;
}

#endif
