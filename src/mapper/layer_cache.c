/* SPDX-License-Identifier: Apache-2.0 */
/* Open layers, shared by all maps that have them on their stack. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "mapper/layer_cache.h"
#include "mapper/peer.h"
#include "mapper/text.h"

struct map_layer *map_layer_get(struct mapper *m, const uint8_t uuid[16])
{
    uint64_t hash = hash_bytes(uuid, 16);
    for (struct hashtab_node *n = hashtab_find(&m->layers, hash); n;
         n = hashtab_next(n)) {
        struct map_layer *layer = HASHTAB_ENTRY(n, struct map_layer, node);
        if (memcmp(layer->uuid, uuid, 16) == 0) {
            layer->refs++;
            return layer;
        }
    }
    struct map_layer *layer = calloc(1, sizeof *layer);
    if (!layer)
        return NULL;
    layer->m = m;
    layer->refs = 1;
    layer->put = map_layer_put;
    memcpy(layer->uuid, uuid, sizeof layer->uuid);
    list_init(&layer->pages);
    list_init(&layer->waiters);
    hashtab_insert(&m->layers, &layer->node, hash);
    return layer;
}

void map_layer_put(struct map_layer *layer)
{
    if (--layer->refs)
        return;
    page_cache_forget(layer->m, layer);
    hashtab_remove(&layer->m->layers, &layer->node);
    layer_fini(&layer->super);
    free(layer);
}

static void layer_read(struct map_layer *layer, uint32_t number);

/** Take page 0. */
static int layer_take_super(struct map_layer *layer, const void *data)
{
    const char *why;
    int rc = layer_init(&layer->super, data, &why);
    if (rc < 0)
        return rc;
    if (memcmp(layer->super.uuid, layer->uuid, sizeof layer->uuid) != 0) {
        layer_fini(&layer->super);
        return -EBADMSG;
    }
    return 0;
}

/** Take a page of the extent table. */
static int layer_take_extents(struct map_layer *layer, const void *data,
                              uint32_t number)
{
    struct layer_page page;
    memcpy(&page, data, sizeof page);
    int rc = layer_page_check(&layer->super, &page, number);
    return rc < 0 ? rc : layer_add_extents(&layer->super, &page);
}

static void layer_read_done(struct map_io *io)
{
    struct map_layer *layer = LIST_ENTRY(io, struct map_layer, io);
    uint32_t number = (uint32_t)(io->offset / LAYER_PAGE_BYTES);
    int rc = io->result < 0 ? (int)io->result : 0;
    if (rc == -ENOENT || (rc == 0 && io->result != LAYER_PAGE_BYTES))
        rc = -EBADMSG;
    if (rc == 0)
        rc = number ? layer_take_extents(layer, map_io_data(io), number)
                    : layer_take_super(layer, map_io_data(io));
    map_io_end(io);
    if (rc == 0) {
        uint32_t next = layer_next_extents_page(&layer->super);
        if (next) {
            layer_read(layer, next);
            return;
        }
        layer->state = LOAD_READY;
    } else {
        char uuid[MAP_UUID_TEXT];
        layer->state = LOAD_NONE;
        layer_fini(&layer->super);
        log_line(rc == -ECANCELED ? LOG_DEBUG : LOG_ERROR, "mapperd",
                 "layers/%s: first page: %s", map_uuid_text(layer->uuid, uuid),
                 map_error_text(rc));
    }
    waiters_wake(&layer->waiters, rc);
    map_layer_put(layer);
}

static void layer_read(struct map_layer *layer, uint32_t number)
{
    struct map_io *io = &layer->io;
    memset(io, 0, sizeof *io);
    io->op = XSEG_OP_READ;
    io->again = true;
    io->object.kind = XSEG_OBJ_LAYER;
    memcpy(io->object.id, layer->uuid, sizeof layer->uuid);
    io->offset = (uint64_t)number * LAYER_PAGE_BYTES;
    io->size = LAYER_PAGE_BYTES;
    io->done = layer_read_done;
    layer->m->pages.reads++;
    map_io_start(layer->m, io);
}

void map_layer_prepare(struct map_layer *layer)
{
    if (layer->state != LOAD_NONE)
        return;
    layer->state = LOAD_READING;
    layer->refs++; /* until it is read */
    layer_read(layer, 0);
}
