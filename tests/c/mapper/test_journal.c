/* SPDX-License-Identifier: Apache-2.0 */
/* The journal codec: golden bytes, chunks, torn tails, damage. */
#include "mapper/journal.h"

#include <errno.h>

#include "check.h"
#include "golden.h"

#define MARKS_MAX 5000u

struct seen {
    struct journal_mark marks[MARKS_MAX];
    uint32_t nr;
};

static int see(void *ctx, const struct journal_mark *mark)
{
    struct seen *seen = ctx;
    CHECK(seen->nr < MARKS_MAX);
    seen->marks[seen->nr++] = *mark;
    return 0;
}

static const struct journal_identity journal = {
    .uuid = {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab,
             0xac, 0xad, 0xae, 0xaf},
    .number = 9};

/** Put a record behind the `at` bytes of a journal; returns their new length. */
static size_t put(uint8_t *bytes, size_t at, uint64_t sequence, uint64_t fence,
                  const struct journal_mark *marks, uint32_t nr)
{
    return at +
           journal_record_pack(bytes + at, &journal, at, sequence, fence, marks, nr);
}

/** Read bytes in chunks of up to `chunk`; the reader is left for the caller to look at.
 */
static int read_all(const uint8_t *bytes, size_t len, size_t chunk, struct seen *seen,
                    struct journal_reader *r)
{
    int rc = 0;
    journal_reader_init(r, &journal);
    seen->nr = 0;
    for (size_t at = 0; at < len && rc == 0;) {
        size_t n = len - at < chunk ? len - at : chunk;
        rc = journal_reader_feed(r, bytes + at, n, see, seen);
        at += n;
    }
    if (rc == 0)
        rc = journal_reader_end(r, 0);
    journal_reader_fini(r);
    return rc;
}

/** Three records; returns the length, and where each starts. */
static size_t example(uint8_t *out, size_t starts[3])
{
    const struct journal_mark marks[] = {{0, 1, JOURNAL_PRESENT},
                                         {1000, 24, JOURNAL_ZERO},
                                         {UINT64_C(1) << 40, 7, JOURNAL_PRESENT}};
    starts[0] = 0;
    starts[1] = put(out, 0, 0, 5, marks, 3);
    starts[2] = put(out, starts[1], 1, 5, marks + 1, 1);
    return put(out, starts[2], 2, 6, marks, 2);
}

static void test_golden(void)
{
    static struct seen seen;
    uint8_t bytes[1024];
    size_t starts[3], len = example(bytes, starts);
    struct journal_reader r;
    golden_check("journal-v2.bin", bytes, len);
    CHECK_EQ(read_all(bytes, len, len, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, len);
    CHECK_EQ(r.sequence, 3);
    CHECK_EQ(r.nr_marks, 6);
    CHECK_EQ(seen.nr, 6);
    CHECK(!r.torn);
    CHECK_EQ(seen.marks[2].start, UINT64_C(1) << 40);
}

static void test_a_torn_tail_ends_it_cleanly(void)
{
    static struct seen seen;
    uint8_t bytes[1024];
    size_t starts[3], len = example(bytes, starts);
    struct journal_reader r;
    for (size_t cut = 0; cut < len; cut++) {
        size_t valid = cut < starts[1] ? 0 : cut < starts[2] ? starts[1] : starts[2];
        CHECK_EQ(read_all(bytes, cut, 1 + cut % 50, &seen, &r), 0);
        CHECK_EQ(r.valid_bytes, valid);
        CHECK_EQ(r.torn, cut != valid);
    }
    memset(bytes + len, 0,
           sizeof bytes - len); /* the file grew, its bytes did not come */
    CHECK_EQ(read_all(bytes, sizeof bytes, 100, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, len);
    CHECK(r.torn);
}

static void test_every_flipped_bit_is_noticed(void)
{
    static struct seen seen;
    uint8_t bytes[1024];
    size_t starts[3], len = example(bytes, starts);
    struct journal_reader r;
    for (size_t bit = 0; bit < len * 8; bit++) {
        size_t at = bit / 8;
        bytes[at] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(read_all(bytes, len, 1 + bit % 200, &seen, &r), -EBADMSG);
        if (at >= starts[2])
            CHECK_EQ(r.valid_bytes, starts[2]);
        bytes[at] ^= (uint8_t)(1 << bit % 8);
    }
}

/** A power cut in an append: any units of the record came, and the file may end early. */
static void test_units_that_did_not_come_are_a_tear(uint64_t *seed)
{
    static struct seen seen;
    static struct journal_mark marks[400];
    static uint8_t bytes[16384];
    struct journal_reader r;
    uint32_t before = 1 + (uint32_t)(check_next(seed) % 100);
    uint32_t nr = 1 + (uint32_t)(check_next(seed) % 400);
    for (uint32_t i = 0; i < nr; i++)
        marks[i] = (struct journal_mark){i, 1, JOURNAL_PRESENT};
    memset(bytes, 0, sizeof bytes);
    size_t start = put(bytes, 0, 0, 5, marks, before < nr ? before : nr);
    size_t end = put(bytes, start, 1, 5, marks, nr);
    size_t len = end;
    bool torn = false;
    for (size_t at = start; at < end;) {
        size_t unit_end = (at / JOURNAL_TEAR_BYTES + 1) * JOURNAL_TEAR_BYTES;
        size_t n = (unit_end < end ? unit_end : end) - at;
        if (check_next(seed) % 4 == 0) {
            memset(bytes + at, 0, n);
            torn = true;
            if (check_next(seed) % 8 == 0) {
                len = at;
                break;
            }
        }
        at += n;
    }
    CHECK_EQ(read_all(bytes, len, 1 + check_next(seed) % 2000, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, torn ? start : end);
    CHECK_EQ(r.torn, len > start && torn);
}

static void test_records_that_do_not_belong_are_not_taken(void)
{
    static struct seen seen;
    const struct journal_mark mark = {1, 1, JOURNAL_PRESENT};
    const struct journal_mark bad[] = {{1, 0, JOURNAL_PRESENT},
                                       {1, 1, 0},
                                       {1, 1, 3},
                                       {UINT64_MAX, 1, JOURNAL_PRESENT},
                                       {UINT64_MAX - 1, 2, JOURNAL_PRESENT}};
    uint8_t bytes[256];
    struct journal_reader r;
    size_t first = put(bytes, 0, 0, 5, &mark, 1);
    size_t len = put(bytes, first, 1, 4, &mark, 1); /* an older fence */
    CHECK_EQ(read_all(bytes, len, len, &seen, &r), -EBADMSG);
    put(bytes, first, 1, 5, NULL, 0); /* begins a journal, but is not its first */
    CHECK_EQ(read_all(bytes, len, len, &seen, &r), -EBADMSG);
    put(bytes, 0, 1, 5, &mark, 1); /* does not start with 0 */
    CHECK_EQ(read_all(bytes, first, first, &seen, &r), -EBADMSG);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put(bytes, 0, 0, 5, &bad[i], 1);
        CHECK_EQ(read_all(bytes, first, first, &seen, &r), -EBADMSG);
        CHECK_EQ(r.valid_bytes, 0);
    }
}

/** Records of version 1 are read, and followed by records of this version. */
static void test_version_1_is_read(void)
{
    static struct seen seen;
    const struct journal_mark mark = {77, 1, JOURNAL_ZERO};
    uint8_t bytes[1024];
    struct journal_reader r;
    size_t len = golden_read("journal-v1.bin", bytes, sizeof bytes);
    CHECK_EQ(read_all(bytes, len, len, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, len);
    CHECK_EQ(seen.nr, 6);
    size_t more = put(bytes, len, 3, 6, &mark, 1);
    CHECK_EQ(read_all(bytes, more, 100, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, more);
    CHECK_EQ(seen.marks[6].start, 77);
    /* The same record once more, as version 1 allowed, adds nothing. */
    memcpy(bytes + len, bytes, 32 + 3 * 16);
    CHECK_EQ(read_all(bytes, len + 32 + 3 * 16, 100, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, len);
}

/** Issue 9, fault 23: what was written for another place is not taken. */
static void test_records_of_another_place_are_damage(void)
{
    static struct seen seen;
    const struct journal_mark mark = {1, 1, JOURNAL_PRESENT};
    struct journal_identity others[] = {journal, journal};
    uint8_t bytes[256];
    struct journal_reader r;
    others[0].uuid[15] ^= 1;
    others[1].number--;
    for (size_t i = 0; i < 2; i++) {
        size_t len = journal_record_pack(bytes, &others[i], 0, 0, 5, &mark, 1);
        CHECK_EQ(read_all(bytes, len, len, &seen, &r), -EBADMSG);
        CHECK_EQ(seen.nr, 0);
    }
    size_t first = put(bytes, 0, 0, 5, &mark, 1);
    journal_record_pack(bytes + first, &journal, 0, 1, 5, &mark, 1);
    CHECK_EQ(read_all(bytes, 2 * first, 7, &seen, &r), -EBADMSG);
}

/** Issue 9, fault 23: a journal that lost what was durable is damaged, not short. */
static void test_less_than_was_durable_is_damage(void)
{
    static struct seen seen;
    uint8_t bytes[1024];
    size_t starts[3], len = example(bytes, starts);
    for (size_t least = 0; least <= len; least += 16) {
        for (size_t cut = 0; cut <= len; cut += 16) {
            struct journal_reader r;
            journal_reader_init(&r, &journal);
            seen.nr = 0;
            size_t valid = cut < starts[1]   ? 0
                           : cut < starts[2] ? starts[1]
                           : cut < len       ? starts[2]
                                             : len;
            CHECK_EQ(journal_reader_feed(&r, bytes, cut, see, &seen), 0);
            CHECK_EQ(journal_reader_end(&r, least), valid < least ? -EBADMSG : 0);
            journal_reader_fini(&r);
        }
    }
}

static void test_a_journal_begins_without_marks(void)
{
    static struct seen seen;
    const struct journal_mark mark = {1, 1, JOURNAL_PRESENT};
    uint8_t bytes[256];
    struct journal_reader r;
    size_t first = put(bytes, 0, 0, 5, NULL, 0);
    size_t len = put(bytes, first, 1, 5, &mark, 1);
    CHECK_EQ(first, 32);
    CHECK_EQ(read_all(bytes, first, first, &seen, &r), 0);
    CHECK_EQ(r.sequence, 1);
    CHECK_EQ(r.nr_marks, 0);
    CHECK_EQ(read_all(bytes, len, 5, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, len);
    CHECK_EQ(seen.nr, 1);
}

static void test_random_round_trip(uint64_t *seed)
{
    static struct seen seen;
    static struct journal_mark marks[MARKS_MAX];
    static uint8_t bytes[1u << 20];
    uint32_t nr = 0;
    size_t len = 0;
    struct journal_reader r;
    for (uint64_t sequence = 0; nr < MARKS_MAX; sequence++) {
        uint32_t some = 1 + (uint32_t)(check_next(seed) % (MARKS_MAX - nr));
        if (check_next(seed) % 2 && some > 20)
            some = 20;
        for (uint32_t i = nr; i < nr + some; i++)
            marks[i] = (struct journal_mark){check_next(seed) >> 20,
                                             1 + (uint32_t)(check_next(seed) >> 40),
                                             1 + (uint32_t)(check_next(seed) % 2)};
        len = put(bytes, len, sequence, sequence / 3, marks + nr, some);
        nr += some;
    }
    CHECK_EQ(read_all(bytes, len, 1 + check_next(seed) % 9000, &seen, &r), 0);
    CHECK_EQ(r.valid_bytes, len);
    CHECK_EQ(seen.nr, nr);
    CHECK(memcmp(seen.marks, marks, sizeof marks) == 0);
}

int main(void)
{
    uint64_t seed = check_seed();
    test_golden();
    test_a_torn_tail_ends_it_cleanly();
    test_every_flipped_bit_is_noticed();
    for (int i = 0; i < 2000; i++)
        test_units_that_did_not_come_are_a_tear(&seed);
    test_records_that_do_not_belong_are_not_taken();
    test_version_1_is_read();
    test_records_of_another_place_are_damage();
    test_less_than_was_durable_is_damage();
    test_a_journal_begins_without_marks();
    for (int i = 0; i < 50; i++)
        test_random_round_trip(&seed);
    return 0;
}
