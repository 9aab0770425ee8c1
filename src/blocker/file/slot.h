/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small record in a file that never moves: leases and presences.
 *
 * The file has two slots, written in turn; the valid one with the higher sequence counts.
 * Readers take no lock: while one slot is written, the other is whole, and so they find
 * the record before the change or after it.  A change holds the file's exclusive flock.
 *
 *   slot, at 0 and 4096, 512 bytes:
 *     0   8  magic of the record         16  8  sequence
 *     8   4  version of the record       24     the record, then zeros
 *     12  4  CRC-32C of the slot, with this field 0
 *
 * Everything here blocks: it runs in a job, or on the reactor's thread where a file that is
 * open and cached is read.
 */
#ifndef BLOCKER_FILE_SLOT_H
#define BLOCKER_FILE_SLOT_H

#include "blocker/file/file.h"

#define SLOT_RECORD_BYTES 488u

struct file_slot {
    uint64_t magic;
    uint32_t version;
    uint32_t crc;
    uint64_t sequence;
    uint8_t record[SLOT_RECORD_BYTES];
};
static_assert(sizeof(struct file_slot) == 512, "one sector");

/**
 * Read the newest valid slot.
 * @param version  the newest that the caller reads.
 * @param index    out: where it lies, 0 or 1.
 * Returns 0; -EBADMSG: no slot is valid; -EPROTONOSUPPORT: a newer version; -ESTALE: the
 * file was deleted; -errno.
 */
int file_slot_load(int fd, uint64_t magic, uint32_t version, struct file_slot *out,
                   int *index);

/** Write `slot` beside the one that was loaded from `old_index`, with the next sequence.
 *  Durable: the old slot is synced first, so that one durable slot is always the newest
 *  that was answered.  On a full disk it takes room from the reserve.  0 or -errno. */
int file_slot_store(struct file_store *store, int fd, struct file_slot *slot,
                    int old_index, bool durable);

/** Open an object's file with its exclusive lock, which ends with close().
 * @param first  the first slot of a file that is made if there is none; NULL: none is.
 * Returns the fd; -EAGAIN: it is locked; -ENOENT; -errno. */
int file_slot_open_locked(struct file_store *store, const struct xseg_object *object,
                          struct file_slot *first);

/** Make durable that the object's file has its name, whoever made it. */
int file_slot_sync_name(struct file_store *store, const struct xseg_object *object);

#endif
