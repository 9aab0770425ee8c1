/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume of a connection (see volume.h): what the client library says of it becomes
 * the next step of an option, or the end of the connection.
 */
#include "endpoint/nbd/volume.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"

static void volume_opened(struct client_volume *v, int64_t result)
{
    struct nbd_conn *conn = LIST_ENTRY(v, struct nbd_conn, volume);

    if (result < 0)
        log_line(LOG_WARNING, "nbd", "cannot open volume \"%.*s\": %s (%s)",
                 conn->name_len, (const char *)conn->name,
                 v->reason[0] ? v->reason : "no reason was given",
                 strerror((int)-result));
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

/** Name the client for people: by its address, or on a unix socket by its pid. */
static void volume_name_user(struct nbd_conn *conn)
{
    struct client_volume *v = &conn->volume;
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    char host[48], port[8];
    struct ucred peer;

    snprintf(v->user, sizeof(v->user), "nbd");
    if (getpeername(conn->io.fd, (struct sockaddr *)&addr, &len))
        return;
    if (addr.ss_family != AF_UNIX) {
        if (!getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port,
                         sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
            snprintf(v->user, sizeof(v->user), "nbd %s:%s", host, port);
        return;
    }
    len = sizeof(peer);
    if (!getsockopt(conn->io.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.pid > 0)
        v->user_pid = (uint32_t)peer.pid;
}

void nbd_volume_init(struct nbd_conn *conn)
{
    client_volume_init(&conn->volume, &conn->peer->client);
    conn->volume.opened = volume_opened;
    conn->volume.closed = volume_closed;
    volume_name_user(conn);
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
