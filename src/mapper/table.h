/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of marks: for each touched block, which sectors are present and which are
 * zero.
 *
 * The top of an open map is one that grows; a frozen journal is one that no longer
 * changes and is shared by all maps that have it on their stack.  A block that is
 * wholly present or wholly zero takes one tagged pointer and no bitmap.  One thread at
 * a time.
 */
#ifndef MAPPER_TABLE_H
#define MAPPER_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mapper/map_format.h"
#include "mapper/radix.h"

struct map_table {
    struct radix blocks;
    uint32_t sectors; /* per block */
    uint32_t words;   /* of a bitmap */
    uint64_t present_sectors;
    uint64_t nr_bitmaps;
};

/** What a table says about one block.  A sector is in at most one bitmap. */
struct map_marks {
    uint64_t present[MAP_BLOCK_WORDS_MAX];
    uint64_t zero[MAP_BLOCK_WORDS_MAX];
};

void map_table_init(struct map_table *t, uint32_t block_bytes);
void map_table_fini(struct map_table *t);

/**
 * Mark `nr` sectors from `start` of block `block` present or zero (enum
 * journal_mark_kind). Returns 0, or -ENOMEM with nothing changed.
 */
int map_table_mark(struct map_table *t, uint64_t block, uint32_t start, uint32_t nr,
                   uint32_t kind);

/** Apply a journal's mark, which may span blocks.  0 or -ENOMEM (part may be applied).
 */
int map_table_apply(struct map_table *t, const struct journal_mark *mark);

/**
 * What the table says about `block`.
 *
 * @param out  filled if it says anything; words beyond the block's are left alone.
 * Returns true if any sector of the block is marked.
 */
bool map_table_get(const struct map_table *t, uint64_t block, struct map_marks *out);

/** JOURNAL_PRESENT or JOURNAL_ZERO if all of the block is, otherwise 0. */
uint32_t map_table_whole(const struct map_table *t, uint64_t block);

/** First block at or after `block` with any mark; UINT64_MAX if there is none. */
uint64_t map_table_next(const struct map_table *t, uint64_t block);

/** Bytes of memory that it takes. */
size_t map_table_bytes(const struct map_table *t);

#endif
