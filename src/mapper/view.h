/* SPDX-License-Identifier: Apache-2.0 */
/* Views: blocks of a map's stack, resolved once and kept. */
#ifndef MAPPER_VIEW_H
#define MAPPER_VIEW_H

#include <stdint.h>

#include "common/list.h"
#include "mapper/page_cache.h"

struct map;

/** Sectors of a block with one source. */
struct view_run {
    uint16_t start, nr; /* sectors */
    uint8_t kind;       /* enum xseg_reference_kind */
    uint8_t hole;       /* ZERO that no table provides */
    uint8_t reserved[2];
    uint8_t id[32];
};

/** A block of a map's stack (without the top), or a row of blocks that are all alike.
 */
struct view {
    struct list lru;
    struct map *map;
    uint64_t block, end; /* runs[] holds for each block before `end` */
    size_t bytes;
    uint32_t nr;
    struct view_run runs[];
};

struct view_cache {
    struct list lru;
    uint64_t bytes, limit_bytes;
};

/**
 * The view that covers `block`.
 *
 * @param out  valid until the next call.
 * Returns 0; -EAGAIN: a page is on its way, op_park waits for it; -EBADMSG; -ENOMEM.
 */
int view_get(struct map *map, uint64_t block, const struct view **out);
/** Forget all views of a map. */
void view_drop(struct map *map);

#endif
