/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocker peer: serves one well-known port (BLOCKERB or BLOCKERM) from a backend.
 */
#ifndef BLOCKER_BLOCKER_H
#define BLOCKER_BLOCKER_H

#include "blocker/backend.h"
#include "reactor/reactor.h"

struct blocker_options {
    uint32_t port;       /* XSEG_PORT_BLOCKERB or XSEG_PORT_BLOCKERM */
    const char *backend; /* "file" or "mem" */
    struct blk_options store;
};

/** Bind the port, open the store, serve.  0 or -errno; *why says why in one line. */
int blocker_create(struct reactor *r, const struct blocker_options *options,
                   struct peer **out, const char **why);

#endif
