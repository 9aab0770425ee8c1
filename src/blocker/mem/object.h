/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One object in memory: sparse bytes in chunks, so that an extent may be terabytes
 * wide.
 */
#ifndef BLOCKER_MEM_OBJECT_H
#define BLOCKER_MEM_OBJECT_H

#include <stdint.h>

#include "common/hashtab.h"
#include "xseg/request.h"

struct mem_object {
    struct hashtab_node node; /* in its store, by blk_object_hash */
    struct xseg_object name;
    uint64_t size_bytes;  /* end of the last byte ever written */
    uint64_t modified_ns; /* CLOCK_REALTIME */
    uint64_t generation;  /* CONTENT, LAYER */
    struct hashtab chunks;
};

/** 0 or -ENOMEM. */
int mem_object_create(const struct xseg_object *name, struct mem_object **out);
void mem_object_destroy(struct mem_object *object);

/** Store bytes; 0 or -ENOMEM with nothing changed past what was already stored. */
int mem_object_write(struct mem_object *object, uint64_t offset, const void *data,
                     uint64_t size);
/** Fetch bytes; holes and what lies past the end are zeros. */
void mem_object_read(const struct mem_object *object, uint64_t offset, void *data,
                     uint64_t size);
/** Make a range zeros, freeing whole chunks. */
void mem_object_zero(struct mem_object *object, uint64_t offset, uint64_t size);
/** Cut to `size` bytes. */
void mem_object_truncate(struct mem_object *object, uint64_t size);
uint64_t mem_object_allocated(const struct mem_object *object);

#endif
