/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One FUSE connection: its device, its files and its requests in flight.
 *
 * Life of a request: read from the device -> a handler of dispatch.c -> answered once
 * with conn_reply or conn_reply_error -> freed.  FORGET and INTERRUPT have no answer.
 *
 * Invariants: everything belongs to the reactor's thread.  A connection is freed when its
 * device is gone (unmounted) or the endpoint stops, all requests have ended and all its
 * volumes are closed.
 */
#ifndef ENDPOINT_FUSE_CONN_H
#define ENDPOINT_FUSE_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "client/volume.h"
#include "common/list.h"
#include "endpoint/fuse/attach.h"
#include "endpoint/fuse/nodes.h"
#include "endpoint/fuse/peer.h"
#include "endpoint/fuse/proto.h"

/** Buffers that a WRITE is read into: so many large writes are in flight at once. */
#define FUSE_NR_INPUTS 4u
/** Longest arguments of anything but WRITE that are looked at [bytes]. */
#define FUSE_ARGS_BYTES 4096u

enum fuse_conn_state {
    FUSE_CONN_SERVING,  /* requests are read */
    FUSE_CONN_DRAINING, /* none is read any more; those in flight are answered */
    FUSE_CONN_CLOSING,  /* its volumes are being closed */
    FUSE_CONN_CLOSED,   /* may be freed */
};

struct fuse_conn;
struct fuse_file;

/** A segment buffer of FUSE_MAX_TRANSFER bytes. */
struct fuse_input {
    struct list link; /* conn->inputs, while free */
    uint64_t off;     /* segment offset */
    uint8_t *data;
};

struct fuse_request {
    struct list link; /* of the file or the connection where it waits */
    struct fuse_conn *conn;
    struct fuse_file *file; /* counted in, or NULL */
    struct client_io io;
    struct client_waiter waiter;
    struct fuse_input *input; /* WRITE: holds the data; NULL: it was copied */
    uint64_t unique;
    uint64_t node;
    uint32_t opcode;
    uint32_t mode; /* enum fuse_use_mode, of OPEN and I/O */
    uint64_t offset;
    uint32_t size;    /* [bytes] asked */
    uint64_t length;  /* FALLOCATE [bytes] */
    uint32_t moved;   /* [bytes] done so far */
    uint32_t op;      /* enum xseg_op */
    uint8_t *bounce;  /* READ that does not get a buffer of its whole length */
    uint32_t whence;  /* LSEEK */
    uint8_t name_len; /* LOOKUP */
    uint8_t name[XSEG_NAME_MAX];
};

struct fuse_conn {
    struct reactor_fd io; /* the device; fd is -1 once closed */
    struct fuse_peer *peer;
    struct list link; /* peer->conns */
    enum fuse_conn_state state;
    struct fuse_nodes *nodes;
    struct fuse_file **files; /* by position of the node; NULL: not in use */
    uint32_t nr_files;
    uint32_t nr_requests; /* read and not freed */
    struct list dirs;     /* listings (dir.c) */
    uint64_t next_dir;    /* handle of the next listing */
    uint64_t since;       /* when it was attached [s since 1970]: time of the files */
    struct list inputs;   /* free ones */
    struct fuse_input input[FUSE_NR_INPUTS];
    bool paused;              /* nothing is read until something is given back */
    struct fuse_attach about; /* path, owner and mode of its files */
    uint8_t head[FUSE_HEAD_BYTES];
    _Alignas(8) uint8_t args[FUSE_ARGS_BYTES];
};

/**
 * Serve a connection; takes both descriptors over, also on failure.
 *
 * @param fd        the device, non-blocking.
 * @param nodes_fd  memory file of its nodes.
 * @param about     the message it came with; copied.
 * Returns 0 or -errno.
 */
int fuse_conn_create(struct fuse_peer *peer, int fd, int nodes_fd,
                     const struct fuse_attach *about);

/** Read no more, answer what is in flight, close its volumes, end. */
void fuse_conn_drain(struct fuse_conn *conn);

/** Give the device up at once and close its volumes.  What is in flight is not answered:
 *  the process that serves the connection next gets it from the kernel again. */
void fuse_conn_abandon(struct fuse_conn *conn);

/** Free it.  Only in state CLOSED. */
void fuse_conn_free(struct fuse_conn *conn);

/** Something ended: go on with draining or closing, if that is under way. */
void fuse_conn_settle(struct fuse_conn *conn);

/** Answer with data and free the request. */
void fuse_conn_reply(struct fuse_request *rq, const void *data, uint32_t bytes);

/** Answer with a negative errno, or 0 for success without data, and free it. */
void fuse_conn_reply_error(struct fuse_request *rq, int64_t result);

/** The data of a WRITE was copied: its input may be used for the next. */
void fuse_conn_free_input(struct fuse_request *rq);

/** Free a request without an answer. */
void fuse_conn_forget(struct fuse_request *rq);

/**
 * True if a look-up, open or release is to be counted now: not if an earlier process
 * counted it and died before the kernel had its answer.  The answer must come at once.
 */
bool fuse_conn_count(const struct fuse_request *rq);

/** Serve one request whose arguments are in conn->args (dispatch.c). */
void fuse_dispatch(struct fuse_request *rq, uint32_t args_bytes);

#endif
