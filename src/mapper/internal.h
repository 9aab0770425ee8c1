/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the mapper's files share: the peer, open maps, caches, and operations in flight.
 * All of it belongs to the reactor's thread; nothing here is locked.
 *
 *   mapper.c        the peer: requests in, checked and handed to their noun; stop
 *   op.c            operations: pool, answers, waiting
 *   map.c           open maps: handles, references, INFO, CLOSE
 *   plan.c          OPEN and UPDATE: a new header takes effect, whole or not at all
 *   mapr.c          MAPR: a range as runs
 *   mapw.c          MAPW: marks, and the sets they wait in
 *   mark_log.c      marks in memory that outlives the process
 *   flush.c         FLUSH: rounds of appends, and the check of the fence
 *   append.c        one append of marks to the journal
 *   view.c          the stack resolved, block by block, in a cache
 *   page_cache.c    pages of layers
 *   layer_cache.c   open layers
 *   frozen.c        frozen journals as tables
 *   journal_load.c  a journal read into a table
 *   io.c            one request to blockerm
 */
#ifndef MAPPER_INTERNAL_H
#define MAPPER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hashtab.h"
#include "common/list.h"
#include "mapper/header.h"
#include "mapper/journal.h"
#include "mapper/layer.h"
#include "mapper/mapper.h"
#include "mapper/mark_log.h"
#include "mapper/radix.h"
#include "mapper/resolve.h"
#include "mapper/table.h"
#include "reactor/reactor.h"
#include "xseg/xseg.h"

struct map;
struct map_op;
struct mapper;

/* ---- text.c ---- */

#define MAP_UUID_TEXT 33u
/** A uuid as 32 hexadecimal digits; returns `out`. */
const char *map_uuid_text(const uint8_t uuid[16], char out[MAP_UUID_TEXT]);
/** What an error of stored bytes means, to follow the name of what has them. */
const char *map_error_text(int rc);

/** Something that waits for a page, a layer or a journal; rc < 0: it will not come. */
struct waiter {
    struct list link;
    void (*wake)(struct waiter *self, int rc);
};
/** Wake all that wait in a list.  They may wait anew, in it or elsewhere. */
void waiters_wake(struct list *waiters, int rc);

/* ---- io.c ---- */

/** One request to blockerm, with a buffer of its own.  Embedded in who sends it. */
struct map_io {
    struct mapper *m;
    struct list link; /* in mapper.waiting: no descriptor, no buffer, or nobody there */
    uint32_t op;
    bool again; /* may be repeated: do so while the blocker is away */
    struct xseg_object object;
    uint64_t offset, size; /* READ, APPEND: a buffer of `size` is taken */
    uint64_t fence;        /* APPEND */
    void (*fill)(struct map_io *io, void *data); /* APPEND: writes the buffer */
    /* -EIO in io->result also means that blockerm stayed away for too long */
    void (*done)(struct map_io *io);
    uint64_t give_up_ns;
    uint64_t buffer_off;
    int64_t result;
    struct xseg_object_info info; /* INFO */
};

/** Send it.  `done` is called once, never before this returns. */
void map_io_start(struct mapper *m, struct map_io *io);
/** The bytes that a READ brought, io->result of them; until map_io_end. */
const void *map_io_data(const struct map_io *io);
/** Give the buffer back. */
void map_io_end(struct map_io *io);
/** True for results that say nothing about the object: its peer died or is not there.
 */
bool map_io_is_away(int64_t result);
/** Timer: try again what waits for a descriptor, a buffer or the blocker. */
void map_io_retry(struct reactor_timer *timer);

/* ---- page_cache.c, layer_cache.c ---- */

/** Of a thing that is read once and shared. */
enum load_state {
    LOAD_NONE, /* not read yet, or that failed: the next to ask reads it */
    LOAD_READING,
    LOAD_READY,
};

/** An open layer, shared by all maps that have it on their stack. */
struct map_layer {
    struct hashtab_node node;
    struct mapper *m;
    uint8_t uuid[16];
    uint32_t refs;
    enum load_state state; /* READY: `super` is filled, with all extents */
    struct layer super;
    struct list pages;   /* struct cached_page.of_layer */
    struct list waiters; /* for READY */
    struct map_io io;
};

/** The layer of that uuid, with a reference; NULL without memory.  Reads nothing. */
struct map_layer *map_layer_get(struct mapper *m, const uint8_t uuid[16]);
void map_layer_put(struct map_layer *layer);
/** Read the superblock and the extents unless that is done or on its way. */
void map_layer_prepare(struct map_layer *layer);

enum page_state {
    PAGE_READING,
    PAGE_VALID, /* `page` is filled and checked */
    PAGE_GONE,  /* out of the cache: freed with the last pin */
};

struct cached_page {
    struct hashtab_node node;
    struct map_layer *layer;
    uint32_t number;
    uint32_t pins;
    enum page_state state;
    struct list lru;
    struct list of_layer;
    struct list waiters;
    struct map_io io;
    struct layer_page page;
};

struct page_cache {
    struct hashtab pages;
    struct list lru; /* most recently used first; only valid pages */
    uint64_t bytes, limit_bytes;
    uint64_t reads; /* pages fetched since start */
};

int page_cache_init(struct page_cache *cache, uint64_t limit_bytes);
void page_cache_fini(struct page_cache *cache);
/**
 * Look a page up, and have it read if it is not there.
 *
 * @param started  out: this call started the read.
 * Returns 0; -EAGAIN: wait on (*out)->waiters; -ENOMEM.
 */
int page_cache_get(struct mapper *m, struct map_layer *layer, uint32_t number,
                   struct cached_page **out, bool *started);
/** Keep a page as long as it is pinned. */
void page_pin(struct cached_page *page);
void page_unpin(struct cached_page *page);
/** Forget the pages of a layer that nobody uses any more. */
void page_cache_forget(struct mapper *m, struct map_layer *layer);

/* ---- journal_load.c, frozen.c ---- */

/** A journal on its way into a table. */
struct journal_load {
    struct map_io io;
    struct journal_reader reader;
    struct map_table *table;
    bool current;    /* read to the end; a torn tail is left out */
    uint64_t length; /* frozen: its length; current: its least one [bytes] */
    void (*done)(struct journal_load *load, int rc);
};

/**
 * Read JOURNAL(uuid, number) into `table`.  Set `current`, `length` and `done`
 * before. `done` gets 0, -EBADMSG, -ENOMEM or what the blocker said, and ends with
 * journal_reader_fini(&load->reader).
 */
void journal_load_start(struct mapper *m, struct journal_load *load,
                        const uint8_t uuid[16], uint64_t number,
                        struct map_table *table);

/** Names the contents of a frozen journal. */
struct frozen_key {
    uint8_t uuid[16];
    uint64_t number;
    uint64_t length;
    uint64_t block_bytes;
};

/** A frozen journal as a table, shared by all maps that have it on their stack. */
struct frozen {
    struct hashtab_node node;
    struct mapper *m;
    struct frozen_key key;
    uint32_t refs;
    bool cached;           /* found by its key */
    enum load_state state; /* READY: `table` is filled */
    struct map_table table;
    struct list waiters; /* for READY */
    struct journal_load load;
};

/** The table of that key, with a reference; NULL without memory.  Reads nothing. */
struct frozen *frozen_get(struct mapper *m, const struct frozen_key *key);
/** A table of that key outside the cache, not ready, with a reference; or NULL. */
struct frozen *frozen_new(struct mapper *m, const struct frozen_key *key);
/** Let others find it, unless they find another one by that key. */
void frozen_publish(struct frozen *frozen);
/** Read it unless that is done or on its way. */
void frozen_prepare(struct frozen *frozen);
void frozen_put(struct frozen *frozen);

/* ---- view.c ---- */

/** Sectors of a block with one source. */
struct view_run {
    uint16_t start, nr; /* sectors */
    uint8_t kind;       /* enum xseg_reference_kind */
    uint8_t hole;       /* ZERO that no table provides */
    uint8_t reserved[2];
    uint8_t id[32];
};

/** A block of a map's stack (without the top), or a row of blocks that are all alike.
 */
struct view {
    struct list lru;
    struct map *map;
    uint64_t block, end; /* runs[] holds for each block before `end` */
    size_t bytes;
    uint32_t nr;
    struct view_run runs[];
};

struct view_cache {
    struct list lru;
    uint64_t bytes, limit_bytes;
};

/**
 * The view that covers `block`.
 *
 * @param out  valid until the next call.
 * Returns 0; -EAGAIN: a page is on its way, op_park waits for it; -EBADMSG; -ENOMEM.
 */
int view_get(struct map *map, uint64_t block, const struct view **out);
/** Forget all views of a map. */
void view_drop(struct map *map);

/* ---- the peer ---- */

/** What the page callback of one source needs to know. */
struct source_context {
    struct map *map;
    struct map_layer *layer;
    uint64_t length; /* of the layer as the header has it [bytes] */
};

struct mapper {
    struct peer peer;
    struct reactor *reactor;
    struct xseg_segment *seg;
    struct xseg_port *port;
    struct map **slots; /* open maps; NULL if free */
    uint32_t nr_slots;
    uint32_t generation; /* of the next handle */
    struct list free_ops;
    struct hashtab layers; /* struct map_layer by uuid */
    struct hashtab frozen; /* struct frozen by key */
    struct page_cache pages;
    struct view_cache views;
    struct mark_log marks;
    struct list waiting; /* struct map_io */
    struct reactor_timer retry_timer;
    uint64_t patience_ns; /* how long requests wait for blockerm */
    uint32_t nr_ios;      /* started and not done */
    struct reactor_task stop_task;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;

    /* scratch of one resolve */
    struct map_source *sources; /* MAP_HEADER_MAX_ENTRIES */
    struct source_context *contexts;
    struct map_block block;
    struct cached_page **trail; /* pages it looked at */
    uint32_t nr_trail, trail_room;
    struct list *wait_on; /* -EAGAIN: what to wait for */
    bool ahead;           /* asking only to have pages read */
    uint32_t nr_ahead;
};

/** A stop waits for what is in flight: look whether it is over. */
void mapper_check_stopped(struct mapper *m);

/* ---- operations ---- */

/** A request being served.  Its fields are copied once: the segment may change. */
struct map_op {
    struct list link; /* free list, map.flushes, append.flushes, map.parked */
    struct mapper *m;
    struct map *map; /* with a reference, or NULL */
    struct xseg_request *rq;
    uint32_t op, flags;
    uint64_t offset, size, data_off, data_len, generation;
    struct waiter waiter;
    void (*start)(
        struct map_op *op);   /* run from the start, or from `pos`, after a wait */
    struct reactor_task task; /* op_defer */
    uint64_t pos;             /* MAPW: sectors done */
    struct cached_page **pinned;
    uint32_t nr_pinned;
};

/** Take an operation for a request, or NULL without memory. */
struct map_op *op_new(struct mapper *m, struct xseg_request *rq);
/** Answer and free; damage is told in the log. */
void op_end(struct map_op *op, int rc);
/** Answer and free. */
void op_reply(struct map_op *op, int64_t result);

/* ---- left.c ---- */

void left_list_serve(struct map_op *op);
void left_delete_serve(struct map_op *op);

/* ---- map.c ---- */

/** One stack entry in memory: one of both, as the header's entry says. */
struct stack_item {
    struct frozen *frozen;
    struct map_layer *layer;
};

/** Marks of one generation that no append has taken yet, in order of arrival. */
struct mark_set {
    struct list link; /* map.pending, by ascending generation */
    uint64_t generation;
    struct journal_mark *marks;
    uint32_t nr, room;
};

enum journal_state {
    JOURNAL_SOUND,
    JOURNAL_UNSURE, /* an append failed: ask for its length before the next */
    JOURNAL_TORN,   /* ends in something that is no record: it takes no more */
};

/** The current journal. */
struct map_journal {
    uint64_t length;   /* [bytes] */
    uint64_t sequence; /* of the next record */
    uint64_t nr_marks;
    enum journal_state state;
};

enum round_state {
    ROUND_NONE,
    ROUND_STARTED,
    ROUND_COMPARED, /* the fence was the newest after it began */
};

/** A round of flushes, and the append that it is at. */
struct append {
    struct map_io io;
    enum round_state round;
    void (*appended)(struct map *map, int rc); /* < 0: its marks are pending again */
    struct list flushes;                       /* struct map_op of this round */
    uint64_t generation;                       /* newest that the round flushes */
    uint64_t give_up_ns;
    struct mark_set *set; /* marks on their way into the journal, or NULL */
};

/** Of an open map; map.c has the table of what follows what. */
enum map_state {
    MAP_LOADING, /* by OPEN; nobody finds it yet */
    MAP_OPEN,
    MAP_HELD,   /* between UPDATE MORE and UPDATE: no round starts */
    MAP_FENCED, /* its fence is not the newest: all but CLOSE and INFO is -ESTALE */
    MAP_CLOSED, /* no request finds it; it goes with the last reference */
};

/**
 * An open map.  At all times: top = marks of the current journal + append + pending, so
 * that freezing the top is freezing the journal.
 */
struct map {
    struct mapper *m;
    uint32_t refs;
    uint32_t slot;
    uint64_t handle;
    bool read_only; /* by its header or by OPEN */
    enum map_state state;
    struct map_header header;
    struct stack_item *stack; /* header.nr_entries */
    uint32_t nr_own; /* leading entries that are journals of the current extent */
    uint64_t nr_sectors;
    struct map_table top;
    struct radix views; /* by first block */
    uint64_t nr_views;
    uint64_t pages_read;
    uint64_t damaged_block; /* told in the log last */
    bool damage_told;

    struct map_journal journal;
    struct append append;
    struct mark_owner marks; /* the log of append and pending */
    struct list pending;     /* struct mark_set */
    uint64_t nr_pending;     /* marks in them */
    uint64_t generation;     /* newest that was marked with */
    struct list flushes;     /* struct map_op that wait for the next round */
    struct list parked;      /* struct map_op that wait for pages */
    void (*round_over)(struct map *map); /* NULL: nothing waits for it */
    struct map_op *change; /* UPDATE that waits for the round under way, or runs */
};

struct map *map_new(struct mapper *m);
void map_ref(struct map *map);
void map_put(struct map *map);
/** Give it a handle.  0 or -ENOMEM. */
int map_publish(struct map *map);
/** The open map of a handle, or NULL. */
struct map *map_find(struct mapper *m, uint64_t handle);
/** Forget it: no request finds it any more; those that wait get `error`. */
void map_close(struct map *map, int error);
/** Somebody else has a newer fence, or the volume open here: it takes no more. */
void map_fence(struct map *map);
/** As map_fence for all open maps that write the volume that `map` is about to write;
 * their marks are left in the log. */
void map_supersede(struct map *map, const uint8_t uuid[16]);
/** Go to another state, one that may follow. */
void map_enter(struct map *map, enum map_state next);
/** Let no round of flushes start until map_let_go. */
void map_hold(struct map *map);
void map_let_go(struct map *map);
/** True if it takes no more changes. */
static inline bool map_is_over(const struct map *map)
{
    return map->state == MAP_FENCED || map->state == MAP_CLOSED;
}
void map_info_serve(struct map_op *op);
/** True if [offset, offset + size) is whole sectors inside the map, and not empty. */
bool map_has_range(const struct map *map, uint64_t offset, uint64_t size);
void stack_free(struct stack_item *stack, uint32_t nr);

/* ---- the ops ---- */

void open_serve(struct map_op *op);
void update_serve(struct map_op *op);
void mapr_serve(struct map_op *op);
void mapw_serve(struct map_op *op);
void flush_serve(struct map_op *op);
/** Start a round if there is something to do. */
void flush_pump(struct map *map);
/** Answer all flushes, waiting or of the round under way. */
void flush_fail(struct map *map, int error);
/** Append marks of the round, as many as one record takes.  0 or -ENOMEM. */
int append_start(struct map *map);
/** Marks in the append under way. */
uint32_t append_nr(const struct map *map);
void mark_set_free(struct mark_set *set);
void mark_sets_free(struct map *map);
/** Apply all marks that are not journaled to a table.  0 or -ENOMEM. */
int mark_sets_apply(const struct map *map, struct map_table *table);

/**
 * Wait for what the last view_get missed, then run op->start again.  The pages that it
 * looked at stay until then, so that each wait brings the operation further.
 */
void op_park(struct map_op *op);
/** Run op->start again on the next turn: others come first. */
void op_defer(struct map_op *op);

#endif
