/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD_OPT_LIST: all volumes, asked of control page by page.
 *
 * Called by options.c and conn.c.  The next page is asked for when the one
 * before has been sent, so a client that does not read costs one page.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "endpoint/nbd/handshake.h"
#include "endpoint/nbd/names.h"
#include "endpoint/nbd/volume.h"

/* Room for one volume's record in control's answer, its names escaped [bytes]. */
#define RECORD_BYTES   4096u
#define PAGE_BYTES     (1u << 20)
#define PAGE_MIN_BYTES (64u << 10)
/* Pages of all clients under way at once: each takes a large buffer. */
#define MAX_PAGES 2u

struct nbd_exports {
    uint64_t buffer_off;
    uint32_t capacity; /* [bytes] */
    bool more;
    uint8_t marker_len;
    uint8_t marker[XSEG_NAME_MAX]; /* the last name sent */
};

int nbd_exports_start(struct nbd_conn *conn)
{
    conn->exports = calloc(1, sizeof(*conn->exports));
    if (!conn->exports)
        return -ENOMEM;
    conn->volume_step = NBD_VOLUME_LIST;
    nbd_volume_ask(conn);
    return 0;
}

static int send_name(void *arg, const uint8_t *name, size_t len)
{
    struct nbd_conn *conn = arg;
    struct nbd_exports *exports = conn->exports;
    uint8_t data[4 + XSEG_NAME_MAX];

    memcpy(exports->marker, name, len);
    exports->marker_len = (uint8_t)len;
    nbd_put32(data, (uint32_t)len);
    memcpy(data + 4, name, len);
    return nbd_option_reply(conn, NBD_REP_SERVER, data, (uint32_t)len + 4);
}

static int64_t take_page(struct nbd_conn *conn, const struct xseg_request *rq)
{
    struct nbd_exports *exports = conn->exports;
    const char *json;
    int64_t nr;

    if (rq->result < 0)
        return rq->result;
    if (rq->arg[0] > exports->capacity)
        return -EBADMSG;
    json = xseg_heap_ptr(conn->peer->pool.segment, exports->buffer_off, rq->arg[0]);
    if (!json)
        return -EBADMSG;
    nr = nbd_names_parse(json, rq->arg[0], send_name, conn, &exports->more);
    if (nr == 0)
        exports->more = false; /* a page without a name leads nowhere */
    return nr;
}

static void listed(void *arg, struct xseg_request *rq)
{
    struct nbd_conn *conn = arg;
    struct nbd_exports *exports = conn->exports;
    int64_t result = 0;

    conn->volume_asked = false;
    conn->volume_step = NBD_VOLUME_NONE;
    if (conn->state != NBD_CONN_CLOSED)
        result = take_page(conn, rq);
    xseg_buffer_free(conn->peer->pool.segment, exports->buffer_off);
    exports->buffer_off = 0;
    conn->peer->nr_pages--;
    nbd_peer_arm(conn->peer); /* somebody may wait for a page */
    xseg_request_free(conn->peer->port, rq);
    if (conn->state == NBD_CONN_CLOSED) {
        nbd_conn_settle(conn);
        return;
    }
    if (nbd_is_gone(result)) {
        nbd_volume_ask_later(conn, NBD_VOLUME_LIST);
        return;
    }
    if (result < 0)
        log_line(LOG_WARNING, "nbd", "cannot list volumes: %s", strerror((int)-result));
    if (result < 0 || !exports->more) {
        nbd_exports_free(conn);
        nbd_exports_finished(conn, result);
    }
    nbd_conn_dirty(conn);
}

/** A buffer for one page: a smaller one when memory is short. */
static bool take_buffer(struct nbd_conn *conn)
{
    for (uint32_t size = PAGE_BYTES; size >= PAGE_MIN_BYTES; size /= 2) {
        int64_t got = xseg_buffer_alloc(conn->peer->pool.segment, size,
                                        &conn->exports->buffer_off);
        if (got > 0) {
            conn->exports->capacity = (uint32_t)got;
            return true;
        }
    }
    conn->exports->buffer_off = 0;
    return false;
}

bool nbd_exports_ask(struct nbd_conn *conn)
{
    struct nbd_peer *peer = conn->peer;
    struct nbd_exports *exports = conn->exports;
    struct xseg_request *rq;
    char *json;
    size_t len;

    if (peer->nr_pages >= MAX_PAGES || xseg_request_alloc(peer->port, &rq))
        return false;
    if (!take_buffer(conn)) {
        xseg_request_free(peer->port, rq);
        return false;
    }
    json = xseg_heap_ptr(peer->pool.segment, exports->buffer_off, exports->capacity);
    len = (size_t)snprintf(json, exports->capacity, "{\"limit\": %u",
                           exports->capacity / RECORD_BYTES);
    if (exports->marker_len) {
        len += (size_t)snprintf(json + len, exports->capacity - len, ", \"marker\": ");
        len += nbd_names_quote(json + len, exports->capacity - len - 1, exports->marker,
                               exports->marker_len);
    }
    json[len++] = '}';
    rq->op = XSEG_OP_LIST;
    rq->size = len;
    rq->data_off = exports->buffer_off;
    rq->data_len = exports->capacity;
    conn->volume_asked = true;
    peer->nr_pages++;
    reactor_submit(peer->reactor, peer->port, rq, XSEG_PORT_CONTROL, listed, conn);
    return true;
}

bool nbd_exports_continue(struct nbd_conn *conn)
{
    if (!conn->exports || conn->volume_step != NBD_VOLUME_NONE)
        return conn->exports != NULL;
    conn->volume_step = NBD_VOLUME_LIST;
    nbd_volume_ask(conn);
    return true;
}

void nbd_exports_free(struct nbd_conn *conn)
{
    free(conn->exports);
    conn->exports = NULL;
}
