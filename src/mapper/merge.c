/* SPDX-License-Identifier: Apache-2.0 */
/* Merging stack entries into one layer (see merge.h). */
#include "mapper/merge.h"

#include "mapper/bits.h"

static void count(struct merge_statistics *st, uint32_t kind, uint64_t sectors)
{
    if (kind == XSEG_REF_ZERO)
        st->zero_sectors += sectors;
    else if (kind == XSEG_REF_CONTENT)
        st->content_sectors += sectors;
    else
        st->extent_sectors += sectors;
}

/** Store a block that several sources provide: parts first, what is whole last. */
static int put_mixed(const struct map_block *b, bool drop_zeros,
                     struct layer_writer *out, struct merge_statistics *st)
{
    const struct map_piece *full = NULL;
    bool stored = false;
    for (uint32_t i = 0; i < b->nr_pieces; i++)
        if (b->pieces[i].full &&
            !(drop_zeros && b->pieces[i].ref.kind == XSEG_REF_ZERO))
            full = &b->pieces[i];
    for (uint32_t i = 0; i < b->nr_pieces; i++) {
        const struct map_piece *piece = &b->pieces[i];
        /* Over a whole block zeros must stay: it would show through. */
        if (drop_zeros && !full && piece->ref.kind == XSEG_REF_ZERO)
            continue;
        stored = true;
        count(st, piece->ref.kind, bits_count(piece->bits, b->words));
        int rc = 0;
        if (piece != full)
            rc = layer_writer_part(out, b->block, piece->bits, &piece->ref);
        if (rc < 0)
            return rc;
    }
    st->nr_blocks += stored;
    return full ? layer_writer_run(out, b->block, 1, &full->ref) : 0;
}

int map_merge(struct map_source *sources, uint32_t nr, uint32_t block_bytes,
              uint64_t end_block, bool drop_zeros, struct layer_writer *out,
              struct merge_statistics *statistics)
{
    struct map_block b;
    uint64_t block = 0;
    int rc = 0;
    map_block_init(&b, block_bytes);
    while (block < end_block && rc == 0) {
        rc = map_resolve(sources, nr, block, &b);
        if (rc < 0)
            break;
        uint64_t end = b.end < end_block ? b.end : end_block;
        if (map_block_is_whole(&b)) {
            const struct map_ref *ref = &b.pieces[0].ref;
            if (ref->kind != XSEG_REF_ZERO || !drop_zeros) {
                rc = layer_writer_run(out, block, end - block, ref);
                count(statistics, ref->kind, (end - block) * b.sectors);
                statistics->nr_blocks += end - block;
            }
        } else if (b.nr_pieces) {
            rc = put_mixed(&b, drop_zeros, out, statistics);
        }
        block = end;
    }
    map_block_fini(&b);
    return rc;
}
