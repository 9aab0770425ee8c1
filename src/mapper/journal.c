/* SPDX-License-Identifier: Apache-2.0 */
/* The journal codec (see journal.h; bytes in map_format.h). */
#include "mapper/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"

#define CRC_AT offsetof(struct journal_record, crc32c)
#define ALIGN                                                                          \
    sizeof(                                                                            \
        struct journal_mark) /* every record starts on a multiple of it             \
                                 */

static_assert(sizeof(struct journal_record) % sizeof(struct journal_mark) == 0,
              "records stay aligned");

/** What the bytes at one place are. */
enum parsed { PARSED_WHOLE, PARSED_SHORT, PARSED_BAD };

static uint32_t record_crc(const void *record, size_t len)
{
    static const uint8_t zero[4];
    const uint8_t *p = record;
    uint32_t crc = crc32c(0, p, CRC_AT);
    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, p + CRC_AT + 4, len - CRC_AT - 4);
}

size_t journal_record_pack(void *out, uint64_t sequence, uint64_t fence,
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
    memcpy(at + sizeof record, marks, nr_marks * sizeof *marks);
    uint32_t crc = record_crc(out, len);
    memcpy(at + CRC_AT, &crc, sizeof crc);
    return len;
}

/** Check everything about the record at `p` that does not depend on its neighbours. */
static enum parsed parse(const uint8_t *p, size_t len, struct journal_record *record)
{
    if (len < sizeof *record)
        return PARSED_SHORT;
    memcpy(record, p, sizeof *record);
    if (record->magic != JOURNAL_RECORD_MAGIC || record->nr_marks == 0 ||
        record->nr_marks > JOURNAL_RECORD_MAX_MARKS ||
        record->length != journal_record_bytes(record->nr_marks))
        return PARSED_BAD;
    if (record->length > len)
        return PARSED_SHORT;
    if (record->crc32c != record_crc(p, record->length))
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

static int deliver(const uint8_t *p, const struct journal_record *record,
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
static void look_for_gap(struct journal_reader *r, const uint8_t *p, size_t len,
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
static int64_t consume(struct journal_reader *r, const uint8_t *p, size_t len,
                       bool final, journal_mark_fn *fn, void *ctx)
{
    struct journal_record record;
    uint64_t start = r->fed_bytes - len; /* of p, in the journal */
    size_t at = 0;
    while (at < len) {
        enum parsed got = parse(p + at, len - at, &record);
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
                got = PARSED_BAD; /* an earlier record once more: it adds nothing */
                r->missing = true;
            }
            if (got == PARSED_SHORT)
                break;
            if (got == PARSED_WHOLE) {
                int rc = deliver(p + at, &record, fn, ctx);
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
        look_for_gap(r, p + at, step, start + at + step, final && at + step == len);
        at += step;
    }
    return (int64_t)at;
}

static int keep(struct journal_reader *r, const uint8_t *p, size_t len)
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
        int64_t used = consume(r, r->carry, total, false, fn, ctx);
        if (used < 0)
            return (int)used;
        return keep(r, r->carry + used, total - (size_t)used);
    }
    int64_t used = consume(r, data, len, false, fn, ctx);
    if (used < 0)
        return (int)used;
    return keep(r, (const uint8_t *)data + used, len - (size_t)used);
}

int journal_reader_end(struct journal_reader *r)
{
    int64_t rc = 0;
    if (r->carry_len)
        rc = consume(r, r->carry, r->carry_len, true, NULL, NULL);
    r->carry_len = 0;
    if (rc < 0)
        return (int)rc;
    return r->torn && !r->missing ? -EBADMSG : 0;
}

void journal_reader_fini(struct journal_reader *r)
{
    free(r->carry);
    r->carry = NULL;
    r->carry_len = r->carry_room = 0;
}
