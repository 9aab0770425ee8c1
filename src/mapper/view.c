/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views: blocks of a map's stack, resolved once and kept.
 *
 * Depth is paid when a view is made; what the top provides is laid over it by the
 * reader. All views of all maps share one limit; the least recently used go first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapper/bits.h"
#include "mapper/peer.h"
#include "mapper/view.h"

/** Pages of other tables that are asked for while one is waited for. */
#define AHEAD_PAGES 16u
#define NOBODY      UINT16_MAX

/* ---- what resolve asks for ---- */

static int trail_add(struct mapper *m, struct cached_page *page)
{
    if (m->nr_trail == m->trail_room) {
        uint32_t room = m->trail_room ? m->trail_room * 2 : 64;
        struct cached_page **more = realloc(m->trail, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        m->trail = more;
        m->trail_room = room;
    }
    m->trail[m->nr_trail++] = page;
    return 0;
}

static int source_prepare(void *ctx)
{
    struct source_context *c = ctx;
    struct mapper *m = c->map->m;
    struct map_layer *layer = c->layer;
    if (layer->state == LOAD_READY) {
        uint64_t length = (uint64_t)layer->super.nr_pages * LAYER_PAGE_BYTES;
        return layer->super.block_bytes == c->map->header.block_bytes &&
                       length == c->length
                   ? 0
                   : -EBADMSG;
    }
    if (layer->state == LOAD_NONE) {
        c->map->pages_read++;
        m->nr_ahead += m->ahead;
    }
    map_layer_prepare(layer);
    if (!m->ahead)
        m->wait_on = &layer->waiters;
    return -EAGAIN;
}

static int source_page(void *ctx, uint32_t number, uint32_t level,
                       const struct layer_page **out)
{
    struct source_context *c = ctx;
    struct mapper *m = c->map->m;
    struct cached_page *page;
    bool started;
    (void)level;
    int rc = page_cache_get(m, c->layer, number, &page, &started);
    c->map->pages_read += started;
    if (rc == -ENOMEM)
        return rc;
    if (m->ahead) {
        m->nr_ahead += started;
    } else {
        int added = trail_add(m, page);
        if (added < 0)
            return added;
        if (rc == -EAGAIN)
            m->wait_on = &page->waiters;
    }
    *out = &page->page;
    return rc;
}

static void view_sources(struct map *map)
{
    struct mapper *m = map->m;
    for (uint32_t i = 0; i < map->header.nr_entries; i++) {
        struct map_source *s = &m->sources[i];
        memset(s, 0, sizeof *s);
        s->entry = &map->header.entries[i];
        if (map->stack[i].frozen) {
            s->table = &map->stack[i].frozen->table;
            continue;
        }
        m->contexts[i] = (struct source_context){
            .map = map, .layer = map->stack[i].layer, .length = s->entry->length_bytes};
        s->prepare = source_prepare;
        s->cursor.layer = &map->stack[i].layer->super;
        s->cursor.get = source_page;
        s->cursor.ctx = &m->contexts[i];
    }
}

/** Have pages of the other layers read too, instead of one after the other. */
static void view_read_ahead(struct map *map, uint64_t block)
{
    struct mapper *m = map->m;
    m->ahead = true;
    m->nr_ahead = 0;
    for (uint32_t i = 0; i < map->header.nr_entries && m->nr_ahead < AHEAD_PAGES; i++)
        if (map->stack[i].layer)
            (void)map_resolve(&m->sources[i], 1, block, &m->block);
    m->ahead = false;
}

/* ---- the cache ---- */

static void view_remove(struct view *view)
{
    struct map *map = view->map;
    list_remove(&view->lru);
    map->m->views.bytes -= view->bytes;
    map->nr_views--;
    free(view);
}

static void view_drop_one(void *ctx, void *value)
{
    (void)ctx;
    view_remove(value);
}

void view_drop(struct map *map)
{
    radix_clear(&map->views, view_drop_one, NULL);
}

/** Make room; `keep` stays. */
static void view_evict(struct mapper *m, const struct view *keep)
{
    while (m->views.bytes > m->views.limit_bytes) {
        struct view *oldest = LIST_ENTRY(m->views.lru.prev, struct view, lru);
        if (oldest == keep)
            break;
        radix_remove(&oldest->map->views, oldest->block);
        view_remove(oldest);
    }
}

/** Sort the pieces of a resolved block into runs; returns how many. */
static uint32_t view_runs(const struct map_block *b, struct view_run *runs)
{
    uint16_t owner[MAP_BLOCK_SECTORS_MAX];
    memset(owner, 0xff, sizeof owner); /* NOBODY */
    for (uint32_t i = 0; i < b->nr_pieces; i++) {
        uint32_t start, nr;
        for (uint32_t at = 0; bits_run(b->pieces[i].bits, b->sectors, at, &start, &nr);
             at = start + nr)
            for (uint32_t k = start; k < start + nr; k++)
                owner[k] = (uint16_t)i;
    }
    uint32_t nr_runs = 0;
    for (uint32_t at = 0; at < b->sectors;) {
        uint32_t end = at + 1;
        while (end < b->sectors && owner[end] == owner[at])
            end++;
        struct view_run *run = &runs[nr_runs++];
        memset(run, 0, sizeof *run);
        run->start = (uint16_t)at;
        run->nr = (uint16_t)(end - at);
        run->hole = owner[at] == NOBODY;
        if (!run->hole) {
            run->kind = (uint8_t)b->pieces[owner[at]].ref.kind;
            memcpy(run->id, b->pieces[owner[at]].ref.id, sizeof run->id);
        }
        at = end;
    }
    return nr_runs;
}

static int view_make(struct map *map, const struct view **out)
{
    struct mapper *m = map->m;
    const struct map_block *b = &m->block;
    struct view_run runs[MAP_BLOCK_SECTORS_MAX];
    uint32_t nr = view_runs(b, runs);
    size_t bytes = sizeof(struct view) + nr * sizeof *runs;
    struct view *view = malloc(bytes);
    if (!view)
        return -ENOMEM;
    view->map = map;
    view->block = b->block;
    view->end = b->end;
    view->bytes = bytes;
    view->nr = nr;
    memcpy(view->runs, runs, nr * sizeof *runs);
    if (radix_set(&map->views, b->block, view) < 0) {
        free(view);
        return -ENOMEM;
    }
    map->nr_views++;
    m->views.bytes += bytes;
    list_push_front(&m->views.lru, &view->lru);
    view_evict(m, view);
    *out = view;
    return 0;
}

int view_get(struct map *map, uint64_t block, const struct view **out)
{
    struct mapper *m = map->m;
    uint64_t found;
    struct view *view = radix_prev(&map->views, block, &found);
    if (view && block < view->end) {
        list_remove(&view->lru);
        list_push_front(&m->views.lru, &view->lru);
        *out = view;
        return 0;
    }
    view_sources(map);
    m->nr_trail = 0;
    m->wait_on = NULL;
    m->block.sectors = map->top.sectors;
    m->block.words = map->top.words;
    int rc = map_resolve(m->sources, map->header.nr_entries, block, &m->block);
    if (rc == 0)
        return view_make(map, out);
    if (rc == -EAGAIN)
        view_read_ahead(map, block);
    return rc;
}
