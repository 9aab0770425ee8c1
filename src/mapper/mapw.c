/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MAPW: marks, put into the sets in which they wait for their flush.
 *
 * Sectors that are already what they become need no mark, which keeps journals short
 * when the same sectors are written again.  That only holds for marks of the newest
 * generation: what is there already may wait for a later flush than an older
 * generation's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapper/bits.h"
#include "mapper/op.h"
#include "mapper/peer.h"

/** Blocks or views looked at before the loop gets its turn. */
#define STEPS_MAX 4096u

/**
 * Mark the sectors `bits` of a block.  0; -ENOBUFS: the log is full, none is marked;
 * -ENOMEM: some may be marked.
 */
static int mark_bits(struct map *map, uint64_t generation, uint64_t block,
                     const uint64_t *bits, uint32_t kind)
{
    uint32_t sectors = map->top.sectors, start, nr, runs = 0;
    for (uint32_t at = 0; bits_run(bits, sectors, at, &start, &nr); at = start + nr)
        runs++;
    if (runs == 0)
        return 0;
    int rc = mark_log_reserve(&map->m->marks, &map->marks, generation, runs);
    if (rc < 0)
        return rc;
    struct mark_set *set = mark_set_get(map, generation, runs);
    if (!set)
        return -ENOMEM;
    for (uint32_t at = 0; bits_run(bits, sectors, at, &start, &nr); at = start + nr) {
        const struct journal_mark mark = {block * sectors + start, nr, kind};
        rc = map_table_mark(&map->top, block, start, nr, kind);
        if (rc < 0)
            return rc;
        mark_set_push(map, set, &mark);
        mark_log_add(&map->m->marks, &map->marks, generation, &mark);
    }
    if (generation > map->generation)
        map->generation = generation;
    return 0;
}

/** Remove from `bits` the sectors that are in the current extent already. */
static void skip_present(const struct map *map, uint64_t block, uint64_t *bits)
{
    struct map_marks marks;
    uint64_t open[MAP_BLOCK_WORDS_MAX]; /* nobody has said anything of these yet */
    memcpy(open, bits, map->top.words * sizeof *open);
    for (uint32_t i = 0; i <= map->nr_own; i++) {
        const struct map_table *t = i ? &map->stack[i - 1].frozen->table : &map->top;
        if (!map_table_get(t, block, &marks))
            continue;
        for (uint32_t w = 0; w < map->top.words; w++) {
            bits[w] &= ~(marks.present[w] & open[w]);
            open[w] &= ~(marks.present[w] | marks.zero[w]);
        }
    }
}

static int mark_present(struct map_op *op, uint64_t first, uint64_t end)
{
    struct map *map = op->map;
    uint32_t sectors = map->top.sectors;
    while (first < end) {
        uint64_t block = first / sectors, bits[MAP_BLOCK_WORDS_MAX] = {0};
        uint64_t stop = (block + 1) * sectors < end ? (block + 1) * sectors : end;
        bits_set(bits, map->top.words, (uint32_t)(first % sectors),
                 (uint32_t)(stop - first));
        if (op->generation >= map->generation)
            skip_present(map, block, bits);
        int rc = mark_bits(map, op->generation, block, bits, JOURNAL_PRESENT);
        if (rc < 0)
            return rc;
        first = stop;
    }
    return 0;
}

/** Remove from `bits` the sectors for which the view has no data. */
static void skip_empty(const struct view *view, uint32_t words, const uint64_t *top,
                       uint64_t *bits)
{
    for (uint32_t i = 0; i < view->nr; i++) {
        const struct view_run *run = &view->runs[i];
        if (run->kind != XSEG_REF_ZERO)
            continue;
        for (uint32_t w = 0; w < words; w++)
            bits[w] &= ~(bits_mask(w, run->start, run->nr) & ~top[w]);
    }
}

/** Zero sectors [first, end) of one block.  0, -EAGAIN, -errno. */
static int zero_in_block(struct map_op *op, uint64_t first, uint64_t end)
{
    struct map *map = op->map;
    uint32_t sectors = map->top.sectors, words = map->top.words;
    uint64_t block = first / sectors, bits[MAP_BLOCK_WORDS_MAX] = {0};
    struct map_marks marks;
    const struct view *view;
    memset(&marks, 0, sizeof marks);
    bits_set(bits, words, (uint32_t)(first % sectors), (uint32_t)(end - first));
    map_table_get(&map->top, block, &marks);
    if (op->generation >= map->generation) {
        uint64_t top[MAP_BLOCK_WORDS_MAX]; /* here the view does not count */
        for (uint32_t w = 0; w < words; w++) {
            bits[w] &= ~marks.zero[w];
            top[w] = marks.present[w] | marks.zero[w];
        }
        int rc = view_get(map, block, &view);
        if (rc < 0)
            return rc;
        skip_empty(view, words, top, bits);
    }
    return mark_bits(map, op->generation, block, bits, JOURNAL_ZERO);
}

static int mark_zero(struct map_op *op, uint64_t first, uint64_t end)
{
    struct map *map = op->map;
    uint32_t sectors = map->top.sectors, steps = 0;
    first += op->pos;
    while (first < end) {
        uint64_t block = first / sectors, next = map_table_next(&map->top, block);
        uint64_t stop = (block + 1) * sectors;
        const struct view *view;
        int rc = 0;
        if (steps++ == STEPS_MAX)
            return -EINPROGRESS;
        if (next > block) { /* only the stack can have data here */
            rc = view_get(map, block, &view);
            if (rc < 0)
                return rc;
            if (view->nr == 1 && view->runs[0].kind == XSEG_REF_ZERO) {
                if (view->end < next)
                    next = view->end;
                stop = next < UINT64_MAX / sectors ? next * sectors : UINT64_MAX;
                stop = stop < end ? stop : end;
                op->pos += stop - first;
                first = stop;
                continue;
            }
        }
        stop = stop < end ? stop : end;
        rc = zero_in_block(op, first, stop);
        if (rc < 0)
            return rc;
        op->pos += stop - first;
        first = stop;
    }
    return 0;
}

static void mapw_start(struct map_op *op)
{
    struct map *map = op->map;
    int rc = 0;
    if (map->read_only)
        rc = -EROFS;
    else if (map->state == MAP_FENCED)
        rc = -ESTALE;
    else if (!map_has_range(map, op->offset, op->size))
        rc = -EINVAL;
    if (rc == 0) {
        uint64_t first = op->offset / XSEG_SECTOR_BYTES;
        uint64_t end = first + op->size / XSEG_SECTOR_BYTES;
        rc = op->flags & XSEG_F_ZERO ? mark_zero(op, first, end)
                                     : mark_present(op, first, end);
    }
    if (rc == -EAGAIN)
        op_park(op);
    else if (rc == -EINPROGRESS)
        op_defer(op);
    else
        op_end(op, rc == -ENOBUFS ? -EAGAIN : rc);
}

void mapw_serve(struct map_op *op)
{
    op->start = mapw_start;
    mapw_start(op);
}
