/* SPDX-License-Identifier: Apache-2.0 */
/* The ordered map (see radix.h). */
#include "mapper/radix.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#define BITS       6u
#define WIDTH      (1u << BITS)
#define MAX_HEIGHT ((64u + BITS - 1) / BITS)

struct radix_node {
    uint64_t used; /* bit i: slot i is not NULL */
    void *slot[WIDTH];
};

static inline uint32_t slot_of(uint64_t key, uint32_t level)
{
    return (uint32_t)(key >> (level * BITS)) & (WIDTH - 1);
}

/** True if a tree of `height` levels can hold `key`. */
static inline bool covers(uint32_t height, uint64_t key)
{
    return height && (height >= MAX_HEIGHT || key >> (height * BITS) == 0);
}

void *radix_get(const struct radix *r, uint64_t key)
{
    if (!covers(r->height, key))
        return NULL;
    const struct radix_node *node = r->root;
    for (uint32_t level = r->height - 1; level > 0; level--) {
        node = node->slot[slot_of(key, level)];
        if (!node)
            return NULL;
    }
    return node->slot[slot_of(key, 0)];
}

static struct radix_node *node_new(struct radix *r)
{
    struct radix_node *node =
        r->arena ? arena_alloc(r->arena, sizeof *node) : calloc(1, sizeof *node);
    if (node)
        r->nr_nodes++;
    return node;
}

static void node_free(struct radix *r, struct radix_node *node)
{
    r->nr_nodes--;
    if (r->arena)
        arena_free(r->arena, node, sizeof *node);
    else
        free(node);
}

/** Free empty nodes on the way to `key`, from the leaf up; lower the tree if it can be.
 */
static void prune(struct radix *r, uint64_t key)
{
    struct radix_node *path[MAX_HEIGHT];
    struct radix_node *node = r->root;
    uint32_t level = r->height;
    if (!covers(r->height, key))
        return;
    while (node && level > 0) {
        path[--level] = node;
        node = level ? node->slot[slot_of(key, level)] : NULL;
    }
    for (; level < r->height && path[level]->used == 0; level++) {
        node_free(r, path[level]);
        if (level + 1 == r->height) {
            r->root = NULL;
            r->height = 0;
            return;
        }
        uint32_t slot = slot_of(key, level + 1);
        path[level + 1]->slot[slot] = NULL;
        path[level + 1]->used &= ~(UINT64_C(1) << slot);
    }
    while (r->height > 1 && r->root->used == 1) {
        struct radix_node *child = r->root->slot[0];
        node_free(r, r->root);
        r->root = child;
        r->height--;
    }
}

int radix_set(struct radix *r, uint64_t key, void *value)
{
    if (!r->root) {
        r->root = node_new(r);
        if (!r->root)
            return -ENOMEM;
        r->height = 1;
    }
    while (!covers(r->height, key)) {
        struct radix_node *up = node_new(r);
        if (!up)
            goto no_memory;
        up->slot[0] = r->root;
        up->used = r->root->used ? 1 : 0;
        if (!r->root->used) { /* never keep an empty child below */
            node_free(r, r->root);
            up->slot[0] = NULL;
        }
        r->root = up;
        r->height++;
    }
    struct radix_node *node = r->root;
    for (uint32_t level = r->height - 1; level > 0; level--) {
        uint32_t slot = slot_of(key, level);
        if (!node->slot[slot]) {
            struct radix_node *child = node_new(r);
            if (!child)
                goto no_memory;
            node->slot[slot] = child;
            node->used |= UINT64_C(1) << slot;
        }
        node = node->slot[slot];
    }
    uint32_t slot = slot_of(key, 0);
    if (!node->slot[slot])
        r->nr++;
    node->slot[slot] = value;
    node->used |= UINT64_C(1) << slot;
    return 0;
no_memory:
    prune(r, key);
    return -ENOMEM;
}

void *radix_remove(struct radix *r, uint64_t key)
{
    if (!covers(r->height, key))
        return NULL;
    struct radix_node *node = r->root;
    for (uint32_t level = r->height - 1; level > 0; level--) {
        node = node->slot[slot_of(key, level)];
        if (!node)
            return NULL;
    }
    uint32_t slot = slot_of(key, 0);
    void *value = node->slot[slot];
    if (!value)
        return NULL;
    node->slot[slot] = NULL;
    node->used &= ~(UINT64_C(1) << slot);
    r->nr--;
    prune(r, key);
    return value;
}

/** First value at or after `key` below `node`; `base` is the key of its slot 0. */
static void *next_below(const struct radix_node *node, uint32_t level, uint64_t key,
                        uint64_t base, uint64_t *found)
{
    uint32_t first = key > base ? slot_of(key, level) : 0;
    uint64_t used = node->used >> first << first;
    while (used) {
        uint32_t slot = (uint32_t)__builtin_ctzll(used);
        uint64_t at = base + ((uint64_t)slot << (level * BITS));
        if (level == 0) {
            *found = at;
            return node->slot[slot];
        }
        void *value = next_below(node->slot[slot], level - 1, key, at, found);
        if (value)
            return value;
        used &= used - 1;
    }
    return NULL;
}

void *radix_next(const struct radix *r, uint64_t key, uint64_t *found)
{
    if (!covers(r->height, key))
        return NULL;
    return next_below(r->root, r->height - 1, key, 0, found);
}

/** Last value at or before `key` below `node`; `open`: all of the node's keys are. */
static void *prev_below(const struct radix_node *node, uint32_t level, uint64_t key,
                        uint64_t base, bool open, uint64_t *found)
{
    uint32_t last = open ? WIDTH - 1 : slot_of(key, level);
    uint64_t used = node->used << (WIDTH - 1 - last) >> (WIDTH - 1 - last);
    while (used) {
        uint32_t slot = WIDTH - 1 - (uint32_t)__builtin_clzll(used);
        uint64_t at = base + ((uint64_t)slot << (level * BITS));
        if (level == 0) {
            *found = at;
            return node->slot[slot];
        }
        void *value = prev_below(node->slot[slot], level - 1, key, at,
                                 open || slot < last, found);
        if (value)
            return value;
        used &= ~(UINT64_C(1) << slot);
    }
    return NULL;
}

void *radix_prev(const struct radix *r, uint64_t key, uint64_t *found)
{
    if (!r->height)
        return NULL;
    return prev_below(r->root, r->height - 1, key, 0, !covers(r->height, key), found);
}

static void clear_below(struct radix *r, struct radix_node *node, uint32_t level,
                        void (*fn)(void *ctx, void *value), void *ctx)
{
    for (uint64_t used = node->used; used; used &= used - 1) {
        void *slot = node->slot[__builtin_ctzll(used)];
        if (level)
            clear_below(r, slot, level - 1, fn, ctx);
        else if (fn)
            fn(ctx, slot);
    }
    node_free(r, node);
}

void radix_clear(struct radix *r, void (*fn)(void *ctx, void *value), void *ctx)
{
    if (r->root)
        clear_below(r, r->root, r->height - 1, fn, ctx);
    *r = (struct radix){.arena = r->arena};
}

size_t radix_bytes(const struct radix *r)
{
    return r->nr_nodes * sizeof(struct radix_node);
}
