/* SPDX-License-Identifier: Apache-2.0 */
/* What every C test needs: a check that says where and why, and ends the program. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                                    \
    do {                                                                               \
        if (!(cond)) {                                                                 \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, \
                    #cond);                                                            \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

#define CHECK_EQ(got, want)                                                            \
    do {                                                                               \
        intmax_t check_got = (intmax_t)(got), check_want = (intmax_t)(want);           \
        if (check_got != check_want) {                                                 \
            fprintf(stderr, "%s:%d: %s: %s is %" PRIdMAX ", not %" PRIdMAX "\n",       \
                    __FILE__, __LINE__, __func__, #got, check_got, check_want);        \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

/** Exit status ctest reads as "skipped". */
#define CHECK_SKIP(why)                                                                \
    do {                                                                               \
        printf("skipped: %s\n", why);                                                  \
        exit(77);                                                                      \
    } while (0)

/** Seed of a randomised test: TEST_SEED, or the clock; printed so that a failure repeats. */
#include <time.h>
static inline uint64_t check_seed(void)
{
    const char *given = getenv("TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("TEST_SEED=%" PRIu64 "\n", seed);
    return seed ? seed : 1;
}

static inline uint64_t check_next(uint64_t *state)
{
    /* xorshift64*, Vigna 2016 */
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

#endif
