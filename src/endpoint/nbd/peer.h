/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoint peer: what all its connections share.
 *
 * Everything runs on the reactor's thread; there are no locks.
 */
#ifndef ENDPOINT_NBD_PEER_H
#define ENDPOINT_NBD_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "endpoint/nbd/nbd.h"
#include "endpoint/nbd/pool.h"

/** How long a connection that ends may take to accept its last replies. */
#define NBD_DRAIN_TIMEOUT_NS UINT64_C(10000000000)
/** How long stop() waits for clients to take their replies. */
#define NBD_STOP_TIMEOUT_NS UINT64_C(500000000)
/** When to look again for memory that others may have given back. */
#define NBD_RETRY_NS        UINT64_C(2000000)
#define NBD_ACCEPT_RETRY_NS UINT64_C(100000000)
/** When to ask again for a volume or a list, of a peer that is being restarted. */
#define NBD_VOLUME_RETRY_NS UINT64_C(10000000)

struct nbd_listener {
    struct reactor_fd io;
    struct nbd_peer *peer;
    bool paused; /* out of file descriptors: accepts again after a while */
};

struct nbd_peer {
    struct peer base; /* first: the peer is handed out as this */
    struct reactor *reactor;
    struct xseg_port *port;
    struct nbd_pool pool;
    struct nbd_listener *listeners;
    uint32_t nr_listeners;
    uint32_t nr_conns; /* in `conns` */
    uint32_t max_conns;
    uint64_t handshake_ns; /* how long a handshake may take */
    uint32_t nr_pages;     /* pages of LIST under way */

    struct list conns;        /* every living connection */
    struct list dirty;        /* those with replies to send this turn */
    struct list stalled;      /* those that wait for memory or descriptors */
    struct list dead;         /* closed: freed when no callback of theirs runs */
    struct reactor_task turn; /* end of turn: send, resume, free */
    bool turn_armed;
    struct reactor_timer retry;
    struct reactor_timer accept_retry;

    bool stopping;
    struct reactor_timer stop_timer;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/** Run the end-of-turn work (replies, resumed connections) on the next turn. */
void nbd_peer_arm(struct nbd_peer *peer);

/** Serve the listening sockets; 0 or -errno.  Undone by nbd_listen_stop. */
int nbd_listen_start(struct nbd_peer *peer, const struct nbd_options *options);
void nbd_listen_stop(struct nbd_peer *peer);

#endif
