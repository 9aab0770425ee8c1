/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD_OPT_LIST: all volumes, page by page.
 *
 * Called by options.c and conn.c.  The next page is asked for when the one before has
 * been sent, so a client that does not read costs one page.
 */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "endpoint/nbd/handshake.h"
#include "endpoint/nbd/volume.h"

static int exports_send(void *arg, const uint8_t *name, size_t len)
{
    uint8_t data[4 + XSEG_NAME_MAX];

    nbd_put32(data, (uint32_t)len);
    memcpy(data + 4, name, len);
    return nbd_option_reply(arg, NBD_REP_SERVER, data, (uint32_t)len + 4);
}

static void exports_page(void *arg, int64_t result)
{
    struct nbd_conn *conn = arg;

    if (result < 0)
        log_line(LOG_WARNING, "nbd", "cannot list volumes: %s", strerror((int)-result));
    conn->exports_more = result > 0;
    if (result <= 0) {
        nbd_exports_free(conn);
        nbd_exports_finished(conn, result);
    }
    nbd_conn_dirty(conn);
}

int nbd_exports_start(struct nbd_conn *conn)
{
    conn->exports_more = false;
    conn->exports =
        client_list_start(&conn->peer->client, exports_send, exports_page, conn);
    return conn->exports ? 0 : -ENOMEM;
}

void nbd_exports_continue(struct nbd_conn *conn)
{
    if (!conn->exports_more)
        return; /* a page is under way */
    conn->exports_more = false;
    client_list_next(conn->exports);
}

void nbd_exports_free(struct nbd_conn *conn)
{
    client_list_free(conn->exports);
    conn->exports = NULL;
}
