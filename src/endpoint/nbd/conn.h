/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client connection: its socket, its state and what it has in flight.
 */
#ifndef ENDPOINT_NBD_CONN_H
#define ENDPOINT_NBD_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "client/list.h"
#include "client/volume.h"
#include "endpoint/nbd/peer.h"
#include "endpoint/nbd/proto.h"
#include "endpoint/nbd/reply.h"

#define NBD_INPUT_BYTES (64u << 10)

/** What the next bytes of the client are. */
enum nbd_conn_state {
    NBD_CONN_CLIENT_FLAGS = 0, /* the answer to our greeting */
    NBD_CONN_OPTION,           /* an option, head and data */
    NBD_CONN_OPTION_SKIP,      /* data of an option that is too long */
    NBD_CONN_OPTION_WAIT,      /* an option waits for another peer */
    NBD_CONN_REQUEST,          /* the head of a request */
    NBD_CONN_PAYLOAD,          /* data of a WRITE */
    NBD_CONN_PAYLOAD_SKIP,     /* data of a WRITE that was refused */
    NBD_CONN_DRAINING,         /* nothing more; replies go out, then it closes */
    NBD_CONN_CLOSED,           /* no socket; waits for what is in flight */
    NBD_NR_CONN_STATES,
};

/** What a handler of a state did. */
enum nbd_step {
    NBD_STEP_AGAIN, /* go on with the (new) state */
    NBD_STEP_MORE,  /* needs more bytes */
    NBD_STEP_WAIT,  /* needs memory, or another peer's answer; resumed later */
    NBD_STEP_CLOSE, /* the client broke the protocol, or is done */
};

struct nbd_conn {
    struct reactor_fd io; /* io.fd is -1 once closed */
    struct nbd_peer *peer;
    struct list link;           /* peer->conns, then peer->dead */
    struct list handshake_link; /* peer->handshakes */
    struct list dirty_link;     /* peer->dirty */
    struct client_waiter stall; /* waits for memory */
    struct reactor_timer timer; /* handshake or drain */
    enum nbd_conn_state state;

    /* negotiated */
    bool fixed_newstyle;
    bool no_zeroes;
    bool structured;
    bool allocation; /* base:allocation was selected for the export named below */
    uint32_t nr_options;
    uint32_t option;      /* the one being served */
    uint32_t skip_bytes;  /* OPTION_SKIP, PAYLOAD_SKIP: left to drop */
    uint16_t info_wanted; /* bit per enum nbd_info, of INFO and GO */
    uint8_t meta_name_len;
    uint8_t name_len;
    uint8_t meta_name[XSEG_NAME_MAX]; /* export of the last SET_META_CONTEXT */
    uint8_t name[XSEG_NAME_MAX];      /* export being opened */
    struct client_list *exports;      /* a LIST under way */
    bool exports_more;                /* its next page is due */

    struct client_volume volume;
    bool info_only; /* opened for INFO: closed again before the answer */

    /* requests */
    bool dead;            /* in peer->dead */
    struct list commands; /* all that are not answered and released */
    uint32_t nr_commands;
    struct nbd_command *incoming; /* the WRITE whose data arrives */
    struct nbd_command *issuing;  /* the command not wholly issued yet */
    struct nbd_command *stream;   /* the command whose data must not be interrupted */
    struct list streams_waiting;  /* commands that wait to stream */

    /* replies */
    struct list out;   /* struct nbd_out, in order of sending */
    struct list held;  /* those that wait for the end of the stream */
    uint32_t out_sent; /* [bytes] of the first in `out` already sent */
    bool out_blocked;  /* the socket is full */

    /* input */
    bool waiting; /* the last step could not go on without memory or an answer */
    uint32_t in_pos;
    uint32_t in_len;
    uint8_t in[NBD_INPUT_BYTES];
};

/** Serve an accepted, non-blocking socket; takes it over.  0 or -errno. */
int nbd_conn_create(struct nbd_peer *peer, int fd);

/**
 * End the connection: the socket is closed, unsent replies are dropped, and when the
 * last request in flight has ended the volume is closed and the record freed.
 * Safe anywhere; twice is harmless.
 */
void nbd_conn_close(struct nbd_conn *conn);

/**
 * Take no more from the client; close when all replies are sent.  A WRITE whose data is
 * not all here is dropped without a reply.
 */
void nbd_conn_drain(struct nbd_conn *conn);

/** It is not in its handshake any more.  Twice is harmless. */
void nbd_conn_leave_handshake(struct nbd_conn *conn);

/** Something the connection waited for may be there: go on. */
void nbd_conn_resume(struct nbd_conn *conn);

/** Put it among those that are resumed when memory comes back. */
void nbd_conn_stall(struct nbd_conn *conn);

/** Have its replies sent at the end of the turn. */
void nbd_conn_dirty(struct nbd_conn *conn);

/** Send replies now; closes it when that was the last thing to do. */
void nbd_conn_flush(struct nbd_conn *conn);

/** A command ended, or the volume is closed: free the connection if it was the last. */
void nbd_conn_settle(struct nbd_conn *conn);

/** Free the record.  Only from the peer's end-of-turn work. */
void nbd_conn_free(struct nbd_conn *conn);

static inline uint32_t nbd_conn_buffered(const struct nbd_conn *conn)
{
    return conn->in_len - conn->in_pos;
}

/** Drop what is buffered of `skip_bytes`; true when all of them are gone. */
static inline bool nbd_conn_skipped(struct nbd_conn *conn)
{
    uint32_t take = nbd_conn_buffered(conn);

    if (take > conn->skip_bytes)
        take = conn->skip_bytes;
    conn->in_pos += take;
    conn->skip_bytes -= take;
    return conn->skip_bytes == 0;
}

/* Handlers of the states, each named after its own. */
enum nbd_step nbd_on_client_flags(struct nbd_conn *conn);
enum nbd_step nbd_on_option(struct nbd_conn *conn);
enum nbd_step nbd_on_option_skip(struct nbd_conn *conn);
enum nbd_step nbd_on_request(struct nbd_conn *conn);
enum nbd_step nbd_on_payload(struct nbd_conn *conn);
enum nbd_step nbd_on_payload_skip(struct nbd_conn *conn);
enum nbd_step nbd_on_draining(struct nbd_conn *conn);

#endif
