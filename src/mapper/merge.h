/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging consecutive stack entries into one layer that says the same.
 *
 * Layers are streamed, a page per level each; journals are tables in memory.  Called by
 * the control half (compaction) through archipelago._merge, on any thread.
 */
#ifndef MAPPER_MERGE_H
#define MAPPER_MERGE_H

#include "mapper/layer_write.h"
#include "mapper/resolve.h"

struct merge_statistics {
    uint64_t nr_blocks; /* blocks that the result provides anything of */
    uint64_t zero_sectors, extent_sectors, content_sectors;
};

/**
 * Merge sources into a writer, which the caller finishes.
 *
 * @param sources      top first.
 * @param end_block    stop there; UINT64_MAX for all.
 * @param drop_zeros   nothing lies below: what reads as zeros need not be stored.
 * Returns 0 or -errno of the sources or the writer.
 */
int map_merge(struct map_source *sources, uint32_t nr, uint32_t block_bytes,
              uint64_t end_block, bool drop_zeros, struct layer_writer *out,
              struct merge_statistics *statistics);

#endif
