/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE endpoint peer: making it, freeing what has ended, stopping it.
 *
 * Called by src/peer and by the reactor, on the reactor's thread.  A stop answers what is
 * in flight and closes the volumes; mounts stay, held by the supervisor, and what the
 * kernel asks from then on waits for the next process.
 */
#include "endpoint/fuse/peer.h"

#include <errno.h>
#include <stdlib.h>

#include "endpoint/fuse/attach.h"
#include "endpoint/fuse/conn.h"
#include "endpoint/fuse/fuse.h"

/* Volumes open at once that the smallest share is sized for. */
#define SHARING_VOLUMES 1024u
/* After so long a stop waits no more for answers [ns]. */
#define STOP_NS UINT64_C(5000000000)

void fuse_peer_arm(struct fuse_peer *peer)
{
    if (peer->turn_armed)
        return;
    peer->turn_armed = true;
    reactor_defer(peer->reactor, &peer->turn);
}

static void peer_check_stopped(struct fuse_peer *peer)
{
    void (*stopped)(void *arg) = peer->stopped;

    if (!peer->stopping || !stopped || !list_empty(&peer->conns))
        return;
    if (!client_idle(&peer->client)) {
        fuse_peer_arm(peer);
        return;
    }
    peer->stopped = NULL;
    reactor_disarm_timer(peer->reactor, &peer->stop_timer);
    stopped(peer->stopped_arg); /* may destroy the peer */
}

static void peer_turn(struct reactor_task *self)
{
    struct fuse_peer *peer = LIST_ENTRY(self, struct fuse_peer, turn);

    peer->turn_armed = false;
    LIST_FOR_EACH(it, next, &peer->conns)
    {
        struct fuse_conn *conn = LIST_ENTRY(it, struct fuse_conn, link);
        if (conn->state == FUSE_CONN_CLOSED)
            fuse_conn_free(conn);
    }
    peer_check_stopped(peer);
}

static void peer_stop_timeout(struct reactor_timer *self)
{
    struct fuse_peer *peer = LIST_ENTRY(self, struct fuse_peer, stop_timer);

    LIST_FOR_EACH(it, next, &peer->conns)
    fuse_conn_abandon(LIST_ENTRY(it, struct fuse_conn, link));
}

static struct fuse_peer *peer_of(struct peer *base)
{
    return LIST_ENTRY(base, struct fuse_peer, base.peer);
}

static void peer_stop(struct peer *base, void (*stopped)(void *arg), void *arg)
{
    struct fuse_peer *peer = peer_of(base);

    peer->stopping = true;
    peer->stopped = stopped;
    peer->stopped_arg = arg;
    fuse_attach_stop(peer);
    LIST_FOR_EACH(it, next, &peer->conns)
    fuse_conn_drain(LIST_ENTRY(it, struct fuse_conn, link));
    peer->stop_timer.on_fire = peer_stop_timeout;
    reactor_arm_timer(peer->reactor, &peer->stop_timer, STOP_NS);
    fuse_peer_arm(peer);
}

static void peer_destroy(struct peer *base)
{
    struct fuse_peer *peer = peer_of(base);

    fuse_attach_stop(peer);
    reactor_disarm_timer(peer->reactor, &peer->stop_timer);
    client_fini(&peer->client);
    free(peer);
}

static int peer_create(struct reactor *r, const struct endpoint_options *options,
                       struct endpoint **out, const char **why)
{
    struct fuse_peer *peer = calloc(1, sizeof(*peer));
    int rc;

    *out = NULL;
    *why = NULL;
    if (!peer) {
        *why = "out of memory";
        return -ENOMEM;
    }
    peer->base.peer =
        (struct peer){.role = "fuse", .stop = peer_stop, .destroy = peer_destroy};
    peer->base.kind = &fuse_endpoint;
    peer->reactor = r;
    peer->attach.fd = -1;
    peer->turn.fn = peer_turn;
    list_init(&peer->conns);
    rc = client_init(&peer->client, r, XSEG_PORT_FUSE, "fuse", SHARING_VOLUMES, why);
    if (rc)
        goto fail_free;
    rc = options->nr_listen_fds ? fuse_attach_start(peer, options->listen_fds[0])
                                : 0; /* nothing can be mounted then */
    if (rc) {
        *why = "cannot watch the socket for mounts";
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

static void peer_statistics(const struct endpoint *self,
                            struct endpoint_statistics *out)
{
    const struct fuse_peer *peer = (const struct fuse_peer *)(const void *)self;

    *out = (struct endpoint_statistics){.accepted = peer->nr_attached};
    LIST_FOR_EACH(it, next, &peer->conns)
    out->clients++;
}

const struct endpoint_kind fuse_endpoint = {
    .name = "fuse",
    .can = {.listens = true,
            .flush = true,
            .discard = true,
            .zero = true,
            .block_status = true,
            .read_only = true,
            .resize = true,
            .align_bytes = 1,
            .max_read_bytes = FUSE_MAX_TRANSFER},
    .create = peer_create,
    .statistics = peer_statistics,
};
