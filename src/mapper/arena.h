/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of one table: pieces of a few sizes, all given back at once.
 *
 * The table of a busy volume has a million small pieces.  Freed one by one they take the
 * reactor a tenth of a second, and they leave the process with holes that the system
 * never gets back.  An arena takes memory in chunks from the system and returns the
 * chunks.  A piece that is freed alone is kept for the next one of its size.
 *
 * One thread at a time.
 */
#ifndef MAPPER_ARENA_H
#define MAPPER_ARENA_H

#include <stddef.h>

/** Sizes that one arena hands out. */
#define ARENA_SIZES 4u

struct arena;

/** An empty arena, or NULL without memory. */
struct arena *arena_create(void);

/** Give back all that it handed out.  NULL is harmless. */
void arena_destroy(struct arena *arena);

/**
 * A piece of zeroed memory, aligned to 16 bytes.
 *
 * @param size  one of at most ARENA_SIZES different sizes [bytes], up to 64 KiB.
 * Returns NULL without memory.
 */
void *arena_alloc(struct arena *arena, size_t size);

/** Give back a piece of `size` bytes, to be used again in this arena. */
void arena_free(struct arena *arena, void *piece, size_t size);

/** Bytes that it has from the system. */
size_t arena_bytes(const struct arena *arena);

#endif
