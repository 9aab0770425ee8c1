/* SPDX-License-Identifier: Apache-2.0 */
/* Layer pages: superblock, extents, and the checks of a page (see layer.h). */
#include "mapper/layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "mapper/bits.h"

#define CRC_AT offsetof(struct layer_page, crc32c)
/** No block lies beyond this, so that sums of block numbers never wrap. */
#define BLOCK_END_MAX (MAP_SIZE_MAX / XSEG_BLOCK_MIN_BYTES)

static uint32_t page_crc(const void *page)
{
    static const uint8_t zero[4];
    const uint8_t *p = page;
    uint32_t crc = crc32c(0, p, CRC_AT);
    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, p + CRC_AT + 4, LAYER_PAGE_BYTES - CRC_AT - 4);
}

void layer_page_seal(struct layer_page *page)
{
    page->crc32c = page_crc(page);
}

static bool head_is_good(const struct layer_page *page, uint32_t number)
{
    return page->magic == LAYER_PAGE_MAGIC && page->number == number &&
           page->used <= LAYER_BODY_BYTES && page->reserved == 0 &&
           page->crc32c == page_crc(page);
}

static const char *check_super(const struct layer_super_disk *d)
{
    if (d->block_bytes < XSEG_BLOCK_MIN_BYTES ||
        d->block_bytes > XSEG_BLOCK_MAX_BYTES ||
        (d->block_bytes & (d->block_bytes - 1)))
        return "block size of the layer is not a power of two from 64 KiB to 4 MiB";
    if (d->nr_pages == 0 || d->height > LAYER_MAX_HEIGHT || d->root >= d->nr_pages ||
        (d->root == 0) != (d->height == 0))
        return "tree of the layer contradicts itself";
    if (d->nr_extents > LAYER_MAX_EXTENTS)
        return "too many extents in a layer";
    uint32_t more = 0;
    if (d->nr_extents > LAYER_SUPER_EXTENTS)
        more = (d->nr_extents - LAYER_SUPER_EXTENTS + LAYER_PAGE_EXTENTS_MAX - 1) /
               LAYER_PAGE_EXTENTS_MAX;
    if ((more == 0) != (d->extents_page == 0) || d->extents_page > d->nr_pages ||
        more > d->nr_pages - d->extents_page)
        return "extent table of the layer lies outside it";
    if (d->first_block > d->end_block || d->end_block > BLOCK_END_MAX)
        return "block range of the layer contradicts itself";
    return NULL;
}

int layer_init(struct layer *out, const void *data, const char **why)
{
    struct layer_page page;
    struct layer_super_disk d;
    memset(out, 0, sizeof *out);
    memcpy(&page, data, sizeof page);
    memcpy(&d, page.body, sizeof d);
    *why = "not a layer, or its superblock is damaged";
    if (!head_is_good(&page, 0) || page.type != LAYER_PAGE_SUPER ||
        d.magic != LAYER_SUPER_MAGIC ||
        memcmp(page.layer, d.uuid, sizeof page.layer) != 0)
        return -EBADMSG;
    *why = "layer format is newer than this program";
    if (d.format != LAYER_FORMAT)
        return -EPROTONOSUPPORT;
    *why = check_super(&d);
    if (*why)
        return -EBADMSG;
    uint32_t here =
        d.nr_extents < LAYER_SUPER_EXTENTS ? d.nr_extents : LAYER_SUPER_EXTENTS;
    if (d.nr_extents) {
        out->extents = calloc(d.nr_extents, sizeof *out->extents);
        if (!out->extents) {
            *why = "no memory";
            return -ENOMEM;
        }
        memcpy(out->extents, page.body + sizeof d, here * sizeof *out->extents);
    }
    memcpy(out->uuid, d.uuid, sizeof out->uuid);
    out->block_bytes = d.block_bytes;
    out->sectors = d.block_bytes / XSEG_SECTOR_BYTES;
    out->nr_pages = d.nr_pages;
    out->root = d.root;
    out->height = d.height;
    out->nr_extents = d.nr_extents;
    out->nr_extents_read = here;
    out->extents_page = d.extents_page;
    out->nr_records = d.nr_records;
    out->first_block = d.first_block;
    out->end_block = d.end_block;
    out->zero_sectors = d.zero_sectors;
    out->extent_sectors = d.extent_sectors;
    out->content_sectors = d.content_sectors;
    return 0;
}

void layer_fini(struct layer *layer)
{
    free(layer->extents);
    layer->extents = NULL;
}

uint32_t layer_next_extents_page(const struct layer *layer)
{
    if (layer->nr_extents_read == layer->nr_extents)
        return 0;
    return layer->extents_page +
           (layer->nr_extents_read - LAYER_SUPER_EXTENTS) / LAYER_PAGE_EXTENTS_MAX;
}

int layer_add_extents(struct layer *layer, const struct layer_page *page)
{
    uint32_t left = layer->nr_extents - layer->nr_extents_read;
    uint32_t here = left < LAYER_PAGE_EXTENTS_MAX ? left : LAYER_PAGE_EXTENTS_MAX;
    if (page->type != LAYER_PAGE_EXTENTS || page->nr != here ||
        page->number != layer_next_extents_page(layer))
        return -EBADMSG;
    memcpy(layer->extents + layer->nr_extents_read, page->body,
           here * sizeof *layer->extents);
    layer->nr_extents_read += here;
    return 0;
}

/** Bytes that a record must have, 0 if its fields are wrong. */
static uint32_t record_bytes(const struct layer *layer, const struct layer_record *r)
{
    uint32_t bytes = sizeof *r + (r->kind == XSEG_REF_CONTENT ? MAP_DIGEST_BYTES : 0);
    switch (r->shape) {
    case LAYER_RUN:
        return r->count && (r->kind != XSEG_REF_CONTENT || r->count == 1) ? bytes : 0;
    case LAYER_SECTORS:
        if (r->count == 0 || r->count > layer->sectors)
            return 0;
        return bytes + (uint32_t)((r->count * sizeof(struct layer_span) + 7) & ~7u);
    case LAYER_BITMAP:
        if (r->count != (layer->sectors + 63) / 64)
            return 0;
        return bytes + r->count * (uint32_t)sizeof(uint64_t);
    default:
        return 0;
    }
}

static const uint8_t *record_payload(const struct layer_record *r)
{
    const uint8_t *p = (const uint8_t *)(r + 1);
    return p + (r->kind == XSEG_REF_CONTENT ? MAP_DIGEST_BYTES : 0);
}

static bool spans_are_good(const struct layer *layer, const struct layer_record *r)
{
    const uint8_t *p = record_payload(r);
    uint32_t end = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        struct layer_span span;
        memcpy(&span, p + i * sizeof span, sizeof span);
        if (span.nr == 0 || span.start < end || span.start + span.nr > layer->sectors)
            return false;
        end = span.start + span.nr;
    }
    return true;
}

static bool words_are_good(const struct layer *layer, const struct layer_record *r)
{
    const uint64_t *words = (const uint64_t *)(const void *)record_payload(r);
    if (layer->sectors < 64 && words[0] >> layer->sectors)
        return false;
    return bits_any(words, r->count);
}

static int check_leaf(const struct layer *layer, const struct layer_page *page)
{
    uint64_t from = 0; /* no record may start before this block */
    uint32_t at = 0;
    if (page->level != 0 || page->nr == 0)
        return -EBADMSG;
    for (uint32_t i = 0; i < page->nr; i++) {
        if (page->used - at < sizeof(struct layer_record))
            return -EBADMSG;
        const struct layer_record *r =
            (const struct layer_record *)(const void *)(page->body + at);
        uint32_t bytes = record_bytes(layer, r);
        if (bytes == 0 || r->length != bytes || bytes > page->used - at ||
            r->reserved || r->block < from || r->block > BLOCK_END_MAX ||
            layer_record_end(r) > BLOCK_END_MAX)
            return -EBADMSG;
        if (r->kind > XSEG_REF_EXTENT ||
            (r->kind == XSEG_REF_EXTENT ? r->extent >= layer->nr_extents
                                        : r->extent != 0))
            return -EBADMSG;
        if ((r->shape == LAYER_SECTORS && !spans_are_good(layer, r)) ||
            (r->shape == LAYER_BITMAP && !words_are_good(layer, r)))
            return -EBADMSG;
        from = r->shape == LAYER_RUN ? layer_record_end(r) : r->block;
        at += bytes;
    }
    return at == page->used ? 0 : -EBADMSG;
}

static int check_node(const struct layer *layer, const struct layer_page *page)
{
    const struct layer_child *child = (const void *)page->body;
    if (page->level == 0 || page->level >= layer->height || page->nr == 0 ||
        page->nr > LAYER_PAGE_CHILDREN_MAX || page->used != page->nr * sizeof *child)
        return -EBADMSG;
    for (uint32_t i = 0; i < page->nr; i++)
        if (child[i].page == 0 || child[i].page >= layer->nr_pages ||
            child[i].reserved || child[i].block > BLOCK_END_MAX ||
            (i && child[i].block < child[i - 1].block))
            return -EBADMSG;
    return 0;
}

int layer_page_check(const struct layer *layer, const void *data, uint32_t number)
{
    const struct layer_page *page = data;
    if (number == 0 || number >= layer->nr_pages || !head_is_good(page, number) ||
        memcmp(page->layer, layer->uuid, sizeof page->layer) != 0)
        return -EBADMSG;
    switch (page->type) {
    case LAYER_PAGE_EXTENTS:
        return page->nr <= LAYER_PAGE_EXTENTS_MAX &&
                       page->used == page->nr * sizeof(struct layer_extent)
                   ? 0
                   : -EBADMSG;
    case LAYER_PAGE_LEAF:
        return check_leaf(layer, page);
    case LAYER_PAGE_NODE:
        return check_node(layer, page);
    default:
        return -EBADMSG;
    }
}

struct map_ref layer_record_ref(const struct layer *layer,
                                const struct layer_record *record)
{
    switch (record->kind) {
    case XSEG_REF_CONTENT:
        return map_ref_content((const uint8_t *)(record + 1));
    case XSEG_REF_EXTENT: {
        const struct layer_extent *extent = &layer->extents[record->extent];
        return map_ref_extent(extent->uuid, extent->epoch);
    }
    default:
        return map_ref_zero();
    }
}

void layer_record_bits(const struct layer *layer, const struct layer_record *record,
                       uint64_t *bits)
{
    const uint8_t *p = record_payload(record);
    uint32_t words = (layer->sectors + 63) / 64;
    if (record->shape == LAYER_RUN) {
        bits_set(bits, words, 0, layer->sectors);
    } else if (record->shape == LAYER_BITMAP) {
        const uint64_t *from = (const uint64_t *)(const void *)p;
        for (uint32_t w = 0; w < words; w++)
            bits[w] |= from[w];
    } else {
        for (uint32_t i = 0; i < record->count; i++) {
            struct layer_span span;
            memcpy(&span, p + i * sizeof span, sizeof span);
            bits_set(bits, words, span.start, span.nr);
        }
    }
}
