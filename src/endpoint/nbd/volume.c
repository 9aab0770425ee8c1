/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume of a connection (see volume.h): what the client library says of it becomes
 * the next step of an option, or the end of the connection.
 */
#include "endpoint/nbd/volume.h"

#include <string.h>

#include "common/log.h"

static void volume_opened(struct client_volume *v, int64_t result)
{
    struct nbd_conn *conn = LIST_ENTRY(v, struct nbd_conn, volume);

    if (result < 0)
        log_line(LOG_INFO, "nbd", "cannot open volume \"%.*s\": %s", conn->name_len,
                 (const char *)conn->name, strerror((int)-result));
    nbd_volume_opened(conn, result);
}

static void volume_closed(struct client_volume *v)
{
    struct nbd_conn *conn = LIST_ENTRY(v, struct nbd_conn, volume);

    if (conn->state == NBD_CONN_CLOSED)
        nbd_conn_settle(conn);
    else
        nbd_volume_closed(conn);
}

void nbd_volume_init(struct nbd_conn *conn)
{
    client_volume_init(&conn->volume, &conn->peer->client);
    conn->volume.opened = volume_opened;
    conn->volume.closed = volume_closed;
}

void nbd_volume_open(struct nbd_conn *conn, enum client_open_mode mode)
{
    client_volume_open(&conn->volume, conn->name, conn->name_len, mode);
}

void nbd_volume_close(struct nbd_conn *conn)
{
    if (conn->volume.state != CLIENT_VOLUME_CLOSED &&
        conn->volume.state != CLIENT_VOLUME_CLOSING)
        client_volume_close(&conn->volume);
}
