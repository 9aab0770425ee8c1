/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resolving one block over a stack of tables: for each sector the top-most provider
 * wins.
 *
 * Pure: it reads tables and layer pages that are there, and when a page is not it
 * returns what the page callback returned (-EAGAIN); the caller fetches the page and
 * starts again. Used by the mapper (views) and by merging.  One thread at a time.
 */
#ifndef MAPPER_RESOLVE_H
#define MAPPER_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>

#include "mapper/layer.h"
#include "mapper/table.h"

/** One stack entry, ready to be asked.  Zero it, then set entry and either table or
 *  cursor.{layer,get,ctx}. */
struct map_source {
    const struct map_entry *entry;
    const struct map_table *table; /* JOURNAL */
    struct layer_cursor cursor;    /* LAYER */
    int (*prepare)(void *ctx); /* called with cursor.ctx before the cursor is used; 0
                                  or -errno; NULL: it may be used at once */
    bool placed; /* the cursor stands on the first record that speaks of a block >= `at`
                  */
    uint64_t at;
    uint64_t gap_from, gap_end; /* known to provide nothing there */
};

/** The sectors of a block that come from one reference. */
struct map_piece {
    struct map_ref ref;
    bool full; /* its source has the whole block: it may be stored as such */
    uint64_t bits[MAP_BLOCK_WORDS_MAX];
};

/**
 * A resolved block.  Sectors not in `seen` are a hole.  With no piece the hole, and
 * with one piece that covers the block its reference, goes on for all blocks before
 * `end`.
 */
struct map_block {
    uint64_t block, end;
    uint32_t sectors, words;
    uint64_t seen[MAP_BLOCK_WORDS_MAX];
    struct map_piece *pieces; /* disjoint */
    uint32_t nr_pieces, room;
};

void map_block_init(struct map_block *b, uint32_t block_bytes);
void map_block_fini(struct map_block *b);

/** True if one reference covers the block. */
bool map_block_is_whole(const struct map_block *b);

/**
 * Resolve `block` over `nr` sources, top first.
 *
 * @param out  initialised once, reused from call to call.
 * Returns 0; -errno of a page callback (-EAGAIN: start again when the page is there);
 * -EBADMSG; -ENOMEM.
 */
int map_resolve(struct map_source *sources, uint32_t nr, uint64_t block,
                struct map_block *out);

#endif
