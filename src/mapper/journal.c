/* SPDX-License-Identifier: Apache-2.0 */
/* The journal codec (see journal.h; bytes in map_format.h). */
#include "mapper/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"

#define CRC_AT offsetof(struct journal_record, crc32c)
/** Every record starts on a multiple of it. */
#define ALIGN sizeof(struct journal_mark)

static_assert(sizeof(struct journal_record) % sizeof(struct journal_mark) == 0,
              "records stay aligned");

/** What the bytes at one place are. */
enum parsed { PARSED_WHOLE, PARSED_SHORT, PARSED_BAD };

struct journal_identity journal_identity(const uint8_t uuid[16], uint64_t number)
{
    struct journal_identity journal = {.number = number};
    memcpy(journal.uuid, uuid, sizeof journal.uuid);
    return journal;
}

/** Checksum of what a record of this journal and position is seeded with. */
static uint32_t seed_crc(const struct journal_identity *journal, uint64_t position)
{
    struct journal_seed seed = {.number = journal->number, .position = position};
    memcpy(seed.uuid, journal->uuid, sizeof seed.uuid);
    return crc32c(0, &seed, sizeof seed);
}

/** Checksum of a record, its own field as zero, behind the checksum of its seed. */
static uint32_t record_crc(uint32_t seed, const void *record, size_t len)
{
    static const uint8_t zero[4];
    const uint8_t *p = record;
    uint32_t crc = crc32c(seed, p, CRC_AT);
    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, p + CRC_AT + 4, len - CRC_AT - 4);
}

size_t journal_record_pack(void *out, const struct journal_identity *journal,
                           uint64_t position, uint64_t sequence, uint64_t fence,
                           const struct journal_mark *marks, uint32_t nr_marks)
{
    size_t len = journal_record_bytes(nr_marks);
    struct journal_record record = {
        .magic = JOURNAL_RECORD_MAGIC,
        .length = (uint32_t)len,
        .nr_marks = nr_marks,
        .sequence = sequence,
        .fence = fence,
    };
    uint8_t *at = out;
    memcpy(at, &record, sizeof record);
    if (nr_marks)
        memcpy(at + sizeof record, marks, nr_marks * sizeof *marks);
    uint32_t crc = record_crc(seed_crc(journal, position), out, len);
    memcpy(at + CRC_AT, &crc, sizeof crc);
    return len;
}

/** Are the fields of a record such as a writer sets them? */
static bool record_is_formed(const struct journal_record *record)
{
    bool begins = record->magic == JOURNAL_RECORD_MAGIC && record->sequence == 0;
    return (record->magic == JOURNAL_RECORD_MAGIC ||
            record->magic == JOURNAL_RECORD_MAGIC_1) &&
           (record->nr_marks || begins) &&
           record->nr_marks <= JOURNAL_RECORD_MAX_MARKS &&
           record->length == journal_record_bytes(record->nr_marks);
}

/** Check all of the record at `p` that does not depend on its neighbours. */
static enum parsed record_parse(const struct journal_identity *journal,
                                uint64_t position, const uint8_t *p, size_t len,
                                struct journal_record *record)
{
    if (len < sizeof *record)
        return PARSED_SHORT;
    memcpy(record, p, sizeof *record);
    if (!record_is_formed(record))
        return PARSED_BAD;
    if (record->length > len)
        return PARSED_SHORT;
    uint32_t seed =
        record->magic == JOURNAL_RECORD_MAGIC ? seed_crc(journal, position) : 0;
    if (record->crc32c != record_crc(seed, p, record->length))
        return PARSED_BAD;
    for (uint32_t i = 0; i < record->nr_marks; i++) {
        struct journal_mark mark;
        memcpy(&mark, p + sizeof *record + i * sizeof mark, sizeof mark);
        if (mark.nr == 0 || mark.start >= MAP_SIZE_MAX / XSEG_SECTOR_BYTES ||
            mark.start + mark.nr > MAP_SIZE_MAX / XSEG_SECTOR_BYTES ||
            (mark.kind != JOURNAL_PRESENT && mark.kind != JOURNAL_ZERO))
            return PARSED_BAD;
    }
    return PARSED_WHOLE;
}

static int record_deliver(const uint8_t *p, const struct journal_record *record,
                          journal_mark_fn *fn, void *ctx)
{
    for (uint32_t i = 0; i < record->nr_marks; i++) {
        struct journal_mark mark;
        memcpy(&mark, p + sizeof *record + i * sizeof mark, sizeof mark);
        int rc = fn(ctx, &mark);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/** Look at the next bytes of a torn record, which end at byte `end` of the journal. */
static void reader_look_for_gap(struct journal_reader *r, const uint8_t *p, size_t len,
                                uint64_t end, bool final)
{
    for (size_t i = 0; i < len && !r->unit_used; i++)
        r->unit_used = p[i] != 0;
    if (end % JOURNAL_TEAR_BYTES != 0 && !final)
        return;
    if (!r->unit_used)
        r->missing = true;
    r->unit_used = false;
}

/**
 * Consume whole records; after a tear, look for a later record that is whole.
 * A record that goes on past `len` is left for the next call, or, if `final`, torn.
 * Returns the bytes consumed or -errno.
 */
static int64_t reader_consume(struct journal_reader *r, const uint8_t *p, size_t len,
                              bool final, journal_mark_fn *fn, void *ctx)
{
    struct journal_record record;
    uint64_t start = r->fed_bytes - len; /* of p, in the journal */
    size_t at = 0;
    while (at < len) {
        enum parsed got =
            record_parse(&r->journal, start + at, p + at, len - at, &record);
        if (got == PARSED_SHORT && final) {
            got = PARSED_BAD;
            if (!r->torn)
                r->missing = true; /* its end */
        }
        if (!r->torn) {
            if (got == PARSED_WHOLE &&
                (record.sequence != r->sequence || record.fence < r->fence)) {
                if (record.sequence >= r->sequence)
                    return -EBADMSG;
                /* Version 1: an earlier record once more, which adds nothing. */
                got = PARSED_BAD;
                r->missing = true;
            }
            if (got == PARSED_SHORT)
                break;
            if (got == PARSED_WHOLE) {
                int rc = record_deliver(p + at, &record, fn, ctx);
                if (rc < 0)
                    return rc;
                r->sequence++;
                r->fence = record.fence;
                r->nr_marks += record.nr_marks;
                r->valid_bytes += record.length;
                at += record.length;
                continue;
            }
            r->torn = true;
        } else {
            if (got == PARSED_SHORT)
                break;
            if (got == PARSED_WHOLE && record.sequence >= r->sequence)
                return -EBADMSG;
        }
        size_t step = len - at < ALIGN ? len - at : ALIGN;
        reader_look_for_gap(r, p + at, step, start + at + step,
                            final && at + step == len);
        at += step;
    }
    return (int64_t)at;
}

static int reader_keep(struct journal_reader *r, const uint8_t *p, size_t len)
{
    if (len > r->carry_room) {
        uint8_t *more = realloc(r->carry, len);
        if (!more)
            return -ENOMEM;
        r->carry = more;
        r->carry_room = len;
    }
    if (len)
        memmove(r->carry, p, len);
    r->carry_len = len;
    return 0;
}

void journal_reader_init(struct journal_reader *r,
                         const struct journal_identity *journal)
{
    memset(r, 0, sizeof *r);
    r->journal = *journal;
}

int journal_reader_feed(struct journal_reader *r, const void *data, size_t len,
                        journal_mark_fn *fn, void *ctx)
{
    r->fed_bytes += len;
    if (r->carry_len) {
        size_t total = r->carry_len + len;
        if (total > r->carry_room) {
            uint8_t *more = realloc(r->carry, total);
            if (!more)
                return -ENOMEM;
            r->carry = more;
            r->carry_room = total;
        }
        memcpy(r->carry + r->carry_len, data, len);
        r->carry_len = total;
        int64_t used = reader_consume(r, r->carry, total, false, fn, ctx);
        if (used < 0)
            return (int)used;
        return reader_keep(r, r->carry + used, total - (size_t)used);
    }
    int64_t used = reader_consume(r, data, len, false, fn, ctx);
    if (used < 0)
        return (int)used;
    return reader_keep(r, (const uint8_t *)data + used, len - (size_t)used);
}

int journal_reader_end(struct journal_reader *r, uint64_t least)
{
    int64_t rc = 0;
    if (r->carry_len)
        rc = reader_consume(r, r->carry, r->carry_len, true, NULL, NULL);
    r->carry_len = 0;
    if (rc < 0)
        return (int)rc;
    if (r->valid_bytes < least)
        return -EBADMSG;
    return r->torn && !r->missing ? -EBADMSG : 0;
}

void journal_reader_fini(struct journal_reader *r)
{
    free(r->carry);
    r->carry = NULL;
    r->carry_len = r->carry_room = 0;
}
