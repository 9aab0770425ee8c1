/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What died processes left in the mark log, for volumes that nobody has opened since:
 * LIST names them, so that somebody opens and flushes them; DELETE gives the marks of
 * one up, when the volume is another's, or gone.
 */
#include <errno.h>
#include <string.h>

#include "mapper/op.h"
#include "mapper/peer.h"

void left_list_serve(struct map_op *op)
{
    const struct mapper *m = op->m;
    uint64_t room = op->data_off ? op->data_len / sizeof(struct xseg_object) : 0;
    if (!room) {
        op_reply(op, -EINVAL);
        return;
    }
    struct xseg_object *out = xseg_heap_ptr(m->seg, op->data_off, op->data_len);
    uint8_t uuid[16];
    uint32_t nr = 0;
    for (uint64_t after = 0;
         nr < room && (after = mark_log_next(&m->marks, after, uuid)); nr++) {
        out[nr] = (struct xseg_object){.kind = XSEG_OBJ_LEASE};
        memcpy(out[nr].id, uuid, sizeof uuid);
    }
    op_reply(op, nr);
}

void left_delete_serve(struct map_op *op)
{
    if (op->rq->object.kind != XSEG_OBJ_LEASE) {
        op_reply(op, -EINVAL);
        return;
    }
    mark_log_bury(&op->m->marks, op->rq->object.id);
    op_reply(op, 0);
}
