/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of open layers in memory, shared by all maps.
 *
 * Below layer_cache.c: a page that is being read keeps its layer, and gives it back
 * through the layer's `put`.
 */
#ifndef MAPPER_PAGE_CACHE_H
#define MAPPER_PAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hashtab.h"
#include "common/list.h"
#include "mapper/io.h"
#include "mapper/layer.h"

struct mapper;

/** Of a thing that is read once and shared. */
enum load_state {
    LOAD_NONE, /* not read yet, or that failed: the next to ask reads it */
    LOAD_READING,
    LOAD_READY,
};

/** An open layer, shared by all maps that have it on their stack. */
struct map_layer {
    struct hashtab_node node;
    struct mapper *m;
    uint8_t uuid[16];
    uint32_t refs;
    enum load_state state; /* READY: `super` is filled, with all extents */
    struct layer super;
    struct list pages;   /* struct cached_page.of_layer */
    struct list waiters; /* for READY */
    struct map_io io;
    void (*put)(struct map_layer *layer); /* map_layer_put */
};

enum page_state {
    PAGE_READING,
    PAGE_VALID, /* `page` is filled and checked */
    PAGE_GONE,  /* out of the cache: freed with the last pin */
};

struct cached_page {
    struct hashtab_node node;
    struct map_layer *layer;
    uint32_t number;
    uint32_t pins;
    enum page_state state;
    struct list lru;
    struct list of_layer;
    struct list waiters;
    struct map_io io;
    struct layer_page page;
};

struct page_cache {
    struct hashtab pages;
    struct list lru; /* most recently used first; only valid pages */
    uint64_t bytes, limit_bytes;
    uint64_t reads; /* pages fetched since start */
};

int page_cache_init(struct page_cache *cache, uint64_t limit_bytes);
void page_cache_fini(struct page_cache *cache);
/**
 * Look a page up, and have it read if it is not there.
 *
 * @param started  out: this call started the read.
 * Returns 0; -EAGAIN: wait on (*out)->waiters; -ENOMEM.
 */
int page_cache_get(struct mapper *m, struct map_layer *layer, uint32_t number,
                   struct cached_page **out, bool *started);
/** Keep a page as long as it is pinned. */
void page_pin(struct cached_page *page);
void page_unpin(struct cached_page *page);
/** Forget the pages of a layer that nobody uses any more. */
void page_cache_forget(struct mapper *m, struct map_layer *layer);

#endif
