/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a volume's lease may be counted on, and what becomes of a volume whose lease is
 * gone.
 *
 * CONTROL says with OPEN, and with each renewal (ACQUIRE), until when.  A request that is
 * taken up later waits in `overdue` for the next renewal, or for word that the lease is
 * lost (RELEASE).  The clock goes on while the machine sleeps, so that nothing is written
 * after waking up that somebody else may have written meanwhile.
 *
 * A lost volume answers everything with -ESTALE, and CONTROL is told at once that nobody
 * counts on it.  It stays in the table until its last user has closed it, but not under
 * its name: who opens that asks CONTROL anew.
 */
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "composer/internal.h"

bool lease_overdue(const struct volume *v)
{
    struct timespec now;

    if (!v->deadline_ns)
        return false;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec >=
           v->deadline_ns;
}

void volume_lost(struct volume *v, const char *why)
{
    struct composer *c = v->c;

    if (v->lost)
        return;
    log_line(LOG_ERROR, "vlmcd", "\"%.*s\" is lost, close it: %s",
             (int)v->info.name_len, (const char *)v->info.name, why);
    v->lost = true;
    v->held = false;
    composer_serve_again(c, &v->overdue);
    composer_serve_again(c, &v->frozen);
    again_soon(c);
    revive_give_up(v);
    open_check_unused(v);
}

/** The volume that is open for writing under that lease. */
static struct volume *by_uuid(struct composer *c, const uint8_t uuid[16])
{
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        if (!v->lost && v->info.map_handle && !volume_read_only(v) &&
            memcmp(v->info.uuid, uuid, 16) == 0)
            return v;
    }
    return NULL;
}

void lease_serve(struct composer *c, struct xseg_request *rq)
{
    struct volume *v =
        rq->object.kind == XSEG_OBJ_LEASE ? by_uuid(c, rq->object.id) : NULL;
    if (!v) {
        composer_reply(c, rq, rq->object.kind == XSEG_OBJ_LEASE ? -ENOENT : -EINVAL);
        return;
    }
    if (rq->op == XSEG_OP_ACQUIRE) {
        v->deadline_ns = rq->arg[1];
        composer_serve_again(c, &v->overdue);
        again_soon(c);
    } else {
        volume_lost(v, "control has given it up");
    }
    composer_reply(c, rq, 0);
}
