/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored data that a map refers to and that cannot be read: said once in the log, with
 * the volume and the block that need it (docs/damage.md has the cures).
 *
 * The read ends with an error for its own range; everything else goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "composer/internal.h"

/** Name an object as its path in the file store does. */
static void missing_name(const struct xseg_object *object, char *out, size_t room)
{
    bool content = object->kind == XSEG_OBJ_CONTENT;
    size_t at = 0;
    for (size_t i = 0; i < (content ? 32u : 16u); i++)
        at += (size_t)snprintf(out + at, room - at, "%02x", object->id[i]);
    if (!content) {
        uint64_t epoch;
        memcpy(&epoch, object->id + 16, sizeof epoch);
        snprintf(out + at, room - at, " of epoch %llu", (unsigned long long)epoch);
    }
}

void missing_tell(struct volume *v, const struct xseg_request *rq, uint64_t offset)
{
    char name[96];
    if (rq->result != -ENOENT && rq->result != -EBADMSG)
        return;
    if (memcmp(v->missing_id, rq->object.id, sizeof v->missing_id) == 0)
        return; /* a client may read it again and again */
    memcpy(v->missing_id, rq->object.id, sizeof v->missing_id);
    missing_name(&rq->object, name, sizeof name);
    log_line(
        LOG_ERROR, "vlmcd",
        "\"%.*s\": %s %s is %s: bytes %llu to %llu, in block %llu, cannot be read; "
        "see docs/damage.md",
        (int)v->info.name_len, v->info.name,
        rq->object.kind == XSEG_OBJ_CONTENT ? "content block" : "extent", name,
        rq->result == -ENOENT ? "missing" : "damaged", (unsigned long long)offset,
        (unsigned long long)(offset + rq->size - 1),
        (unsigned long long)(offset / v->info.block_bytes));
}
