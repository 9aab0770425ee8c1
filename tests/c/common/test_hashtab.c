/* SPDX-License-Identifier: Apache-2.0 */
/* The hash table against an array: random inserts and removals, growth, collisions. */
#include "common/hashtab.h"

#include <stdbool.h>

#include "check.h"

#define NR_KEYS  4096u
#define NR_STEPS 200000u

struct item {
    uint64_t key;
    bool present;
    unsigned visits;
    struct hashtab_node node;
};

static struct item items[NR_KEYS];

/** Few hash values, so that most elements share theirs with others. */
static uint64_t poor_hash(uint64_t key)
{
    return key % 97;
}

static struct item *find(const struct hashtab *tab, uint64_t key,
                         uint64_t (*hash)(uint64_t))
{
    struct hashtab_node *node = hashtab_find(tab, hash(key));

    for (; node; node = hashtab_next(node)) {
        struct item *item = HASHTAB_ENTRY(node, struct item, node);
        CHECK_EQ(node->hash, hash(key));
        if (item->key == key)
            return item;
    }
    return NULL;
}

static void check_walk(const struct hashtab *tab, size_t nr_present)
{
    size_t nr = 0;

    for (size_t i = 0; i < NR_KEYS; i++)
        items[i].visits = 0;
    for (struct hashtab_node *node = NULL; (node = hashtab_walk(tab, node)); nr++) {
        struct item *item = HASHTAB_ENTRY(node, struct item, node);
        CHECK(item->present);
        CHECK_EQ(item->visits++, 0);
    }
    CHECK_EQ(nr, nr_present);
    CHECK_EQ(tab->nr_nodes, nr_present);
}

static void test_random_steps(uint64_t *seed, uint64_t (*hash)(uint64_t),
                              unsigned nr_steps)
{
    struct hashtab tab;
    size_t nr_present = 0;

    memset(items, 0, sizeof items);
    CHECK_EQ(hashtab_init(&tab), 0);
    check_walk(&tab, 0);
    for (unsigned step = 0; step < nr_steps; step++) {
        uint64_t key = check_next(seed) % NR_KEYS;
        struct item *item = &items[key];

        CHECK(find(&tab, key, hash) == (item->present ? item : NULL));
        if (item->present) {
            hashtab_remove(&tab, &item->node);
            hashtab_remove(&tab, &item->node); /* again: harmless */
            nr_present--;
        } else {
            item->key = key;
            hashtab_insert(&tab, &item->node, hash(key));
            nr_present++;
        }
        item->present = !item->present;
        if (step % 20000 == 0)
            check_walk(&tab, nr_present);
    }
    check_walk(&tab, nr_present);
    CHECK(tab.nr_buckets >= nr_present / 2);
    hashtab_fini(&tab);
}

static void test_hashes_of_bytes_depend_on_every_byte_and_the_length(uint64_t *seed)
{
    unsigned char bytes[67];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)check_next(seed);
    for (size_t len = 0; len <= sizeof bytes; len++) {
        uint64_t hash = hash_bytes(bytes, len);

        CHECK(hash == hash_bytes(bytes, len));
        for (size_t i = 0; i < len; i++) {
            bytes[i] ^= 0x40;
            CHECK(hash != hash_bytes(bytes, len));
            bytes[i] ^= 0x40;
        }
    }
    memset(bytes, 0, sizeof bytes);
    for (size_t len = 1; len <= sizeof bytes; len++)
        CHECK(hash_bytes(bytes, len) != hash_bytes(bytes, len - 1));
}

int main(void)
{
    uint64_t seed = check_seed();

    test_random_steps(&seed, hash_u64, NR_STEPS);
    test_random_steps(&seed, poor_hash, NR_STEPS / 10);
    test_hashes_of_bytes_depend_on_every_byte_and_the_length(&seed);
    return 0;
}
