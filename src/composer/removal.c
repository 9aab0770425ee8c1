/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DELETE of a volume that is in use.
 *
 * A client that has just disconnected may not have been noticed yet, and one that is
 * leaving may still wait for the end of its requests.  So DELETE waits: a short while for
 * users to leave, longer once all that are left have said that they are leaving.  Then it
 * goes to CONTROL, which refuses it while the volume is open.  With FORCE all users are
 * cut off at once, and DELETE waits until the volume is closed.
 *
 * Those that wait are in v->removals.  They are served again when the volume is closed.
 */
#include "composer/internal.h"

/* How long the users of a volume have to begin to leave, and to leave. */
#define NOTICE_NS UINT64_C(1000000000)
#define LEAVE_NS  UINT64_C(5000000000)
#define LOOK_NS   UINT64_C(50000000)

/** Tell CONTROL of those that have waited long enough. */
static void removal_give_up(struct volume *v)
{
    struct list waiting;
    struct xseg_request *rq;

    list_take_all(&waiting, &v->removals);
    while ((rq = composer_dequeue(&waiting, NULL)))
        change_remove(v->c, v, rq);
}

static void removal_look(struct reactor_timer *timer)
{
    struct composer *c = LIST_ENTRY(timer, struct composer, removal_timer);
    uint64_t now = reactor_now_ns(c->reactor);
    bool waits = false;

    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        if (list_empty(&v->removals))
            continue;
        if (now - v->removal_since >= (open_is_leaving(v) ? LEAVE_NS : NOTICE_NS))
            removal_give_up(v);
        else
            waits = true;
    }
    if (waits)
        reactor_arm_timer(c->reactor, timer, LOOK_NS);
}

void removal_init(struct composer *c)
{
    c->removal_timer.on_fire = removal_look;
}

void removal_serve(struct composer *c, struct volume *v, struct xseg_request *rq)
{
    if (list_empty(&v->removals))
        v->removal_since = reactor_now_ns(c->reactor);
    if (!composer_queue(c, &v->removals, rq, NULL))
        return;
    if (rq->flags & XSEG_F_FORCE)
        open_cut_off(v);
    else if (!c->removal_timer.armed)
        reactor_arm_timer(c->reactor, &c->removal_timer, LOOK_NS);
}
