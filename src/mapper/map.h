/* SPDX-License-Identifier: Apache-2.0 */
/* Open maps: their parts, states and handles. */
#ifndef MAPPER_MAP_H
#define MAPPER_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "mapper/frozen.h"
#include "mapper/header.h"
#include "mapper/layer_cache.h"
#include "mapper/mark_log.h"
#include "mapper/marks.h"
#include "mapper/radix.h"

struct map_op;
struct mapper;

/** One stack entry in memory: one of both, as the header's entry says. */
struct stack_item {
    struct frozen *frozen;
    struct map_layer *layer;
};

enum journal_state {
    JOURNAL_SOUND,
    JOURNAL_UNSURE, /* an append failed: ask for its length before the next */
    JOURNAL_TORN,   /* ends in something that is no record: it takes no more */
};

/** The current journal. */
struct map_journal {
    uint64_t length;   /* [bytes] */
    uint64_t sequence; /* of the next record */
    uint64_t nr_marks;
    enum journal_state state;
};

enum round_state {
    ROUND_NONE,
    ROUND_STARTED,
    ROUND_COMPARED, /* the fence was the newest after it began */
};

/** A round of flushes, and the append that it is at. */
struct append {
    struct map_io io;
    enum round_state round;
    void (*appended)(struct map *map, int rc); /* < 0: its marks are pending again */
    struct list flushes;                       /* struct map_op of this round */
    uint64_t generation;                       /* newest that the round flushes */
    uint64_t give_up_ns;
    struct mark_set *set; /* marks on their way into the journal, or NULL */
};

/** Of an open map; map.c has the table of what follows what. */
enum map_state {
    MAP_LOADING, /* by OPEN; nobody finds it yet */
    MAP_OPEN,
    MAP_HELD,   /* between UPDATE MORE and UPDATE: no round starts */
    MAP_FENCED, /* its fence is not the newest: all but CLOSE and INFO is -ESTALE */
    MAP_CLOSED, /* no request finds it; it goes with the last reference */
};

/**
 * An open map.  At all times: top = marks of the current journal + append + pending, so
 * that freezing the top is freezing the journal.
 */
struct map {
    struct mapper *m;
    uint32_t refs;
    uint32_t slot;
    uint64_t handle;
    bool read_only; /* by its header or by OPEN */
    enum map_state state;
    struct map_header header;
    struct stack_item *stack; /* header.nr_entries */
    uint32_t nr_own; /* leading entries that are journals of the current extent */
    uint64_t nr_sectors;
    struct map_table top;
    struct radix views; /* by first block */
    uint64_t nr_views;
    uint64_t pages_read;
    uint64_t damaged_block; /* told in the log last */
    bool damage_told;

    struct map_journal journal;
    struct append append;
    struct mark_owner marks; /* the log of append and pending */
    struct list pending;     /* struct mark_set */
    uint64_t nr_pending;     /* marks in them */
    uint64_t generation;     /* newest that was marked with */
    struct list flushes;     /* struct map_op that wait for the next round */
    struct list parked;      /* struct map_op that wait for pages */
    void (*round_over)(struct map *map); /* NULL: nothing waits for it */
    struct map_op *change; /* UPDATE that waits for the round under way, or runs */
};

struct map *map_new(struct mapper *m);
void map_ref(struct map *map);
void map_put(struct map *map);
/** Give it a handle.  0 or -ENOMEM. */
int map_publish(struct map *map);
/** The open map of a handle, or NULL. */
struct map *map_find(struct mapper *m, uint64_t handle);
/** Forget it: no request finds it any more; those that wait get `error`. */
void map_close(struct map *map, int error);
/** Another instance has a newer fence, or another map writes this volume: this one
 * takes no more.  The caller lets flush_pump answer what waits. */
void map_fence(struct map *map);
/** As map_fence for all open maps that write the volume that `map` is about to write;
 * their marks are left in the log. */
void map_supersede(struct map *map, const uint8_t uuid[16]);
/** Go to another state, one that may follow. */
void map_enter(struct map *map, enum map_state next);
/** Let no round of flushes start until map_let_go. */
void map_hold(struct map *map);
void map_let_go(struct map *map);
/** True if it takes no more changes. */
static inline bool map_is_over(const struct map *map)
{
    return map->state == MAP_FENCED || map->state == MAP_CLOSED;
}
/** True if [offset, offset + size) is whole sectors inside the map, and not empty. */
bool map_has_range(const struct map *map, uint64_t offset, uint64_t size);
void stack_free(struct stack_item *stack, uint32_t nr);

#endif
