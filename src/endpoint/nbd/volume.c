/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing the volume of a connection (see volume.h).
 *
 * Called by options and by the end of a connection, on the reactor's thread.
 * Invariants: at most one such request of a connection is under way; a connection is
 * freed only when none is and the volume is closed, so each OPEN has its CLOSE.
 */
#include "endpoint/nbd/volume.h"

#include <errno.h>

#include "common/log.h"

static void failed(struct nbd_conn *conn, const char *what, int64_t result)
{
    log_line(LOG_WARNING, "nbd", "cannot %s volume \"%.*s\": %s", what, conn->name_len,
             (const char *)conn->name, strerror((int)-result));
}

/** Take what vlmcd said of the volume, if it is sane. */
static int64_t take_info(struct nbd_conn *conn, const struct xseg_request *rq)
{
    struct xseg_volume_info info;

    memcpy(&info, rq->inline_data, sizeof(info));
    conn->handle = rq->handle;
    conn->volume_open = true;
    if (info.inline_valid != 1 || info.size_bytes > INT64_MAX)
        return -EIO;
    conn->size_bytes = info.size_bytes;
    conn->block_bytes = info.block_bytes;
    conn->snapshot = info.flags & XSEG_VOL_READONLY;
    return 0;
}

static void open_replied(struct nbd_conn *conn, enum nbd_volume_step step,
                         const struct xseg_request *rq)
{
    int64_t result = rq->result;

    if (result >= 0)
        result = take_info(conn, rq);
    if (conn->state == NBD_CONN_CLOSED) {
        nbd_conn_settle(conn);
        return;
    }
    if (nbd_is_gone(result)) {
        nbd_volume_ask_later(conn, step);
        return;
    }
    if (result == -EROFS && step == NBD_VOLUME_OPEN) {
        conn->volume_step = NBD_VOLUME_OPEN_READONLY;
        nbd_volume_ask(conn);
        return;
    }
    /* INFO opens read-only to take no lease; what counts is whether it must. */
    conn->read_only =
        conn->snapshot || (step == NBD_VOLUME_OPEN_READONLY && !conn->info_only);
    nbd_volume_opened(conn, result);
}

static void replied(void *arg, struct xseg_request *rq)
{
    struct nbd_conn *conn = arg;
    enum nbd_volume_step step = conn->volume_step;

    conn->volume_asked = false;
    conn->volume_step = NBD_VOLUME_NONE;
    if (step == NBD_VOLUME_CLOSE) {
        if (rq->result < 0)
            failed(conn, "close", rq->result);
        conn->volume_open = false;
        if (conn->state == NBD_CONN_CLOSED)
            nbd_conn_settle(conn);
        else
            nbd_volume_closed(conn);
    } else {
        open_replied(conn, step, rq);
    }
    xseg_request_free(conn->peer->port, rq);
}

static bool ask(struct nbd_conn *conn)
{
    struct nbd_peer *peer = conn->peer;
    struct xseg_request *rq;

    if (conn->volume_step == NBD_VOLUME_LIST)
        return nbd_exports_ask(conn);
    if (xseg_request_alloc(peer->port, &rq))
        return false;
    if (conn->volume_step == NBD_VOLUME_CLOSE) {
        rq->op = XSEG_OP_CLOSE;
        rq->handle = conn->handle;
    } else {
        rq->op = XSEG_OP_OPEN;
        rq->flags = conn->volume_step == NBD_VOLUME_OPEN_READONLY ? XSEG_F_RDONLY : 0;
        memcpy(rq->inline_data, conn->name, conn->name_len);
        rq->arg[XSEG_ARG_NAME_LEN] = conn->name_len;
    }
    conn->volume_asked = true;
    reactor_submit(peer->reactor, peer->port, rq, XSEG_PORT_VLMCD, replied, conn);
    return true;
}

void nbd_volume_ask(struct nbd_conn *conn)
{
    if (!ask(conn))
        nbd_conn_stall(conn);
}

static void on_volume_timer(struct reactor_timer *self)
{
    nbd_volume_ask(LIST_ENTRY(self, struct nbd_conn, volume_timer));
}

void nbd_volume_ask_later(struct nbd_conn *conn, enum nbd_volume_step step)
{
    conn->volume_step = step;
    conn->volume_timer.on_fire = on_volume_timer;
    reactor_arm_timer(conn->peer->reactor, &conn->volume_timer, NBD_VOLUME_RETRY_NS);
}
