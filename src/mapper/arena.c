/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of one table (see arena.h). */
#include "mapper/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/** Chunks grow from the first to the last size: small tables stay small. */
#define CHUNK_FIRST_BYTES (UINT64_C(4) << 10)
#define CHUNK_LAST_BYTES  (UINT64_C(1) << 20)
#define PIECE_MAX_BYTES   (UINT64_C(64) << 10)
#define ALIGN_BYTES       16u

struct chunk {
    struct chunk *next;
    size_t bytes; /* with this head */
};
static_assert(sizeof(struct chunk) % ALIGN_BYTES == 0, "pieces stay aligned");

/** A piece that was freed; its own memory holds the link. */
struct spare {
    struct spare *next;
};

struct arena {
    struct chunk *chunks; /* the newest first; pieces come from it */
    size_t used;          /* of the newest chunk [bytes] */
    size_t bytes;
    struct {
        size_t size;
        struct spare *spares;
    } sizes[ARENA_SIZES];
};

struct arena *arena_create(void)
{
    return calloc(1, sizeof(struct arena));
}

void arena_destroy(struct arena *arena)
{
    if (!arena)
        return;
    for (struct chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        munmap(chunk, chunk->bytes);
    }
    free(arena);
}

static size_t piece_bytes(size_t size)
{
    return (size + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/** The list of spare pieces of a size. */
static struct spare **arena_spares(struct arena *arena, size_t size)
{
    uint32_t i = 0;
    while (arena->sizes[i].size != size && arena->sizes[i].size)
        i++;
    assert(i < ARENA_SIZES);
    arena->sizes[i].size = size;
    return &arena->sizes[i].spares;
}

/** Begin a chunk with room for a piece.  False: no memory. */
static bool arena_grow(struct arena *arena, size_t size)
{
    size_t bytes = arena->chunks ? arena->chunks->bytes * 2 : CHUNK_FIRST_BYTES;
    if (bytes > CHUNK_LAST_BYTES)
        bytes = CHUNK_LAST_BYTES;
    while (bytes < sizeof(struct chunk) + size)
        bytes *= 2;
    struct chunk *chunk =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED)
        return false;
    chunk->next = arena->chunks;
    chunk->bytes = bytes;
    arena->chunks = chunk;
    arena->used = sizeof *chunk;
    arena->bytes += bytes;
    return true;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size_t bytes = piece_bytes(size);
    assert(size && bytes <= PIECE_MAX_BYTES);
    struct spare **spares = arena_spares(arena, bytes);
    struct spare *spare = *spares;
    if (spare) {
        *spares = spare->next;
        memset(spare, 0, bytes);
        return spare;
    }
    if ((!arena->chunks || arena->used + bytes > arena->chunks->bytes) &&
        !arena_grow(arena, bytes))
        return NULL;
    void *piece = (uint8_t *)arena->chunks + arena->used;
    arena->used += bytes;
    return piece;
}

void arena_free(struct arena *arena, void *piece, size_t size)
{
    struct spare **spares = arena_spares(arena, piece_bytes(size));
    struct spare *spare = piece;
    spare->next = *spares;
    *spares = spare;
}

size_t arena_bytes(const struct arena *arena)
{
    return arena ? arena->bytes : 0;
}
