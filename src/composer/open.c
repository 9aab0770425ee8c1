/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OPEN and CLOSE: who has a volume open.
 *
 * The first OPEN asks CONTROL, which takes the lease and loads the map; further ones
 * are counted.  The last CLOSE flushes and tells CONTROL.  Opens that come while that
 * is under way wait for it.  Opens are kept per client port, so that those of a client
 * that died are dropped.
 *
 *   (none) --OPEN--> OPENING --CONTROL says yes--> OPEN --last CLOSE--> CLOSING -->
 * (none)
 *                        `--no--> (none)             ^--upgrade to writable--'
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "composer/internal.h"

#define HANDLE_RDONLY (UINT64_C(1) << 63)

/** One open.  Starts with its link (volume_free relies on it). */
struct open_ref {
    struct list link;
    uint32_t port;
    uint32_t generation; /* of the port when it opened */
    uint64_t number;     /* of this open */
    struct xseg_volume_user user;
};

/** One OPEN that waits for CONTROL. */
struct open_op {
    struct list link;
    struct xseg_request *rq; /* the client's; why CONTROL refuses goes into it */
    bool read_only;
    void (*opened)(void *arg, struct volume *v, int64_t result); /* NULL: a client */
    void *arg;
};

static void ask_open(struct volume *v);
static void open_begin(struct volume *v);
static void open_start(struct composer *c, struct open_op *op);
static void close_begin(struct volume *v);

/* ---- users -------------------------------------------------------------------------
 */

/** An open of that client: the one of that number, or if that is 0 any that may do as
 *  much. */
static struct open_ref *find_ref(struct volume *v, const struct xseg_request *rq,
                                 bool read_only)
{
    uint64_t number = rq->arg[XSEG_ARG_OPEN];

    LIST_FOR_EACH(it, n, &v->opens)
    {
        struct open_ref *ref = LIST_ENTRY(it, struct open_ref, link);
        if (ref->port != rq->src_port || ref->generation != rq->generation)
            continue;
        if (number ? ref->number == number
                   : read_only == !!(ref->user.flags & XSEG_USER_READONLY))
            return ref;
    }
    return NULL;
}

/** What the client says of itself, or what its port says. */
static void describe_user(struct volume *v, const struct xseg_request *rq,
                          struct xseg_volume_user *user)
{
    const struct xseg_port_shared *port = xseg_segment_port(v->c->seg, rq->src_port);
    uint64_t name_len = rq->arg[XSEG_ARG_NAME_LEN], len = rq->arg[XSEG_ARG_OPEN];
    const void *text = rq->inline_data + name_len;

    if (len > sizeof user->text || name_len + len > XSEG_INLINE_BYTES)
        len = 0; /* no text makes sense */
    if (!len && port) {
        text = port->role;
        len = strnlen(port->role, sizeof port->role);
    }
    memcpy(user->text, text, len);
    user->text_len = (uint32_t)len;
    user->pid = len && rq->arg[0] ? (uint32_t)rq->arg[0] : rq->owner_pid;
    user->port = rq->src_port;
}

static uint64_t wall_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/** The port's generation is that of when it asked: open_reap drops the opens of a client
 *  that has gone since. */
static struct open_ref *add_ref(struct volume *v, const struct xseg_request *rq,
                                bool read_only)
{
    struct open_ref *ref = calloc(1, sizeof *ref);

    if (!ref)
        return NULL;
    ref->port = rq->src_port;
    ref->generation = rq->generation;
    ref->number = ++v->c->nr_opens;
    describe_user(v, rq, &ref->user);
    ref->user.since_ns = wall_ns();
    ref->user.flags = read_only ? XSEG_USER_READONLY : 0;
    list_push_back(&v->opens, &ref->link);
    v->users++;
    return ref;
}

static void drop_ref(struct volume *v, struct open_ref *ref)
{
    v->users--;
    list_remove(&ref->link);
    free(ref);
}

/** Cut all users off: their handles are stale once the volume is closed. */
void open_cut_off(struct volume *v)
{
    log_line(LOG_WARNING, "vlmcd", "\"%.*s\" is taken from its %u users",
             (int)v->info.name_len, (const char *)v->info.name, v->users);
    while (!list_empty(&v->opens))
        drop_ref(v, LIST_ENTRY(v->opens.next, struct open_ref, link));
    v->held = false;
    open_check_unused(v);
}

bool open_is_leaving(const struct volume *v)
{
    if (v->held)
        return false;
    LIST_FOR_EACH(it, n, &v->opens)
    {
        if (!(LIST_ENTRY(it, struct open_ref, link)->user.flags & XSEG_USER_LEAVING))
            return false;
    }
    return true;
}

int64_t open_users(const struct volume *v, struct xseg_volume_user *out, uint64_t room)
{
    uint64_t nr = 0;

    if (v->held && nr < room)
        out[nr++] = (struct xseg_volume_user){
            .flags = XSEG_USER_HELD, .text_len = 9, .text = "vlmc open"};
    LIST_FOR_EACH(it, n, &v->opens)
    {
        if (nr < room)
            out[nr++] = LIST_ENTRY(it, struct open_ref, link)->user;
    }
    return (int64_t)nr;
}

void open_reap(struct composer *c)
{
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        LIST_FOR_EACH(jt, m, &v->opens)
        {
            struct open_ref *ref = LIST_ENTRY(jt, struct open_ref, link);
            if (composer_port_life(c, ref->port) != ref->generation) {
                log_line(LOG_INFO, "vlmcd",
                         "client of port %u is gone: closing \"%.*s\" for it",
                         ref->port, (int)v->info.name_len, (const char *)v->info.name);
                drop_ref(v, ref);
            }
        }
        open_check_unused(v);
    }
}

void open_check_unused(struct volume *v)
{
    if (v->state == VOLUME_OPEN && v->users == 0 && !v->held)
        close_begin(v);
}

void open_put(struct volume *v)
{
    v->users--;
    open_check_unused(v);
}

/* ---- open
 * ------------------------------------------------------------------------------ */

static void answer_open(struct volume *v, struct open_op *op)
{
    struct xseg_request *rq = op->rq;
    int rc = 0;

    if (op->opened) {
        v->users++;
        op->opened(op->arg, v, 0);
        free(op);
        return;
    }
    struct open_ref *ref = NULL;
    if (rq->flags & XSEG_F_HOLD)
        v->held = true;
    else if (!(ref = add_ref(v, rq, op->read_only || volume_read_only(v))))
        rc = -ENOMEM;
    if (rc == 0) {
        struct xseg_volume_info info = v->info;
        info.users = v->users;
        info.flags |= v->held ? XSEG_VOL_HELD : 0u;
        info.inline_valid = 1;
        memcpy(rq->inline_data, &info, sizeof info);
        rq->arg[2] = v->since;
        rq->arg[XSEG_ARG_OPEN] = ref ? ref->number : 0;
        rq->handle = v->handle | (op->read_only ? HANDLE_RDONLY : 0);
    }
    composer_reply(v->c, rq, rc);
    free(op);
}

/** Refuse one OPEN; `failure` says what CONTROL said, or is NULL. */
static void refuse_open(struct composer *c, struct open_op *op, int64_t result,
                        const struct xseg_failure *failure)
{
    struct xseg_request *rq = op->rq;

    rq->arg[0] = 0;
    memset(rq->inline_data, 0, sizeof rq->inline_data);
    if (failure)
        memcpy(rq->inline_data, failure, sizeof *failure);
    if (op->opened)
        op->opened(op->arg, NULL, result);
    else
        composer_reply(c, rq, result);
    free(op);
}

/** The volume is gone: give what waited for that a new start. */
static void volume_gone(struct volume *v, int64_t result)
{
    struct composer *c = v->c;
    struct list opens, after, removals;
    struct xseg_request *rq;

    bool kept = result >= 0 && v->close_failed < 0;
    while ((rq = composer_dequeue(&v->closers, NULL))) {
        rq->arg[0] = kept;
        composer_reply(c, rq, kept ? v->close_failed : result);
    }
    list_take_all(&opens, &v->pending_opens);
    list_take_all(&removals, &v->removals);
    list_take_all(&after, &v->after);
    /* requests that waited meet a stale handle */
    volume_go(v, VOLUME_CLOSING);
    composer_serve_again(c, &v->overdue);
    if (v->freezers)
        volume_unfreeze(v);
    volume_free(v);
    composer_serve_again(c, &removals); /* before those that would open it again */
    composer_serve_again(c, &after);
    for (struct list *link; (link = list_pop_front(&opens));)
        open_start(c, LIST_ENTRY(link, struct open_op, link));
    composer_check_stopped(c);
}

/** Open without the lease, though the volume could be opened with it. */
static bool upgradable(const struct volume *v)
{
    return (v->info.flags & (XSEG_VOL_READONLY | XSEG_VOL_RDONLY_OPEN)) ==
           XSEG_VOL_RDONLY_OPEN;
}

static void opened_all(struct volume *v)
{
    struct list granted;

    bool upgraded = v->state == VOLUME_UPGRADING;

    volume_go(v, VOLUME_OPEN);
    v->users++; /* keeps it open while those that waited are answered */
    if (upgraded)
        volume_unfreeze(v);
    bool final = v->asked_writable || !upgradable(v);
    list_take_all(&granted, &v->pending_opens);
    for (struct list *link; (link = list_pop_front(&granted));) {
        struct open_op *op = LIST_ENTRY(link, struct open_op, link);
        if (v->lost)
            refuse_open(v->c, op, -ESTALE, NULL);
        else if (final || op->read_only)
            answer_open(v, op);
        else
            list_push_back(&v->pending_opens, link); /* needs the upgrade */
    }
    composer_serve_again(v->c, &v->after);
    v->users--;
    if (!list_empty(&v->pending_opens)) {
        open_begin(v);
    } else if (v->c->stopping) {
        close_begin(v);
    } else {
        open_check_unused(v);
    }
}

/** CONTROL said no: refuse the first that waits; the others may want it differently. */
static void open_failed(struct volume *v, int64_t result,
                        const struct xseg_failure *failure)
{
    struct list *first = list_pop_front(&v->pending_opens);

    refuse_open(v->c, LIST_ENTRY(first, struct open_op, link), result, failure);
    if (v->state == VOLUME_UPGRADING)
        opened_all(v); /* it stays open as it was */
    else
        volume_gone(v, 0);
}

static void tail_zeroed(void *arg, int64_t result)
{
    struct volume *v = arg;

    if (result < 0)
        log_line(LOG_ERROR, "vlmcd", "\"%.*s\": cannot zero the end of the volume: %s",
                 (int)v->info.name_len, (const char *)v->info.name,
                 strerror((int)-result));
    opened_all(v);
}

static void ask_open_done(void *arg, struct xseg_request *rq)
{
    struct volume *v = arg;
    struct composer *c = v->c;
    struct xseg_volume_info info;

    if (again(v, rq, XSEG_PORT_CONTROL, ask_open_done, v, &v->ask_since))
        return;
    v->question = VOLUME_ASK_NOTHING;
    int64_t result = rq->result;
    if (result >= 0 && !volume_record(rq, &info))
        result = -EIO;
    if (result >= 0) {
        v->info = info;
        lease_extend(c, rq->arg[1]);
        v->since = rq->arg[2];
        v->control = v->asked;
    }
    struct xseg_failure failure;
    memcpy(&failure, rq->inline_data, sizeof failure);
    composer_release(c, rq);
    if (result >= 0) {
        if ((v->info.flags & XSEG_VOL_TAIL) &&
            !(v->info.flags & (XSEG_VOL_READONLY | XSEG_VOL_RDONLY_OPEN)))
            mutate_zero_tail(v, tail_zeroed, v);
        else
            opened_all(v);
        return;
    }
    open_failed(v, result, failure.magic == XSEG_FAILURE_MAGIC ? &failure : NULL);
}

void ask_fill(struct volume *v, struct xseg_request *rq)
{
    bool again = v->question == VOLUME_ASK_AGAIN;
    bool read_only = again ? volume_read_only(v) : !v->asked_writable;

    memset(&rq->object, 0, sizeof rq->object);
    memset(rq->arg, 0, sizeof rq->arg);
    memset(rq->inline_data, 0, sizeof rq->inline_data);
    rq->op = again || v->question == VOLUME_ASK_OPEN ? XSEG_OP_OPEN : XSEG_OP_CLOSE;
    rq->flags = rq->op == XSEG_OP_OPEN && read_only ? XSEG_F_RDONLY : 0;
    rq->arg[XSEG_ARG_NAME_LEN] = v->info.name_len;
    memcpy(rq->inline_data, v->info.name, v->info.name_len);
    rq->handle = v->info.map_handle;
    rq->offset = rq->size = rq->data_off = rq->data_len = 0;
    if (again) {
        /* A rename may have been the last deed of the CONTROL of before, so the uuid
         * counts.  A lease that was broken must not be taken anew, so the fence does. */
        rq->object.kind = XSEG_OBJ_LEASE;
        memcpy(rq->object.id, v->info.uuid, sizeof v->info.uuid);
        rq->arg[0] = read_only ? 0 : v->info.fence;
    }
    v->asked = composer_port_life(v->c, XSEG_PORT_CONTROL);
}

static void ask(struct volume *v, enum volume_question question, reactor_reply_fn *done)
{
    struct xseg_request *rq = composer_request(v->c, XSEG_OP_OPEN);
    if (!rq) {
        composer_starve(v->c, &v->ask_waiter);
        return;
    }
    v->question = question;
    v->ask_since = 0;
    ask_fill(v, rq);
    composer_send(v->c, rq, XSEG_PORT_CONTROL, done, v);
}

static void ask_open_resume(struct waiter *w)
{
    ask_open(LIST_ENTRY(w, struct volume, ask_waiter));
}

static void upgrade_drained(struct drain *d)
{
    ask_open(LIST_ENTRY(d, struct volume, close_drain));
}

/** Ask CONTROL to open it as the first of those that wait wants it. */
static void ask_open(struct volume *v)
{
    struct open_op *op = LIST_ENTRY(v->pending_opens.next, struct open_op, link);

    v->ask_waiter.resume = ask_open_resume;
    struct volume *first =
        volume_reviving(v) ? v : volume_leaving(v->c, v->info.name, v->info.name_len);
    if (first) { /* which asks, too */
        revive_wait(first, &v->ask_waiter);
        return;
    }
    if (v->lost) {
        open_failed(v, -ESTALE, NULL);
        return;
    }
    v->asked_writable = !op->read_only;
    ask(v, VOLUME_ASK_OPEN, ask_open_done);
}

/** Ask for an open volume as those that wait want it. */
static void open_begin(struct volume *v)
{
    if (!v->info.map_handle) {
        volume_go(v, VOLUME_OPENING);
        ask_open(v);
        return;
    }
    volume_go(v, VOLUME_UPGRADING);
    v->close_drain.drained = upgrade_drained; /* nothing may be in flight */
    volume_freeze(v, &v->close_drain);
}

static void open_start(struct composer *c, struct open_op *op)
{
    uint8_t len;
    int rc = c->stopping ? -ECANCELED : request_name(op->rq, &len);
    if (rc < 0) {
        refuse_open(c, op, rc, NULL);
        return;
    }
    struct volume *v = volume_by_name(c, op->rq->inline_data, len);
    if (v && v->state == VOLUME_OPEN && (op->read_only || !upgradable(v))) {
        answer_open(v, op);
        return;
    }
    bool fresh = !v;
    if (fresh)
        v = volume_new(c, op->rq->inline_data, len);
    if (!v) {
        refuse_open(c, op, -ENOMEM, NULL);
        return;
    }
    list_push_back(&v->pending_opens, &op->link);
    if (fresh)
        ask_open(v);
    else if (v->state == VOLUME_OPEN)
        open_begin(v); /* the upgrade */
}

static struct open_op *open_op_new(struct xseg_request *rq)
{
    struct open_op *op = calloc(1, sizeof *op);
    if (op)
        op->rq = rq;
    return op;
}

void vol_serve_open(struct composer *c, struct xseg_request *rq)
{
    if (change_may_name(c, rq))
        return;
    struct open_op *op = open_op_new(rq);
    if (!op) {
        composer_reply(c, rq, -ENOMEM);
        return;
    }
    op->read_only = rq->flags & XSEG_F_RDONLY;
    open_start(c, op);
}

void open_get(struct composer *c, struct xseg_request *rq,
              void (*opened)(void *arg, struct volume *v, int64_t result), void *arg)
{
    struct open_op *op = open_op_new(rq);
    if (!op) {
        opened(arg, NULL, -ENOMEM);
        return;
    }
    op->opened = opened;
    op->arg = arg;
    open_start(c, op);
}

/* ---- close
 * ----------------------------------------------------------------------------- */

static void ask_close_done(void *arg, struct xseg_request *rq)
{
    struct volume *v = arg;

    if (again(v, rq, XSEG_PORT_CONTROL, ask_close_done, v, &v->ask_since))
        return;
    v->question = VOLUME_ASK_NOTHING;
    if (rq->result < 0)
        log_line(LOG_WARNING, "vlmcd", "\"%.*s\": control could not close it: %s",
                 (int)v->info.name_len, (const char *)v->info.name,
                 strerror((int)-rq->result));
    /* these two would say that it was not open */
    bool unknown = rq->result == -ESTALE || rq->result == -ENOENT;
    v->close_failed = unknown ? -EIO : rq->result;
    composer_release(v->c, rq);
    volume_gone(v, v->close_result);
}

static void close_ask(struct waiter *w)
{
    struct volume *v = LIST_ENTRY(w, struct volume, ask_waiter);

    if (volume_reviving(v)) /* which asks, too */
        revive_wait(v, &v->ask_waiter);
    else if (v->lost) /* CONTROL was told */
        volume_gone(v, v->close_result);
    else if (v->close_result < 0 && v->c->stopping)
        /* nobody is there to be told: CONTROL keeps it for the next vlmcd to flush */
        volume_gone(v, v->close_result);
    else
        ask(v, VOLUME_ASK_CLOSE, ask_close_done);
}

static void close_flushed(struct flush_wait *w, int64_t result)
{
    struct volume *v = LIST_ENTRY(w, struct volume, close_flush);

    if (result < 0 && !v->lost)
        log_line(LOG_ERROR, "vlmcd", "\"%.*s\": the last flush failed: %s",
                 (int)v->info.name_len, (const char *)v->info.name,
                 strerror((int)-result));
    v->close_result = result;
    v->ask_waiter.resume = close_ask;
    close_ask(&v->ask_waiter);
}

static void close_drained(struct drain *d)
{
    struct volume *v = LIST_ENTRY(d, struct volume, close_drain);

    v->close_flush.flushed = close_flushed;
    list_init(&v->close_flush.link);
    barrier_flush(v, &v->close_flush);
}

static void close_begin(struct volume *v)
{
    volume_go(v, VOLUME_CLOSING);
    v->close_drain.drained = close_drained;
    volume_freeze(v, &v->close_drain);
}

void open_close_all(struct composer *c)
{
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        composer_serve_again(c, &v->overdue);
        if (v->state == VOLUME_OPEN)
            close_begin(v);
    }
}

/** Answer a CLOSE now, or when the volume is closed if this was the last use. */
static void close_answer(struct volume *v, struct xseg_request *rq)
{
    if (v->users || v->held)
        composer_reply(v->c, rq, 0);
    else if (composer_queue(v->c, &v->closers, rq, NULL))
        open_check_unused(v);
}

static void close_held(struct composer *c, struct xseg_request *rq)
{
    uint8_t len;
    int rc = request_name(rq, &len);
    struct volume *v = rc < 0 ? NULL : volume_by_name(c, rq->inline_data, len);

    if (!v || !v->held || v->state != VOLUME_OPEN) {
        composer_reply(c, rq, rc < 0 ? rc : -ENOENT);
        return;
    }
    v->held = false;
    close_answer(v, rq);
}

void vol_serve_close(struct composer *c, struct xseg_request *rq)
{
    bool read_only;

    if (rq->flags & XSEG_F_HOLD) {
        close_held(c, rq);
        return;
    }
    struct volume *v = volume_by_handle(c, rq->handle, &read_only);
    struct open_ref *ref = v ? find_ref(v, rq, read_only) : NULL;
    if (!ref) {
        composer_reply(c, rq, -ESTALE);
        return;
    }
    if (rq->flags & XSEG_F_NOSYNC) {
        ref->user.flags |= XSEG_USER_LEAVING;
        composer_reply(c, rq, 0);
        return;
    }
    drop_ref(v, ref);
    close_answer(v, rq);
}
