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

#include "client/client.h"
#include "common/list.h"
#include "endpoint/nbd/nbd.h"
#include "endpoint/nbd/pool.h"

/** How long a connection that ends may take to accept its last replies. */
#define NBD_DRAIN_TIMEOUT_NS UINT64_C(10000000000)
/** How long stop() waits for clients to take their replies. */
#define NBD_STOP_TIMEOUT_NS UINT64_C(500000000)
#define NBD_ACCEPT_RETRY_NS UINT64_C(100000000)

struct nbd_listener {
    struct reactor_fd io;
    struct nbd_peer *peer;
    bool paused; /* out of file descriptors: accepts again after a while */
};

struct nbd_peer {
    struct endpoint base; /* first: the endpoint is handed out as this */
    struct reactor *reactor;
    struct client client;
    struct nbd_pool pool;
    struct nbd_listener *listeners;
    uint32_t nr_listeners;
    uint32_t nr_conns;    /* in `conns` */
    uint32_t nr_sockets;  /* of them: not closed yet */
    uint32_t max_sockets; /* 0: nbd_listen_places says */
    struct endpoint_statistics counted;
    uint64_t told_ns;      /* when the log was last told of a shortage */
    uint64_t handshake_ns; /* how long a handshake may take */

    struct list conns;        /* every living connection */
    struct list handshakes;   /* those that have not finished theirs, oldest first */
    struct list dirty;        /* those with replies to send this turn */
    struct list dead;         /* closed: freed when no callback of theirs runs */
    struct reactor_task turn; /* end of turn: send, free */
    bool turn_armed;
    struct reactor_timer accept_retry;

    bool stopping;
    struct reactor_timer stop_timer;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/** Run the end-of-turn work (replies, closed connections) on the next turn. */
void nbd_peer_arm(struct nbd_peer *peer);

/** Serve the listening sockets; 0 or -errno.  Undone by nbd_listen_stop. */
int nbd_listen_start(struct nbd_peer *peer, const struct endpoint_options *options);
void nbd_listen_stop(struct nbd_peer *peer);
/** How many connections there may be: it follows the process's limit of descriptors. */
uint32_t nbd_listen_places(const struct nbd_peer *peer);

#endif
