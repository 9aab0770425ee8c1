/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal codec: records of marks to and from bytes.
 *
 * A journal is read as a stream of chunks.  What ends it depends on what it is: a
 * frozen journal has a length inside which every byte must be whole; the current
 * journal may end in a record that a crash tore, which is not part of it.
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

/** Bytes of a record of `nr_marks` marks. */
static inline size_t journal_record_bytes(uint32_t nr_marks)
{
    return sizeof(struct journal_record) + nr_marks * sizeof(struct journal_mark);
}

/**
 * Write one record.
 *
 * @param out    room for journal_record_bytes(nr_marks).
 * @param marks  1 to JOURNAL_RECORD_MAX_MARKS.
 * Returns its length in bytes.
 */
size_t journal_record_pack(void *out, uint64_t sequence, uint64_t fence,
                           const struct journal_mark *marks, uint32_t nr_marks);

/** Called for each mark in order; 0, or -errno which ends the reading. */
typedef int journal_mark_fn(void *ctx, const struct journal_mark *mark);

/** Reads a journal from its first byte on.  Zero it to start. */
struct journal_reader {
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
 * Returns 0 (look at `torn`), or -EBADMSG as feed does or if nothing of it is missing.
 */
int journal_reader_end(struct journal_reader *r);

void journal_reader_fini(struct journal_reader *r);

#endif
