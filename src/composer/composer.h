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
    /* how long to ask again what a dying peer did not answer; and after stop [ms] */
    uint32_t patience_ms;      /* 0 means 30 s */
    uint32_t stop_patience_ms; /* 0 means 5 s */
};

int composer_create(struct reactor *r, const struct composer_options *options,
                    struct peer **out, const char **why);

#endif
