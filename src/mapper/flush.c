/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FLUSH: marks into the journal, and the fence compared.
 *
 * Flushes are served in rounds, one at a time per map: all that wait when a round
 * begins are of it, and those that arrive meanwhile share the next.  A round appends all
 * marks up to the newest generation that one of its flushes names.  If there is none it
 * appends nothing, and the blocker still compares the fence: so a flush that is answered
 * was the holder's.
 */
#include <errno.h>
#include <string.h>

#include "mapper/flush.h"
#include "mapper/op.h"
#include "mapper/peer.h"

static void round_step(struct map *map);

static void flush_answer(struct list *flushes, int result)
{
    struct list todo, *link;
    list_init(&todo);
    while ((link = list_pop_front(flushes)))
        list_push_back(&todo, link);
    while ((link = list_pop_front(&todo)))
        op_reply(LIST_ENTRY(link, struct map_op, link), result);
}

void flush_fail(struct map *map, int error)
{
    flush_answer(&map->append.flushes, error);
    flush_answer(&map->flushes, error);
}

/* ---- a round ---- */

static void round_end(struct map *map, int rc)
{
    map->append.round = ROUND_NONE;
    if (rc == -ESTALE)
        map_fence(map); /* flush_pump answers what waits */
    if (rc < 0)
        flush_fail(map, rc);
    else
        flush_answer(&map->append.flushes, 0);
    if (map->round_over)
        map->round_over(map);
    flush_pump(map);
    map_put(map);
}

static void round_compared(struct map_io *io)
{
    struct map *map = LIST_ENTRY(io, struct map, append.io);
    map->append.round = ROUND_COMPARED;
    if (io->result < 0)
        round_end(map, (int)io->result);
    else
        round_step(map);
}

/** Ask whether our fence is the newest. */
static void round_compare(struct map *map)
{
    struct map_io *io = &map->append.io;
    memset(io, 0, sizeof *io);
    io->op = XSEG_OP_APPEND;
    io->again = true;
    io->object.kind = XSEG_OBJ_JOURNAL;
    memcpy(io->object.id, map->header.uuid, 16);
    memcpy(io->object.id + 16, &map->header.journal, 8);
    io->offset = map->journal.length;
    io->fence = map->header.fence;
    io->done = round_compared;
    map_io_start(map->m, io);
}

static bool round_has_marks(const struct map *map, uint64_t generation)
{
    for (const struct list *it = map->pending.next; it != &map->pending;
         it = it->next) {
        const struct mark_set *set = LIST_ENTRY(it, struct mark_set, link);
        if (set->nr && set->generation <= generation)
            return true;
    }
    return false;
}

/** Go on with what the round still lacks. */
static void round_step(struct map *map)
{
    struct append *a = &map->append;
    if (!round_has_marks(map, a->generation)) {
        if (a->round == ROUND_COMPARED)
            round_end(map, 0);
        else
            round_compare(map);
        return;
    }
    if (map->journal.state == JOURNAL_TORN) {
        round_end(map, -EAGAIN); /* until a checkpoint brings a new journal */
        return;
    }
    int rc = append_start(map);
    if (rc < 0)
        round_end(map, rc);
}

static void round_appended(struct map *map, int rc)
{
    if (rc < 0)
        round_end(map, rc);
    else
        round_step(map);
}

void flush_pump(struct map *map)
{
    struct append *a = &map->append;
    struct list *link;
    if (a->round != ROUND_NONE || list_empty(&map->flushes))
        return;
    if (map->state == MAP_FENCED)
        flush_fail(map, -ESTALE);
    if (map->state != MAP_OPEN)
        return; /* held: UPDATE goes on with it; closed: all are answered */
    a->round = ROUND_STARTED;
    a->appended = round_appended;
    a->generation = 0;
    a->give_up_ns = reactor_now_ns(map->m->reactor) + map->m->patience_ns;
    while ((link = list_pop_front(&map->flushes))) {
        struct map_op *op = LIST_ENTRY(link, struct map_op, link);
        list_push_back(&a->flushes, link);
        if (op->generation > a->generation)
            a->generation = op->generation;
    }
    map_ref(map);
    round_step(map);
}

void flush_serve(struct map_op *op)
{
    struct map *map = op->map;
    if (map->read_only) {
        op_reply(op, 0);
        return;
    }
    list_push_back(&map->flushes, &op->link);
    flush_pump(map);
}
