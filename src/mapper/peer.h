/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapper peer and what its files share.  All of it belongs to the reactor's thread;
 * nothing here is locked.  From the top down, where each file calls those below it:
 *
 *   mapper.c        the peer: requests in, checked and handed to their noun; stop
 *   left.c          marks of volumes that are not opened again
 *   close.c         CLOSE and other ends of maps; INFO
 *   plan.c          OPEN and UPDATE: a new header takes effect, whole or not at all
 *   mapr.c          MAPR: a range as runs
 *   mapw.c          MAPW: marks
 *   op.c            operations: pool, answers, waiting
 *   map.c           open maps: states, handles, references
 *   flush.c         FLUSH: rounds of appends, and the check of the fence
 *   append.c        one append of marks to the journal
 *   view.c          the stack resolved, block by block, in a cache
 *   frozen.c        frozen journals as tables
 *   journal_load.c  a journal read into a table
 *   layer_cache.c   open layers
 *   page_cache.c    pages of layers
 *   marks.c         marks that wait for their flush
 *   mark_log.c      marks in memory that outlives the process
 *   io.c            one request to blockerm
 */
#ifndef MAPPER_PEER_H
#define MAPPER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hashtab.h"
#include "common/list.h"
#include "mapper/map.h"
#include "mapper/mapper.h"
#include "mapper/mark_log.h"
#include "mapper/page_cache.h"
#include "mapper/resolve.h"
#include "mapper/view.h"
#include "reactor/reactor.h"
#include "xseg/xseg.h"

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
    uint64_t patience_ns;               /* how long requests wait for blockerm */
    uint32_t nr_ios;                    /* started and not done */
    void (*io_ended)(struct mapper *m); /* one less: a stop may be over */
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

#endif
