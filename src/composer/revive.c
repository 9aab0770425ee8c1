/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Revival: a volume whose map died with mapperd gets it back.
 *
 * CONTROL is asked to open the volume as it is open here.  A mapper that is new takes the
 * marks over that were answered and not journaled, so nothing is missing in the map that
 * comes back.  It must be the same volume under the same fence, and in the same epoch
 * unless a change was under way: otherwise somebody else may have written meanwhile, and
 * the volume is lost (lease.c).  Children for the mapper wait (again.c); those for the
 * blocker go on.
 *
 *   a child ends unserved
 *   CONTROL is a new one ---> OPEN at CONTROL, until it answers --ours--> over
 *                                          `--lost--> CLOSE -> over
 *   lost while open ---------------------------------------'
 *
 * The second, because a volume that nobody uses just now has no child that could end, and
 * yet its lease must be renewed and its name not be removed.
 *
 * CLOSE tells CONTROL that nothing here counts on the lost volume any more; it may be
 * opened again under its name after that.  The children that wait may hold all
 * descriptors there are, so one is kept for this.
 */
#include <string.h>

#include "common/log.h"
#include "composer/internal.h"

static void revive_ask(struct volume *v);

/** Does this answer of CONTROL say that the volume cannot be had any more?  Other errors
 *  (no space, no memory) may pass. */
static bool is_final(int64_t result)
{
    return result == -EBUSY || result == -ENOENT || result == -ESTALE ||
           result == -EROFS || result == -EINVAL || result == -EBADMSG;
}

static void revive_over(struct volume *v, struct xseg_request *rq, int64_t result)
{
    struct composer *c = v->c;
    struct list waiting;

    if (c->spare)
        composer_release(c, rq);
    else
        c->spare = rq;
    v->question = VOLUME_ASK_NOTHING;
    bool soon = result >= 0 || v->lost;
    list_take_all(&waiting, &v->revived);
    for (struct list *link; (link = list_pop_front(&waiting));) {
        struct waiter *w = LIST_ENTRY(link, struct waiter, link);
        if (soon)
            w->resume(w); /* may free the volume */
        else
            again_wait(c, w); /* it may begin anew: not without a pause */
    }
    if (soon)
        again_soon(c);
}

/** Nothing comes after it: a CONTROL that died has forgotten the volume, too. */
static void revive_disowned(void *arg, struct xseg_request *rq)
{
    revive_over(arg, rq, -ESTALE);
}

static void revive_disown(struct volume *v, struct xseg_request *rq)
{
    v->question = VOLUME_ASK_DISOWN;
    ask_fill(v, rq);
    composer_send(v->c, rq, XSEG_PORT_CONTROL, revive_disowned, v);
}

/** Is what CONTROL opened the volume that was open here? */
static bool is_same(const struct volume *v, const struct xseg_volume_info *info)
{
    if (memcmp(info->uuid, v->info.uuid, sizeof info->uuid) != 0)
        return false;
    /* nothing was written here: whoever did meanwhile may */
    if (volume_read_only(v))
        return true;
    return info->fence == v->info.fence &&
           (info->epoch == v->info.epoch || v->new_epoch);
}

static void revive_answered(void *arg, struct xseg_request *rq)
{
    struct volume *v = arg;
    struct xseg_volume_info info;

    if (again(v, rq, XSEG_PORT_CONTROL, revive_answered, v, &v->ask_since))
        return;
    int64_t result = rq->result;
    if (result >= 0 && !volume_record(rq, &info))
        result = -EIO;
    if (result < 0 && !v->lost)
        log_line(LOG_WARNING, "vlmcd", "\"%.*s\": control could not open it again: %s",
                 (int)v->info.name_len, (const char *)v->info.name,
                 strerror((int)-result));
    if (result < 0 && !is_final(result) && !v->lost) {
        revive_over(v, rq, result);
        return;
    }
    if (result < 0 || !is_same(v, &info))
        volume_lost(v, "it cannot be opened again as it was");
    if (v->lost) {
        revive_disown(v, rq);
        return;
    }
    v->info = info;
    lease_extend(v->c, rq->arg[1]);
    v->since = rq->arg[2];
    v->control = v->asked;
    v->new_epoch = false;
    v->revivals++;
    log_line(LOG_INFO, "vlmcd", "\"%.*s\" is open again", (int)info.name_len,
             (const char *)info.name);
    revive_over(v, rq, 0);
}

static void revive_resume(struct waiter *w)
{
    revive_ask(LIST_ENTRY(w, struct volume, revive_waiter));
}

static void revive_ask(struct volume *v)
{
    struct composer *c = v->c;
    struct xseg_request *rq = composer_request(c, XSEG_OP_OPEN);

    if (!rq) {
        rq = c->spare;
        c->spare = NULL;
    }
    if (!rq) { /* another volume has it */
        v->revive_waiter.resume = revive_resume;
        again_wait(c, &v->revive_waiter);
        return;
    }
    if (v->lost) {
        revive_disown(v, rq);
        return;
    }
    v->question = VOLUME_ASK_AGAIN;
    ask_fill(v, rq);
    composer_send(c, rq, XSEG_PORT_CONTROL, revive_answered, v);
}

static void revive_begin(struct volume *v)
{
    if (volume_reviving(v))
        return;
    v->question = v->lost ? VOLUME_ASK_DISOWN : VOLUME_ASK_AGAIN;
    v->ask_since = 0;
    revive_ask(v);
}

void revive(struct volume *v)
{
    if (!v->lost)
        revive_begin(v);
}

void revive_all(struct composer *c)
{
    uint32_t life = composer_port_life(c, XSEG_PORT_CONTROL);

    if (!life)
        return;
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        /* one that changes just now is revived when it is known that CONTROL died */
        if (v->state == VOLUME_OPEN && v->question != VOLUME_ASK_CHANGE &&
            v->control != life)
            revive(v);
    }
}

void revive_give_up(struct volume *v)
{
    /* the CLOSE that is under way says it, too */
    if (v->question != VOLUME_ASK_OPEN && v->question != VOLUME_ASK_CLOSE)
        revive_begin(v);
}

void revive_wait(struct volume *v, struct waiter *w)
{
    list_push_back(&v->revived, &w->link);
}
