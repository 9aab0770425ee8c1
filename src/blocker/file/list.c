/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LIST: objects of one kind by rising key (blk_object_key), from a cursor on.
 *
 * A listing is stable under changes: an object that is there from the first page to the
 * last is on exactly one page.  Kinds with fan-out directories are read from the
 * cursor's directory on; the others are read whole for each page, keeping the smallest
 * keys. One blocking job.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

struct found {
    uint64_t key;
    struct xseg_object object;
};

struct listing {
    struct file_store *store;
    uint32_t kind;
    uint64_t cursor;
    unsigned end_byte; /* HEADER, CONTENT: ids begin with a smaller one */
    size_t wanted;     /* entries that fit, and one to see where the next page starts */
    struct found *found;
    size_t nr, capacity;
    uint8_t uuid[16]; /* extents: of the directory being read */
};

static int by_key(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return memcmp(&x->object, &y->object, sizeof x->object);
}

/** Sort, drop doubles (an extent's parts), keep the smallest that are wanted. */
static void compact(struct listing *l)
{
    size_t kept = 0;
    if (l->nr == 0)
        return;
    qsort(l->found, l->nr, sizeof *l->found, by_key);
    for (size_t i = 0; i < l->nr && kept < l->wanted; i++)
        if (kept == 0 || by_key(&l->found[kept - 1], &l->found[i]) != 0)
            l->found[kept++] = l->found[i];
    l->nr = kept;
}

static int add(struct listing *l, const struct xseg_object *object)
{
    uint64_t key = blk_object_key(object);

    if (key < l->cursor)
        return 0;
    if (l->nr == l->capacity)
        compact(l);
    if (l->nr * 2 > l->capacity || l->capacity == 0) {
        size_t capacity = l->capacity ? l->capacity * 2 : 256;
        struct found *found = realloc(l->found, capacity * sizeof *found);
        if (!found)
            return -ENOMEM;
        l->found = found;
        l->capacity = capacity;
    }
    l->found[l->nr++] = (struct found){.key = key, .object = *object};
    return 0;
}

static void put_number(struct xseg_object *object, uint64_t number)
{
    for (int i = 0; i < 8; i++)
        object->id[16 + i] = (uint8_t)(number >> (8 * i));
}

/** Foreign files are skipped: a store may be looked after by people. */
static int add_name(void *arg, int dir_fd, const char *name)
{
    struct listing *l = arg;
    struct xseg_object object = {.kind = l->kind};
    size_t len = strlen(name);
    uint64_t number, part;
    bool known = false;

    (void)dir_fd;
    switch (l->kind) {
    case XSEG_OBJ_CONTENT:
    case XSEG_OBJ_HEADER:
        known = len == 64 && blk_parse_hex(name, object.id, 32);
        break;
    case XSEG_OBJ_EXTENT:
        known = file_parse_part(name, &number, &part);
        memcpy(object.id, l->uuid, 16);
        if (known)
            put_number(&object, number);
        break;
    case XSEG_OBJ_JOURNAL:
    case XSEG_OBJ_CANDIDATES:
        known = len == 49 && blk_parse_hex(name, object.id, 16) && name[32] == '.' &&
                file_parse_u64(name + 33, 16, &number);
        if (known)
            put_number(&object, number);
        break;
    default:
        known = len == 32 && blk_parse_hex(name, object.id, 16);
        break;
    }
    return known ? add(l, &object) : 0;
}

static int add_extent_dir(void *arg, int dir_fd, const char *name)
{
    struct listing *l = arg;
    char dir[FILE_PATH_MAX];

    (void)dir_fd;
    if (strlen(name) != 32 || !blk_parse_hex(name, l->uuid, 16))
        return 0;
    snprintf(dir, sizeof dir, "%s/%s", file_kind_dir(XSEG_OBJ_EXTENT), name);
    int rc = file_scan(l->store, dir, add_name, l);
    return rc == -ENOENT || rc == -ENOTDIR ? 0 : rc;
}

/** Keep what is wanted; true if that is enough, since later directories have larger
 * keys. */
static bool is_full(struct listing *l)
{
    if (l->nr >= l->wanted)
        compact(l);
    return l->nr >= l->wanted;
}

static int scan_fan_out(struct listing *l, const char *dir, bool *absent)
{
    int rc = file_scan(l->store, dir, add_name, l);
    *absent = rc == -ENOENT;
    return *absent ? 0 : rc;
}

/** Read fan-out directories from the cursor's on until there is enough. */
static int add_fan_out(struct listing *l)
{
    const char *kind_dir = file_kind_dir(l->kind);
    unsigned first = (unsigned)(l->cursor >> 56);
    unsigned second = (unsigned)(l->cursor >> 48) & 0xff;
    char dir[FILE_PATH_MAX];
    bool absent;
    int rc = 0;

    for (; first < l->end_byte && rc == 0 && !is_full(l); first++) {
        snprintf(dir, sizeof dir, "%s/%02x", kind_dir, first);
        rc = scan_fan_out(l, dir, &absent);
        if (l->kind == XSEG_OBJ_CONTENT && !absent)
            for (; second <= 0xff && rc == 0 && !is_full(l); second++) {
                snprintf(dir, sizeof dir, "%s/%02x/%02x", kind_dir, first, second);
                rc = scan_fan_out(l, dir, &absent);
            }
        second = 0;
    }
    return rc;
}

/** Turn what was found into entries.  Returns how many, or -errno. */
static int64_t fill(struct listing *l, struct xseg_list_entry *out, uint64_t *cursor)
{
    size_t nr = l->nr, written = 0;

    *cursor = 0;
    if (nr == l->wanted) {
        /* Equal keys stay on one page: the cursor could not point between them. */
        *cursor = l->found[nr - 1].key;
        while (nr > 0 && l->found[nr - 1].key == *cursor)
            nr--;
        if (nr == 0)
            return -ENOBUFS;
    }
    for (size_t i = 0; i < nr; i++) {
        struct xseg_list_entry entry = {.object = l->found[i].object};
        int rc = file_object_usage(l->store, &entry);
        if (rc == -ENOENT)
            continue; /* deleted meanwhile */
        if (rc < 0)
            return rc;
        out[written++] = entry;
    }
    return (int64_t)written;
}

static void list_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    uint64_t next = 0;
    struct listing l = {
        .store = file_store_of(io->backend),
        .kind = io->object.kind,
        .end_byte = io->end_byte,
        .wanted = io->size / sizeof(struct xseg_list_entry) + 1,
    };
    int rc = blk_cursor_to_key(&io->cursor, &l.cursor);

    if (rc < 0) {
        io->result = rc;
        return;
    }
    if (l.cursor < (uint64_t)io->first_byte << 56)
        l.cursor = (uint64_t)io->first_byte << 56;
    if (l.kind == XSEG_OBJ_CONTENT || l.kind == XSEG_OBJ_HEADER)
        rc = add_fan_out(&l);
    else if (l.kind == XSEG_OBJ_EXTENT)
        rc = file_scan(l.store, file_kind_dir(l.kind), add_extent_dir, &l);
    else
        rc = file_scan(l.store, file_kind_dir(l.kind), add_name, &l);
    compact(&l);
    io->result = rc < 0 ? rc : fill(&l, io->data, &next);
    blk_cursor_from_key(next, &io->cursor);
    free(l.found);
}

/* ---- CHANGES ------------------------------------------------------------ */

/**
 * A directory that was changed so lately may change once more and keep its time: clocks
 * of filesystems tick every few milliseconds, some every two seconds.  So nothing is known
 * of it yet.  (As git treats files that are as young as its index.)
 */
#define SETTLED_AFTER_NS UINT64_C(3000000000)

static uint64_t stamp_of(struct file_store *store, unsigned shard, uint64_t now_ns)
{
    char dir[FILE_PATH_MAX];
    struct stat st;

    snprintf(dir, sizeof dir, "%s/%02x", file_kind_dir(XSEG_OBJ_HEADER), shard);
    if (fstatat(store->root_fd, dir, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 1 : 0;
    uint64_t changed_ns = file_ns(&st.st_mtim);
    bool settled = changed_ns < now_ns && now_ns - changed_ns > SETTLED_AFTER_NS;
    return settled ? changed_ns : 0;
}

static void changes_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct timespec now;
    uint64_t *out = io->data;

    /* First: what changes from now on is not settled. */
    clock_gettime(CLOCK_REALTIME, &now);
    for (unsigned i = 0; i < XSEG_NR_STAMPS; i++)
        out[i] = stamp_of(file_store_of(io->backend), i, file_ns(&now));
    io->result = XSEG_NR_STAMPS;
}

void file_changes(struct blk_backend *be, struct blk_io *io)
{
    file_io_offload(file_store_of(be), io, REACTOR_LANE_MAP, changes_run,
                    file_io_answer_job);
}

/* ---- LIST --------------------------------------------------------------- */

void file_list(struct blk_backend *be, struct blk_io *io)
{
    file_io_offload(file_store_of(be), io, REACTOR_LANE_BULK, list_run,
                    file_io_answer_job);
}
