/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OPEN and UPDATE: a header takes effect, whole or not at all.
 *
 * A plan is made beside the map: header checked, stack entries found or read, memory
 * taken.  Its commit cannot fail and is one step of the loop, so every MAPR
 * and MAPW sees the map before or after, never between.
 *
 * The journal that a new header froze is the top as it is: it is moved, not read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "mapper/flush.h"
#include "mapper/op.h"
#include "mapper/peer.h"
#include "mapper/text.h"

/** Frozen journals read at once. */
#define WINDOW 8u
#define NONE   UINT32_MAX

/** What an UPDATE or OPEN makes of the map's top. */
enum plan_top {
    TOP_EMPTY,  /* another journal, with nothing in it */
    TOP_KEPT,   /* the same journal: top and position stay */
    TOP_LOADED, /* the current journal is read */
};

struct plan {
    struct map_op *op;
    struct map *map; /* with a reference */
    struct waiter waiter;
    struct map_header header;
    struct stack_item *stack;
    uint32_t next;         /* first stack entry that may not be ready */
    uint32_t frozen_index; /* entry that takes the old top, or NONE */
    enum plan_top what;    /* becomes of the top */
    struct map_table top;
    struct map_journal journal;
    struct journal_load load;
    struct mark_set *found; /* OPEN: marks that the log kept */
};

static void plan_step(struct plan *plan);
static void update_continue(struct map *map);

/** Answer; free what the plan still has. */
static void plan_end(struct plan *plan, int rc)
{
    struct map_op *op = plan->op;
    struct map *map = plan->map;
    stack_free(plan->stack, plan->header.nr_entries);
    map_header_fini(&plan->header);
    map_table_fini(&plan->top);
    mark_set_free(plan->found);
    if (op->op == XSEG_OP_UPDATE) {
        map->change = NULL;
        map_let_go(map);
    }
    if (op->op == XSEG_OP_OPEN && rc == 0)
        op->rq->handle = map->handle;
    free(plan);
    op_reply(op, rc);
    flush_pump(map);
    map_put(map);
}

/** Read the header that the request carries. */
static int plan_header(struct map_op *op, struct map_header *out)
{
    uint64_t len = op->size ? op->size : op->data_len;
    const char *why = "no header";
    const void *shared = NULL;
    int rc = -EINVAL;
    if (op->data_off && len && len <= op->data_len && len <= MAP_HEADER_MAX_BYTES)
        shared = xseg_heap_ptr(op->m->seg, op->data_off, len);
    if (shared) {
        void *own = malloc(len); /* what is checked must not change afterwards */
        if (!own)
            return -ENOMEM;
        memcpy(own, shared, len);
        rc = map_header_unpack(own, len, out, &why);
        free(own);
    }
    if (rc < 0)
        log_line(LOG_ERROR, "mapperd", "header refused: %s", why);
    return rc;
}

/* ---- the stack ---- */

static struct frozen_key plan_key(const struct plan *plan, const struct map_entry *e)
{
    struct frozen_key key = {.number = e->number,
                             .length = e->length_bytes,
                             .block_bytes = plan->header.block_bytes};
    memcpy(key.uuid, e->id, sizeof key.uuid);
    return key;
}

/** The table that the map already has for a key: perhaps one that is its own. */
static struct frozen *plan_find_own(const struct map *map, const struct frozen_key *key)
{
    for (uint32_t i = 0; map->stack && i < map->header.nr_entries; i++) {
        struct frozen *frozen = map->stack[i].frozen;
        if (frozen && memcmp(&frozen->key, key, sizeof *key) == 0) {
            frozen->refs++;
            return frozen;
        }
    }
    return NULL;
}

static int plan_stack(struct plan *plan)
{
    struct mapper *m = plan->map->m;
    uint32_t nr = plan->header.nr_entries;
    plan->stack = calloc(nr ? nr : 1, sizeof *plan->stack);
    if (!plan->stack)
        return -ENOMEM;
    for (uint32_t i = 0; i < nr; i++) {
        const struct map_entry *e = &plan->header.entries[i];
        struct stack_item *item = &plan->stack[i];
        if (e->type == MAP_ENTRY_LAYER) {
            item->layer = map_layer_get(m, e->id);
        } else {
            struct frozen_key key = plan_key(plan, e);
            if (i == plan->frozen_index)
                item->frozen = frozen_new(m, &key);
            else if (!(item->frozen = plan_find_own(plan->map, &key)))
                item->frozen = frozen_get(m, &key);
        }
        if (!item->layer && !item->frozen)
            return -ENOMEM;
    }
    return 0;
}

/* ---- what an UPDATE may change ---- */

/** The entry of the new header that is the map's journal as it stands, or NONE. */
static uint32_t plan_find_frozen(const struct map *map, const struct map_header *n)
{
    for (uint32_t i = 0; i < n->nr_entries; i++) {
        const struct map_entry *e = &n->entries[i];
        if (e->type == MAP_ENTRY_JOURNAL && memcmp(e->id, map->header.uuid, 16) == 0 &&
            e->number == map->header.journal &&
            e->length_bytes == map->journal.length &&
            memcmp(e->extent_uuid, map->header.uuid, 16) == 0 &&
            e->extent_epoch == map->header.epoch)
            return i;
    }
    return NONE;
}

/** May the map follow this header now?  Sets `what` and frozen_index. */
static int plan_check(struct plan *plan)
{
    const struct map *map = plan->map;
    const struct map_header *h = &map->header, *n = &plan->header;
    bool frozen = h->flags & XSEG_VOL_READONLY;
    if (memcmp(n->uuid, h->uuid, sizeof n->uuid) != 0 ||
        n->block_bytes != h->block_bytes || n->epoch < h->epoch ||
        n->fence < h->fence || n->journal < h->journal ||
        (n->flags ^ h->flags) & XSEG_VOL_READONLY ||
        (n->epoch == h->epoch && n->size_bytes < h->size_bytes))
        return -EINVAL;
    plan->what = TOP_EMPTY;
    plan->frozen_index = NONE;
    if ((n->epoch > h->epoch || n->fence > h->fence) && map->nr_pending)
        return -EBUSY; /* they belong to the old epoch's extent, or may be void */
    if (map->read_only && !frozen) { /* somebody else writes its journal */
        plan->what = TOP_LOADED;
        return 0;
    }
    if (frozen || n->journal == h->journal) {
        if (n->epoch > h->epoch && map->journal.nr_marks)
            return -EINVAL; /* its marks would change their meaning */
        plan->what = TOP_KEPT;
        return 0;
    }
    if (n->journal_least_bytes > 0)
        plan->what = TOP_LOADED; /* the record that begins it */
    if (map->journal.nr_marks) {
        plan->frozen_index = plan_find_frozen(map, n);
        if (plan->frozen_index == NONE)
            return -EINVAL; /* sectors that are marked would vanish */
    }
    return 0;
}

/* ---- commit ---- */

/** Leading entries that are journals of the extent that is written now. */
static uint32_t plan_count_own(const struct map_header *h)
{
    uint32_t nr = 0;
    while (nr < h->nr_entries && h->entries[nr].type == MAP_ENTRY_JOURNAL &&
           memcmp(h->entries[nr].extent_uuid, h->uuid, 16) == 0 &&
           h->entries[nr].extent_epoch == h->epoch &&
           h->entries[nr].limit_bytes == MAP_NO_LIMIT)
        nr++;
    return nr;
}

static struct mark_key mark_key_of(const struct map_header *h)
{
    struct mark_key key = {.epoch = h->epoch, .fence = h->fence};
    memcpy(key.uuid, h->uuid, sizeof key.uuid);
    return key;
}

/** Marks are logged for the extent and fence that the map now has. */
static void plan_follow_key(struct map *map)
{
    struct mark_key key = mark_key_of(&map->header);
    if (memcmp(&key, &map->marks.key, sizeof key) != 0)
        mark_log_drop(&map->m->marks, &map->marks); /* none is pending: plan_check */
    map->marks.key = key;
}

/** The plan becomes the map; the plan keeps what the map had, to free it. */
static void plan_install(struct plan *plan)
{
    struct map *map = plan->map;
    struct map_header old = map->header;
    struct stack_item *old_stack = map->stack;
    if (plan->frozen_index != NONE) {
        struct frozen *frozen = plan->stack[plan->frozen_index].frozen;
        frozen->table = map->top;
        frozen->state = LOAD_READY;
        map_table_init(&map->top, old.block_bytes);
        if (map->nr_pending == 0)
            frozen_publish(frozen); /* with them it would not be the journal alone */
    }
    view_drop(map);
    map->header = plan->header;
    map->stack = plan->stack;
    if (plan->what != TOP_KEPT) {
        struct map_table top = map->top;
        map->top = plan->top;
        map->journal = plan->journal;
        plan->top = top;
    }
    plan_follow_key(map);
    map->nr_own = plan_count_own(&map->header);
    map->nr_sectors =
        (map->header.size_bytes + XSEG_SECTOR_BYTES - 1) / XSEG_SECTOR_BYTES;
    plan->header = old;
    plan->stack = old_stack;
}

/** A mark that an earlier process answered and did not journal. */
static int plan_found_mark(void *ctx, const struct journal_mark *mark)
{
    struct plan *plan = ctx;
    struct mark_set *set = plan->found;
    uint64_t end = plan->header.size_bytes / XSEG_SECTOR_BYTES +
                   (plan->header.size_bytes % XSEG_SECTOR_BYTES != 0);
    if (mark->start >= end || mark->nr > end - mark->start) {
        log_line(LOG_ERROR, "mapperd", "\"%s\": a mark beyond its end is dropped",
                 plan->header.name.bytes);
        return 0;
    }
    if (set->nr == set->room) {
        uint32_t room = set->room ? set->room * 2 : 64;
        struct journal_mark *more = realloc(set->marks, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        set->marks = more;
        set->room = room;
    }
    set->marks[set->nr++] = *mark;
    return map_table_apply(&plan->top, mark);
}

/** Open it, with what the log kept. */
static int plan_commit_open(struct plan *plan)
{
    struct map *map = plan->map;
    struct mark_log *log = &map->m->marks;
    struct mark_key key = mark_key_of(&plan->header);
    int rc = 0;
    if (!map->read_only) {
        map_supersede(map, key.uuid);
        plan->found = calloc(1, sizeof *plan->found);
        rc = plan->found ? mark_log_read(log, &key, plan_found_mark, plan) : -ENOMEM;
    }
    if (rc == 0)
        rc = map_publish(map);
    if (rc < 0)
        return rc;
    plan_install(plan);
    if (plan->found) {
        mark_log_adopt(log, &map->marks);
        map->nr_pending = plan->found->nr;
        list_push_back(&map->pending, &plan->found->link);
        plan->found = NULL;
    }
    return 0;
}

static void plan_commit(struct plan *plan)
{
    struct map *map = plan->map;
    int rc = 0;
    if (plan->op->op == XSEG_OP_UPDATE) {
        uint32_t frozen_index = plan->frozen_index;
        rc = map_is_over(map) ? -ESTALE : plan_check(plan);
        if (rc == 0 && frozen_index != plan->frozen_index)
            rc = -EBUSY; /* cannot be while appends are held back; never guess */
        if (rc == 0 && plan->what != TOP_KEPT && !map->read_only)
            rc = mark_sets_apply(map, &plan->top);
        if (rc == 0)
            plan_install(plan);
    } else {
        rc = map->m->stopping ? -ECANCELED : plan_commit_open(plan);
    }
    plan_end(plan, rc);
}

/* ---- waiting ---- */

static void plan_wake(struct waiter *w, int rc)
{
    struct plan *plan = LIST_ENTRY(w, struct plan, waiter);
    if (rc < 0) {
        const struct map_entry *e = &plan->header.entries[plan->next];
        log_line(LOG_ERROR, "mapperd", "\"%s\": journal %llu of its stack: %s",
                 plan->header.name.bytes, (unsigned long long)e->number,
                 map_error_text(rc));
        plan_end(plan, rc);
    } else {
        plan_step(plan);
    }
}

static void plan_top_loaded(struct journal_load *load, int rc)
{
    struct plan *plan = LIST_ENTRY(load, struct plan, load);
    plan->journal.length = load->reader.valid_bytes;
    plan->journal.sequence = load->reader.sequence;
    plan->journal.nr_marks = load->reader.nr_marks;
    plan->journal.state = load->reader.torn ? JOURNAL_TORN : JOURNAL_SOUND;
    journal_reader_fini(&load->reader);
    if (rc < 0) {
        log_line(LOG_ERROR, "mapperd", "\"%s\": current journal %llu: %s",
                 plan->header.name.bytes, (unsigned long long)plan->header.journal,
                 map_error_text(rc));
        plan_end(plan, rc);
        return;
    }
    plan_commit(plan);
}

/** Go on until something must be waited for. */
static void plan_step(struct plan *plan)
{
    uint32_t nr = plan->header.nr_entries;
    for (; plan->next < nr; plan->next++) {
        struct frozen *frozen = plan->stack[plan->next].frozen;
        if (!frozen || frozen->state == LOAD_READY || plan->next == plan->frozen_index)
            continue;
        uint32_t last = nr - plan->next > WINDOW ? plan->next + WINDOW : nr;
        for (uint32_t i = plan->next; i < last; i++)
            if (plan->stack[i].frozen && i != plan->frozen_index)
                frozen_prepare(plan->stack[i].frozen);
        if (frozen->state == LOAD_READY)
            continue;
        plan->waiter.wake = plan_wake;
        list_push_back(&frozen->waiters, &plan->waiter.link);
        return;
    }
    if (plan->what == TOP_LOADED) {
        plan->load.current = true;
        plan->load.length = plan->header.journal_least_bytes;
        plan->load.done = plan_top_loaded;
        journal_load_start(plan->map->m, &plan->load, plan->header.uuid,
                           plan->header.journal, &plan->top);
        return;
    }
    plan_commit(plan);
}

/* ---- the requests ---- */

void open_serve(struct map_op *op)
{
    struct plan *plan = calloc(1, sizeof *plan);
    struct map *map = map_new(op->m);
    if (!plan || !map) {
        if (map)
            map_put(map);
        free(plan);
        op_reply(op, -ENOMEM);
        return;
    }
    plan->op = op;
    plan->map = map;
    plan->frozen_index = NONE;
    map->round_over = update_continue;
    int rc = plan_header(op, &plan->header);
    if (rc == 0)
        rc = plan_stack(plan);
    if (rc < 0) {
        plan_end(plan, rc);
        return;
    }
    map_table_init(&plan->top, plan->header.block_bytes);
    map->read_only =
        op->flags & XSEG_F_RDONLY || plan->header.flags & XSEG_VOL_READONLY;
    if (!(plan->header.flags & XSEG_VOL_READONLY))
        plan->what = TOP_LOADED;
    plan_step(plan);
}

static void update_begin(struct map *map, struct map_op *op)
{
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        map->change = NULL;
        map_let_go(map);
        op_reply(op, -ENOMEM);
        flush_pump(map);
        return;
    }
    plan->op = op;
    plan->map = map;
    map_ref(map);
    int rc = plan_header(op, &plan->header);
    if (rc == -EBADMSG || rc == -EPROTONOSUPPORT)
        rc = -EINVAL;
    if (rc == 0)
        rc = plan_check(plan);
    if (rc == 0)
        rc = plan_stack(plan);
    if (rc < 0) {
        plan_end(plan, rc);
        return;
    }
    map_table_init(&plan->top, plan->header.block_bytes);
    plan_step(plan);
}

static void update_continue(struct map *map)
{
    struct map_op *op = map->change;
    if (!op || map->append.round != ROUND_NONE)
        return;
    if (map_is_over(map)) {
        map->change = NULL;
        map_let_go(map);
        op_reply(op, -ESTALE);
    } else if (op->flags & XSEG_F_MORE) {
        struct xseg_journal_info info = {.number = map->header.journal,
                                         .length_bytes = map->journal.length,
                                         .nr_marks = map->journal.nr_marks};
        memcpy(op->rq->inline_data, &info, sizeof info);
        map->change = NULL;
        op_reply(op, 0);
    } else {
        update_begin(map, op);
    }
}

void update_serve(struct map_op *op)
{
    struct map *map = op->map;
    if (map->state == MAP_FENCED) {
        op_reply(op, -ESTALE);
        return;
    }
    if (map->change) {
        op_reply(op, -EBUSY);
        return;
    }
    map_hold(map);
    map->change = op;
    update_continue(map);
}
