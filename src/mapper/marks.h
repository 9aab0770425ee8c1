/* SPDX-License-Identifier: Apache-2.0 */
/* Marks that wait for their flush. */
#ifndef MAPPER_MARKS_H
#define MAPPER_MARKS_H

#include <stdint.h>

#include "common/list.h"
#include "mapper/journal.h"
#include "mapper/table.h"

struct map;

/** Marks of one generation that no append has taken yet, in order of arrival. */
struct mark_set {
    struct list link; /* map.pending, by ascending generation */
    uint64_t generation;
    struct journal_mark *marks;
    uint32_t nr, room;
};

void mark_set_free(struct mark_set *set);
/** Free all sets of a map, and that of its append. */
void mark_sets_free(struct map *map);
/** Apply all marks that are not journaled to a table.  0 or -ENOMEM. */
int mark_sets_apply(const struct map *map, struct map_table *table);
/** The set of a generation with room for `more` marks, or NULL without memory. */
struct mark_set *mark_set_get(struct map *map, uint64_t generation, uint32_t more);
/** Add a mark to a set that has room for it. */
void mark_set_push(struct map *map, struct mark_set *set,
                   const struct journal_mark *mark);

#endif
