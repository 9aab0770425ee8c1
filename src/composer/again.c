/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children that nobody served: their server died, stopped, or could not yet.  They wait
 * here, with their descriptor, and are sent again.
 *
 * A READ, WRITE, DISCARD, FLUSH, MAPR or MAPW may be done twice, so the same request goes
 * out again: to a blocker when its port is bound, to the mapper when the volume is
 * revived (revive.c), to control with its arguments written anew.  `since` belongs to
 * what the child is part of: the limit counts from its first failure.
 *
 * One timer, armed while anything waits.  Its callback may answer requests, so it works
 * on a list of its own; a volume is not freed while a child of it waits.
 */
#include <stdlib.h>

#include "common/log.h"
#include "composer/internal.h"

#define PAUSE_FIRST_NS UINT64_C(1000000)
#define PAUSE_MOST_NS  UINT64_C(20000000)

/** One child that waits. */
struct again {
    struct list link;
    struct volume *v;
    struct xseg_request *rq;
    uint32_t dst;
    uint64_t since;
    reactor_reply_fn *done;
    void *arg;
};

bool again_away(int64_t result)
{
    return result == -EPIPE || result == -EOWNERDEAD || result == -ECANCELED;
}

/** When who waits since then gives up. */
static uint64_t again_until(const struct composer *c, uint64_t since)
{
    uint64_t until = since + c->patience_ns;
    if (c->stop_ns && c->stop_ns + c->stop_patience_ns < until)
        until = c->stop_ns + c->stop_patience_ns;
    return until;
}

static bool again_worth(int64_t result, uint32_t dst)
{
    if (again_away(result))
        return true;
    if (dst == XSEG_PORT_MAPPERD)
        return result == -ESTALE || result == -EAGAIN;
    return dst == XSEG_PORT_CONTROL && (result == -EAGAIN || result == -ETIMEDOUT);
}

bool again_may(struct volume *v, int64_t *result, uint32_t dst, uint64_t *since)
{
    struct composer *c = v->c;

    if (!again_worth(*result, dst))
        return false;
    uint64_t now = reactor_now_ns(c->reactor);
    if (!*since)
        *since = now;
    if (!v->lost && now < again_until(c, *since))
        return true;
    if (!v->lost)
        log_line(LOG_ERROR, "vlmcd", "\"%.*s\": port %u has not answered for too long",
                 (int)v->info.name_len, (const char *)v->info.name, dst);
    *result = v->lost ? -ESTALE : -EIO;
    return false;
}

static void again_arm(struct composer *c)
{
    if (c->again_timer.armed)
        return;
    if (!c->again_pause_ns)
        c->again_pause_ns = PAUSE_FIRST_NS;
    reactor_arm_timer(c->reactor, &c->again_timer, c->again_pause_ns);
}

void again_soon(struct composer *c)
{
    reactor_arm_timer(c->reactor, &c->again_timer, 0);
}

void again_wait(struct composer *c, struct waiter *w)
{
    list_push_back(&c->again_waiters, &w->link);
    again_arm(c);
}

bool again(struct volume *v, struct xseg_request *rq, uint32_t dst,
           reactor_reply_fn *done, void *arg, uint64_t *since)
{
    int64_t result = rq->result;

    if (dst == XSEG_PORT_BLOCKERB && result == -ESTALE && !volume_read_only(v))
        volume_lost(v, "its extent is sealed");
    if (!again_may(v, &result, dst, since)) {
        rq->result = result;
        return false;
    }
    struct again *a = malloc(sizeof *a);
    if (!a) {
        rq->result = -ENOMEM;
        return false;
    }
    *a = (struct again){.v = v, .rq = rq, .dst = dst, .since = *since};
    a->done = done;
    a->arg = arg;
    list_push_back(&v->c->again, &a->link);
    again_arm(v->c);
    if (dst == XSEG_PORT_MAPPERD)
        revive(v);
    return true;
}

/** Can it go out, or be answered? */
static bool again_ready(const struct again *a)
{
    const struct volume *v = a->v;
    struct composer *c = v->c;

    if (v->lost || reactor_now_ns(c->reactor) >= again_until(c, a->since))
        return true;
    if (a->dst == XSEG_PORT_MAPPERD && volume_reviving(v))
        return false;
    if (a->dst == XSEG_PORT_BLOCKERB && lease_overdue(v))
        return false;
    const struct xseg_port_shared *port = xseg_segment_port(c->seg, a->dst);
    return port && __atomic_load_n(&port->state, __ATOMIC_ACQUIRE) == XSEG_PORT_BOUND;
}

static void again_go(const struct again *a)
{
    struct composer *c = a->v->c;
    /* the last look at lease and limit: away is away */
    int64_t result = -EPIPE;
    uint64_t since = a->since;

    if (!again_may(a->v, &result, a->dst, &since)) {
        a->rq->result = result;
        a->done(a->arg, a->rq);
        return;
    }
    if (a->dst == XSEG_PORT_MAPPERD)
        a->rq->handle = a->v->info.map_handle;
    if (a->dst == XSEG_PORT_CONTROL)
        ask_fill(a->v, a->rq);
    composer_send(c, a->rq, a->dst, a->done, a->arg);
}

static void on_again_timer(struct reactor_timer *t)
{
    struct composer *c = LIST_ENTRY(t, struct composer, again_timer);
    struct list todo, waiters;

    list_take_all(&todo, &c->again);
    list_take_all(&waiters, &c->again_waiters);
    for (struct list *link; (link = list_pop_front(&waiters));) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        w->resume(w);
    }
    for (struct list *link; (link = list_pop_front(&todo));) {
        struct again *a = LIST_ENTRY(link, struct again, link);
        if (!again_ready(a)) {
            list_push_back(&c->again, link);
            continue;
        }
        again_go(a);
        free(a);
    }
    if (list_empty(&c->again) && list_empty(&c->again_waiters)) {
        c->again_pause_ns = 0;
        return;
    }
    c->again_pause_ns *= 2;
    if (c->again_pause_ns > PAUSE_MOST_NS)
        c->again_pause_ns = PAUSE_MOST_NS;
    again_arm(c);
}

void again_init(struct composer *c)
{
    list_init(&c->again);
    list_init(&c->again_waiters);
    c->again_timer.on_fire = on_again_timer;
}

void again_fini(struct composer *c)
{
    reactor_disarm_timer(c->reactor, &c->again_timer);
    for (struct list *link; (link = list_pop_front(&c->again));)
        free(LIST_ENTRY(link, struct again, link));
}
