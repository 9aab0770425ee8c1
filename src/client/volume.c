/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a use of a volume (see volume.h).
 *
 *   state      may be followed by                 asks vlmcd      when it is answered
 *   CLOSED     OPENING                            -
 *   OPENING    OPEN CLOSED CLOSING                OPEN            opening_answered
 *   OPEN       CHECKING CLOSING                   -
 *   CHECKING   OPEN REOPENING LOST CLOSING        INFO            checking_answered
 *   REOPENING  OPEN CHECKING LOST CLOSING         OPEN            reopening_answered
 *   LOST       CLOSING                            -
 *   CLOSING    CLOSED                             CLOSE           closing_answered
 *
 * At most one request of a volume itself is under way; `asked` is the state that sent
 * it.  The volume may have gone on to CLOSING by the time of the answer: then the answer
 * of an OPEN only says what there is to close.
 *
 * Each OPEN that succeeded has its CLOSE, unless vlmcd died: its handles end with it.
 */
#include "client/volume.h"

#include <assert.h>
#include <string.h>

#include "common/log.h"

/* How long a dead vlmcd is waited for: longer than the supervisor's longest pause before
 * a start, and as long as vlmcd itself tries to reach other peers. */
#define PATIENCE_NS    UINT64_C(30000000000)
#define PAUSE_FIRST_NS UINT64_C(1000000)
#define PAUSE_MOST_NS  UINT64_C(20000000)

static void opening_ask(const struct client_volume *v, struct xseg_request *rq);
static void opening_answered(struct client_volume *v, const struct xseg_request *rq);
static void checking_ask(const struct client_volume *v, struct xseg_request *rq);
static void checking_answered(struct client_volume *v, const struct xseg_request *rq);
static void reopening_answered(struct client_volume *v, const struct xseg_request *rq);
static void closing_ask(const struct client_volume *v, struct xseg_request *rq);
static void closing_answered(struct client_volume *v, const struct xseg_request *rq);

#define TO(state) (1u << CLIENT_VOLUME_##state)

static const struct {
    uint32_t next; /* set of states that may follow */
    void (*ask)(const struct client_volume *v, struct xseg_request *rq);
    void (*answered)(struct client_volume *v, const struct xseg_request *rq);
} states[CLIENT_VOLUME_NR_STATES] = {
    [CLIENT_VOLUME_CLOSED] = {TO(OPENING), NULL, NULL},
    [CLIENT_VOLUME_OPENING] = {TO(OPEN) | TO(CLOSED) | TO(CLOSING), opening_ask,
                               opening_answered},
    [CLIENT_VOLUME_OPEN] = {TO(CHECKING) | TO(CLOSING), NULL, NULL},
    [CLIENT_VOLUME_CHECKING] = {TO(OPEN) | TO(REOPENING) | TO(LOST) | TO(CLOSING),
                                checking_ask, checking_answered},
    [CLIENT_VOLUME_REOPENING] = {TO(OPEN) | TO(CHECKING) | TO(LOST) | TO(CLOSING),
                                 opening_ask, reopening_answered},
    [CLIENT_VOLUME_LOST] = {TO(CLOSING), NULL, NULL},
    [CLIENT_VOLUME_CLOSING] = {TO(CLOSED), closing_ask, closing_answered},
};

static bool volume_shares(enum client_volume_state state)
{
    return state >= CLIENT_VOLUME_OPEN && state <= CLIENT_VOLUME_LOST;
}

/** Go on to a state; the open volumes of the client share its limits. */
static void volume_enter(struct client_volume *v, enum client_volume_state state)
{
    assert(states[v->state].next & 1u << state);
    v->client->nr_sharers += volume_shares(state);
    v->client->nr_sharers -= volume_shares(v->state);
    v->state = state;
}

static void volume_log(const struct client_volume *v, const char *what, int64_t result)
{
    log_line(LOG_WARNING, "client", "cannot %s volume \"%.*s\": %s", what,
             (int)v->name_len, (const char *)v->name, strerror((int)-result));
}

/* ---- asking ----------------------------------------------------------------------- */

static void volume_answered(void *arg, struct xseg_request *rq)
{
    struct client_volume *v = arg;
    enum client_volume_state asked = v->asked;
    struct client *client = v->client;

    v->asked = CLIENT_VOLUME_CLOSED;
    states[asked].answered(v, rq); /* may free the volume */
    xseg_request_free(client->port, rq);
    client_wake(client);
}

/** Ask what the state asks, now or as soon as a descriptor is free. */
static void volume_ask(struct client_volume *v)
{
    struct client *client = v->client;
    struct xseg_request *rq;

    if (!states[v->state].ask || v->asked)
        return;
    if (xseg_request_alloc(client->port, &rq)) {
        client_wait(client, &v->waiter);
        return;
    }
    states[v->state].ask(v, rq);
    v->asked = v->state;
    reactor_submit(client->reactor, client->port, rq, XSEG_PORT_VLMCD, volume_answered,
                   v);
}

static void volume_on_descriptor(struct client_waiter *self)
{
    volume_ask(LIST_ENTRY(self, struct client_volume, waiter));
}

static void volume_on_timer(struct reactor_timer *self)
{
    volume_ask(LIST_ENTRY(self, struct client_volume, timer));
}

/** vlmcd is not there.  False if it has been waited for long enough. */
static bool volume_ask_later(struct client_volume *v)
{
    uint64_t now = reactor_now_ns(v->client->reactor);

    if (!v->away_ns) {
        v->away_ns = now;
        v->pause_ns = PAUSE_FIRST_NS;
    }
    if (now - v->away_ns > PATIENCE_NS)
        return false;
    reactor_arm_timer(v->client->reactor, &v->timer, v->pause_ns);
    v->pause_ns *= 2;
    if (v->pause_ns > PAUSE_MOST_NS)
        v->pause_ns = PAUSE_MOST_NS;
    return true;
}

/* ---- opening ----------------------------------------------------------------------- */

static void opening_ask(const struct client_volume *v, struct xseg_request *rq)
{
    rq->op = XSEG_OP_OPEN;
    rq->flags = v->mode == CLIENT_OPEN_READ ? XSEG_F_RDONLY : 0;
    memcpy(rq->inline_data, v->name, v->name_len);
    rq->arg[XSEG_ARG_NAME_LEN] = v->name_len;
    rq->arg[XSEG_ARG_OPEN] = strnlen(v->user, sizeof(v->user));
    memcpy(rq->inline_data + v->name_len, v->user, rq->arg[XSEG_ARG_OPEN]);
    rq->arg[0] = v->user_pid;
}

static void volume_take_handle(struct client_volume *v, const struct xseg_request *rq)
{
    v->handle = rq->handle;
    v->number = rq->arg[XSEG_ARG_OPEN];
}

/** What vlmcd says of a volume makes sense.  It comes from another process. */
static bool volume_record(const struct xseg_request *rq, struct xseg_volume_info *info)
{
    memcpy(info, rq->inline_data, sizeof(*info));
    return info->inline_valid == 1 && info->size_bytes <= INT64_MAX && rq->handle;
}

static void volume_take_record(struct client_volume *v,
                               const struct xseg_volume_info *info)
{
    v->size_bytes = info->size_bytes;
    v->block_bytes = info->block_bytes;
    v->snapshot = info->flags & XSEG_VOL_READONLY;
    v->read_only = v->snapshot || v->mode == CLIENT_OPEN_READ;
    v->fence = info->fence;
    memcpy(v->uuid, info->uuid, sizeof(v->uuid));
}

/** Keep what control said of a refusal.  It comes from another process. */
static void volume_take_reason(struct client_volume *v, const struct xseg_request *rq)
{
    struct xseg_failure failure;
    size_t len;

    memcpy(&failure, rq->inline_data, sizeof(failure));
    len = failure.message_len;
    v->reason[0] = '\0';
    if (failure.magic != XSEG_FAILURE_MAGIC ||
        failure.msgid_len + len > sizeof(failure.text))
        return;
    memcpy(v->reason, failure.text + failure.msgid_len, len);
    v->reason[len] = '\0';
}

static void opening_answered(struct client_volume *v, const struct xseg_request *rq)
{
    int64_t result = rq->result;
    struct xseg_volume_info info;

    if (result >= 0)
        volume_take_handle(v, rq);
    else
        volume_take_reason(v, rq);
    if (v->state == CLIENT_VOLUME_CLOSING) {
        client_volume_settle(v);
        return;
    }
    if (client_is_away(result) && volume_ask_later(v))
        return;
    v->away_ns = 0;
    if (result == -EROFS && v->mode == CLIENT_OPEN_WRITE_OR_READ) {
        v->mode = CLIENT_OPEN_READ;
        volume_ask(v);
        return;
    }
    if (result < 0) {
        volume_enter(v, CLIENT_VOLUME_CLOSED);
        v->opened(v, result);
        return;
    }
    volume_enter(v, CLIENT_VOLUME_OPEN);
    if (!volume_record(rq, &info)) {
        v->opened(v, -EIO);
        return;
    }
    volume_take_record(v, &info);
    v->opened(v, 0);
}

void client_volume_init(struct client_volume *v, struct client *client)
{
    memset(v, 0, sizeof(*v));
    v->client = client;
    v->timer.on_fire = volume_on_timer;
    v->waiter.resume = volume_on_descriptor;
    list_init(&v->waiter.link);
    list_init(&v->unserved);
}

void client_volume_open(struct client_volume *v, const void *name, size_t len,
                        enum client_open_mode mode)
{
    volume_enter(v, CLIENT_VOLUME_OPENING);
    memcpy(v->name, name, len);
    v->name_len = (uint8_t)len;
    v->mode = mode;
    v->away_ns = 0;
    v->error = 0;
    v->nr_changes = v->nr_flushed = 0;
    v->doubtful = false;
    volume_ask(v);
}

/* ---- after a death ----------------------------------------------------------------- */

static void volume_back(struct client_volume *v)
{
    v->error = 0;
    volume_enter(v, CLIENT_VOLUME_OPEN);
    client_io_send_unserved(v);
}

static void volume_lose(struct client_volume *v, int64_t error)
{
    log_line(LOG_ERROR, "client", "volume \"%.*s\" is lost to its client: %s",
             (int)v->name_len, (const char *)v->name, strerror((int)-error));
    v->error = error;
    volume_enter(v, CLIENT_VOLUME_LOST);
    client_io_fail_unserved(v, error);
}

void client_volume_unserved(struct client_volume *v, int64_t result)
{
    if (v->state != CLIENT_VOLUME_OPEN) {
        if (result == -ESTALE)
            v->error = result;
        return; /* it is being looked into */
    }
    v->error = result;
    volume_enter(v, CLIENT_VOLUME_CHECKING);
    if (result == -ESTALE)
        volume_ask(v);
    else if (!volume_ask_later(v))
        volume_lose(v, result);
}

static void checking_ask(const struct client_volume *v, struct xseg_request *rq)
{
    rq->op = XSEG_OP_INFO;
    rq->handle = v->handle;
}

/**
 * Does vlmcd know the handle?  One that knows it and calls a request stale all the same
 * has lost the lease, and perhaps writes that were not flushed: that is an error.
 */
static void checking_answered(struct client_volume *v, const struct xseg_request *rq)
{
    if (v->state == CLIENT_VOLUME_CLOSING) {
        client_volume_settle(v);
    } else if (client_is_away(rq->result)) {
        if (!volume_ask_later(v))
            volume_lose(v, rq->result);
    } else if (rq->result < 0) {
        v->handle = 0;
        volume_enter(v, CLIENT_VOLUME_REOPENING);
        volume_ask(v);
    } else if (v->error == -ESTALE) {
        volume_lose(v, -ESTALE);
    } else {
        volume_back(v);
    }
}

static void reopening_answered(struct client_volume *v, const struct xseg_request *rq)
{
    int64_t result = rq->result;
    struct xseg_volume_info info;

    if (result >= 0)
        volume_take_handle(v, rq);
    if (v->state == CLIENT_VOLUME_CLOSING) {
        client_volume_settle(v);
        return;
    }
    if (client_is_away(result) && volume_ask_later(v))
        return;
    if (result >= 0 && !volume_record(rq, &info))
        result = -EIO;
    if (result >= 0 && memcmp(info.uuid, v->uuid, sizeof(v->uuid)) != 0)
        result = -ENOENT; /* another volume has the name now */
    if (result < 0) {
        volume_lose(v, result);
        return;
    }
    /* A restart takes the lease back: nothing is missing unless it was another's. */
    if (rq->arg[2] > v->fence && v->nr_flushed != v->nr_changes)
        v->doubtful = true;
    volume_take_record(v, &info);
    v->away_ns = 0;
    log_line(LOG_INFO, "client", "volume \"%.*s\" is open again", (int)v->name_len,
             (const char *)v->name);
    volume_back(v);
}

/* ---- closing ----------------------------------------------------------------------- */

static void closing_ask(const struct client_volume *v, struct xseg_request *rq)
{
    rq->op = XSEG_OP_CLOSE;
    rq->handle = v->handle;
    rq->arg[XSEG_ARG_OPEN] = v->number;
}

/** The answer tells nothing, and may come when the volume is long closed. */
static void leave_answered(void *arg, struct xseg_request *rq)
{
    struct client *client = arg;

    xseg_request_free(client->port, rq);
    client->nr_notices--;
}

void client_volume_leave(struct client_volume *v)
{
    struct client *client = v->client;
    struct xseg_request *rq;

    if (v->state != CLIENT_VOLUME_OPEN || xseg_request_alloc(client->port, &rq))
        return; /* it is only a hint */
    closing_ask(v, rq);
    rq->flags = XSEG_F_NOSYNC;
    client->nr_notices++;
    reactor_submit(client->reactor, client->port, rq, XSEG_PORT_VLMCD, leave_answered,
                   client);
}

static void closing_answered(struct client_volume *v, const struct xseg_request *rq)
{
    if (rq->result < 0 && v->error != -ESTALE)
        volume_log(v, "close", rq->result);
    v->handle = 0;
    client_volume_settle(v);
}

void client_volume_settle(struct client_volume *v)
{
    if (v->state != CLIENT_VOLUME_CLOSING || v->asked || v->nr_submitted)
        return;
    if (v->handle) {
        volume_ask(v);
        return;
    }
    client_wait_cancel(&v->waiter);
    volume_enter(v, CLIENT_VOLUME_CLOSED);
    v->closed(v);
}

void client_volume_close(struct client_volume *v)
{
    reactor_disarm_timer(v->client->reactor, &v->timer);
    client_wait_cancel(&v->waiter);
    volume_enter(v, CLIENT_VOLUME_CLOSING);
    client_io_fail_unserved(v, -ECANCELED);
}
