/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal codec: records of marks to and from bytes (docs/format/journal.md).
 *
 * A journal is read as a stream of chunks.  A frozen journal has a length, and every
 * byte up to it must be whole.  The current journal may end in a record that a crash
 * tore; that record is not part of it.
 *
 * The checksum of a record is seeded with the volume, the number of the journal and the
 * position of the record.  So a record counts only at the place for which it was
 * written, and a journal that was put in the place of another is damage.
 *
 * Damage is told from a tear by what a tear leaves behind.  One append is one record
 * and is durable before the next, so a whole record never follows a torn one.  And an
 * append goes to bytes that the file did not have, so what did not come of it is
 * missing: the file ends inside the record, or a whole JOURNAL_TEAR_BYTES of it are
 * zeros, which no part of a record is.  Pure functions, any thread.
 */
#ifndef MAPPER_JOURNAL_H
#define MAPPER_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mapper/map_format.h"

/** Which journal bytes belong to. */
struct journal_identity {
    uint8_t uuid[16]; /* of the volume */
    uint64_t number;
};

/** Name the journal `number` of a volume. */
struct journal_identity journal_identity(const uint8_t uuid[16], uint64_t number);

/** Bytes of a record of `nr_marks` marks. */
static inline size_t journal_record_bytes(uint32_t nr_marks)
{
    return sizeof(struct journal_record) + nr_marks * sizeof(struct journal_mark);
}

/**
 * Write one record.
 *
 * @param out       room for journal_record_bytes(nr_marks).
 * @param journal   the journal that it is for.
 * @param position  where in it [bytes].
 * @param sequence  0 for the first record of a journal.
 * @param marks     up to JOURNAL_RECORD_MAX_MARKS; none only with sequence 0, to begin
 *                  a journal.
 * Returns its length in bytes.
 */
size_t journal_record_pack(void *out, const struct journal_identity *journal,
                           uint64_t position, uint64_t sequence, uint64_t fence,
                           const struct journal_mark *marks, uint32_t nr_marks);

/** Called for each mark in order; 0, or -errno which ends the reading. */
typedef int journal_mark_fn(void *ctx, const struct journal_mark *mark);

/** Reads a journal from its first byte on.  journal_reader_init starts it. */
struct journal_reader {
    struct journal_identity journal;
    uint64_t valid_bytes; /* length of the whole records so far */
    uint64_t sequence;    /* of the next record */
    uint64_t fence;       /* of the last record */
    uint64_t nr_marks;
    uint64_t fed_bytes; /* seen so far, whole or not */
    bool torn;      /* a record that is not whole was met: nothing after it counts */
    bool missing;   /* and part of it never came: a tear, not damage */
    bool unit_used; /* the JOURNAL_TEAR_BYTES at hand are not all zeros */
    uint8_t *carry; /* bytes from valid_bytes on, while a record is incomplete */
    size_t carry_len, carry_room;
};

void journal_reader_init(struct journal_reader *r,
                         const struct journal_identity *journal);

/**
 * Feed the next bytes, calling `fn` for every mark of every whole record.
 *
 * Returns 0 (look at `torn`); -EBADMSG if a whole record follows one that is not;
 * -ENOMEM; or what `fn` returned.
 */
int journal_reader_feed(struct journal_reader *r, const void *data, size_t len,
                        journal_mark_fn *fn, void *ctx);

/**
 * Say that there are no more bytes: what is left over is a record that is not whole.
 *
 * @param least  so many bytes were durable once; fewer whole ones are damage.
 * Returns 0 (look at `torn`), or -EBADMSG as feed does, or if nothing of the last record
 * is missing, or if whole records end before `least`.
 */
int journal_reader_end(struct journal_reader *r, uint64_t least);

void journal_reader_fini(struct journal_reader *r);

#endif
