/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes: LOOKUP and GETATTR ask vlmcd what a volume is now.
 *
 * Each opens the volume to read, which takes no lease, and closes it again.
 */
#ifndef ENDPOINT_FUSE_LOOK_H
#define ENDPOINT_FUSE_LOOK_H

#include "endpoint/fuse/conn.h"

/** LOOKUP of rq->name in the mounted directory. */
void fuse_look_name(struct fuse_request *rq);
/** GETATTR and SETATTR: the attributes of rq's node. */
void fuse_look_node(struct fuse_request *rq);

#endif
