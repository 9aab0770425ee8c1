/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the leases of the instance may be counted on, and what becomes of a volume whose
 * lease is gone.
 *
 * There is one deadline for all volumes that are open for writing.  CONTROL says it with
 * each renewal of the instance's presence (ACQUIRE PRESENCE), and with OPEN.  A request
 * that is taken up later waits in `overdue` for the next renewal, or for word that the
 * lease of its volume is lost (RELEASE LEASE).  The clock goes on while the machine sleeps,
 * so that nothing is written after waking up that another node may have written meanwhile.
 *
 * A lost volume answers everything with -ESTALE, and CONTROL is told at once that no
 * client counts on it.  It stays in the table until its last user has closed it, but not
 * under its name: a client that opens the name makes vlmcd ask CONTROL anew.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "composer/internal.h"

bool lease_overdue(const struct volume *v)
{
    struct timespec now;

    if (!v->c->deadline_ns || volume_read_only(v))
        return false;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec >=
           v->c->deadline_ns;
}

static void lease_set_deadline(struct composer *c, uint64_t deadline_ns)
{
    struct list waiting, *link;

    c->deadline_ns = deadline_ns;
    list_init(&waiting);
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        while ((link = list_pop_front(&v->overdue)) != NULL)
            list_push_back(&waiting, link);
    }
    composer_serve_again(c, &waiting);
    again_soon(c);
}

void lease_extend(struct composer *c, uint64_t deadline_ns)
{
    /* An OPEN that was under way says less than a renewal that came before its answer. */
    if (deadline_ns > c->deadline_ns)
        lease_set_deadline(c, deadline_ns);
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
static struct volume *lease_volume(struct composer *c, const uint8_t uuid[16])
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
    if (rq->op == XSEG_OP_ACQUIRE && rq->object.kind == XSEG_OBJ_PRESENCE) {
        lease_set_deadline(c, rq->arg[1]);
        composer_reply(c, rq, 0);
        return;
    }
    if (rq->op == XSEG_OP_ACQUIRE || rq->object.kind != XSEG_OBJ_LEASE) {
        composer_reply(c, rq, -EINVAL);
        return;
    }
    struct volume *v = lease_volume(c, rq->object.id);
    if (v)
        volume_lost(v, "control has given it up");
    composer_reply(c, rq, v ? 0 : -ENOENT);
}
