/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoint peer: making it, its end-of-turn work, stopping it.
 *
 * Called by src/peer and by the reactor, on the reactor's thread.  End-of-turn work is
 * one deferred task: replies of a whole turn leave with one system call per connection,
 * connections that waited for memory go on, and closed ones are freed where nothing
 * on the stack can still use them.
 */
#include "endpoint/nbd/peer.h"

#include <errno.h>
#include <stdlib.h>

#include "endpoint/nbd/conn.h"

#define DEFAULT_CONNECTIONS  1024u
#define DEFAULT_HANDSHAKE_MS 30000u
/* Descriptors kept for us alone: OPEN, CLOSE and a few requests get through when others
 * have taken all the rest. */
#define RESERVED_REQUESTS 64u

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

/** Let those that waited try again, each once; who still has to wait is put back. */
static void resume_stalled(struct nbd_peer *peer)
{
    struct list waiting;
    struct list *link;

    list_init(&waiting);
    while ((link = list_pop_front(&peer->stalled)))
        list_push_back(&waiting, link);
    while ((link = list_pop_front(&waiting)))
        nbd_conn_resume(LIST_ENTRY(link, struct nbd_conn, stall_link));
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
    peer->stopped = NULL;
    reactor_disarm_timer(peer->reactor, &peer->stop_timer);
    reactor_disarm_timer(peer->reactor, &peer->retry);
    stopped(peer->stopped_arg); /* may destroy the peer */
}

static void on_turn(struct reactor_task *self)
{
    struct nbd_peer *peer = LIST_ENTRY(self, struct nbd_peer, turn);

    peer->turn_armed = false; /* what comes from here on is for the next turn */
    send_replies(peer);
    resume_stalled(peer);
    free_dead(peer);
    check_stopped(peer);
}

static void on_retry(struct reactor_timer *self)
{
    nbd_peer_arm(LIST_ENTRY(self, struct nbd_peer, retry));
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

static void stop(struct peer *base, void (*stopped)(void *arg), void *arg)
{
    struct nbd_peer *peer = LIST_ENTRY(base, struct nbd_peer, base);

    peer->stopping = true;
    peer->stopped = stopped;
    peer->stopped_arg = arg;
    nbd_listen_stop(peer);
    LIST_FOR_EACH(it, next, &peer->conns)
    {
        struct nbd_conn *conn = LIST_ENTRY(it, struct nbd_conn, link);
        /* A client that asks on and on must not keep us: what it is not answered it
         * asks again of whoever serves the socket next. */
        if (conn->state < NBD_CONN_REQUEST)
            nbd_conn_close(conn);
        else if (conn->state < NBD_CONN_DRAINING)
            nbd_conn_drain(conn);
    }
    peer->stop_timer.on_fire = on_stop_timeout;
    reactor_arm_timer(peer->reactor, &peer->stop_timer, NBD_STOP_TIMEOUT_NS);
    nbd_peer_arm(peer);
}

static void destroy(struct peer *base)
{
    struct nbd_peer *peer = LIST_ENTRY(base, struct nbd_peer, base);

    nbd_listen_stop(peer);
    reactor_disarm_timer(peer->reactor, &peer->stop_timer);
    reactor_disarm_timer(peer->reactor, &peer->retry);
    reactor_remove_port(peer->reactor, peer->port);
    nbd_pool_fini(&peer->pool);
    xseg_port_unbind(peer->port);
    free(peer);
}

int nbd_create(struct reactor *r, const struct nbd_options *options, struct peer **out,
               const char **why)
{
    struct xseg_segment *seg = reactor_segment(r);
    struct nbd_peer *peer = calloc(1, sizeof(*peer));
    uint32_t reserve = xseg_segment_header(seg)->nr_requests / 16;
    int rc;

    *out = NULL;
    *why = NULL;
    if (!peer) {
        *why = "out of memory";
        return -ENOMEM;
    }
    peer->base = (struct peer){.role = "nbd", .stop = stop, .destroy = destroy};
    peer->reactor = r;
    peer->max_conns =
        options->max_connections ? options->max_connections : DEFAULT_CONNECTIONS;
    peer->handshake_ns =
        (options->handshake_ms ? options->handshake_ms : DEFAULT_HANDSHAKE_MS) *
        UINT64_C(1000000);
    peer->turn.fn = on_turn;
    peer->retry.on_fire = on_retry;
    list_init(&peer->conns);
    list_init(&peer->dirty);
    list_init(&peer->stalled);
    list_init(&peer->dead);

    rc = xseg_port_bind(seg, XSEG_PORT_ENDPOINT, "nbd", &peer->port);
    if (rc) {
        *why = rc == -EBUSY ? "another process serves the endpoint's port"
                            : "cannot bind the endpoint's port";
        goto fail_free;
    }
    rc = xseg_port_reserve(peer->port,
                           reserve < RESERVED_REQUESTS ? reserve : RESERVED_REQUESTS);
    if (rc) {
        *why = "the segment has no request descriptors left";
        goto fail_port;
    }
    rc = reactor_add_port(r, peer->port, NULL, NULL);
    if (rc) {
        *why = "cannot serve the endpoint's port";
        goto fail_port;
    }
    nbd_pool_init(&peer->pool, peer->port, peer->max_conns);
    rc = nbd_listen_start(peer, options);
    if (rc) {
        *why = "cannot watch a listening socket";
        goto fail_reactor;
    }
    *out = &peer->base;
    return 0;

fail_reactor:
    nbd_pool_fini(&peer->pool);
    reactor_remove_port(r, peer->port);
fail_port:
    xseg_port_unbind(peer->port);
fail_free:
    free(peer);
    return rc;
}
