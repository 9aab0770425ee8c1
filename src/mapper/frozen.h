/* SPDX-License-Identifier: Apache-2.0 */
/* Frozen journals as tables, shared by all maps that have them. */
#ifndef MAPPER_FROZEN_H
#define MAPPER_FROZEN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hashtab.h"
#include "common/list.h"
#include "mapper/journal_load.h"
#include "mapper/page_cache.h"

/** Names the contents of a frozen journal. */
struct frozen_key {
    uint8_t uuid[16];
    uint64_t number;
    uint64_t length;
    uint64_t block_bytes;
};

/** A frozen journal as a table, shared by all maps that have it on their stack. */
struct frozen {
    struct hashtab_node node;
    struct mapper *m;
    struct frozen_key key;
    uint32_t refs;
    bool cached;           /* found by its key */
    enum load_state state; /* READY: `table` is filled */
    struct map_table table;
    struct list waiters; /* for READY */
    struct journal_load load;
};

/** The table of that key, with a reference; NULL without memory.  Reads nothing. */
struct frozen *frozen_get(struct mapper *m, const struct frozen_key *key);
/** A table of that key outside the cache, not ready, with a reference; or NULL. */
struct frozen *frozen_new(struct mapper *m, const struct frozen_key *key);
/** Let others find it, unless they find another one by that key. */
void frozen_publish(struct frozen *frozen);
/** Read it unless that is done or on its way. */
void frozen_prepare(struct frozen *frozen);
void frozen_put(struct frozen *frozen);

#endif
