/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving one block over a stack (see resolve.h). */
#include "mapper/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapper/bits.h"

/** Longest row of whole blocks of a table that is looked at, to answer in one piece. */
#define TABLE_ROW_BLOCKS 64u

void map_block_init(struct map_block *b, uint32_t block_bytes)
{
    memset(b, 0, sizeof *b);
    b->sectors = block_bytes / XSEG_SECTOR_BYTES;
    b->words = (b->sectors + 63) / 64;
}

void map_block_fini(struct map_block *b)
{
    free(b->pieces);
    b->pieces = NULL;
    b->nr_pieces = b->room = 0;
}

static bool is_full(const struct map_block *b, const uint64_t *bits)
{
    return bits_find(bits, b->sectors, 0, false) == b->sectors;
}

bool map_block_is_whole(const struct map_block *b)
{
    return b->nr_pieces == 1 && is_full(b, b->pieces[0].bits);
}

static void bound(struct map_block *b, uint64_t end)
{
    if (end < b->end)
        b->end = end;
}

static struct map_piece *piece_of(struct map_block *b, const struct map_ref *ref)
{
    for (uint32_t i = b->nr_pieces; i-- > 0;)
        if (map_ref_equal(&b->pieces[i].ref, ref))
            return &b->pieces[i];
    if (b->nr_pieces == b->room) {
        uint32_t room = b->room ? b->room * 2 : 8;
        struct map_piece *more = realloc(b->pieces, room * sizeof *more);
        if (!more)
            return NULL;
        b->pieces = more;
        b->room = room;
    }
    struct map_piece *piece = &b->pieces[b->nr_pieces++];
    memset(piece, 0, sizeof *piece);
    piece->ref = *ref;
    return piece;
}

/** A source provides `bits` of the block, as far as nobody above it does. */
static int provide(struct map_block *b, const uint64_t *bits, const struct map_ref *ref,
                   uint32_t limit)
{
    uint64_t fresh[MAP_BLOCK_WORDS_MAX];
    uint64_t any = 0;
    for (uint32_t w = 0; w < b->words; w++) {
        fresh[w] = bits[w] & ~b->seen[w] & bits_mask(w, 0, limit);
        any |= fresh[w];
    }
    if (!any)
        return 0;
    struct map_piece *piece = piece_of(b, ref);
    if (!piece)
        return -ENOMEM;
    if (limit == b->sectors && is_full(b, bits))
        piece->full = true;
    for (uint32_t w = 0; w < b->words; w++) {
        piece->bits[w] |= fresh[w];
        b->seen[w] |= fresh[w];
    }
    return 0;
}

static int ask_table(struct map_source *s, struct map_block *b, uint32_t limit)
{
    const struct map_table *t = s->table;
    struct map_ref extent =
        map_ref_extent(s->entry->extent_uuid, s->entry->extent_epoch);
    struct map_ref zero = map_ref_zero();
    uint32_t whole = map_table_whole(t, b->block);
    struct map_marks marks;
    if (!map_table_get(t, b->block, &marks)) {
        s->gap_from = b->block;
        s->gap_end = map_table_next(t, b->block);
        bound(b, s->gap_end);
        return 0;
    }
    uint64_t end = b->block + 1;
    if (whole)
        while (end - b->block < TABLE_ROW_BLOCKS && map_table_whole(t, end) == whole)
            end++;
    bound(b, end);
    int rc = provide(b, marks.present, &extent, limit);
    return rc < 0 ? rc : provide(b, marks.zero, &zero, limit);
}

/** Put the cursor on the first record that speaks of the block or of a later one. */
static int place(struct map_source *s, uint64_t block)
{
    struct layer_cursor *c = &s->cursor;
    bool backwards = block < s->at;
    s->at = block;
    if (!s->placed || backwards) {
        int rc = layer_cursor_seek(c, block);
        s->placed = rc >= 0;
        return rc;
    }
    for (int steps = 0; c->record && layer_record_end(c->record) <= block; steps++) {
        int rc = steps < 64 ? layer_cursor_next(c) : layer_cursor_seek(c, block);
        if (rc < 0) {
            s->placed = false;
            return rc;
        }
    }
    return c->record != NULL;
}

static int ask_layer(struct map_source *s, struct map_block *b, uint32_t limit)
{
    struct layer_cursor *c = &s->cursor;
    int rc = place(s, b->block);
    if (rc < 0)
        return rc;
    if (rc == 0 || c->record->block > b->block) {
        s->gap_from = b->block;
        s->gap_end = rc ? c->record->block : UINT64_MAX;
        bound(b, s->gap_end);
        return 0;
    }
    bound(b, layer_record_end(c->record));
    while (c->record && c->record->block <= b->block) {
        uint64_t bits[MAP_BLOCK_WORDS_MAX] = {0};
        struct map_ref ref = layer_record_ref(c->layer, c->record);
        layer_record_bits(c->layer, c->record, bits);
        rc = provide(b, bits, &ref, limit);
        if (rc < 0)
            return rc;
        if (layer_record_end(c->record) > b->block + 1)
            return 0; /* a run that goes on: stay on it */
        s->at = b->block + 1;
        rc = layer_cursor_next(c);
        if (rc < 0) {
            s->placed = false;
            return rc;
        }
    }
    return 0;
}

/** Ask one source; `limit` in sectors of the block is at least 1. */
static int ask(struct map_source *s, struct map_block *b)
{
    uint32_t limit = b->sectors;
    if (s->entry->limit_bytes != MAP_NO_LIMIT) {
        uint64_t sectors = s->entry->limit_bytes / XSEG_SECTOR_BYTES +
                           (s->entry->limit_bytes % XSEG_SECTOR_BYTES != 0);
        uint64_t last = sectors / b->sectors; /* the block that the limit cuts */
        if (b->block > last || (b->block == last && sectors % b->sectors == 0))
            return 0;
        if (b->block == last) {
            limit = (uint32_t)(sectors % b->sectors);
            bound(b, b->block + 1);
        } else {
            bound(b, last);
        }
    }
    if (b->block >= s->gap_from && b->block < s->gap_end) {
        bound(b, s->gap_end);
        return 0;
    }
    if (s->table)
        return ask_table(s, b, limit);
    int rc = s->prepare ? s->prepare(s->cursor.ctx) : 0;
    return rc < 0 ? rc : ask_layer(s, b, limit);
}

int map_resolve(struct map_source *sources, uint32_t nr, uint64_t block,
                struct map_block *out)
{
    out->block = block;
    out->end = UINT64_MAX;
    out->nr_pieces = 0;
    memset(out->seen, 0, sizeof out->seen);
    for (uint32_t i = 0; i < nr; i++) {
        int rc = ask(&sources[i], out);
        if (rc < 0)
            return rc;
        if (is_full(out, out->seen))
            break;
    }
    if (out->nr_pieces && !map_block_is_whole(out))
        out->end = block + 1;
    else if (out->nr_pieces && !out->pieces[0].full)
        out->end = block + 1; /* whole by the sum of parts: of this block only */
    return 0;
}
