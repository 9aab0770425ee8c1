/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of marks (see table.h). */
#include "mapper/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapper/bits.h"

/* Tags take the place of a pointer; bitmaps are aligned, so they are never these. */
#define ALL_PRESENT ((void *)1)
#define ALL_ZERO    ((void *)2)

static bool is_tag(const void *slot)
{
    return slot == ALL_PRESENT || slot == ALL_ZERO;
}

static size_t bitmap_bytes(const struct map_table *t)
{
    return 2 * t->words * sizeof(uint64_t); /* present, then zero */
}

void map_table_init(struct map_table *t, uint32_t block_bytes)
{
    memset(t, 0, sizeof *t);
    t->sectors = block_bytes / XSEG_SECTOR_BYTES;
    t->words = (t->sectors + 63) / 64;
}

void map_table_fini(struct map_table *t)
{
    arena_destroy(t->blocks.arena); /* with all nodes and bitmaps */
    t->blocks = (struct radix){0};
    t->nr_bitmaps = 0;
    t->present_sectors = 0;
}

/** A table that gets its first mark gets its memory.  0 or -ENOMEM. */
static int table_begin(struct map_table *t)
{
    if (!t->blocks.arena)
        t->blocks.arena = arena_create();
    return t->blocks.arena ? 0 : -ENOMEM;
}

static void bitmap_free(struct map_table *t, void *bits)
{
    arena_free(t->blocks.arena, bits, bitmap_bytes(t));
}

/** Sectors present in a slot. */
static uint32_t slot_present(const struct map_table *t, const void *slot)
{
    if (!slot || slot == ALL_ZERO)
        return 0;
    return slot == ALL_PRESENT ? t->sectors : bits_count(slot, t->words);
}

/** A block becomes all one kind: a tag. */
static int table_mark_whole(struct map_table *t, uint64_t block, uint32_t kind)
{
    void *tag = kind == JOURNAL_PRESENT ? ALL_PRESENT : ALL_ZERO;
    void *old = radix_get(&t->blocks, block);
    uint32_t before = slot_present(t, old);
    int rc = radix_set(&t->blocks, block, tag);
    if (rc < 0)
        return rc;
    if (old && !is_tag(old)) {
        bitmap_free(t, old);
        t->nr_bitmaps--;
    }
    t->present_sectors += slot_present(t, tag);
    t->present_sectors -= before;
    return 0;
}

int map_table_mark(struct map_table *t, uint64_t block, uint32_t start, uint32_t nr,
                   uint32_t kind)
{
    int rc = table_begin(t);
    if (rc < 0)
        return rc;
    if (nr == t->sectors)
        return table_mark_whole(t, block, kind);
    void *old = radix_get(&t->blocks, block);
    if (old == (kind == JOURNAL_PRESENT ? ALL_PRESENT : ALL_ZERO))
        return 0;
    uint32_t before = slot_present(t, old);
    uint64_t *bits = old;
    if (!old || is_tag(old)) {
        bits = arena_alloc(t->blocks.arena, bitmap_bytes(t));
        if (!bits)
            return -ENOMEM;
        if (old)
            bits_set(old == ALL_PRESENT ? bits : bits + t->words, t->words, 0,
                     t->sectors);
        rc = radix_set(&t->blocks, block, bits);
        if (rc < 0) {
            bitmap_free(t, bits);
            return rc;
        }
        t->nr_bitmaps++;
    }
    uint64_t *set = kind == JOURNAL_PRESENT ? bits : bits + t->words;
    uint64_t *clear = kind == JOURNAL_PRESENT ? bits + t->words : bits;
    bits_set(set, t->words, start, nr);
    bits_clear(clear, t->words, start, nr);
    t->present_sectors += bits_count(bits, t->words);
    t->present_sectors -= before;
    if (bits_count(set, t->words) == t->sectors &&
        radix_set(&t->blocks, block,
                  kind == JOURNAL_PRESENT ? ALL_PRESENT : ALL_ZERO) == 0) {
        bitmap_free(t, bits);
        t->nr_bitmaps--;
    }
    return 0;
}

int map_table_apply(struct map_table *t, const struct journal_mark *mark)
{
    uint64_t sector = mark->start, end = mark->start + mark->nr;
    while (sector < end) {
        uint64_t block = sector / t->sectors;
        uint32_t start = (uint32_t)(sector % t->sectors);
        uint64_t nr = t->sectors - start;
        if (nr > end - sector)
            nr = end - sector;
        int rc = map_table_mark(t, block, start, (uint32_t)nr, mark->kind);
        if (rc < 0)
            return rc;
        sector += nr;
    }
    return 0;
}

bool map_table_get(const struct map_table *t, uint64_t block, struct map_marks *out)
{
    const uint64_t *slot = radix_get(&t->blocks, block);
    if (!slot)
        return false;
    size_t bytes = t->words * sizeof(uint64_t);
    if (is_tag(slot)) {
        memset(out->present, 0, bytes);
        memset(out->zero, 0, bytes);
        bits_set(slot == ALL_PRESENT ? out->present : out->zero, t->words, 0,
                 t->sectors);
    } else {
        memcpy(out->present, slot, bytes);
        memcpy(out->zero, slot + t->words, bytes);
    }
    return true;
}

uint32_t map_table_whole(const struct map_table *t, uint64_t block)
{
    const void *slot = radix_get(&t->blocks, block);
    if (slot == ALL_PRESENT)
        return JOURNAL_PRESENT;
    return slot == ALL_ZERO ? JOURNAL_ZERO : 0;
}

uint64_t map_table_next(const struct map_table *t, uint64_t block)
{
    uint64_t found;
    return radix_next(&t->blocks, block, &found) ? found : UINT64_MAX;
}

size_t map_table_bytes(const struct map_table *t)
{
    return sizeof *t + arena_bytes(t->blocks.arena);
}
