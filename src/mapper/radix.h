/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ordered map from a 64-bit key (a block number) to a pointer.
 *
 * 64-way radix tree that grows with its largest key.  Chosen over a hash because holes
 * are skipped by asking for the next key.  One thread at a time.
 */
#ifndef MAPPER_RADIX_H
#define MAPPER_RADIX_H

#include <stddef.h>
#include <stdint.h>

#include "mapper/arena.h"

struct radix_node;

/** Zero it to start; then an arena may be set, from which nodes come. */
struct radix {
    struct radix_node *root;
    struct arena *arena; /* NULL: nodes come from malloc */
    uint32_t height;     /* levels of nodes; 0 when empty */
    uint64_t nr;         /* keys */
    uint64_t nr_nodes;
};

/** The value of `key`, or NULL. */
void *radix_get(const struct radix *r, uint64_t key);

/** Set the value of `key`, which must not be NULL.  0 or -ENOMEM (nothing changed). */
int radix_set(struct radix *r, uint64_t key, void *value);

/** Remove `key`; returns its value, or NULL. */
void *radix_remove(struct radix *r, uint64_t key);

/** The value of the first key >= `key`, which goes to *found; NULL if there is none. */
void *radix_next(const struct radix *r, uint64_t key, uint64_t *found);

/** The value of the last key <= `key`, which goes to *found; NULL if there is none. */
void *radix_prev(const struct radix *r, uint64_t key, uint64_t *found);

/** Remove all, calling `fn` (may be NULL) with each value.  Its arena is kept. */
void radix_clear(struct radix *r, void (*fn)(void *ctx, void *value), void *ctx);

/** Bytes that the tree itself takes. */
size_t radix_bytes(const struct radix *r);

#endif
