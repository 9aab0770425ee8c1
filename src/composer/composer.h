/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composer peer (vlmcd): volume I/O as mapper and blocker requests.
 * Serves XSEG_PORT_VLMCD (see xseg/payload.h).
 */
#ifndef COMPOSER_COMPOSER_H
#define COMPOSER_COMPOSER_H

#include "reactor/reactor.h"

struct composer_options {
    uint32_t queue_depth; /* volume requests served at once; 0 means 512 */
};

int composer_create(struct reactor *r, const struct composer_options *options,
                    struct peer **out, const char **why);

#endif
