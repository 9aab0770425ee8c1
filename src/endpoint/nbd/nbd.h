/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD endpoint: serves volumes as NBD exports from inside a reactor.
 * Talks to vlmcd through its own port, XSEG_PORT_ENDPOINT.
 */
#ifndef ENDPOINT_NBD_H
#define ENDPOINT_NBD_H

#include "reactor/reactor.h"

struct nbd_options {
    const int *listen_fds; /* listening, non-blocking; owned by the caller, kept open */
    uint32_t nr_listen_fds;
    uint32_t max_connections; /* 0 means 1024 */
    uint32_t handshake_ms;    /* a handshake that takes longer ends; 0 means 30,000 */
};

int nbd_create(struct reactor *r, const struct nbd_options *options, struct peer **out,
               const char **why);

#endif
