/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive chained hash table with power-of-two growth.
 *
 * The element embeds a struct hashtab_node and is found by its full 64-bit hash plus
 * the caller's comparison.  One thread at a time.
 */
#ifndef COMMON_HASHTAB_H
#define COMMON_HASHTAB_H

#include <stddef.h>
#include <stdint.h>

struct hashtab_node {
    struct hashtab_node *next;
    uint64_t hash;
};

struct hashtab {
    struct hashtab_node **buckets;
    size_t nr_buckets; /* a power of two */
    size_t nr_nodes;
};

#define HASHTAB_ENTRY(node, type, member)                                              \
    ((type *)(void *)((char *)(node)-offsetof(type, member)))

/** 0 or -ENOMEM. */
int hashtab_init(struct hashtab *tab);
/** Frees the buckets; the elements stay the caller's. */
void hashtab_fini(struct hashtab *tab);

/** Add a node whose key is not there yet.  Growth that fails is put off: never an
 * error. */
void hashtab_insert(struct hashtab *tab, struct hashtab_node *node, uint64_t hash);
void hashtab_remove(struct hashtab *tab, struct hashtab_node *node);

/** First node of that hash; the next with hashtab_next.  NULL ends. */
struct hashtab_node *hashtab_find(const struct hashtab *tab, uint64_t hash);
struct hashtab_node *hashtab_next(const struct hashtab_node *node);

/** Visit all: start with NULL.  The table must not change meanwhile. */
struct hashtab_node *hashtab_walk(const struct hashtab *tab,
                                  const struct hashtab_node *after);

/** Mix a 64-bit key (the finaliser of MurmurHash3, Appleby, public domain). */
static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    x ^= x >> 33;
    return x;
}

/** Hash bytes, eight at a time. Not for untrusted floods: keys here are ours or
 * digests. */
uint64_t hash_bytes(const void *data, size_t len);

#endif
