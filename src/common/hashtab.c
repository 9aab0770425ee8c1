/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive chained hash table (see hashtab.h). */
#include "common/hashtab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define INITIAL_BUCKETS 64u

int hashtab_init(struct hashtab *tab)
{
    tab->buckets = calloc(INITIAL_BUCKETS, sizeof *tab->buckets);
    tab->nr_buckets = tab->buckets ? INITIAL_BUCKETS : 0;
    tab->nr_nodes = 0;
    return tab->buckets ? 0 : -ENOMEM;
}

void hashtab_fini(struct hashtab *tab)
{
    free(tab->buckets);
    memset(tab, 0, sizeof *tab);
}

static void hashtab_grow(struct hashtab *tab)
{
    size_t nr = tab->nr_buckets * 2;
    struct hashtab_node **buckets = calloc(nr, sizeof *buckets);
    if (!buckets)
        return;
    for (size_t i = 0; i < tab->nr_buckets; i++) {
        struct hashtab_node *node = tab->buckets[i];
        while (node) {
            struct hashtab_node *next = node->next;
            struct hashtab_node **head = &buckets[node->hash & (nr - 1)];
            node->next = *head;
            *head = node;
            node = next;
        }
    }
    free(tab->buckets);
    tab->buckets = buckets;
    tab->nr_buckets = nr;
}

void hashtab_insert(struct hashtab *tab, struct hashtab_node *node, uint64_t hash)
{
    if (tab->nr_nodes >= tab->nr_buckets)
        hashtab_grow(tab);
    struct hashtab_node **head = &tab->buckets[hash & (tab->nr_buckets - 1)];
    node->hash = hash;
    node->next = *head;
    *head = node;
    tab->nr_nodes++;
}

void hashtab_remove(struct hashtab *tab, struct hashtab_node *node)
{
    struct hashtab_node **at = &tab->buckets[node->hash & (tab->nr_buckets - 1)];
    while (*at && *at != node)
        at = &(*at)->next;
    if (*at) {
        *at = node->next;
        tab->nr_nodes--;
    }
}

struct hashtab_node *hashtab_find(const struct hashtab *tab, uint64_t hash)
{
    struct hashtab_node *node = tab->buckets[hash & (tab->nr_buckets - 1)];
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

struct hashtab_node *hashtab_next(const struct hashtab_node *node)
{
    uint64_t hash = node->hash;
    struct hashtab_node *next = node->next;
    while (next && next->hash != hash)
        next = next->next;
    return next;
}

struct hashtab_node *hashtab_walk(const struct hashtab *tab,
                                  const struct hashtab_node *after)
{
    size_t bucket = 0;
    if (after) {
        if (after->next)
            return after->next;
        bucket = (after->hash & (tab->nr_buckets - 1)) + 1;
    }
    for (; bucket < tab->nr_buckets; bucket++)
        if (tab->buckets[bucket])
            return tab->buckets[bucket];
    return NULL;
}

uint64_t hash_bytes(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t hash = hash_u64(len + UINT64_C(0x9e3779b97f4a7c15));
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = hash_u64(hash ^ word);
    }
    uint64_t last = 0;
    memcpy(&last, p, len);
    return hash_u64(hash ^ last);
}
