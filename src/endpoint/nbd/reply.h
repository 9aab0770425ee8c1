/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes out to a client: a queue of messages, sent many per system call.
 */
#ifndef ENDPOINT_NBD_REPLY_H
#define ENDPOINT_NBD_REPLY_H

#include <stddef.h>
#include <stdint.h>

#include "common/list.h"

struct nbd_conn;

#define NBD_OUT_HEAD_BYTES 40u

/**
 * One message to send: a short head, then data that stays where it is.  Embedded in
 * whatever owns the data; `done` is called once, when it was sent or dropped.
 */
struct nbd_out {
    struct list link; /* conn->out, or conn->held while a stream is on */
    void (*done)(struct nbd_out *self);
    const void *data;
    uint32_t data_len; /* [bytes] */
    uint32_t head_len; /* [bytes] */
    uint8_t head[NBD_OUT_HEAD_BYTES];
};

/**
 * Queue a message and have it sent at the end of this turn.  While another command
 * streams its data (see command.h) the message waits for the stream's end.
 */
void nbd_reply_queue(struct nbd_conn *conn, struct nbd_out *out);

/** Queue the next part of the stream that is on. */
void nbd_reply_queue_stream(struct nbd_conn *conn, struct nbd_out *out);

/** The stream ended: what waited for it goes out. */
void nbd_reply_end_stream(struct nbd_conn *conn);

/** Queue a copy of `len` bytes.  0 or -ENOMEM. */
int nbd_reply_copy(struct nbd_conn *conn, const void *data, size_t len);

/**
 * Send as much as the socket takes.  Returns 0 when all is sent, 1 when the socket is
 * full, -errno when the connection is lost.
 */
int nbd_reply_flush(struct nbd_conn *conn);

/** Call `done` for everything not sent. */
void nbd_reply_drop(struct nbd_conn *conn);

#endif
