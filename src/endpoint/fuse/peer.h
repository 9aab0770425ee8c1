/* SPDX-License-Identifier: Apache-2.0 */
/* The FUSE endpoint's peer: what its connections share. */
#ifndef ENDPOINT_FUSE_PEER_H
#define ENDPOINT_FUSE_PEER_H

#include "client/client.h"
#include "endpoint/endpoint.h"

struct fuse_peer {
    struct endpoint base; /* first */
    struct reactor *reactor;
    struct client client;
    struct reactor_fd attach; /* fd is -1: stopped */
    uint64_t nr_attached;
    struct list conns; /* struct fuse_conn */

    /* stop */
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct reactor_task turn; /* frees what has ended, then looks whether all has */
    bool turn_armed;
    struct reactor_timer stop_timer;
};

/** A connection or one of its volumes ended: look at it at the end of the turn. */
void fuse_peer_arm(struct fuse_peer *peer);

#endif
