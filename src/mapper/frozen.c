/* SPDX-License-Identifier: Apache-2.0 */
/* Frozen journals as tables, shared by all maps that have them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "mapper/frozen.h"
#include "mapper/peer.h"
#include "mapper/text.h"

static struct frozen *frozen_find(struct mapper *m, const struct frozen_key *key,
                                  uint64_t hash)
{
    for (struct hashtab_node *n = hashtab_find(&m->frozen, hash); n;
         n = hashtab_next(n)) {
        struct frozen *frozen = HASHTAB_ENTRY(n, struct frozen, node);
        if (memcmp(&frozen->key, key, sizeof *key) == 0)
            return frozen;
    }
    return NULL;
}

struct frozen *frozen_new(struct mapper *m, const struct frozen_key *key)
{
    struct frozen *frozen = calloc(1, sizeof *frozen);
    if (!frozen)
        return NULL;
    frozen->m = m;
    frozen->key = *key;
    frozen->refs = 1;
    map_table_init(&frozen->table, (uint32_t)key->block_bytes);
    list_init(&frozen->waiters);
    return frozen;
}

void frozen_publish(struct frozen *frozen)
{
    uint64_t hash = hash_bytes(&frozen->key, sizeof frozen->key);
    if (frozen->cached || frozen_find(frozen->m, &frozen->key, hash))
        return;
    hashtab_insert(&frozen->m->frozen, &frozen->node, hash);
    frozen->cached = true;
}

static void frozen_unpublish(struct frozen *frozen)
{
    if (frozen->cached)
        hashtab_remove(&frozen->m->frozen, &frozen->node);
    frozen->cached = false;
}

struct frozen *frozen_get(struct mapper *m, const struct frozen_key *key)
{
    struct frozen *frozen = frozen_find(m, key, hash_bytes(key, sizeof *key));
    if (frozen) {
        frozen->refs++;
        return frozen;
    }
    frozen = frozen_new(m, key);
    if (frozen)
        frozen_publish(frozen);
    return frozen;
}

void frozen_put(struct frozen *frozen)
{
    if (--frozen->refs)
        return;
    frozen_unpublish(frozen);
    map_table_fini(&frozen->table);
    free(frozen);
}

static void frozen_loaded(struct journal_load *load, int rc)
{
    struct frozen *frozen = LIST_ENTRY(load, struct frozen, load);
    journal_reader_fini(&load->reader);
    frozen->state = rc == 0 ? LOAD_READY : LOAD_NONE;
    if (rc < 0) {
        char uuid[MAP_UUID_TEXT];
        log_line(LOG_ERROR, "mapperd", "journals/%s.%016llx: %s",
                 map_uuid_text(frozen->key.uuid, uuid),
                 (unsigned long long)frozen->key.number, map_error_text(rc));
        map_table_fini(&frozen->table);
        frozen_unpublish(frozen); /* the next to ask reads it anew */
    }
    waiters_wake(&frozen->waiters, rc);
    frozen_put(frozen);
}

void frozen_prepare(struct frozen *frozen)
{
    if (frozen->state != LOAD_NONE)
        return;
    if (frozen->key.length == 0) {
        frozen->state = LOAD_READY;
        return;
    }
    frozen->state = LOAD_READING;
    frozen->refs++; /* until it is read */
    frozen->load.current = false;
    frozen->load.length = frozen->key.length;
    frozen->load.done = frozen_loaded;
    journal_load_start(frozen->m, &frozen->load, frozen->key.uuid, frozen->key.number,
                       &frozen->table);
}
