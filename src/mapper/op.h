/* SPDX-License-Identifier: Apache-2.0 */
/* A request being served, and the requests that there are. */
#ifndef MAPPER_OP_H
#define MAPPER_OP_H

#include <stdint.h>

#include "mapper/map.h"
#include "reactor/reactor.h"
#include "xseg/xseg.h"

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

/**
 * Wait for what the last view_get missed, then run op->start again.  The pages that it
 * looked at stay until then, so that each wait brings the operation further.
 */
void op_park(struct map_op *op);
/** Run op->start again on the next turn: others come first. */
void op_defer(struct map_op *op);

/* ---- the requests ---- */

void left_list_serve(struct map_op *op);
void left_delete_serve(struct map_op *op);
void open_serve(struct map_op *op);
void update_serve(struct map_op *op);
void mapr_serve(struct map_op *op);
void mapw_serve(struct map_op *op);
void flush_serve(struct map_op *op);
void map_info_serve(struct map_op *op);

#endif
