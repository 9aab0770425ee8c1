/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD endpoint: serves volumes as NBD exports from inside a reactor.
 * Talks to vlmcd through its own port, XSEG_PORT_ENDPOINT.
 */
#ifndef ENDPOINT_NBD_H
#define ENDPOINT_NBD_H

#include "endpoint/endpoint.h"

extern const struct endpoint_kind nbd_endpoint;

#endif
