/* SPDX-License-Identifier: Apache-2.0 */
/* The ordered map and the table of marks, each against a plain array. */
#include "check.h"
#include "mapper/radix.h"
#include "mapper/table.h"
#include "tables.h"

#define KEYS 3000u

static void test_radix(uint64_t *seed)
{
    static uint64_t keys[KEYS];
    static void *values[KEYS];
    struct radix r = {0};
    uint64_t found, spread = check_next(seed) % 58;
    uint32_t nr = 1 + below(seed, KEYS), live = 0;
    for (uint32_t i = 0; i < nr; i++) { /* ascending, without doubles */
        keys[i] = (i ? keys[i - 1] : 0) + 1 + (check_next(seed) >> spread) / nr;
        values[i] = NULL;
    }
    for (uint32_t step = 0; step < 4 * nr; step++) {
        uint32_t i = below(seed, nr), k = below(seed, nr);
        if (below(seed, 3)) {
            live += !values[i];
            values[i] = &values[below(seed, nr)];
            CHECK_EQ(radix_set(&r, keys[i], values[i]), 0);
        } else {
            CHECK(radix_remove(&r, keys[i]) == values[i]);
            live -= values[i] != NULL;
            values[i] = NULL;
        }
        CHECK_EQ(r.nr, live);
        CHECK(radix_get(&r, keys[k]) == values[k]);
        CHECK(radix_get(&r, keys[k] - 1) ==
              (k && keys[k - 1] == keys[k] - 1 ? values[k - 1] : NULL));
        uint32_t next = k, prev = k + 1;
        while (next < nr && !values[next])
            next++;
        while (prev > 0 && !values[prev - 1])
            prev--;
        void *got = radix_next(&r, keys[k], &found);
        CHECK(got == (next < nr ? values[next] : NULL));
        CHECK(!got || found == keys[next]);
        got = radix_prev(&r, keys[k], &found);
        CHECK(got == (prev ? values[prev - 1] : NULL));
        CHECK(!got || found == keys[prev - 1]);
    }
    radix_clear(&r, NULL, NULL);
    CHECK(r.root == NULL && r.nr_nodes == 0);
}

static void test_radix_extremes(void)
{
    struct radix r = {0};
    uint64_t found;
    int value;
    CHECK(radix_next(&r, 0, &found) == NULL &&
          radix_prev(&r, UINT64_MAX, &found) == NULL);
    CHECK_EQ(radix_set(&r, UINT64_MAX, &value), 0);
    CHECK_EQ(radix_set(&r, 0, &value), 0);
    CHECK(radix_next(&r, 1, &found) == &value && found == UINT64_MAX);
    CHECK(radix_prev(&r, UINT64_MAX - 1, &found) == &value && found == 0);
    CHECK(radix_remove(&r, UINT64_MAX) == &value);
    CHECK(radix_get(&r, UINT64_MAX) == NULL && radix_get(&r, 64) == NULL);
    CHECK(radix_prev(&r, UINT64_MAX, &found) == &value && found == 0);
    CHECK_EQ(r.height, 1); /* it shrinks again */
    CHECK(radix_remove(&r, 0) == &value);
    CHECK(r.root == NULL);
}

static void test_table(uint64_t *seed)
{
    static uint8_t model[64 * 1024];
    uint32_t block_bytes = XSEG_BLOCK_MIN_BYTES << check_next(seed) % 7;
    uint32_t sectors = block_bytes / XSEG_SECTOR_BYTES, blocks = 1 + below(seed, 64);
    uint32_t nr = sectors * blocks;
    struct map_table t;
    map_table_init(&t, block_bytes);
    memset(model, 0, sizeof model);
    for (int step = 0; step < 300; step++) {
        uint32_t start = below(seed, nr), len = 1 + below(seed, nr - start);
        if (below(seed, 3))
            len = 1 + len % 20;
        if (len > nr - start)
            len = nr - start;
        struct journal_mark mark = {start, len, 1 + below(seed, 2)};
        CHECK_EQ(map_table_apply(&t, &mark), 0);
        memset(model + start, (int)mark.kind, len);
    }
    uint64_t present = 0, next = UINT64_MAX;
    for (uint32_t b = blocks; b-- > 0;) {
        struct map_marks marks;
        bool any = map_table_get(&t, b, &marks), want = false;
        uint32_t ones = 0, twos = 0;
        for (uint32_t i = 0; i < sectors; i++) {
            uint8_t kind = model[b * sectors + i];
            want |= kind != 0;
            ones += kind == JOURNAL_PRESENT;
            twos += kind == JOURNAL_ZERO;
            if (any) {
                CHECK_EQ(marks.present[i / 64] >> (i % 64) & 1,
                         kind == JOURNAL_PRESENT);
                CHECK_EQ(marks.zero[i / 64] >> (i % 64) & 1, kind == JOURNAL_ZERO);
            }
        }
        CHECK_EQ(any, want);
        CHECK_EQ(map_table_whole(&t, b), ones == sectors   ? JOURNAL_PRESENT
                                         : twos == sectors ? JOURNAL_ZERO
                                                           : 0);
        next = want ? b : next;
        CHECK_EQ(map_table_next(&t, b), next);
        present += ones;
    }
    CHECK_EQ(t.present_sectors, present);
    map_table_fini(&t);
}

/** Issue 9, fault 29: what a table had goes back to the system, all at once. */
static void test_memory_of_a_table_is_used_again_and_given_back(void)
{
    struct map_table t;
    map_table_init(&t, 4u << 20);
    for (uint64_t b = 0; b < 20000; b++)
        CHECK_EQ(map_table_mark(&t, b * 7, 3, 1, JOURNAL_PRESENT), 0);
    size_t full = map_table_bytes(&t);
    CHECK(full < 20000 * 700);
    for (uint64_t b = 0; b < 20000; b++) /* whole: its bitmap is spare */
        CHECK_EQ(map_table_mark(&t, b * 7, 0, t.sectors, JOURNAL_PRESENT), 0);
    CHECK_EQ(t.nr_bitmaps, 0);
    for (uint64_t b = 0; b < 20000; b++)
        CHECK_EQ(map_table_mark(&t, b * 7, 5, 1, JOURNAL_ZERO), 0);
    CHECK_EQ(t.nr_bitmaps, 20000);
    CHECK_EQ(map_table_bytes(&t), full);
    struct map_marks marks;
    CHECK(map_table_get(&t, 7, &marks));
    CHECK_EQ(marks.zero[0], 1u << 5);
    CHECK_EQ(~marks.present[0], 1u << 5);
    map_table_fini(&t);
    CHECK_EQ(map_table_bytes(&t), sizeof t);
}

static void test_whole_blocks_take_no_bitmap(void)
{
    struct map_table t;
    struct journal_mark mark = {0, 1024 * 1000, JOURNAL_PRESENT};
    map_table_init(&t, 4u << 20);
    CHECK_EQ(map_table_apply(&t, &mark), 0);
    CHECK_EQ(t.nr_bitmaps, 0);
    CHECK(map_table_bytes(&t) < 16 * 1024);
    for (uint32_t i = 0; i < 1024; i++)
        CHECK_EQ(map_table_mark(&t, 2000, i, 1, JOURNAL_ZERO), 0);
    CHECK_EQ(t.nr_bitmaps, 0); /* it became whole sector by sector */
    CHECK_EQ(map_table_whole(&t, 2000), JOURNAL_ZERO);
    map_table_fini(&t);
}

int main(void)
{
    uint64_t seed = check_seed();
    for (int i = 0; i < 30; i++)
        test_radix(&seed);
    test_radix_extremes();
    for (int i = 0; i < 100; i++)
        test_table(&seed);
    test_memory_of_a_table_is_used_again_and_given_back();
    test_whole_blocks_take_no_bitmap();
    return 0;
}
