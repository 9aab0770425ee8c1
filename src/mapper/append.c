/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One append of marks to the journal, a step of a round of flushes (see flush.c).
 *
 * An append is one record.  One whose fate is not known because blockerm died is looked
 * for in the journal before it is sent again; one that failed leaves its marks pending,
 * and the next asks for the journal's length before it appends.
 *
 *   idle --marks--> APPEND --ok--> idle        --away--> INFO --as before--> APPEND
 *     `--unsure--> INFO --as before--> APPEND               `--longer--> READ --ours-->
 * FLUSH
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "mapper/flush.h"
#include "mapper/peer.h"

/**
 * Marks of one append: to sort them, and to read them again, takes about a millisecond,
 * and so long others wait.
 */
#define APPEND_MARKS_MAX 8192u

static void append_send(struct map *map);
static void append_look(struct map *map, void (*done)(struct map_io *io));

uint32_t append_nr(const struct map *map)
{
    return map->append.set ? map->append.set->nr : 0;
}

/* ---- collecting marks ---- */

static int by_start(const void *a, const void *b)
{
    const struct journal_mark *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/** Sort and merge marks of one kind; returns how many are left. */
static uint32_t marks_merge(struct journal_mark *marks, uint32_t nr)
{
    uint32_t out = 0;
    qsort(marks, nr, sizeof *marks, by_start);
    for (uint32_t i = 1; i < nr; i++) {
        uint64_t end = marks[out].start + marks[out].nr;
        uint64_t other = marks[i].start + marks[i].nr;
        uint64_t both = (other > end ? other : end) - marks[out].start;
        if (marks[i].start <= end && both <= UINT32_MAX)
            marks[out].nr = (uint32_t)both;
        else
            marks[++out] = marks[i];
    }
    return out + 1;
}

/** Shorten a batch: within a row of marks of one kind their order does not matter. */
static uint32_t marks_tidy(struct journal_mark *marks, uint32_t nr)
{
    uint32_t out = 0;
    for (uint32_t at = 0; at < nr;) {
        uint32_t end = at + 1;
        while (end < nr && marks[end].kind == marks[at].kind)
            end++;
        uint32_t left = marks_merge(marks + at, end - at);
        memmove(marks + out, marks + at, left * sizeof *marks);
        out += left;
        at = end;
    }
    return out;
}

/** Take marks of the round out of the sets, oldest generation first.  0 or -ENOMEM. */
static int append_collect(struct map *map)
{
    struct append *a = &map->append;
    uint64_t nr = 0;
    LIST_FOR_EACH(it, n, &map->pending)
    {
        struct mark_set *set = LIST_ENTRY(it, struct mark_set, link);
        if (set->generation <= a->generation)
            nr += set->nr;
    }
    if (nr > APPEND_MARKS_MAX)
        nr = APPEND_MARKS_MAX;
    struct mark_set *taken = calloc(1, sizeof *taken);
    if (taken)
        taken->marks = malloc(nr * sizeof *taken->marks);
    if (!taken || !taken->marks) {
        mark_set_free(taken);
        return -ENOMEM;
    }
    LIST_FOR_EACH(it, n, &map->pending)
    {
        struct mark_set *set = LIST_ENTRY(it, struct mark_set, link);
        if (set->generation > a->generation || taken->nr == nr)
            break;
        uint32_t take =
            set->nr <= nr - taken->nr ? set->nr : (uint32_t)(nr - taken->nr);
        if (take)
            memcpy(taken->marks + taken->nr, set->marks, take * sizeof *set->marks);
        taken->nr += take;
        map->nr_pending -= take;
        if (take == set->nr) {
            list_remove(&set->link);
            mark_set_free(set);
        } else {
            set->nr -= take;
            memmove(set->marks, set->marks + take, set->nr * sizeof *set->marks);
        }
    }
    taken->nr = taken->room = marks_tidy(taken->marks, taken->nr);
    a->set = taken;
    return 0;
}

/**
 * Make the marks of the append pending again, before all others.  Their data is durable,
 * since a flush asked for them: so they go with whichever comes next.
 */
static void append_put_back(struct map *map)
{
    struct mark_set *set = map->append.set;
    set->generation = 0;
    map->nr_pending += set->nr;
    list_push_front(&map->pending, &set->link);
}

/* ---- the append ---- */

static void append_name(const struct map *map, struct map_io *io)
{
    memset(io, 0, sizeof *io);
    io->object.kind = XSEG_OBJ_JOURNAL;
    memcpy(io->object.id, map->header.uuid, 16);
    memcpy(io->object.id + 16, &map->header.journal, 8);
}

static struct map *append_map(struct map_io *io)
{
    return LIST_ENTRY(io, struct map, append.io);
}

/** The oldest generation that is not journaled; UINT64_MAX if all is. */
static uint64_t marks_oldest(const struct map *map)
{
    uint64_t oldest = UINT64_MAX;
    for (const struct list *it = map->pending.next; it != &map->pending;
         it = it->next) {
        const struct mark_set *set = LIST_ENTRY(it, struct mark_set, link);
        if (set->nr && set->generation < oldest)
            oldest = set->generation;
    }
    return oldest;
}

/** The append is over: 0, or why its marks are still pending. */
static void append_end(struct map *map, int rc)
{
    struct append *a = &map->append;
    if (rc == 0) {
        map->journal.length += journal_record_bytes(a->set->nr);
        map->journal.sequence++;
        map->journal.nr_marks += a->set->nr;
        mark_set_free(a->set);
        mark_log_release(&map->m->marks, &map->marks, marks_oldest(map));
        if (map->nr_pending == 0)
            map->generation = 0; /* no sector waits for a later flush than any other */
    } else {
        append_put_back(map);
        log_line(LOG_WARNING, "mapperd", "\"%s\": append to journal %llu: %s",
                 map->header.name.bytes, (unsigned long long)map->header.journal,
                 strerror(-rc));
    }
    a->set = NULL;
    map->append.appended(map, rc);
}

/** What the file has after our length is not ours: it takes no more records. */
static void append_torn(struct map *map)
{
    map->journal.state = JOURNAL_TORN;
    append_end(map, -EAGAIN); /* until a checkpoint brings a new journal */
}

static void append_fill(struct map_io *io, void *data)
{
    struct map *map = append_map(io);
    struct journal_identity journal =
        journal_identity(map->header.uuid, map->header.journal);
    journal_record_pack(data, &journal, map->journal.length, map->journal.sequence,
                        map->header.fence, map->append.set->marks, map->append.set->nr);
}

static void append_flushed(struct map_io *io)
{
    struct map *map = append_map(io);
    map->append.round = ROUND_STARTED; /* blockerm may have died before it did */
    if (io->result < 0)
        map->journal.state =
            JOURNAL_TORN; /* it is there, and will not become durable */
    append_end(map, io->result < 0 ? (int)io->result : 0);
}

/** A record lies where ours would: is it ours? */
static void append_read_back(struct map_io *io)
{
    struct map *map = append_map(io);
    size_t len = journal_record_bytes(map->append.set->nr);
    void *ours = NULL;
    int64_t rc = io->result;
    bool same = false;
    if (rc == (int64_t)len && (ours = malloc(len))) {
        append_fill(io, ours);
        same = memcmp(ours, map_io_data(io), len) == 0;
    }
    free(ours);
    map_io_end(io);
    if (!same) {
        append_torn(map);
        return;
    }
    memset(io, 0, sizeof *io); /* FLUSH of everything: a journal has none of its own */
    io->op = XSEG_OP_FLUSH;
    io->again = true;
    io->done = append_flushed;
    map_io_start(map->m, io);
}

static void append_found(struct map_io *io)
{
    struct map *map = append_map(io);
    size_t len = journal_record_bytes(map->append.set->nr);
    uint64_t size = io->result == -ENOENT ? 0 : io->info.size_bytes;
    if (io->result < 0 && io->result != -ENOENT) {
        map->journal.state = JOURNAL_UNSURE;
        append_end(map, (int)io->result);
    } else if (size == map->journal.length) {
        append_send(map);
    } else if (size == map->journal.length + len) {
        append_name(map, io);
        io->op = XSEG_OP_READ;
        io->again = true;
        io->offset = map->journal.length;
        io->size = len;
        io->done = append_read_back;
        map_io_start(map->m, io);
    } else {
        append_torn(map);
    }
}

static void append_done(struct map_io *io)
{
    struct map *map = append_map(io);
    int64_t rc = io->result;
    map_io_end(io);
    if (map_io_is_away(rc) && !map->m->stopping &&
        reactor_now_ns(map->m->reactor) < map->append.give_up_ns) {
        append_look(map, append_found);
        return;
    }
    if (rc == -ERANGE) {
        /* An append of before, which hung when this map was loaded, came after it. */
        map->journal.state = JOURNAL_TORN;
        rc = -EAGAIN;
    } else if (rc < 0 && rc != -ESTALE) {
        map->journal.state = JOURNAL_UNSURE;
    }
    if (map_io_is_away(rc) && !map->m->stopping)
        rc = -EIO; /* for too long; the error itself would say that we are away */
    map->append.round = rc == 0 ? ROUND_COMPARED : ROUND_STARTED;
    append_end(map, rc < 0 ? (int)rc : 0);
}

static void append_send(struct map *map)
{
    struct map_io *io = &map->append.io;
    append_name(map, io);
    io->op = XSEG_OP_APPEND;
    io->offset = map->journal.length;
    io->size = journal_record_bytes(map->append.set->nr);
    io->fence = map->header.fence;
    io->fill = append_fill;
    io->done = append_done;
    map_io_start(map->m, io);
}

static void append_look(struct map *map, void (*done)(struct map_io *io))
{
    struct map_io *io = &map->append.io;
    append_name(map, io);
    io->op = XSEG_OP_INFO;
    io->again = true;
    io->done = done;
    map_io_start(map->m, io);
}

/** After a failed append: the journal is usable if it has the length it had before. */
static void append_sure(struct map_io *io)
{
    struct map *map = append_map(io);
    uint64_t size = io->result == -ENOENT ? 0 : io->info.size_bytes;
    if (io->result < 0 && io->result != -ENOENT) {
        append_end(map, (int)io->result);
        return;
    }
    map->journal.state = JOURNAL_SOUND;
    if (size != map->journal.length) {
        append_torn(map);
        return;
    }
    append_send(map);
}

int append_start(struct map *map)
{
    int rc = append_collect(map);
    if (rc < 0)
        return rc;
    if (map->journal.state == JOURNAL_UNSURE)
        append_look(map, append_sure);
    else
        append_send(map);
    return 0;
}
