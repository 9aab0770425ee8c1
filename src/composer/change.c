/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SNAPSHOT, TRUNCATE, RENAME and DELETE: changes of a volume as a whole.
 *
 * CONTROL makes the change; the composer sees to it that nothing is in flight
 * meanwhile. A snapshot or a new size needs the volume open (opened for the time if it
 * was not):
 *
 *   open -> freeze -> drained -> flushed -> CONTROL -> [zero the tail] -> unfreeze ->
 * answer
 *
 * If CONTROL dies over it nobody here knows whether it happened: the volume is revived,
 * with a new epoch if it has one, and the client is told to look.
 *
 * A new name only freezes an open volume.  While CONTROL gives one a new name, a request
 * that names no open volume may name that one, so it waits (change_may_name), and such a
 * RENAME that CONTROL has already is waited for.  A change that had to wait for another one
 * begins anew if the volume has another name by then.
 *
 * A removal waits for the volume's users (removal.c).
 */
#include <stdlib.h>
#include <string.h>

#include "composer/internal.h"

struct change {
    struct drain drain;
    struct flush_wait flush;
    struct waiter waiter;
    struct composer *c;
    struct volume *v; /* frozen, or NULL: not open */
    struct xseg_request *rq;
    bool opened;  /* open_get is to be balanced */
    bool renames; /* it counts in c->renaming, or without a volume in renaming_closed */
    int64_t result; /* of CONTROL, which died */
    uint64_t since; /* when it was first asked what happened, 0: it was not */
};

static void change_forward(struct change *ch);

/** Let the volume go on, and forget the change. */
static void change_free(struct change *ch)
{
    struct volume *v = ch->v;

    if (v) {
        v->users += !ch->opened; /* keep it over the unfreeze */
        volume_unfreeze(v);
        open_put(v);
    }
    free(ch);
}

static void change_renames_resume(struct composer *c)
{
    struct list waiting;

    list_take_all(&waiting, &c->renames);
    for (struct list *link; (link = list_pop_front(&waiting));) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        w->resume(w);
    }
}

static void change_end(struct change *ch, int64_t result)
{
    struct composer *c = ch->c;
    bool named = ch->renames && ch->v && --c->renaming == 0;
    bool settled = ch->renames && !ch->v && --c->renaming_closed == 0;

    composer_reply(c, ch->rq, result);
    if (named)
        composer_serve_again(c, &c->unnamed);
    change_free(ch);
    if (settled)
        change_renames_resume(c);
}

bool change_may_name(struct composer *c, struct xseg_request *rq)
{
    uint8_t len;

    if (!c->renaming || request_name(rq, &len) < 0 ||
        volume_by_name(c, rq->inline_data, len))
        return false;
    composer_queue(c, &c->unnamed, rq, NULL);
    return true;
}

static void change_tail_zeroed(void *arg, int64_t result)
{
    struct change *ch = arg;

    change_end(ch, ch->result < 0 ? ch->result : result);
}

/** CONTROL answered, or the volume is back: put right what a shrink leaves. */
static void change_settle(struct change *ch, int64_t result)
{
    if (ch->v && !ch->v->lost && !volume_read_only(ch->v) &&
        ch->rq->op == XSEG_OP_TRUNCATE && (ch->v->info.flags & XSEG_VOL_TAIL)) {
        ch->result = result;
        mutate_zero_tail(ch->v, change_tail_zeroed, ch);
        return;
    }
    change_end(ch, result);
}

static void change_revived(struct waiter *w);

/**
 * Nobody knows whether it happened: find out.  Until that is known the volume stays
 * frozen: its extent may be a snapshot's by now.
 */
static void change_revive(struct change *ch)
{
    struct volume *v = ch->v;

    v->new_epoch = true;
    revive(v);
    ch->waiter.resume = change_revived;
    if (volume_reviving(v))
        revive_wait(v, &ch->waiter);
    else
        change_settle(ch, ch->result); /* lost */
}

static void change_revived(struct waiter *w)
{
    struct change *ch = LIST_ENTRY(w, struct change, waiter);
    int64_t away = -EPIPE;

    if (!ch->v->new_epoch || ch->v->lost) {
        change_settle(ch, ch->result);
        return;
    }
    if (!again_may(ch->v, &away, XSEG_PORT_CONTROL, &ch->since))
        volume_lost(ch->v, "nobody says whether its last change happened");
    change_revive(ch);
}

/** If it was lost meanwhile, CONTROL is being told of that. */
static void change_answered(struct volume *v)
{
    if (v->question == VOLUME_ASK_CHANGE)
        v->question = VOLUME_ASK_NOTHING;
}

static void change_forwarded(void *arg, struct xseg_request *child)
{
    struct change *ch = arg;
    struct xseg_volume_info info;
    int64_t result = child->result;
    bool known = ch->v && !again_away(result) && volume_record(child, &info);

    if (ch->v)
        change_answered(ch->v);
    if (known)
        ch->v->info = info;
    request_answer(ch->rq, child);
    composer_release(ch->c, child);
    if (!ch->v || known || result >= 0) {
        change_settle(ch, result);
        return;
    }
    if (again_away(result))
        ch->rq->arg[0] = 0;
    ch->result = result;
    change_revive(ch);
}

static void change_resume(struct waiter *w)
{
    change_forward(LIST_ENTRY(w, struct change, waiter));
}

/** Count a RENAME that goes to CONTROL; false: it is resumed when it may go. */
static bool change_rename_begin(struct change *ch)
{
    struct composer *c = ch->c;

    if (!ch->renames) {
        ch->renames = true;
        c->renaming += ch->v != NULL;
        c->renaming_closed += ch->v == NULL;
    }
    if (!ch->v || !c->renaming_closed)
        return true;
    ch->waiter.resume = change_resume;
    list_push_back(&c->renames, &ch->waiter.link);
    return false;
}

static void change_forward(struct change *ch)
{
    if (ch->v && ch->v->lost) {
        ch->rq->arg[0] = 0;
        change_end(ch, -ESTALE);
        return;
    }
    if (ch->v && volume_reviving(ch->v)) {
        ch->waiter.resume = change_resume;
        revive_wait(ch->v, &ch->waiter);
        return;
    }
    if (ch->rq->op == XSEG_OP_RENAME && !change_rename_begin(ch))
        return;
    struct xseg_request *child = composer_request(ch->c, ch->rq->op);
    if (!child) {
        ch->waiter.resume = change_resume;
        composer_starve(ch->c, &ch->waiter);
        return;
    }
    request_lend(child, ch->rq);
    child->handle = ch->v ? ch->v->info.map_handle : 0;
    if (ch->v)
        ch->v->question = VOLUME_ASK_CHANGE;
    composer_send(ch->c, child, XSEG_PORT_CONTROL, change_forwarded, ch);
}

static void change_flushed(struct flush_wait *w, int64_t result)
{
    struct change *ch = LIST_ENTRY(w, struct change, flush);

    if (result < 0) {
        ch->rq->arg[0] = 0;
        change_end(ch, result);
        return;
    }
    change_forward(ch);
}

static void change_drained(struct drain *d)
{
    struct change *ch = LIST_ENTRY(d, struct change, drain);
    struct composer *c = ch->c;
    struct xseg_request *rq = ch->rq;
    uint8_t len;

    if (request_name(rq, &len) == 0 && !volume_has_name(ch->v, rq->inline_data, len)) {
        change_free(ch);
        composer_serve(c, rq);
        return;
    }
    ch->flush.flushed = change_flushed;
    list_init(&ch->flush.link);
    barrier_flush(ch->v, &ch->flush);
}

static void change_freeze(struct change *ch)
{
    ch->drain.drained = change_drained;
    list_init(&ch->drain.link);
    volume_freeze(ch->v, &ch->drain);
}

static void change_opened(void *arg, struct volume *v, int64_t result)
{
    struct change *ch = arg;

    if (!v) {
        change_end(ch, result);
        return;
    }
    ch->v = v;
    ch->opened = true;
    change_freeze(ch);
}

/** What needs no freeze: to CONTROL, when it is asked nothing else about the volume. */
static void change_unfrozen(struct change *ch, struct volume *v)
{
    if (v && volume_reviving(v)) {
        ch->waiter.resume = change_resume;
        revive_wait(v, &ch->waiter);
        return;
    }
    change_forward(ch);
}

static struct change *change_new(struct composer *c, struct xseg_request *rq)
{
    struct change *ch = calloc(1, sizeof *ch);

    if (!ch) {
        rq->arg[0] = 0;
        composer_reply(c, rq, -ENOMEM);
        return NULL;
    }
    ch->c = c;
    ch->rq = rq;
    list_init(&ch->waiter.link);
    return ch;
}

void change_remove(struct composer *c, struct volume *v, struct xseg_request *rq)
{
    struct change *ch = change_new(c, rq);

    if (ch)
        change_unfrozen(ch, v);
}

void vol_serve_change(struct composer *c, struct xseg_request *rq)
{
    uint8_t len;
    int rc = request_name(rq, &len);
    if (rc < 0) {
        rq->arg[0] = 0;
        composer_reply(c, rq, rc);
        return;
    }
    if (change_may_name(c, rq))
        return;
    struct change *ch = change_new(c, rq);
    if (!ch)
        return;
    revive_all(c); /* a new CONTROL must know first what is open */
    if (rq->op == XSEG_OP_SNAPSHOT || rq->op == XSEG_OP_TRUNCATE) {
        open_get(c, rq, change_opened, ch);
        return;
    }
    struct volume *v = volume_by_name(c, rq->inline_data, len);
    if (v && v->state != VOLUME_OPEN) { /* soon it is open or gone: then again */
        free(ch);
        composer_queue(c, &v->after, rq, NULL);
        return;
    }
    if (v && rq->op == XSEG_OP_DELETE) {
        free(ch);
        removal_serve(c, v, rq);
        return;
    }
    if (v && rq->op == XSEG_OP_RENAME) {
        ch->v = v;
        change_freeze(ch);
        return;
    }
    change_unfrozen(ch, v);
}
