/* SPDX-License-Identifier: Apache-2.0 */
/* The mark log (see mark_log.h; bytes in docs/format/marks.md). */
#include "mapper/mark_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/log.h"

/** Far from the end of the numbers: what is beyond was never given out. */
#define SEQUENCE_MAX (UINT64_MAX >> 1)
#define SECTORS_MAX  (MAP_SIZE_MAX / XSEG_SECTOR_BYTES)

/*
 * Stores that must not change places.  Volatile keeps the compiler from it; a processor
 * that stops a thread has done all before the place where it stopped, and nothing after.
 */
static void store64(uint64_t *p, uint64_t v)
{
    *(volatile uint64_t *)p = v;
}

static void store32(uint32_t *p, uint32_t v)
{
    *(volatile uint32_t *)p = v;
}

/* ---- what is in the memory ---- */

static bool has_uuid(const struct mark_chunk *chunk, const uint8_t uuid[16])
{
    return memcmp(chunk->uuid, uuid, sizeof chunk->uuid) == 0;
}

static bool has_key(const struct mark_chunk *chunk, const struct mark_key *key)
{
    return has_uuid(chunk, key->uuid) && chunk->epoch == key->epoch &&
           chunk->fence == key->fence;
}

static bool is_well_formed(const struct mark_chunk *chunk)
{
    if (chunk->sequence > SEQUENCE_MAX || chunk->magic != MARK_CHUNK_MAGIC ||
        chunk->nr > MARK_CHUNK_RECORDS)
        return false;
    for (uint32_t i = 0; i < chunk->nr; i++) {
        const struct journal_mark *mark = &chunk->records[i];
        if (mark->nr == 0 || mark->start >= SECTORS_MAX ||
            mark->nr > SECTORS_MAX - mark->start ||
            (mark->kind != JOURNAL_PRESENT && mark->kind != JOURNAL_ZERO))
            return false;
    }
    return true;
}

/* ---- slots ---- */

/** Give a chunk back. */
static void slot_free(struct mark_log *log, struct mark_slot *slot)
{
    store64(&slot->chunk->sequence, 0);
    list_remove(&slot->link);
    list_push_front(&log->free,
                    &slot->link); /* its page is warm: the next to be used */
    log->nr_free++;
}

/** Put a slot that is in no list among the orphans. */
static void slot_orphan(struct mark_log *log, struct mark_slot *slot)
{
    struct list *at = log->orphans.prev;
    while (at != &log->orphans &&
           LIST_ENTRY(at, struct mark_slot, link)->sequence > slot->sequence)
        at = at->prev;
    slot->open = false;
    list_insert_after(at, &slot->link);
}

/** The chunk that takes more marks of a generation, or NULL. */
static struct mark_slot *find_open(const struct mark_owner *owner, uint64_t generation)
{
    for (const struct list *at = owner->slots.prev; at != &owner->slots;
         at = at->prev) {
        struct mark_slot *slot = LIST_ENTRY(at, struct mark_slot, link);
        if (slot->open && slot->generation == generation)
            return slot;
    }
    return NULL;
}

/** Begin a chunk; NULL if there is none. */
static struct mark_slot *begin_chunk(struct mark_log *log, struct mark_owner *owner,
                                     uint64_t generation)
{
    struct list *link = list_pop_front(&log->free);
    uint64_t uuid[2];
    if (!link)
        return NULL;
    LIST_FOR_EACH(it, n, &owner->slots)
    {
        struct mark_slot *other = LIST_ENTRY(it, struct mark_slot, link);
        if (other->generation >= generation)
            other->open = false;
    }
    struct mark_slot *slot = LIST_ENTRY(link, struct mark_slot, link);
    memcpy(uuid, owner->key.uuid, sizeof uuid);
    slot->sequence = ++log->sequence;
    slot->generation = generation;
    slot->nr = 0;
    slot->open = true;
    store32(&slot->chunk->magic, MARK_CHUNK_MAGIC);
    store32(&slot->chunk->nr, 0);
    store64(&slot->chunk->uuid[0], uuid[0]);
    store64(&slot->chunk->uuid[1], uuid[1]);
    store64(&slot->chunk->epoch, owner->key.epoch);
    store64(&slot->chunk->fence, owner->key.fence);
    store64(&slot->chunk->sequence, slot->sequence);
    list_push_back(&owner->slots, &slot->link);
    log->nr_free--;
    log->nr_owned++;
    return slot;
}

/* ---- life ---- */

static int by_sequence(const void *a, const void *b)
{
    uint64_t x = (*(struct mark_slot *const *)a)->sequence;
    uint64_t y = (*(struct mark_slot *const *)b)->sequence;
    return x < y ? -1 : x > y;
}

/** Sort all chunks into free ones and orphans.  0 or -ENOMEM. */
static int scan(struct mark_log *log)
{
    struct mark_slot **found = calloc(log->nr_slots, sizeof(*found));
    uint32_t nr = 0, nr_bad = 0;
    if (!found)
        return -ENOMEM;
    for (uint32_t i = 0; i < log->nr_slots; i++) {
        struct mark_slot *slot = &log->slots[i];
        slot->chunk = &log->chunks[i];
        list_init(&slot->link);
        slot->sequence = slot->chunk->sequence;
        slot->nr = slot->chunk->nr;
        bool good = slot->sequence && is_well_formed(slot->chunk);
        if (good && slot->nr) {
            found[nr++] = slot;
            continue;
        }
        nr_bad += slot->sequence && !good;
        if (slot->sequence)
            store64(&slot->chunk->sequence, 0);
        list_push_back(&log->free, &slot->link);
        log->nr_free++;
    }
    qsort(found, nr, sizeof(*found), by_sequence);
    for (uint32_t i = 0; i < nr; i++)
        list_push_back(&log->orphans, &found[i]->link);
    if (nr)
        log->sequence = found[nr - 1]->sequence;
    free(found);
    if (nr)
        log_line(LOG_INFO, "mapperd", "mark log: %u chunks wait for their volumes", nr);
    if (nr_bad)
        log_line(LOG_ERROR, "mapperd",
                 "mark log: %u chunks are damaged and were dropped", nr_bad);
    return 0;
}

/** The size of a log that cannot shrink under us, or -errno. */
static int64_t check_fd(int fd, const char **why)
{
    struct stat st;
    *why = "marks_fd is no descriptor";
    if (fstat(fd, &st) < 0)
        return -errno;
    *why = "marks_fd is no memfd that is sealed against shrinking";
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return -EINVAL;
    *why = "marks_fd has a size that no mark log has";
    if (st.st_size < (int64_t)MARK_LOG_BYTES_MIN ||
        st.st_size > (int64_t)MARK_LOG_BYTES_MAX || st.st_size % MARK_CHUNK_BYTES)
        return -EINVAL;
    return st.st_size;
}

int mark_log_init(struct mark_log *log, int fd, const char **why)
{
    int64_t size = fd < 0 ? (int64_t)MARK_LOG_BYTES : check_fd(fd, why);
    int rc;
    if (size < 0)
        return (int)size;
    *why = "no memory for the mark log";
    list_init(&log->free);
    list_init(&log->orphans);
    log->nr_slots = (uint32_t)((uint64_t)size / MARK_CHUNK_BYTES);
    log->slots = calloc(log->nr_slots, sizeof *log->slots);
    if (!log->slots)
        return -ENOMEM;
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED) {
        rc = -errno;
        goto fail;
    }
    log->chunks = memory;
    rc = scan(log);
    if (rc < 0)
        goto fail;
    *why = NULL;
    return 0;

fail:
    mark_log_fini(log);
    return rc;
}

void mark_log_fini(struct mark_log *log)
{
    if (log->chunks)
        munmap(log->chunks, log->nr_slots * sizeof *log->chunks);
    free(log->slots);
    memset(log, 0, sizeof *log);
}

void mark_owner_init(struct mark_owner *owner)
{
    memset(owner, 0, sizeof *owner);
    list_init(&owner->slots);
}

/* ---- adding ---- */

int mark_log_reserve(const struct mark_log *log, const struct mark_owner *owner,
                     uint64_t generation, uint32_t nr)
{
    const struct mark_slot *slot = find_open(owner, generation);
    uint32_t room = slot ? MARK_CHUNK_RECORDS - slot->nr : 0;
    if (nr <= room)
        return 0;
    uint32_t more = (nr - room + MARK_CHUNK_RECORDS - 1) / MARK_CHUNK_RECORDS;
    return more <= log->nr_free || log->nr_owned == 0 ? 0 : -ENOBUFS;
}

/** Make the last record longer if the mark goes on where it ends. */
static bool merge(struct mark_slot *slot, const struct journal_mark *mark)
{
    if (slot->nr == 0)
        return false;
    struct journal_mark *last = &slot->chunk->records[slot->nr - 1];
    if (last->kind != mark->kind || last->start + last->nr != mark->start ||
        mark->nr > UINT32_MAX - last->nr)
        return false;
    store32(&last->nr, last->nr + mark->nr);
    return true;
}

void mark_log_add(struct mark_log *log, struct mark_owner *owner, uint64_t generation,
                  const struct journal_mark *mark)
{
    struct mark_slot *slot = find_open(owner, generation);
    if (slot && merge(slot, mark))
        return;
    if (!slot || slot->nr == MARK_CHUNK_RECORDS) {
        slot = begin_chunk(log, owner, generation);
        if (!slot)
            return; /* see mark_log_reserve */
    }
    struct journal_mark *record = &slot->chunk->records[slot->nr++];
    store64(&record->start, mark->start);
    store32(&record->nr, mark->nr);
    store32(&record->kind, mark->kind);
    store32(&slot->chunk->nr, slot->nr);
}

/* ---- giving back ---- */

void mark_log_release(struct mark_log *log, struct mark_owner *owner, uint64_t before)
{
    LIST_FOR_EACH(it, n, &owner->slots) /* oldest first: see docs/format/marks.md */
    {
        struct mark_slot *slot = LIST_ENTRY(it, struct mark_slot, link);
        if (slot->generation >= before)
            continue;
        slot_free(log, slot);
        log->nr_owned--;
    }
}

/** All slots leave their owner, oldest first. */
static void part(struct mark_log *log, struct mark_owner *owner, bool keep)
{
    struct list *link;
    while ((link = list_pop_front(&owner->slots))) {
        struct mark_slot *slot = LIST_ENTRY(link, struct mark_slot, link);
        log->nr_owned--;
        if (keep)
            slot_orphan(log, slot);
        else
            slot_free(log, slot);
    }
}

void mark_log_drop(struct mark_log *log, struct mark_owner *owner)
{
    part(log, owner, false);
}

void mark_log_leave(struct mark_log *log, struct mark_owner *owner)
{
    part(log, owner, true);
}

/* ---- taking over ---- */

int mark_log_read(const struct mark_log *log, const struct mark_key *key,
                  mark_log_fn *fn, void *ctx)
{
    for (const struct list *at = log->orphans.next; at != &log->orphans;
         at = at->next) {
        const struct mark_slot *slot = LIST_ENTRY(at, struct mark_slot, link);
        if (!has_key(slot->chunk, key))
            continue;
        for (uint32_t i = 0; i < slot->nr; i++) {
            int rc = fn(ctx, &slot->chunk->records[i]);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/** Is this the first orphan of its volume? */
static bool is_first(const struct mark_log *log, const struct mark_slot *slot)
{
    const uint8_t *uuid = (const uint8_t *)slot->chunk->uuid;
    const struct list *at = log->orphans.next;
    while (!has_uuid(LIST_ENTRY(at, struct mark_slot, link)->chunk, uuid))
        at = at->next;
    return at == &slot->link;
}

uint64_t mark_log_next(const struct mark_log *log, uint64_t after, uint8_t uuid[16])
{
    for (const struct list *at = log->orphans.next; at != &log->orphans;
         at = at->next) {
        const struct mark_slot *slot = LIST_ENTRY(at, struct mark_slot, link);
        if (slot->sequence <= after || !is_first(log, slot))
            continue;
        memcpy(uuid, slot->chunk->uuid, sizeof slot->chunk->uuid);
        return slot->sequence;
    }
    return 0;
}

void mark_log_bury(struct mark_log *log, const uint8_t uuid[16])
{
    LIST_FOR_EACH(it, n, &log->orphans)
    {
        struct mark_slot *slot = LIST_ENTRY(it, struct mark_slot, link);
        if (has_uuid(slot->chunk, uuid))
            slot_free(log, slot);
    }
}

void mark_log_adopt(struct mark_log *log, struct mark_owner *owner)
{
    LIST_FOR_EACH(it, n, &log->orphans)
    {
        struct mark_slot *slot = LIST_ENTRY(it, struct mark_slot, link);
        if (!has_uuid(slot->chunk, owner->key.uuid))
            continue;
        if (!has_key(slot->chunk, &owner->key)) {
            slot_free(log, slot);
            continue;
        }
        slot->generation = 0;
        list_remove(&slot->link);
        list_push_back(&owner->slots, &slot->link);
        log->nr_owned++;
    }
}
