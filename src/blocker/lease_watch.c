/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NOTIFY (see lease_watch.h).
 *
 * Each owner that was granted a lease through this port has an entry with the fence it
 * got, until the lease is released or deleted through this port, or its loss was told.
 * While a NOTIFY waits, entries are compared with what is stored: all of them when the
 * waiting begins; in turn, some each second, since not every filesystem tells what other
 * machines do; one when the backend says that its file was changed, or when it was changed through
 * this port.  Leases are read one at a time, as READ does.
 *
 * An entry is in one list: `granted`, `suspects` (to be read), `lost` (to be told).  The
 * one that is being read is in none.  Reactor's thread.
 */
#include "blocker/lease_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "blocker/object.h"
#include "common/hashtab.h"
#include "common/list.h"

#define LOOK_AGAIN_NS UINT64_C(1000000000)
/** Leases that are read each time, so that ten thousand cost what a hundred cost. */
#define LOOK_AT_ONCE 100

struct entry {
    struct hashtab_node node;
    struct list link;
    struct xseg_object object;
    uint8_t owner[sizeof((struct xseg_lease *)0)->owner];
    uint64_t fence;
    struct xseg_lease now; /* lost: what is stored instead */
    bool stale;            /* granted again while it was read */
    bool forgotten;        /* released while it was read */
};

struct lease_watch {
    struct reactor *reactor;
    struct blk_backend *backend;
    struct xseg_port *port;
    struct hashtab entries; /* by object */
    struct list granted, suspects, lost;
    struct list ops; /* struct lease_watch_op, under way */
    struct xseg_request *waiting;
    struct reactor_timer timer;
    struct blk_lease_watch changes; /* what the backend tells, while a NOTIFY waits */
    bool watching;
    struct entry *reading;
    bool looking; /* look() runs */
    struct blk_io read;
    struct xseg_lease lease; /* as read */
    bool stopping;
    void (*idle)(void *arg);
    void *idle_arg;
};

/* ---- entries ------------------------------------------------------------ */

static struct entry *find(const struct lease_watch *w, const struct xseg_object *object,
                          const uint8_t *owner)
{
    struct hashtab_node *node = hashtab_find(&w->entries, blk_object_hash(object));
    for (; node; node = hashtab_next(node)) {
        struct entry *entry = HASHTAB_ENTRY(node, struct entry, node);
        if (blk_object_equal(&entry->object, object) &&
            (!owner || memcmp(entry->owner, owner, sizeof entry->owner) == 0))
            return entry;
    }
    return NULL;
}

static void forget(struct lease_watch *w, struct entry *entry)
{
    hashtab_remove(&w->entries, &entry->node);
    list_remove(&entry->link);
    if (entry == w->reading)
        entry->forgotten = true;
    else
        free(entry);
}

static void move(struct entry *entry, struct list *list)
{
    list_remove(&entry->link);
    list_push_back(list, &entry->link);
}

static void suspect_all(struct lease_watch *w)
{
    struct list *link;
    while ((link = list_pop_front(&w->granted)) != NULL)
        list_push_back(&w->suspects, link);
}

/** The leases that were looked at longest ago. */
static void suspect_some(struct lease_watch *w)
{
    struct list *link;
    for (int i = 0; i < LOOK_AT_ONCE && (link = list_pop_front(&w->granted)); i++)
        list_push_back(&w->suspects, link);
}

static void suspect_object(struct lease_watch *w, const struct xseg_object *object)
{
    struct hashtab_node *node = hashtab_find(&w->entries, blk_object_hash(object));
    for (; node; node = hashtab_next(node)) {
        struct entry *entry = HASHTAB_ENTRY(node, struct entry, node);
        if (!blk_object_equal(&entry->object, object))
            continue;
        if (entry == w->reading)
            entry->stale = true;
        else
            move(entry, &w->suspects);
    }
}

/* ---- looking ------------------------------------------------------------ */

static void look(struct lease_watch *w);

/** The stored lease is not the one that was granted. */
static bool is_other(const struct lease_watch *w, const struct entry *entry)
{
    return w->lease.fence != entry->fence ||
           memcmp(w->lease.owner, entry->owner, sizeof entry->owner) != 0;
}

static bool is_changing(const struct lease_watch *w, const struct xseg_object *object)
{
    LIST_FOR_EACH(link, next, &w->ops)
    {
        const struct lease_watch_op *op = LIST_ENTRY(link, struct lease_watch_op, link);
        if (blk_object_equal(&op->io->object, object))
            return true;
    }
    return false;
}

static void judge(struct lease_watch *w, struct entry *entry, int64_t rc)
{
    if (entry->forgotten) {
        free(entry);
    } else if (entry->stale) {
        entry->stale = false;
        list_push_back(&w->suspects, &entry->link);
    } else if (is_changing(w, &entry->object)) {
        list_push_back(&w->granted, &entry->link); /* until the end of that */
    } else if ((rc == sizeof w->lease && is_other(w, entry)) || rc == -ENOENT) {
        if (rc == -ENOENT)
            memset(&w->lease, 0, sizeof w->lease);
        entry->now = w->lease;
        list_push_back(&w->lost, &entry->link);
    } else {
        list_push_back(&w->granted, &entry->link);
    }
}

static void on_read(struct blk_io *io)
{
    struct lease_watch *w = io->owner;
    struct entry *entry = w->reading;

    w->reading = NULL;
    judge(w, entry, io->result);
    if (w->stopping)
        w->idle(w->idle_arg);
    else if (!w->looking)
        look(w);
}

static void stop_watching(struct lease_watch *w)
{
    reactor_disarm_timer(w->reactor, &w->timer);
    if (w->watching)
        (void)w->backend->ops->watch_leases(w->backend, NULL);
    w->watching = false;
}

static void answer(struct lease_watch *w, int result)
{
    struct xseg_request *rq = w->waiting;
    w->waiting = NULL;
    (void)xseg_request_complete(w->port, rq, result);
}

/** Tell the first loss to who waits. */
static void tell(struct lease_watch *w)
{
    struct entry *entry = LIST_ENTRY(w->lost.next, struct entry, link);
    struct xseg_request *rq = w->waiting;

    stop_watching(w);
    w->waiting = NULL;
    rq->object = entry->object;
    memcpy(rq->inline_data, &entry->now, sizeof entry->now);
    /* Whoever asked may be gone; then it is told to the next who asks. */
    if (xseg_request_complete(w->port, rq, 0) == 0)
        forget(w, entry);
}

/** Go on with what there is to do: tell, or read the suspects one by one. */
static void look(struct lease_watch *w)
{
    struct list *link;

    if (w->looking)
        return;
    w->looking = true; /* a backend may answer before its call returns */
    while (w->waiting && !w->reading) {
        if (!list_empty(&w->lost)) {
            tell(w);
            break;
        }
        link = list_pop_front(&w->suspects);
        if (!link)
            break;
        w->reading = LIST_ENTRY(link, struct entry, link);
        w->read = (struct blk_io){.object = w->reading->object,
                                  .size = sizeof w->lease,
                                  .data = &w->lease,
                                  .fill_unit = 1,
                                  .done = on_read,
                                  .owner = w,
                                  .backend = w->backend};
        w->backend->ops->read(w->backend, &w->read);
    }
    w->looking = false;
}

/* ---- signs -------------------------------------------------------------- */

static void on_timer(struct reactor_timer *timer)
{
    struct lease_watch *w = LIST_ENTRY(timer, struct lease_watch, timer);
    reactor_arm_timer(w->reactor, timer, LOOK_AGAIN_NS);
    suspect_some(w);
    look(w);
}

static void on_change(struct blk_lease_watch *self, const struct xseg_object *lease)
{
    struct lease_watch *w = LIST_ENTRY(self, struct lease_watch, changes);

    if (lease)
        suspect_object(w, lease);
    else
        suspect_all(w);
    look(w);
}

static void start_watching(struct lease_watch *w)
{
    const struct blk_backend_ops *ops = w->backend->ops;

    reactor_arm_timer(w->reactor, &w->timer, LOOK_AGAIN_NS);
    w->changes.changed = on_change;
    /* If the backend tells nothing, the timer finds it. */
    w->watching = ops->watch_leases && ops->watch_leases(w->backend, &w->changes) == 0;
}

/* ---- what the blocker calls --------------------------------------------- */

static void granted(struct lease_watch *w, const struct blk_io *io)
{
    struct entry *entry = find(w, &io->object, io->lease.owner);

    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry)
            return; /* its loss is found by its next flush */
        list_init(&entry->link);
        entry->object = io->object;
        memcpy(entry->owner, io->lease.owner, sizeof entry->owner);
        hashtab_insert(&w->entries, &entry->node, blk_object_hash(&io->object));
    }
    entry->fence = io->lease.fence;
    memset(&entry->now, 0, sizeof entry->now);
    if (entry == w->reading)
        entry->stale = true;
    else
        move(entry, &w->granted);
}

void lease_watch_begin(struct lease_watch *w, struct lease_watch_op *op,
                       const struct blk_io *io)
{
    op->io = io;
    list_init(&op->link);
    if (io->object.kind == XSEG_OBJ_LEASE)
        list_push_back(&w->ops, &op->link);
}

void lease_watch_end(struct lease_watch *w, struct lease_watch_op *op, uint32_t what)
{
    const struct blk_io *io = op->io;
    bool ends = what == XSEG_OP_RELEASE || what == XSEG_OP_DELETE;
    bool of_all = what == XSEG_OP_DELETE || (io->flags & XSEG_F_FORCE) != 0;
    struct entry *entry;

    if (io->object.kind != XSEG_OBJ_LEASE)
        return;
    list_remove(&op->link);
    while (ends && io->result >= 0 &&
           (entry = find(w, &io->object, of_all ? NULL : io->lease.owner)) != NULL)
        forget(w, entry);
    suspect_object(w, &io->object); /* others that had it */
    if (what == XSEG_OP_ACQUIRE && io->result >= 0)
        granted(w, io);
    look(w);
}

void lease_watch_wait(struct lease_watch *w, struct xseg_request *rq)
{
    if (w->waiting)
        answer(w, -ECANCELED);
    else
        start_watching(w);
    w->waiting = rq;
    suspect_all(w);
    look(w);
}

void lease_watch_stop(struct lease_watch *w, void (*idle)(void *arg), void *arg)
{
    stop_watching(w);
    if (w->waiting)
        answer(w, -ECANCELED);
    w->stopping = true;
    w->idle = idle;
    w->idle_arg = arg;
    if (!w->reading)
        idle(arg);
}

int lease_watch_create(struct reactor *r, struct blk_backend *backend,
                       struct xseg_port *port, struct lease_watch **out)
{
    struct lease_watch *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return -ENOMEM;
    int rc = hashtab_init(&w->entries);
    if (rc < 0) {
        free(w);
        return rc;
    }
    w->reactor = r;
    w->backend = backend;
    w->port = port;
    w->timer.on_fire = on_timer;
    list_init(&w->granted);
    list_init(&w->suspects);
    list_init(&w->lost);
    list_init(&w->ops);
    *out = w;
    return 0;
}

void lease_watch_destroy(struct lease_watch *w)
{
    struct hashtab_node *node;

    if (!w)
        return;
    stop_watching(w);
    if (w->waiting)
        answer(w, -ECANCELED);
    while ((node = hashtab_walk(&w->entries, NULL)) != NULL)
        forget(w, HASHTAB_ENTRY(node, struct entry, node));
    hashtab_fini(&w->entries);
    free(w);
}
