/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of open maps: by CLOSE, by a stop, by another map of the same volume.  And INFO,
 * which is asked before.
 *
 * Above map.c, flush.c and op.c: those that wait for the map are answered here.
 */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "mapper/flush.h"
#include "mapper/op.h"
#include "mapper/peer.h"

void map_close(struct map *map, int error)
{
    struct mapper *m = map->m;
    struct list *link;
    if (map->state == MAP_CLOSED)
        return;
    map_enter(map, MAP_CLOSED);
    map_ref(map); /* the answers below may drop the last reference */
    while ((link = list_pop_front(&map->parked))) {
        struct map_op *op = LIST_ENTRY(link, struct map_op, link);
        list_remove(&op->waiter.link);
        op_reply(op, error);
    }
    flush_fail(map, error);
    mark_log_leave(&m->marks, &map->marks);
    if (map->handle && m->slots[map->slot] == map) {
        m->slots[map->slot] = NULL;
        map_put(map);
    }
    map_put(map);
}

void map_supersede(struct map *map, const uint8_t uuid[16])
{
    struct mapper *m = map->m;
    for (uint32_t i = 0; i < m->nr_slots; i++) {
        struct map *other = m->slots[i];
        if (!other || other == map || other->read_only ||
            memcmp(other->header.uuid, uuid, sizeof other->header.uuid) != 0)
            continue;
        log_line(LOG_WARNING, "mapperd", "\"%s\" is opened anew: its old map ends",
                 other->header.name.bytes);
        mark_log_leave(&m->marks, &other->marks);
        map_fence(other);
        flush_pump(other);
    }
}

void map_info_serve(struct map_op *op)
{
    const struct map *map = op->map;
    struct xseg_map_info info = {
        .journal = {.number = map->header.journal,
                    .length_bytes = map->journal.length,
                    .nr_marks = map->journal.nr_marks},
        .present_sectors = map->top.present_sectors,
        .dirty_marks = map->nr_pending + append_nr(map),
        .cached_blocks = map->nr_views,
        .pages_read = map->pages_read,
        .stack_depth = map->header.nr_entries,
        .needs_checkpoint = map->journal.state == JOURNAL_TORN,
    };
    for (uint32_t i = 0; i < map->nr_own; i++)
        info.present_sectors += map->stack[i].frozen->table.present_sectors;
    memcpy(op->rq->inline_data, &info, sizeof info);
    op_reply(op, 0);
}
