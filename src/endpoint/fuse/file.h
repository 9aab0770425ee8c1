/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of a connection: the volume behind a node, open once to read and once to write.
 *
 * The kernel's opens are counted in the node's record (nodes.h).  A volume is opened with
 * the first open of its mode, or with the first request after a restart, and closed with
 * the last release.
 */
#ifndef ENDPOINT_FUSE_FILE_H
#define ENDPOINT_FUSE_FILE_H

#include "endpoint/fuse/conn.h"

/** Also the handle that the kernel sends with each request. */
enum fuse_use_mode {
    FUSE_USE_READ = 0,
    FUSE_USE_WRITE = 1,
    FUSE_NR_USES = 2,
};

/** One open of the volume. */
struct fuse_use {
    struct client_volume volume;
    struct fuse_file *file;
    struct list waiting; /* struct fuse_request, until it is open */
};

struct fuse_file {
    struct fuse_conn *conn;
    struct fuse_node *node;
    struct fuse_use use[FUSE_NR_USES];
    uint32_t nr_requests; /* that count on it */
    uint64_t size_bytes;  /* as seen last */
};

/** The file of a node, made if need be; NULL when out of memory.  Balanced by
 *  fuse_file_put. */
struct fuse_file *fuse_file_get(struct fuse_conn *conn, struct fuse_node *node);
/** The last one frees it, once its volumes are closed. */
void fuse_file_put(struct fuse_file *file);

/**
 * Go on with a request when its file's volume is open in rq->mode: calls
 * fuse_io_go(rq), now or later; an open that fails answers the request.
 */
void fuse_file_with_volume(struct fuse_request *rq);

/** Close what no open of the node counts on any more. */
void fuse_file_check_opens(struct fuse_file *file);

/** Open again what an earlier process had open. */
void fuse_file_adopt_all(struct fuse_conn *conn);
/** Close every volume; requests that wait end with an error. */
void fuse_file_close_all(struct fuse_conn *conn);

/** Serve OPEN or I/O on an open volume (io.c). */
void fuse_io_go(struct fuse_request *rq);

#endif
