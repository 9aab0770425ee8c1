/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Relief: the mapper has no room for another mark that would survive it (its mark log is
 * full), so what is open is flushed, which gives room back.
 *
 * Marks that were refused count in no generation while they wait here: no flush waits
 * for them.  They try again whenever one of the flushes ends.  One round of flushes runs
 * at a time; rounds begin with a pause (again.c), so that a log that stays full keeps
 * nobody busy.
 */
#include "composer/internal.h"

/** Can it hold marks, and is a flush of its own not sure to come? */
static bool wants_flush(const struct volume *v)
{
    return v->info.map_handle && !v->lost && !volume_read_only(v) &&
           (v->nr_active || (v->state == VOLUME_OPEN && !v->freezers));
}

static void relief_ended(struct composer *c)
{
    struct list waiting;

    c->relieving--;
    list_take_all(&waiting, &c->refused);
    for (struct list *link; (link = list_pop_front(&waiting));) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        w->resume(w);
    }
}

void relief_flushed(struct flush_wait *w, int64_t result)
{
    struct volume *v = LIST_ENTRY(w, struct volume, relief);

    v->relief_result = result;
    relief_ended(v->c);
}

static void relief_begin(struct waiter *w)
{
    struct composer *c = LIST_ENTRY(w, struct composer, relief_waiter);

    c->relief_due = false;
    c->relieving = 1; /* this loop */
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        if (!wants_flush(v))
            continue;
        v->relief_result = 0;
        c->relieving++;
        barrier_flush(v, &v->relief);
    }
    if (c->relieving > 1)
        c->relieving--;
    else
        relief_ended(c); /* nothing to flush: they may try all the same */
}

void relief_init(struct composer *c)
{
    list_init(&c->refused);
    list_init(&c->relief_waiter.link);
    c->relief_waiter.resume = relief_begin;
}

void relief_wait(struct composer *c, struct waiter *w)
{
    list_push_back(&c->refused, &w->link);
    if (c->relieving || c->relief_due)
        return;
    c->relief_due = true;
    again_wait(c, &c->relief_waiter);
}
