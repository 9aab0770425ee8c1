/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE endpoint: every volume and snapshot as a file, from inside a reactor.
 *
 * Talks to vlmcd through its own port, XSEG_PORT_FUSE.  Its one listening socket takes
 * connections that the supervisor has mounted and keeps open (attach.h), so that mounts,
 * and loop devices over their files, outlive this process.
 */
#ifndef ENDPOINT_FUSE_FUSE_H
#define ENDPOINT_FUSE_FUSE_H

#include "endpoint/endpoint.h"

extern const struct endpoint_kind fuse_endpoint;

#endif
