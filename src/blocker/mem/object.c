/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse bytes in memory (see object.h).  The reactor's thread only. */
#include "blocker/mem/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHUNK_BYTES (64u << 10)

struct chunk {
    struct hashtab_node node; /* by hash_u64(index) */
    uint64_t index;
    uint8_t bytes[CHUNK_BYTES];
};

static void touch(struct mem_object *object)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    object->modified_ns =
        (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

int mem_object_create(const struct xseg_object *name, struct mem_object **out)
{
    *out = NULL;
    struct mem_object *object = calloc(1, sizeof *object);
    if (!object)
        return -ENOMEM;
    int rc = hashtab_init(&object->chunks);
    if (rc < 0) {
        free(object);
        return rc;
    }
    object->name = *name;
    touch(object);
    *out = object;
    return 0;
}

void mem_object_destroy(struct mem_object *object)
{
    struct hashtab_node *node;
    while ((node = hashtab_walk(&object->chunks, NULL)) != NULL) {
        hashtab_remove(&object->chunks, node);
        free(HASHTAB_ENTRY(node, struct chunk, node));
    }
    hashtab_fini(&object->chunks);
    free(object);
}

static struct chunk *find(const struct mem_object *object, uint64_t index)
{
    struct hashtab_node *node = hashtab_find(&object->chunks, hash_u64(index));
    for (; node; node = hashtab_next(node)) {
        struct chunk *chunk = HASHTAB_ENTRY(node, struct chunk, node);
        if (chunk->index == index)
            return chunk;
    }
    return NULL;
}

/** The part of [offset, offset + size) that lies in the chunk of `offset`. */
static uint64_t in_chunk(uint64_t offset, uint64_t size)
{
    uint64_t room = CHUNK_BYTES - offset % CHUNK_BYTES;
    return size < room ? size : room;
}

int mem_object_write(struct mem_object *object, uint64_t offset, const void *data,
                     uint64_t size)
{
    const uint8_t *from = data;
    touch(object);
    while (size > 0) {
        uint64_t part = in_chunk(offset, size);
        struct chunk *chunk = find(object, offset / CHUNK_BYTES);
        if (!chunk) {
            chunk = calloc(1, sizeof *chunk);
            if (!chunk)
                return -ENOMEM;
            chunk->index = offset / CHUNK_BYTES;
            hashtab_insert(&object->chunks, &chunk->node, hash_u64(chunk->index));
        }
        memcpy(chunk->bytes + offset % CHUNK_BYTES, from, part);
        from += part;
        offset += part;
        size -= part;
        if (object->size_bytes < offset)
            object->size_bytes = offset;
    }
    return 0;
}

void mem_object_read(const struct mem_object *object, uint64_t offset, void *data,
                     uint64_t size)
{
    uint8_t *to = data;
    while (size > 0) {
        uint64_t part = in_chunk(offset, size);
        const struct chunk *chunk = find(object, offset / CHUNK_BYTES);
        if (chunk)
            memcpy(to, chunk->bytes + offset % CHUNK_BYTES, part);
        else
            memset(to, 0, part);
        to += part;
        offset += part;
        size -= part;
    }
}

static void drop(struct mem_object *object, struct chunk *chunk)
{
    hashtab_remove(&object->chunks, &chunk->node);
    free(chunk);
}

void mem_object_zero(struct mem_object *object, uint64_t offset, uint64_t size)
{
    touch(object);
    if (offset >= object->size_bytes)
        return;
    if (size > object->size_bytes - offset)
        size = object->size_bytes - offset;
    while (size > 0) {
        uint64_t part = in_chunk(offset, size);
        struct chunk *chunk = find(object, offset / CHUNK_BYTES);
        if (chunk && part == CHUNK_BYTES)
            drop(object, chunk);
        else if (chunk)
            memset(chunk->bytes + offset % CHUNK_BYTES, 0, part);
        offset += part;
        size -= part;
    }
}

void mem_object_truncate(struct mem_object *object, uint64_t size)
{
    if (size < object->size_bytes)
        mem_object_zero(object, size, object->size_bytes - size);
    object->size_bytes = size;
}

uint64_t mem_object_allocated(const struct mem_object *object)
{
    return object->chunks.nr_nodes * (uint64_t)CHUNK_BYTES;
}
