/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of layers in memory, shared by all maps.
 *
 * Pages that an operation needs while it waits for a further one are pinned: however
 * small the cache, an operation that is started again finds at least what it had.  So
 * the limit is passed for as long as pins demand.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "mapper/page_cache.h"
#include "mapper/peer.h"
#include "mapper/text.h"

int page_cache_init(struct page_cache *cache, uint64_t limit_bytes)
{
    list_init(&cache->lru);
    cache->bytes = 0;
    cache->reads = 0;
    cache->limit_bytes = limit_bytes;
    return hashtab_init(&cache->pages);
}

void page_cache_fini(struct page_cache *cache)
{
    hashtab_fini(&cache->pages); /* layers took their pages along */
}

static uint64_t page_hash(const struct map_layer *layer, uint32_t number)
{
    return hash_u64((uint64_t)(uintptr_t)layer ^ hash_u64(number));
}

/** Take a page out of the cache; it is freed unless it is pinned. */
static void page_drop(struct mapper *m, struct cached_page *page)
{
    hashtab_remove(&m->pages.pages, &page->node);
    list_remove(&page->of_layer);
    if (page->state == PAGE_VALID) {
        list_remove(&page->lru);
        m->pages.bytes -= sizeof *page;
    }
    page->state = PAGE_GONE;
    if (page->pins == 0)
        free(page);
}

static void page_evict(struct mapper *m)
{
    struct page_cache *cache = &m->pages;
    struct list *at = cache->lru.prev;
    while (cache->bytes > cache->limit_bytes && at != &cache->lru) {
        struct cached_page *page = LIST_ENTRY(at, struct cached_page, lru);
        at = at->prev;
        if (page->pins == 0)
            page_drop(m, page);
    }
}

static void page_read_done(struct map_io *io)
{
    struct cached_page *page = LIST_ENTRY(io, struct cached_page, io);
    struct mapper *m = io->m;
    struct map_layer *layer = page->layer;
    int rc = io->result < 0 ? (int)io->result : 0;
    if (rc == 0) {
        rc = -EBADMSG;
        if (io->result == LAYER_PAGE_BYTES) {
            memcpy(&page->page, map_io_data(io), sizeof page->page);
            rc = layer_page_check(&layer->super, &page->page, page->number);
        }
    } else if (rc == -ENOENT) {
        rc = -EBADMSG; /* a header refers to it */
    }
    map_io_end(io);
    if (rc == 0) {
        page->state = PAGE_VALID;
        m->pages.bytes += sizeof *page;
        list_push_front(&m->pages.lru, &page->lru);
    } else {
        char uuid[MAP_UUID_TEXT];
        log_line(LOG_ERROR, "mapperd", "layers/%s: page %u: %s",
                 map_uuid_text(layer->uuid, uuid), page->number, map_error_text(rc));
    }
    page_pin(page);
    waiters_wake(&page->waiters, rc);
    if (rc < 0)
        page_drop(m, page);
    page_unpin(page);
    page_evict(m);
    layer->put(layer);
}

int page_cache_get(struct mapper *m, struct map_layer *layer, uint32_t number,
                   struct cached_page **out, bool *started)
{
    uint64_t hash = page_hash(layer, number);
    *started = false;
    for (struct hashtab_node *n = hashtab_find(&m->pages.pages, hash); n;
         n = hashtab_next(n)) {
        struct cached_page *page = HASHTAB_ENTRY(n, struct cached_page, node);
        if (page->layer != layer || page->number != number)
            continue;
        *out = page;
        if (page->state != PAGE_VALID)
            return -EAGAIN;
        list_remove(&page->lru);
        list_push_front(&m->pages.lru, &page->lru);
        return 0;
    }
    struct cached_page *page = calloc(1, sizeof *page);
    *out = page;
    if (!page)
        return -ENOMEM;
    page->layer = layer;
    page->number = number;
    list_init(&page->lru);
    list_init(&page->waiters);
    list_push_back(&layer->pages, &page->of_layer);
    hashtab_insert(&m->pages.pages, &page->node, hash);
    page->io.op = XSEG_OP_READ;
    page->io.again = true;
    page->io.object.kind = XSEG_OBJ_LAYER;
    memcpy(page->io.object.id, layer->uuid, sizeof layer->uuid);
    page->io.offset = (uint64_t)number * LAYER_PAGE_BYTES;
    page->io.size = LAYER_PAGE_BYTES;
    page->io.done = page_read_done;
    layer->refs++; /* until it is read */
    m->pages.reads++;
    *started = true;
    map_io_start(m, &page->io);
    return -EAGAIN;
}

void page_pin(struct cached_page *page)
{
    page->pins++;
}

void page_unpin(struct cached_page *page)
{
    if (--page->pins == 0 && page->state == PAGE_GONE)
        free(page);
}

void page_cache_forget(struct mapper *m, struct map_layer *layer)
{
    LIST_FOR_EACH(it, n, &layer->pages)
    {
        page_drop(m, LIST_ENTRY(it, struct cached_page, of_layer));
    }
}
