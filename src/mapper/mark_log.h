/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mark log: memory that outlives mapperd, with every mark that is answered and not
 * journaled (docs/format/marks.md).
 *
 * The mapper owns it and uses it on the reactor's thread alone.  A process that dies
 * stops between two stores, and what it stored until then is what the next one reads.
 * So all that counts is the order of stores: a chunk belongs to nobody until the store
 * of its sequence number, a record is not there until the store of the count (or of a
 * length that grows), and a chunk is given back by one store too.
 *
 * Each open map has an owner: its chunks, in order of sequence.  Chunks that a former
 * process left are orphans until their map is opened.
 *
 * Order: of two marks of one sector the later one is found later.  Marks of a sector
 * never come with an older generation than those before them, and a chunk that is begun
 * ends all chunks of its owner with the same generation or a newer one.
 */
#ifndef MAPPER_MARK_LOG_H
#define MAPPER_MARK_LOG_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "mapper/map_format.h"

#define MARK_LOG_BYTES     (UINT64_C(4) << 20) /* of a log in private memory */
#define MARK_LOG_BYTES_MIN (UINT64_C(64) << 10)
#define MARK_LOG_BYTES_MAX (UINT64_C(1) << 30)
#define MARK_CHUNK_BYTES   4096u
#define MARK_CHUNK_MAGIC   0x314b434du /* "MCK1" */
#define MARK_CHUNK_RECORDS 252u

/** Native byte order: it never leaves the machine, nor outlives its boot. */
struct mark_chunk {
    uint64_t sequence; /* grows over the whole log; 0: free */
    uint32_t magic;
    uint32_t nr; /* records in use */
    uint64_t uuid[2];
    uint64_t epoch;
    uint64_t fence;
    uint64_t reserved[2];
    struct journal_mark records[MARK_CHUNK_RECORDS];
};
static_assert(sizeof(struct mark_chunk) == MARK_CHUNK_BYTES, "mark chunk");

/** What a chunk's marks speak of: EXTENT(uuid, epoch), written under a fence. */
struct mark_key {
    uint8_t uuid[16];
    uint64_t epoch;
    uint64_t fence;
};

/** What this process knows of a chunk. */
struct mark_slot {
    struct list link; /* log.free, log.orphans or owner.slots */
    struct mark_chunk *chunk;
    uint64_t sequence;
    uint64_t generation;
    uint32_t nr;
    bool open; /* takes more records */
};

struct mark_log {
    struct mark_chunk *chunks;
    struct mark_slot *slots;
    uint32_t nr_slots;
    uint32_t nr_free;
    uint32_t nr_owned;
    struct list free;    /* struct mark_slot */
    struct list orphans; /* struct mark_slot, by sequence */
    uint64_t sequence;   /* of the newest chunk */
};

/** The chunks of an open map. */
struct mark_owner {
    struct mark_key key; /* of chunks that are begun */
    struct list slots;   /* by sequence */
};

/**
 * Map the log and read what is in it.
 *
 * @param fd   memfd that cannot shrink; may be closed afterwards.  -1: private memory.
 * @param log  the caller's, zeroed; ended with mark_log_fini.
 * @param why  out: on failure, what is wrong.
 * Returns 0, -EINVAL or -errno; then nothing must be released.
 */
int mark_log_init(struct mark_log *log, int fd, const char **why);
/** Let go of it; what is in it stays.  Owners must have parted. */
void mark_log_fini(struct mark_log *log);

void mark_owner_init(struct mark_owner *owner);

/**
 * Is there room for `nr` records more?
 *
 * Returns 0, or -ENOBUFS: a flush of all maps gives room.  If that would give none,
 * since orphans have it all, the answer is 0, and mark_log_add does without the log.
 */
int mark_log_reserve(const struct mark_log *log, const struct mark_owner *owner,
                     uint64_t generation, uint32_t nr);
/** Record a mark of `nr` sectors; room was reserved for it. */
void mark_log_add(struct mark_log *log, struct mark_owner *owner, uint64_t generation,
                  const struct journal_mark *mark);
/** Give back the chunks of generations before `before`: their marks are journaled. */
void mark_log_release(struct mark_log *log, struct mark_owner *owner, uint64_t before);
/** Give back all chunks of an owner: its marks are journaled, or void. */
void mark_log_drop(struct mark_log *log, struct mark_owner *owner);

/** Called for each mark, oldest first; < 0 ends it and is returned. */
typedef int mark_log_fn(void *ctx, const struct journal_mark *mark);
/** Read the orphans of a key.  0, or what `fn` returned. */
int mark_log_read(const struct mark_log *log, const struct mark_key *key,
                  mark_log_fn *fn, void *ctx);
/**
 * The volumes that orphans wait for, one after the other and each once.
 *
 * @param after  0, or what the call before returned.
 * @param uuid   out.
 * Returns 0 if there are no more.
 */
uint64_t mark_log_next(const struct mark_log *log, uint64_t after, uint8_t uuid[16]);
/** Give back all orphans of a volume. */
void mark_log_bury(struct mark_log *log, const uint8_t uuid[16]);
/**
 * Take the orphans of the owner's key over, as chunks of generation 0; those of its
 * uuid with another key are given back.
 */
void mark_log_adopt(struct mark_log *log, struct mark_owner *owner);
/** The owner goes and leaves all its marks for the next one. */
void mark_log_leave(struct mark_log *log, struct mark_owner *owner);

#endif
