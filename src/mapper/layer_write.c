/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a layer (see layer_write.h; bytes in map_format.h). */
#include "mapper/layer_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/hashtab.h"
#include "mapper/bits.h"

struct level {
    struct layer_page page;
    uint32_t nr_pages; /* sealed so far */
};

struct extent_slot {
    struct hashtab_node node;
    uint32_t index;
};

struct layer_writer {
    uint8_t uuid[16];
    uint32_t block_bytes, sectors, words;
    layer_write_fn *write;
    void *ctx;
    struct level levels[LAYER_MAX_HEIGHT];
    uint8_t *chunk; /* LAYER_CHUNK_BYTES of sealed pages */
    size_t chunk_len;
    uint64_t chunk_at; /* offset of the chunk in the layer */
    uint32_t nr_pages; /* numbers given out, with page 0 */
    struct layer_extent *extents;
    struct hashtab extent_index; /* of struct extent_slot */
    uint32_t nr_extents, extent_room;
    uint64_t from;              /* no record may start before this block */
    uint64_t part_block;        /* the last block given in part, */
    uint64_t part_sectors;      /* and how many of its sectors */
    uint64_t run_block, run_nr; /* a run held back to grow; run_nr 0 if none */
    struct map_ref run_ref;
    struct layer_super_disk super; /* counters, filled as it goes */
    int error;                     /* sticky: after a failed write nothing is right */
};

int layer_writer_create(const uint8_t uuid[16], uint32_t block_bytes,
                        layer_write_fn *write, void *ctx, struct layer_writer **out)
{
    *out = NULL;
    if (block_bytes < XSEG_BLOCK_MIN_BYTES || block_bytes > XSEG_BLOCK_MAX_BYTES ||
        (block_bytes & (block_bytes - 1)))
        return -EINVAL;
    struct layer_writer *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->chunk = malloc(LAYER_CHUNK_BYTES);
    if (!w->chunk || hashtab_init(&w->extent_index) < 0) {
        free(w->chunk);
        free(w);
        return -ENOMEM;
    }
    memcpy(w->uuid, uuid, sizeof w->uuid);
    w->block_bytes = block_bytes;
    w->sectors = block_bytes / XSEG_SECTOR_BYTES;
    w->words = (w->sectors + 63) / 64;
    w->write = write;
    w->ctx = ctx;
    w->nr_pages = 1; /* the superblock's */
    w->chunk_at = LAYER_PAGE_BYTES;
    w->super.first_block = UINT64_MAX;
    *out = w;
    return 0;
}

void layer_writer_destroy(struct layer_writer *w)
{
    if (!w)
        return;
    struct hashtab_node *node;
    while ((node = hashtab_walk(&w->extent_index, NULL))) {
        hashtab_remove(&w->extent_index, node);
        free(HASHTAB_ENTRY(node, struct extent_slot, node));
    }
    hashtab_fini(&w->extent_index);
    free(w->extents);
    free(w->chunk);
    free(w);
}

static int flush_chunk(struct layer_writer *w)
{
    if (w->chunk_len == 0)
        return 0;
    int rc = w->write(w->ctx, w->chunk_at, w->chunk, w->chunk_len);
    w->chunk_at += w->chunk_len;
    w->chunk_len = 0;
    return rc;
}

/** Give a filled page its number and checksum, and put it into the chunk. */
static int emit(struct layer_writer *w, struct layer_page *page, uint16_t type,
                uint16_t level, uint32_t *number)
{
    if (w->nr_pages == UINT32_MAX)
        return -E2BIG;
    page->magic = LAYER_PAGE_MAGIC;
    memcpy(page->layer, w->uuid, sizeof page->layer);
    page->number = w->nr_pages++;
    page->type = type;
    page->level = level;
    layer_page_seal(page);
    *number = page->number;
    memcpy(w->chunk + w->chunk_len, page, sizeof *page);
    w->chunk_len += sizeof *page;
    memset(page, 0, sizeof *page);
    return w->chunk_len == LAYER_CHUNK_BYTES ? flush_chunk(w) : 0;
}

static int add_child(struct layer_writer *w, uint16_t level, uint64_t block,
                     uint32_t number);

/** Seal the page being filled at `level` and enter it into the level above. */
static int seal(struct layer_writer *w, uint16_t level)
{
    struct level *l = &w->levels[level];
    uint64_t block; /* the first record and the first child both start with it */
    uint32_t number;
    memcpy(&block, l->page.body, sizeof block);
    int rc =
        emit(w, &l->page, level ? LAYER_PAGE_NODE : LAYER_PAGE_LEAF, level, &number);
    if (rc < 0)
        return rc;
    l->nr_pages++;
    return add_child(w, (uint16_t)(level + 1), block, number);
}

static int add_child(struct layer_writer *w, uint16_t level, uint64_t block,
                     uint32_t number)
{
    if (level >= LAYER_MAX_HEIGHT)
        return -E2BIG;
    struct layer_page *page = &w->levels[level].page;
    if (page->nr == LAYER_PAGE_CHILDREN_MAX) {
        int rc = seal(w, level);
        if (rc < 0)
            return rc;
    }
    struct layer_child child = {.block = block, .page = number};
    memcpy(page->body + page->used, &child, sizeof child);
    page->used = (uint16_t)(page->used + sizeof child);
    page->nr++;
    return 0;
}

/** Index of an extent in the table, added if it is new; or -errno. */
static int64_t extent_number(struct layer_writer *w, const struct map_ref *ref)
{
    struct layer_extent extent;
    memcpy(&extent, ref->id, sizeof extent);
    uint64_t hash = hash_bytes(&extent, sizeof extent);
    for (struct hashtab_node *n = hashtab_find(&w->extent_index, hash); n;
         n = hashtab_next(n)) {
        uint32_t index = HASHTAB_ENTRY(n, struct extent_slot, node)->index;
        if (memcmp(&w->extents[index], &extent, sizeof extent) == 0)
            return index;
    }
    if (w->nr_extents == LAYER_MAX_EXTENTS)
        return -E2BIG;
    if (w->nr_extents == w->extent_room) {
        uint32_t room = w->extent_room ? w->extent_room * 2 : 16;
        struct layer_extent *more = realloc(w->extents, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        w->extents = more;
        w->extent_room = room;
    }
    struct extent_slot *slot = malloc(sizeof *slot);
    if (!slot)
        return -ENOMEM;
    slot->index = w->nr_extents;
    w->extents[w->nr_extents++] = extent;
    hashtab_insert(&w->extent_index, &slot->node, hash);
    return slot->index;
}

/** Add one record of `count` things whose `payload` follows the digest. */
static int add_record(struct layer_writer *w, uint64_t block, uint8_t shape,
                      uint32_t count, const struct map_ref *ref, const void *payload,
                      uint32_t payload_bytes)
{
    struct layer_record r = {
        .block = block, .count = count, .shape = shape, .kind = (uint8_t)ref->kind};
    uint32_t digest = ref->kind == XSEG_REF_CONTENT ? MAP_DIGEST_BYTES : 0;
    uint32_t length = (uint32_t)sizeof r + digest + ((payload_bytes + 7) & ~7u);
    struct layer_page *page = &w->levels[0].page;
    if (ref->kind == XSEG_REF_EXTENT) {
        int64_t index = extent_number(w, ref);
        if (index < 0)
            return (int)index;
        r.extent = (uint32_t)index;
    }
    r.length = (uint16_t)length;
    if (page->used + length > LAYER_BODY_BYTES) {
        int rc = seal(w, 0);
        if (rc < 0)
            return rc;
    }
    uint8_t *at = page->body + page->used; /* zeroed, so padding is zero */
    memcpy(at, &r, sizeof r);
    memcpy(at + sizeof r, ref->id, digest);
    if (payload_bytes)
        memcpy(at + sizeof r + digest, payload, payload_bytes);
    page->used = (uint16_t)(page->used + length);
    page->nr++;
    w->super.nr_records++;
    return 0;
}

/** Write out the run that was held back. */
static int flush_run(struct layer_writer *w)
{
    while (w->run_nr) {
        uint32_t nr = w->run_nr > UINT32_MAX ? UINT32_MAX : (uint32_t)w->run_nr;
        int rc = add_record(w, w->run_block, LAYER_RUN, nr, &w->run_ref, NULL, 0);
        if (rc < 0)
            return rc;
        w->run_block += nr;
        w->run_nr -= nr;
    }
    return 0;
}

/** Count what a record provides. */
static void count(struct layer_writer *w, uint64_t block, uint64_t end,
                  uint64_t sectors, uint32_t kind)
{
    if (w->super.first_block == UINT64_MAX)
        w->super.first_block = block;
    w->super.end_block = end;
    if (kind == XSEG_REF_ZERO)
        w->super.zero_sectors += sectors;
    else if (kind == XSEG_REF_CONTENT)
        w->super.content_sectors += sectors;
    else
        w->super.extent_sectors += sectors;
}

int layer_writer_run(struct layer_writer *w, uint64_t block, uint64_t nr,
                     const struct map_ref *ref)
{
    uint64_t max = MAP_SIZE_MAX / w->block_bytes;
    if (w->error)
        return w->error;
    if (block < w->from || nr == 0 || block >= max || nr > max - block ||
        ref->kind > XSEG_REF_EXTENT || (ref->kind == XSEG_REF_CONTENT && nr != 1))
        return -EINVAL;
    if (w->run_nr && block == w->run_block + w->run_nr &&
        ref->kind != XSEG_REF_CONTENT && map_ref_equal(ref, &w->run_ref)) {
        w->run_nr += nr;
    } else {
        w->error = flush_run(w);
        if (w->error < 0)
            return w->error;
        w->run_block = block;
        w->run_nr = nr;
        w->run_ref = *ref;
    }
    w->from = block + nr;
    uint64_t parts = block == w->part_block ? w->part_sectors : 0;
    count(w, block, block + nr, nr * w->sectors - parts, ref->kind);
    return 0;
}

int layer_writer_part(struct layer_writer *w, uint64_t block, const uint64_t *bits,
                      const struct map_ref *ref)
{
    struct layer_span spans[MAP_BLOCK_SECTORS_MAX];
    uint32_t nr_spans = 0, start = 0, nr = 0;
    if (w->error)
        return w->error;
    if (block < w->from || block >= MAP_SIZE_MAX / w->block_bytes ||
        ref->kind > XSEG_REF_EXTENT)
        return -EINVAL;
    for (uint32_t at = 0; bits_run(bits, w->sectors, at, &start, &nr); at = start + nr)
        spans[nr_spans++] = (struct layer_span){(uint16_t)start, (uint16_t)nr};
    if (nr_spans == 0)
        return -EINVAL;
    w->error = flush_run(w);
    if (w->error < 0)
        return w->error;
    uint32_t span_bytes = nr_spans * (uint32_t)sizeof *spans;
    uint32_t bitmap_bytes = w->words * (uint32_t)sizeof *bits;
    w->error =
        span_bytes <= bitmap_bytes
            ? add_record(w, block, LAYER_SECTORS, nr_spans, ref, spans, span_bytes)
            : add_record(w, block, LAYER_BITMAP, w->words, ref, bits, bitmap_bytes);
    if (w->error < 0)
        return w->error;
    w->from = block;
    if (block != w->part_block)
        w->part_sectors = 0;
    w->part_block = block;
    w->part_sectors += bits_count(bits, w->words);
    count(w, block, block + 1, bits_count(bits, w->words), ref->kind);
    return 0;
}

/** Seal what is open, level by level; the last page sealed alone is the root. */
static int finish_tree(struct layer_writer *w, uint32_t *root, uint32_t *height)
{
    *root = *height = 0;
    for (uint16_t level = 0; level < LAYER_MAX_HEIGHT; level++) {
        struct level *l = &w->levels[level];
        if (l->page.nr == 0 && l->nr_pages == 0)
            return 0;
        if (l->nr_pages == 0) {
            *height = level + 1u;
            return emit(w, &l->page, level ? LAYER_PAGE_NODE : LAYER_PAGE_LEAF, level,
                        root);
        }
        int rc = l->page.nr ? seal(w, level) : 0;
        if (rc < 0)
            return rc;
    }
    return -E2BIG;
}

/** Write the extents that do not fit into the superblock. */
static int write_extents(struct layer_writer *w, uint32_t *first)
{
    *first = 0;
    for (uint32_t i = LAYER_SUPER_EXTENTS; i < w->nr_extents;) {
        struct layer_page page = {0};
        uint32_t nr = w->nr_extents - i, number;
        if (nr > LAYER_PAGE_EXTENTS_MAX)
            nr = LAYER_PAGE_EXTENTS_MAX;
        memcpy(page.body, w->extents + i, nr * sizeof *w->extents);
        page.nr = (uint16_t)nr;
        page.used = (uint16_t)(nr * sizeof *w->extents);
        int rc = emit(w, &page, LAYER_PAGE_EXTENTS, 0, &number);
        if (rc < 0)
            return rc;
        if (*first == 0)
            *first = number;
        i += nr;
    }
    return 0;
}

int64_t layer_writer_finish(struct layer_writer *w)
{
    struct layer_page page = {.magic = LAYER_PAGE_MAGIC, .type = LAYER_PAGE_SUPER};
    struct layer_super_disk *super = &w->super;
    if (w->error)
        return w->error;
    int rc = flush_run(w);
    if (rc == 0)
        rc = finish_tree(w, &super->root, &super->height);
    if (rc == 0)
        rc = write_extents(w, &super->extents_page);
    if (rc == 0)
        rc = flush_chunk(w);
    if (rc < 0)
        return w->error = rc;
    uint32_t here =
        w->nr_extents < LAYER_SUPER_EXTENTS ? w->nr_extents : LAYER_SUPER_EXTENTS;
    super->magic = LAYER_SUPER_MAGIC;
    super->format = LAYER_FORMAT;
    super->block_bytes = w->block_bytes;
    memcpy(super->uuid, w->uuid, sizeof super->uuid);
    super->nr_pages = w->nr_pages;
    super->nr_extents = w->nr_extents;
    if (super->first_block == UINT64_MAX)
        super->first_block = 0;
    memcpy(page.layer, w->uuid, sizeof page.layer);
    memcpy(page.body, super, sizeof *super);
    if (here)
        memcpy(page.body + sizeof *super, w->extents, here * sizeof *w->extents);
    page.nr = (uint16_t)here;
    page.used = (uint16_t)(sizeof *super + here * sizeof *w->extents);
    layer_page_seal(&page);
    rc = w->write(w->ctx, 0, &page, sizeof page);
    w->error = rc < 0 ? rc : -EINVAL; /* finished: nothing can follow */
    return rc < 0 ? rc : (int64_t)w->nr_pages * LAYER_PAGE_BYTES;
}
