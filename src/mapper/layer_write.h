/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a layer: one pass over blocks in ascending order, bottom up.
 *
 * Leaves fill first, nodes as their children are done, the superblock comes last; so a
 * layer cut short by a crash has no superblock and is refused.  Memory is a page per
 * level, the output chunk and the table of extents.  One thread at a time.
 */
#ifndef MAPPER_LAYER_WRITE_H
#define MAPPER_LAYER_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "mapper/layer.h"

#define LAYER_CHUNK_BYTES (1u << 20)

/** Store `len` bytes (up to LAYER_CHUNK_BYTES) at `offset` of the layer; 0 or -errno.
 */
typedef int layer_write_fn(void *ctx, uint64_t offset, const void *data, size_t len);

struct layer_writer;

/** Start a layer.  0, -ENOMEM, or -EINVAL for a block size that is not one. */
int layer_writer_create(const uint8_t uuid[16], uint32_t block_bytes,
                        layer_write_fn *write, void *ctx, struct layer_writer **out);

/**
 * Whole blocks [block, block + nr) come from `ref` (CONTENT: nr is 1).
 *
 * Returns 0; -EINVAL if a block was already given whole, or lies before the last;
 * -E2BIG for too many extents or pages; -ENOMEM; or what `write` returned.
 */
int layer_writer_run(struct layer_writer *w, uint64_t block, uint64_t nr,
                     const struct map_ref *ref);

/**
 * Some sectors of a block come from `ref`.  May be repeated for other sectors, and be
 * followed by a run for the rest of the block.
 *
 * @param bits  one bit per sector, at least one set.
 */
int layer_writer_part(struct layer_writer *w, uint64_t block, const uint64_t *bits,
                      const struct map_ref *ref);

/** Write what is left and the superblock.  Returns the layer's length in bytes or
 * -errno. */
int64_t layer_writer_finish(struct layer_writer *w);

void layer_writer_destroy(struct layer_writer *w);

#endif
