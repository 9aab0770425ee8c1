/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open maps: states, handles, references.
 *
 * A handle is a slot and a generation that starts at a different place in every
 * process, so a handle from before a restart is stale rather than somebody else's.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapper/map.h"
#include "mapper/peer.h"

#define FIRST_SLOTS 64u

#define BIT(state) (1u << (state))
/** By state: the states that may follow. */
static const uint8_t map_next[] = {
    [MAP_LOADING] = BIT(MAP_OPEN),
    [MAP_OPEN] = BIT(MAP_HELD) | BIT(MAP_FENCED) | BIT(MAP_CLOSED),
    [MAP_HELD] = BIT(MAP_OPEN) | BIT(MAP_FENCED) | BIT(MAP_CLOSED),
    [MAP_FENCED] = BIT(MAP_FENCED) | BIT(MAP_CLOSED),
    [MAP_CLOSED] = 0,
};

void map_enter(struct map *map, enum map_state next)
{
    bool follows = map_next[map->state] & BIT(next);
    assert(follows);
    (void)follows;
    map->state = next;
}

void map_hold(struct map *map)
{
    if (map->state == MAP_OPEN)
        map_enter(map, MAP_HELD);
}

void map_let_go(struct map *map)
{
    if (map->state == MAP_HELD)
        map_enter(map, MAP_OPEN);
}

struct map *map_new(struct mapper *m)
{
    struct map *map = calloc(1, sizeof *map);
    if (!map)
        return NULL;
    map->m = m;
    map->refs = 1;
    mark_owner_init(&map->marks);
    list_init(&map->append.flushes);
    list_init(&map->pending);
    list_init(&map->flushes);
    list_init(&map->parked);
    return map;
}

void map_ref(struct map *map)
{
    map->refs++;
}

void stack_free(struct stack_item *stack, uint32_t nr)
{
    for (uint32_t i = 0; stack && i < nr; i++) {
        if (stack[i].frozen)
            frozen_put(stack[i].frozen);
        if (stack[i].layer)
            map_layer_put(stack[i].layer);
    }
    free(stack);
}

void map_put(struct map *map)
{
    if (--map->refs)
        return;
    view_drop(map);
    stack_free(map->stack, map->header.nr_entries);
    map_header_fini(&map->header);
    map_table_fini(&map->top);
    mark_sets_free(map);
    free(map);
}

int map_publish(struct map *map)
{
    struct mapper *m = map->m;
    uint32_t slot = 0;
    while (slot < m->nr_slots && m->slots[slot])
        slot++;
    if (slot == m->nr_slots) {
        uint32_t nr = m->nr_slots ? m->nr_slots * 2 : FIRST_SLOTS;
        struct map **more = realloc(m->slots, nr * sizeof(*more));
        if (!more)
            return -ENOMEM;
        memset(more + m->nr_slots, 0, (nr - m->nr_slots) * sizeof(*more));
        m->slots = more;
        m->nr_slots = nr;
    }
    m->slots[slot] = map;
    map->slot = slot;
    map_enter(map, MAP_OPEN);
    map->handle = (uint64_t)((m->generation++ & 0x3fffffff) | 1u << 30) << 32 | slot;
    map_ref(map);
    return 0;
}

struct map *map_find(struct mapper *m, uint64_t handle)
{
    uint32_t slot = (uint32_t)handle;
    struct map *map = slot < m->nr_slots ? m->slots[slot] : NULL;
    return map && map->handle == handle ? map : NULL;
}

void map_fence(struct map *map)
{
    if (map->state == MAP_CLOSED)
        return;
    map_enter(map, MAP_FENCED);
    mark_log_drop(&map->m->marks, &map->marks);
}

bool map_has_range(const struct map *map, uint64_t offset, uint64_t size)
{
    uint64_t end = map->nr_sectors * XSEG_SECTOR_BYTES;
    return size && offset % XSEG_SECTOR_BYTES == 0 && size % XSEG_SECTOR_BYTES == 0 &&
           offset < end && size <= end - offset;
}
