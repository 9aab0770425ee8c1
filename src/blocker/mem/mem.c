/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mem backend: the reference of what every backend must do, and the one that tests
 * can make fail.  Nothing survives close.
 *
 * Every call answers before it returns, on the reactor's thread, so each is atomic.
 */
#include "blocker/mem/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocker/lease.h"
#include "blocker/mem/object.h"
#include "blocker/object.h"
#include "blocker/presence.h"
#include "common/digest.h"

/** What a mem store says its capacity is: it ends when memory does. */
#define MEM_CAPACITY_BYTES (UINT64_C(1) << 40)

struct mem_store {
    struct blk_backend base;
    struct hashtab objects;
    struct hashtab seals; /* struct seal, also of extents that are not there */
    uint64_t stamps[XSEG_NR_STAMPS]; /* changes of headers, by the id's first byte */
};

/** An extent that no holder writes to any more. */
struct seal {
    struct hashtab_node node;
    struct xseg_object extent;
};

/* ---- faults ------------------------------------------------------------- */

static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mem_fault faults[MEM_NR_CALLS];
static uint64_t calls[MEM_NR_CALLS];

void mem_fault_set(enum mem_call call, const struct mem_fault *fault)
{
    pthread_mutex_lock(&fault_lock);
    faults[call] = *fault;
    pthread_mutex_unlock(&fault_lock);
}

void mem_fault_clear(void)
{
    pthread_mutex_lock(&fault_lock);
    memset(faults, 0, sizeof faults);
    memset(calls, 0, sizeof calls);
    pthread_mutex_unlock(&fault_lock);
}

uint64_t mem_fault_calls(enum mem_call call)
{
    pthread_mutex_lock(&fault_lock);
    uint64_t seen = calls[call];
    pthread_mutex_unlock(&fault_lock);
    return seen;
}

/** Count the call; 0 or the -errno to answer.  *torn_bytes: how much to store first. */
static int fault_strikes(enum mem_call call, const struct blk_io *io,
                         uint64_t *torn_bytes)
{
    int rc = 0;
    *torn_bytes = 0;
    pthread_mutex_lock(&fault_lock);
    calls[call]++;
    struct mem_fault *f = &faults[call];
    if (f->times > 0 && (f->kind == XSEG_OBJ_NONE || f->kind == io->object.kind)) {
        if (f->after > 0) {
            f->after--;
        } else {
            f->times--;
            rc = -f->error;
            if (f->torn)
                *torn_bytes = f->torn_bytes < io->size ? f->torn_bytes : io->size;
        }
    }
    pthread_mutex_unlock(&fault_lock);
    return rc;
}

/* ---- objects ------------------------------------------------------------ */

static struct mem_store *store_of(struct blk_backend *be)
{
    return (struct mem_store *)be;
}

static struct mem_object *find(const struct mem_store *store,
                               const struct xseg_object *name)
{
    struct hashtab_node *node = hashtab_find(&store->objects, blk_object_hash(name));
    for (; node; node = hashtab_next(node)) {
        struct mem_object *object = HASHTAB_ENTRY(node, struct mem_object, node);
        if (blk_object_equal(&object->name, name))
            return object;
    }
    return NULL;
}

static int find_or_create(struct mem_store *store, const struct xseg_object *name,
                          struct mem_object **out)
{
    *out = find(store, name);
    if (*out)
        return 0;
    int rc = mem_object_create(name, out);
    if (rc == 0)
        hashtab_insert(&store->objects, &(*out)->node, blk_object_hash(name));
    return rc;
}

static void forget(struct mem_store *store, struct mem_object *object)
{
    hashtab_remove(&store->objects, &object->node);
    mem_object_destroy(object);
}

static void answer(struct blk_io *io, int64_t result)
{
    io->result = result;
    io->done(io);
}

static struct seal *find_seal(const struct mem_store *store,
                              const struct xseg_object *extent)
{
    struct hashtab_node *node = hashtab_find(&store->seals, blk_object_hash(extent));
    for (; node; node = hashtab_next(node)) {
        struct seal *seal = HASHTAB_ENTRY(node, struct seal, node);
        if (blk_object_equal(&seal->extent, extent))
            return seal;
    }
    return NULL;
}

static void break_seal(struct mem_store *store, struct seal *seal)
{
    hashtab_remove(&store->seals, &seal->node);
    free(seal);
}

/* ---- data --------------------------------------------------------------- */

static int64_t do_read(struct mem_store *store, struct blk_io *io)
{
    const struct mem_object *object = find(store, &io->object);
    if (!object)
        return -ENOENT;
    uint64_t size = io->size;
    if (io->object.kind != XSEG_OBJ_CONTENT && io->object.kind != XSEG_OBJ_EXTENT) {
        uint64_t left =
            io->offset < object->size_bytes ? object->size_bytes - io->offset : 0;
        size = size < left ? size : left;
    }
    mem_object_read(object, io->offset, io->data, size);
    return (int64_t)size;
}

static void mem_read(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_READ, io, &torn);
    answer(io, rc < 0 ? rc : do_read(store_of(be), io));
}

static void mem_write(struct blk_backend *be, struct blk_io *io)
{
    struct mem_store *store = store_of(be);
    struct mem_object *object;
    uint64_t torn;
    int fault = fault_strikes(MEM_WRITE, io, &torn);
    uint64_t size = fault < 0 ? torn : io->size;

    if (find_seal(store, &io->object)) {
        answer(io, -ESTALE);
        return;
    }
    if (size == 0) {
        answer(io, fault);
        return;
    }
    int rc = find_or_create(store, &io->object, &object);
    if (rc == 0)
        rc = mem_object_write(object, io->offset, io->data, size);
    if (fault < 0)
        rc = fault;
    answer(io, rc < 0 ? rc : (int64_t)io->size);
}

static void mem_zero(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_ZERO, io, &torn);
    struct mem_object *object = find(store_of(be), &io->object);
    if (rc == 0 && !(io->flags & XSEG_F_FORCE) && find_seal(store_of(be), &io->object))
        rc = -ESTALE;
    if (rc == 0 && object)
        mem_object_zero(object, io->offset, io->size);
    answer(io, rc);
}

static void mem_flush(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    (void)be;
    int rc = fault_strikes(MEM_FLUSH, io, &torn);
    io->lost = rc == -EIO || rc == -ENOSPC || rc == -EDQUOT;
    answer(io, rc);
}

/* ---- guarded changes ---------------------------------------------------- */

/** A header was made, replaced or removed. */
static void note_change(struct mem_store *store, const struct xseg_object *name)
{
    if (name->kind == XSEG_OBJ_HEADER)
        store->stamps[name->id[0]]++;
}

static int do_put(struct mem_store *store, struct blk_io *io)
{
    if (blk_object_is_versioned(&io->object) && !versioned_valid(io->data, io->size))
        return -EINVAL;
    struct mem_object *object = find(store, &io->object);
    if (object) {
        if (object->generation < io->generation)
            object->generation = io->generation;
        return -EEXIST;
    }
    int rc = find_or_create(store, &io->object, &object);
    if (rc < 0)
        return rc;
    object->generation = io->generation;
    rc = mem_object_write(object, 0, io->data, io->size);
    if (rc < 0)
        forget(store, object);
    note_change(store, &io->object);
    return rc;
}

static void mem_put(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_PUT, io, &torn);
    answer(io, rc < 0 ? rc : do_put(store_of(be), io));
}

static int do_put_from_extent(struct mem_store *store, struct blk_io *io)
{
    const struct mem_object *source = find(store, &io->source);
    uint8_t id[DIGEST_BYTES];

    if (!source)
        return -ENOENT;
    uint8_t *bytes = malloc(io->size);
    if (!bytes)
        return -ENOMEM;
    mem_object_read(source, io->offset, bytes, io->size);
    bool stripped = digest_stripped_bytes(bytes, io->size) == io->size;
    int rc = stripped ? digest_block_id(bytes, io->size, id) : -EBADMSG;
    if (rc == 0 && memcmp(id, io->object.id, sizeof id) != 0)
        rc = -EBADMSG;
    io->data = bytes;
    if (rc == 0)
        rc = do_put(store, io);
    io->data = NULL;
    free(bytes);
    return rc;
}

static void mem_put_from_extent(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_PUT, io, &torn);
    answer(io, rc < 0 ? rc : do_put_from_extent(store_of(be), io));
}

static int do_replace(struct mem_store *store, struct blk_io *io)
{
    struct mem_object *old = find(store, &io->object);
    struct mem_object *next;
    uint8_t prefix[sizeof(struct xseg_versioned)];

    if (!old)
        return -ENOENT;
    mem_object_read(old, 0, prefix, sizeof prefix);
    int rc =
        versioned_may_replace(prefix, old->size_bytes, io->data, io->size, io->version);
    if (rc < 0)
        return rc;
    rc = mem_object_create(&io->object, &next);
    if (rc < 0)
        return rc;
    rc = mem_object_write(next, 0, io->data, io->size);
    if (rc < 0) {
        mem_object_destroy(next);
        return rc;
    }
    forget(store, old);
    hashtab_insert(&store->objects, &next->node, blk_object_hash(&next->name));
    note_change(store, &io->object);
    return 0;
}

static void mem_replace(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_REPLACE, io, &torn);
    answer(io, rc < 0 ? rc : do_replace(store_of(be), io));
}

static void load_lease(const struct mem_object *object, struct xseg_lease *out)
{
    memset(out, 0, sizeof *out);
    if (object)
        mem_object_read(object, 0, out, sizeof *out);
}

static int do_append(struct mem_store *store, struct blk_io *io, uint64_t size)
{
    struct xseg_object lease_name = blk_object_lease_of(&io->object);
    const struct mem_object *leased = find(store, &lease_name);
    struct mem_object *journal = find(store, &io->object);
    struct xseg_lease lease;

    load_lease(leased, &lease);
    if (io->fence < lease.fence || (io->fence && !leased))
        return -ESTALE;
    if (io->size == 0)
        return 0;
    uint64_t length = journal ? journal->size_bytes : 0;
    if (io->offset != length)
        return journal ? -ERANGE : -ESTALE;
    int rc = find_or_create(store, &io->object, &journal);
    if (rc < 0)
        return rc;
    rc = mem_object_write(journal, io->offset, io->data, size);
    if (rc < 0)
        mem_object_truncate(journal, length);
    return rc;
}

static void mem_append(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int fault = fault_strikes(MEM_APPEND, io, &torn);
    int rc = 0;
    if (fault == 0)
        rc = do_append(store_of(be), io, io->size);
    else if (torn > 0)
        rc = do_append(store_of(be), io, torn);
    if (fault < 0)
        rc = fault;
    answer(io, rc);
}

/* ---- names -------------------------------------------------------------- */

static void stat_store(struct mem_store *store, struct xseg_object_info *info)
{
    uint64_t used = 0;
    struct hashtab_node *node = NULL;
    while ((node = hashtab_walk(&store->objects, node)) != NULL)
        used += mem_object_allocated(HASHTAB_ENTRY(node, struct mem_object, node));
    info->size_bytes = MEM_CAPACITY_BYTES;
    info->allocated_bytes = MEM_CAPACITY_BYTES - used;
    snprintf(info->backend, sizeof info->backend, "mem");
    snprintf(info->engine, sizeof info->engine, "memory");
}

/** What INFO and LIST call an object's version. */
static uint64_t version_of(const struct mem_object *object)
{
    struct xseg_versioned v;

    if (!blk_object_is_versioned(&object->name))
        return object->generation;
    mem_object_read(object, 0, &v, sizeof v);
    return v.version;
}

static int do_stat(struct mem_store *store, struct blk_io *io)
{
    memset(&io->info, 0, sizeof io->info);
    if (io->object.kind == XSEG_OBJ_NONE) {
        stat_store(store, &io->info);
        return 0;
    }
    const struct mem_object *object = find(store, &io->object);
    if (!object)
        return -ENOENT;
    io->info.size_bytes = object->size_bytes;
    io->info.allocated_bytes = mem_object_allocated(object);
    io->info.modified_ns = object->modified_ns;
    io->info.version = version_of(object);
    if (io->object.kind == XSEG_OBJ_LEASE) {
        struct xseg_lease lease;
        load_lease(object, &lease);
        io->info.version = lease.fence;
    }
    return 0;
}

static void mem_stat(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_STAT, io, &torn);
    answer(io, rc < 0 ? rc : do_stat(store_of(be), io));
}

static int by_key(const void *a, const void *b)
{
    const struct mem_object *x = *(const struct mem_object *const *)a;
    const struct mem_object *y = *(const struct mem_object *const *)b;
    uint64_t kx = blk_object_key(&x->name), ky = blk_object_key(&y->name);
    return kx < ky ? -1 : kx > ky;
}

static int64_t do_list(struct mem_store *store, struct blk_io *io)
{
    uint64_t room = io->size / sizeof(struct xseg_list_entry);
    struct xseg_list_entry *out = io->data;
    size_t nr = 0;
    struct hashtab_node *node = NULL;
    uint64_t from;

    if (room == 0 || blk_cursor_to_key(&io->cursor, &from) < 0)
        return -EINVAL;
    struct mem_object **all = calloc(store->objects.nr_nodes + 1, sizeof(void *));
    if (!all)
        return -ENOMEM;
    while ((node = hashtab_walk(&store->objects, node)) != NULL) {
        struct mem_object *object = HASHTAB_ENTRY(node, struct mem_object, node);
        if (object->name.kind == io->object.kind &&
            blk_object_key(&object->name) >= from &&
            object->name.id[0] >= io->first_byte && object->name.id[0] < io->end_byte)
            all[nr++] = object;
    }
    qsort(all, nr, sizeof(void *), by_key);
    uint64_t next = 0;
    if (nr > room) {
        /* Equal keys stay on one page: the cursor could not point between them. */
        next = blk_object_key(&all[room]->name);
        nr = room;
        while (nr > 0 && blk_object_key(&all[nr - 1]->name) == next)
            nr--;
    }
    bool stuck = nr == 0 && next != 0;
    for (size_t i = 0; i < nr; i++)
        out[i] = (struct xseg_list_entry){
            .object = all[i]->name,
            .size_bytes = all[i]->size_bytes,
            .allocated_bytes = mem_object_allocated(all[i]),
            .modified_ns = all[i]->modified_ns,
            .version = version_of(all[i]),
        };
    free(all);
    blk_cursor_from_key(next, &io->cursor);
    return stuck ? -ENOBUFS : (int64_t)nr;
}

static void mem_list(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_LIST, io, &torn);
    answer(io, rc < 0 ? rc : do_list(store_of(be), io));
}

static void mem_changes(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_LIST, io, &torn);
    uint64_t *out = io->data;

    for (size_t i = 0; rc == 0 && i < XSEG_NR_STAMPS; i++)
        out[i] = store_of(be)->stamps[i] + 1; /* 0 would say that nothing is known */
    answer(io, rc < 0 ? rc : XSEG_NR_STAMPS);
}

static int do_remove(struct mem_store *store, const struct blk_io *io)
{
    struct mem_object *object = find(store, &io->object);
    struct seal *seal = find_seal(store, &io->object);
    uint8_t prefix[sizeof(struct xseg_versioned)];

    if (seal)
        break_seal(store, seal);
    if (!object)
        return -ENOENT;
    if (io->generation && object->generation > io->generation)
        return -ESTALE;
    mem_object_read(object, 0, prefix, sizeof prefix);
    int rc = versioned_may_remove(prefix, object->size_bytes, io->version);
    if (rc == 0) {
        note_change(store, &io->object);
        forget(store, object);
    }
    return rc;
}

static void mem_remove(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_REMOVE, io, &torn);
    answer(io, rc < 0 ? rc : do_remove(store_of(be), io));
}

/* ---- leases ------------------------------------------------------------- */

static void load_presence(const struct mem_object *object, struct xseg_presence *out)
{
    memset(out, 0, sizeof *out);
    if (object)
        mem_object_read(object, 0, out, sizeof *out);
}

static int do_acquire(struct mem_store *store, struct blk_io *io)
{
    struct mem_object *object = find(store, &io->object);
    struct xseg_object name = {.kind = XSEG_OBJ_PRESENCE};
    struct xseg_presence presence;
    struct xseg_lease lease;
    enum lease_change change;

    if (!lease_ask_valid(&io->lease))
        return -EINVAL;
    load_lease(object, &lease);
    memcpy(name.id, lease.owner, sizeof lease.owner);
    const struct mem_object *owner = find(store, &name);
    load_presence(owner, &presence);
    bool over =
        lease_holder_over(&lease, owner ? 0 : -ENOENT, &presence, presence_now_ns());
    int rc = lease_acquire(&lease, &io->lease, over, &change);
    if (rc == 0)
        rc = find_or_create(store, &io->object, &object);
    if (rc == 0)
        rc = mem_object_write(object, 0, &lease, sizeof lease);
    if (rc == 0 || rc == -EBUSY || rc == -ESTALE)
        io->lease = lease;
    return rc;
}

static int do_appear(struct mem_store *store, struct blk_io *io)
{
    struct mem_object *object = find(store, &io->object);
    struct xseg_presence presence;
    enum presence_change change;

    if (!presence_ask_valid(&io->presence))
        return -EINVAL;
    load_presence(object, &presence);
    int rc = presence_acquire(&presence, &io->presence, presence_now_ns(), &change);
    if (rc == 0)
        rc = find_or_create(store, &io->object, &object);
    if (rc == 0)
        rc = mem_object_write(object, 0, &presence, sizeof presence);
    if (rc == 0 || rc == -EBUSY)
        io->presence = presence;
    return rc;
}

static int do_disappear(struct mem_store *store, struct blk_io *io)
{
    struct mem_object *object = find(store, &io->object);
    struct xseg_presence presence;

    if (!object)
        return -ENOENT;
    load_presence(object, &presence);
    int rc = presence_release(&presence, &io->presence);
    if (rc == 0)
        rc = mem_object_write(object, 0, &presence, sizeof presence);
    io->presence = presence;
    return rc;
}

static void mem_acquire(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_ACQUIRE, io, &torn);
    bool presence = io->object.kind == XSEG_OBJ_PRESENCE;
    if (rc == 0)
        rc = (presence ? do_appear : do_acquire)(store_of(be), io);
    answer(io, rc);
}

static int do_release(struct mem_store *store, struct blk_io *io)
{
    struct mem_object *object = find(store, &io->object);
    struct xseg_lease lease;

    if (!object)
        return -ENOENT;
    load_lease(object, &lease);
    int rc = lease_release(&lease, &io->lease, (io->flags & XSEG_F_FORCE) != 0);
    if (rc == 0)
        rc = mem_object_write(object, 0, &lease, sizeof lease);
    io->lease = lease;
    return rc;
}

static void mem_release(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_RELEASE, io, &torn);
    bool presence = io->object.kind == XSEG_OBJ_PRESENCE;
    if (rc == 0)
        rc = (presence ? do_disappear : do_release)(store_of(be), io);
    answer(io, rc);
}

/** All holders are in this process, so to seal is to remember. */
static int do_release_extent(struct mem_store *store, const struct blk_io *io)
{
    if (!(io->flags & XSEG_F_FORCE) || find_seal(store, &io->object))
        return 0;
    struct seal *seal = calloc(1, sizeof *seal);
    if (!seal)
        return -ENOMEM;
    seal->extent = io->object;
    hashtab_insert(&store->seals, &seal->node, blk_object_hash(&io->object));
    return 0;
}

static void mem_release_extent(struct blk_backend *be, struct blk_io *io)
{
    uint64_t torn;
    int rc = fault_strikes(MEM_RELEASE_EXTENT, io, &torn);
    answer(io, rc < 0 ? rc : do_release_extent(store_of(be), io));
}

/* ---- life --------------------------------------------------------------- */

static int mem_open(struct reactor *r, const struct blk_options *options,
                    struct blk_backend **out, const char **why)
{
    (void)options;
    *out = NULL;
    struct mem_store *store = calloc(1, sizeof *store);
    int rc = store ? hashtab_init(&store->objects) : -ENOMEM;
    if (rc == 0) {
        rc = hashtab_init(&store->seals);
        if (rc < 0)
            hashtab_fini(&store->objects);
    }
    if (rc < 0) {
        *why = "out of memory";
        free(store);
        return rc;
    }
    store->base.ops = &blk_mem_ops;
    store->base.reactor = r;
    *out = &store->base;
    return 0;
}

static void mem_close(struct blk_backend *be)
{
    struct mem_store *store = store_of(be);
    struct hashtab_node *node;
    while ((node = hashtab_walk(&store->objects, NULL)) != NULL)
        forget(store, HASHTAB_ENTRY(node, struct mem_object, node));
    hashtab_fini(&store->objects);
    while ((node = hashtab_walk(&store->seals, NULL)) != NULL)
        break_seal(store, HASHTAB_ENTRY(node, struct seal, node));
    hashtab_fini(&store->seals);
    free(store);
}

static void mem_capabilities(const struct blk_backend *be, struct blk_capabilities *out)
{
    (void)be;
    *out = (struct blk_capabilities){.alignment = 1};
}

const struct blk_backend_ops blk_mem_ops = {
    .struct_size = sizeof(struct blk_backend_ops),
    .api_version = BLK_API_VERSION,
    .name = "mem",
    .open = mem_open,
    .close = mem_close,
    .capabilities = mem_capabilities,
    .read = mem_read,
    .write = mem_write,
    .zero = mem_zero,
    .flush = mem_flush,
    .put_if_absent = mem_put,
    .put_content_from_extent = mem_put_from_extent,
    .replace_if = mem_replace,
    .append_if = mem_append,
    .stat = mem_stat,
    .list = mem_list,
    .remove = mem_remove,
    .lease_acquire = mem_acquire,
    .lease_release = mem_release,
    .extent_release = mem_release_extent,
    .changes = mem_changes,
};
