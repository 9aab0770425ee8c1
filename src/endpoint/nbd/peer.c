/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoint peer: making it, its end-of-turn work, stopping it.
 *
 * Called by src/peer and by the reactor, on the reactor's thread.  End-of-turn work is
 * one deferred task: replies of a whole turn leave with one system call per connection,
 * and closed connections are freed where nothing on the stack can still use them.
 */
#include "endpoint/nbd/peer.h"

#include <errno.h>
#include <stdlib.h>

#include "endpoint/nbd/conn.h"

#define DEFAULT_HANDSHAKE_MS 10000u

void nbd_peer_arm(struct nbd_peer *peer)
{
    if (peer->turn_armed)
        return;
    peer->turn_armed = true;
    reactor_defer(peer->reactor, &peer->turn);
}

static void send_replies(struct nbd_peer *peer)
{
    struct list *link;

    while ((link = list_pop_front(&peer->dirty)))
        nbd_conn_flush(LIST_ENTRY(link, struct nbd_conn, dirty_link));
}

static void free_dead(struct nbd_peer *peer)
{
    while (!list_empty(&peer->dead))
        nbd_conn_free(LIST_ENTRY(peer->dead.next, struct nbd_conn, link));
}

static void check_stopped(struct nbd_peer *peer)
{
    void (*stopped)(void *arg) = peer->stopped;

    if (!peer->stopping || !stopped || peer->nr_conns || peer->turn_armed)
        return;
    if (!client_idle(&peer->client)) {
        nbd_peer_arm(peer);
        return;
    }
    peer->stopped = NULL;
    reactor_disarm_timer(peer->reactor, &peer->stop_timer);
    stopped(peer->stopped_arg); /* may destroy the peer */
}

static void on_turn(struct reactor_task *self)
{
    struct nbd_peer *peer = LIST_ENTRY(self, struct nbd_peer, turn);

    peer->turn_armed = false; /* what comes from here on is for the next turn */
    send_replies(peer);
    free_dead(peer);
    check_stopped(peer);
}

/* ---- end ---------------------------------------------------------------------------
 */

static void close_all(struct nbd_peer *peer)
{
    LIST_FOR_EACH(it, next, &peer->conns)
    nbd_conn_close(LIST_ENTRY(it, struct nbd_conn, link));
}

/** Clients that do not take their replies are not waited for any longer. */
static void on_stop_timeout(struct reactor_timer *self)
{
    close_all(LIST_ENTRY(self, struct nbd_peer, stop_timer));
}

static void nbd_stop(struct peer *base, void (*stopped)(void *arg), void *arg)
{
    struct nbd_peer *peer = LIST_ENTRY(base, struct nbd_peer, base.peer);

    peer->stopping = true;
    peer->stopped = stopped;
    peer->stopped_arg = arg;
    nbd_listen_stop(peer);
    LIST_FOR_EACH(it, next, &peer->conns)
    {
        struct nbd_conn *conn = LIST_ENTRY(it, struct nbd_conn, link);
        /* A client that asks on and on must not keep us: what it is not answered it
         * asks again of the process that serves the socket next. */
        if (conn->state < NBD_CONN_REQUEST)
            nbd_conn_close(conn);
        else if (conn->state < NBD_CONN_DRAINING)
            nbd_conn_drain(conn);
    }
    peer->stop_timer.on_fire = on_stop_timeout;
    reactor_arm_timer(peer->reactor, &peer->stop_timer, NBD_STOP_TIMEOUT_NS);
    nbd_peer_arm(peer);
}

static void nbd_destroy(struct peer *base)
{
    struct nbd_peer *peer = LIST_ENTRY(base, struct nbd_peer, base.peer);

    nbd_listen_stop(peer);
    reactor_disarm_timer(peer->reactor, &peer->stop_timer);
    nbd_pool_fini(&peer->pool);
    client_fini(&peer->client);
    free(peer);
}

static void nbd_statistics(const struct endpoint *self, struct endpoint_statistics *out)
{
    const struct nbd_peer *peer = (const struct nbd_peer *)self;

    *out = peer->counted;
    out->clients = peer->nr_sockets;
    out->max_clients = nbd_listen_places(peer);
}

static int nbd_create(struct reactor *r, const struct endpoint_options *options,
                      struct endpoint **out, const char **why)
{
    struct nbd_peer *peer = calloc(1, sizeof(*peer));
    int rc;

    *out = NULL;
    *why = NULL;
    if (!peer) {
        *why = "out of memory";
        return -ENOMEM;
    }
    peer->base.kind = &nbd_endpoint;
    peer->base.peer =
        (struct peer){.role = "nbd", .stop = nbd_stop, .destroy = nbd_destroy};
    peer->reactor = r;
    peer->max_sockets = options->max_clients;
    peer->handshake_ns =
        (options->handshake_ms ? options->handshake_ms : DEFAULT_HANDSHAKE_MS) *
        UINT64_C(1000000);
    peer->turn.fn = on_turn;
    list_init(&peer->conns);
    list_init(&peer->handshakes);
    list_init(&peer->dirty);
    list_init(&peer->dead);

    rc = client_init(&peer->client, r, XSEG_PORT_ENDPOINT, "nbd",
                     nbd_listen_places(peer), why);
    if (rc)
        goto fail_free;
    rc = nbd_listen_start(peer, options);
    if (rc) {
        *why = "cannot watch a listening socket";
        goto fail_client;
    }
    *out = &peer->base;
    return 0;

fail_client:
    client_fini(&peer->client);
fail_free:
    free(peer);
    return rc;
}

const struct endpoint_kind nbd_endpoint = {
    .name = "nbd",
    .can = {.listens = true,
            .flush = true,
            .fua = true,
            .discard = true,
            .zero = true,
            .block_status = true,
            .read_only = true,
            .align_bytes = NBD_MIN_BLOCK_BYTES,
            .max_read_bytes = NBD_MAX_PAYLOAD_BYTES},
    .create = nbd_create,
    .statistics = nbd_statistics,
};
