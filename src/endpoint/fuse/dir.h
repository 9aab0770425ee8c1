/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing the mounted directory.
 *
 * The names are read whole when a listing begins.  A listing of an earlier process, which
 * this one does not know, is read anew: names are sorted, so it goes on nearly where it
 * was.
 */
#ifndef ENDPOINT_FUSE_DIR_H
#define ENDPOINT_FUSE_DIR_H

#include "endpoint/fuse/conn.h"

/** READDIR: names from rq->offset on, rq->size bytes of them; `handle` is OPENDIR's. */
void fuse_dir_read(struct fuse_request *rq, uint64_t handle);
/** RELEASEDIR. */
void fuse_dir_release(struct fuse_conn *conn, uint64_t handle);
void fuse_dir_release_all(struct fuse_conn *conn);

#endif
