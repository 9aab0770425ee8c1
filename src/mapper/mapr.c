/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MAPR: a range as runs.
 *
 * The answer may be a prefix of the range.  So a range of which some is known is
 * answered at once, and the operation waits only when the very first block is not
 * known: it carries no half-made answer over a wait, during which the map may change.
 */
#include <errno.h>
#include <string.h>

#include "mapper/bits.h"
#include "mapper/op.h"
#include "mapper/peer.h"

/** Blocks or views looked at for one answer: keeps a turn of the loop short. */
#define STEPS_MAX 4096u

/** Runs being written. */
struct answer {
    struct map *map;
    struct xseg_run *runs;
    uint64_t room, nr;
    uint32_t flags; /* of runs in the current extent */
    struct map_ref own;
};

/** Add sectors [first, first + nr).  False: no room. */
static bool emit(struct answer *a, uint64_t first, uint64_t nr, uint32_t kind,
                 const uint8_t *id, bool hole)
{
    struct xseg_run run = {.offset = first * XSEG_SECTOR_BYTES,
                           .size = nr * XSEG_SECTOR_BYTES,
                           .kind = kind};
    if (kind == XSEG_REF_EXTENT) {
        run.object_off = run.offset;
        if (memcmp(id, a->own.id, sizeof run.id) == 0)
            run.flags = a->flags;
    } else if (kind == XSEG_REF_CONTENT) {
        run.object_off = run.offset % a->map->header.block_bytes;
    } else if (hole) {
        run.flags = XSEG_RUN_HOLE;
    }
    if (kind != XSEG_REF_ZERO)
        memcpy(run.id, id, sizeof run.id);
    if (a->nr) {
        struct xseg_run *last = &a->runs[a->nr - 1];
        if (last->kind == kind && last->flags == run.flags &&
            memcmp(last->id, run.id, sizeof run.id) == 0 &&
            (kind == XSEG_REF_ZERO ||
             last->object_off + last->size == run.object_off)) {
            last->size += run.size;
            return true;
        }
    }
    if (a->nr == a->room)
        return false;
    a->runs[a->nr++] = run;
    return true;
}

/** Add the part of a view that lies in [first, end), which is inside it.  False: full.
 */
static bool emit_view(struct answer *a, const struct view *view, uint64_t first,
                      uint64_t end)
{
    uint32_t sectors = a->map->top.sectors;
    if (view->nr == 1) {
        const struct view_run *run = &view->runs[0];
        return emit(a, first, end - first, run->kind, run->id, run->hole);
    }
    uint64_t base = view->block * sectors;
    for (uint32_t i = 0; i < view->nr; i++) {
        const struct view_run *run = &view->runs[i];
        uint64_t lo = base + run->start, hi = lo + run->nr;
        if (lo < first)
            lo = first;
        if (hi > end)
            hi = end;
        if (lo < hi && !emit(a, lo, hi - lo, run->kind, run->id, run->hole))
            return false;
    }
    return true;
}

/** Add sectors [first, end) of a block of which the top has some.  0, 1: full, -errno.
 */
static int emit_mixed(struct answer *a, const struct map_marks *marks, uint64_t first,
                      uint64_t end)
{
    uint32_t sectors = a->map->top.sectors;
    uint64_t block = first / sectors, base = block * sectors;
    while (first < end) {
        uint32_t at = (uint32_t)(first - base), until = (uint32_t)(end - base);
        bool present = marks->present[at / 64] >> (at % 64) & 1;
        bool zero = marks->zero[at / 64] >> (at % 64) & 1;
        uint32_t stop = bits_find(marks->present, until, at, !present);
        uint32_t stop_zero = bits_find(marks->zero, until, at, !zero);
        if (stop_zero < stop)
            stop = stop_zero;
        bool room;
        if (present || zero) {
            room = emit(a, first, stop - at, present ? XSEG_REF_EXTENT : XSEG_REF_ZERO,
                        a->own.id, false);
        } else {
            const struct view *view;
            int rc = view_get(a->map, block, &view);
            if (rc < 0)
                return rc;
            room = emit_view(a, view, first, base + stop);
        }
        if (!room)
            return 1;
        first = base + stop;
    }
    return 0;
}

/** Answer from sector `first` on, as far as it goes.  0, 1: full, -errno. */
static int walk(struct answer *a, uint64_t first, uint64_t end)
{
    struct map *map = a->map;
    uint32_t sectors = map->top.sectors;
    for (uint32_t steps = 0; first < end && steps < STEPS_MAX; steps++) {
        uint64_t block = first / sectors;
        uint64_t stop = (block + 1) * sectors; /* where this step ends */
        uint32_t whole = map_table_whole(&map->top, block);
        struct map_marks marks;
        int rc = 0;
        if (whole) {
            stop = stop < end ? stop : end;
            rc = !emit(a, first, stop - first,
                       whole == JOURNAL_PRESENT ? XSEG_REF_EXTENT : XSEG_REF_ZERO,
                       a->own.id, false);
        } else if (map_table_get(&map->top, block, &marks)) {
            stop = stop < end ? stop : end;
            rc = emit_mixed(a, &marks, first, stop);
        } else {
            const struct view *view;
            rc = view_get(map, block, &view);
            if (rc < 0)
                return rc;
            uint64_t next = map_table_next(&map->top, block);
            if (view->end < next)
                next = view->end;
            stop = next < UINT64_MAX / sectors ? next * sectors : UINT64_MAX;
            stop = stop < end ? stop : end;
            rc = !emit_view(a, view, first, stop);
        }
        if (rc)
            return rc;
        first = stop;
    }
    return 0;
}

static void mapr_start(struct map_op *op)
{
    struct map *map = op->map;
    if (map->state == MAP_FENCED) {
        op_reply(op, -ESTALE);
        return;
    }
    struct answer a = {.map = map, .room = XSEG_INLINE_RUNS};
    a.flags = map->read_only ? XSEG_RUN_LIVE : XSEG_RUN_OWNED;
    a.own = map_ref_extent(map->header.uuid, map->header.epoch);
    a.runs = (struct xseg_run *)(void *)op->rq->inline_data;
    if (op->data_off) {
        a.room = op->data_len / sizeof(struct xseg_run);
        a.runs = a.room ? xseg_heap_ptr(map->m->seg, op->data_off, op->data_len) : NULL;
    }
    if (!a.runs || (uintptr_t)a.runs % sizeof(uint64_t) ||
        !map_has_range(map, op->offset, op->size)) {
        op_reply(op, -EINVAL);
        return;
    }
    uint64_t first = op->offset / XSEG_SECTOR_BYTES;
    int rc = walk(&a, first, first + op->size / XSEG_SECTOR_BYTES);
    if (rc == -EAGAIN && a.nr == 0)
        op_park(op);
    else if (a.nr)
        op_reply(op, (int64_t)a.nr);
    else
        op_end(op, rc);
}

void mapr_serve(struct map_op *op)
{
    op->start = mapr_start;
    mapr_start(op);
}
