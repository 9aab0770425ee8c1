/* SPDX-License-Identifier: Apache-2.0 */
/* Marks that wait for their flush, in sets by generation (see marks.h). */
#include "mapper/marks.h"

#include <stdlib.h>

#include "mapper/map.h"

void mark_set_free(struct mark_set *set)
{
    if (set)
        free(set->marks);
    free(set);
}

void mark_sets_free(struct map *map)
{
    struct list *link;
    while ((link = list_pop_front(&map->pending)))
        mark_set_free(LIST_ENTRY(link, struct mark_set, link));
    mark_set_free(map->append.set);
    map->nr_pending = 0;
}

static int mark_set_apply(const struct mark_set *set, struct map_table *table)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < set->nr; i++)
        rc = map_table_apply(table, &set->marks[i]);
    return rc;
}

int mark_sets_apply(const struct map *map, struct map_table *table)
{
    int rc = map->append.set ? mark_set_apply(map->append.set, table) : 0;
    for (const struct list *it = map->pending.next; rc == 0 && it != &map->pending;
         it = it->next)
        rc = mark_set_apply(LIST_ENTRY(it, struct mark_set, link), table);
    return rc;
}

struct mark_set *mark_set_get(struct map *map, uint64_t generation, uint32_t more)
{
    struct mark_set *set = NULL;
    struct list *at = map->pending.prev; /* the last set that is not newer */
    while (at != &map->pending &&
           LIST_ENTRY(at, struct mark_set, link)->generation > generation)
        at = at->prev;
    if (at != &map->pending)
        set = LIST_ENTRY(at, struct mark_set, link);
    if (!set || set->generation != generation) {
        set = calloc(1, sizeof *set);
        if (!set)
            return NULL;
        set->generation = generation;
        list_insert_after(at, &set->link);
    }
    if (set->nr + more > set->room) {
        uint32_t room = set->room * 2 > set->nr + more ? set->room * 2 : set->nr + more;
        if (room < 16)
            room = 16;
        struct journal_mark *marks = realloc(set->marks, room * sizeof *marks);
        if (!marks)
            return NULL; /* an empty set does no harm */
        set->marks = marks;
        set->room = room;
    }
    return set;
}

void mark_set_push(struct map *map, struct mark_set *set,
                   const struct journal_mark *mark)
{
    if (set->nr) {
        struct journal_mark *last = &set->marks[set->nr - 1];
        if (last->kind == mark->kind && last->start + last->nr == mark->start &&
            last->nr <= UINT32_MAX - mark->nr) {
            last->nr += mark->nr;
            return;
        }
    }
    set->marks[set->nr++] = *mark;
    map->nr_pending++;
}
