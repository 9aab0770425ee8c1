/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapper peer: answers where the sectors of open volumes are, remembers what was
 * written, and makes that durable.  Serves XSEG_PORT_MAPPERD (see xseg/payload.h);
 * reads layers and appends journals through XSEG_PORT_BLOCKERM.
 */
#ifndef MAPPER_MAPPER_H
#define MAPPER_MAPPER_H

#include "reactor/reactor.h"

struct mapper_options {
    uint64_t page_cache_bytes; /* layer pages shared by all maps; 0 means 64 MiB */
    uint64_t view_cache_bytes; /* resolved blocks of all maps; 0 means 64 MiB */
    uint64_t patience_ns; /* how long requests wait for a blockerm that is away; 0 means
                             30 s */
    int marks_fd; /* memfd of the mark log, kept by who starts mapperd again; needed
                     only during mapper_create.  -1: marks end with this process */
};

int mapper_create(struct reactor *r, const struct mapper_options *options,
                  struct peer **out, const char **why);

#endif
