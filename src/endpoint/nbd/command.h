/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One NBD request being served, and the pieces it is cut into.
 *
 * A command is issued in pieces of at most CLIENT_PIECE_BYTES, each one request to
 * vlmcd.  Life: nbd_command_start -> pieces issued -> pieces come back -> the reply (or
 * the last chunk of it) is sent -> freed.  It holds one reference until its last reply
 * is sent or dropped, and one for each piece.
 *
 * Reads answer in one of two ways.  With structured replies each piece is a chunk of
 * its own and leaves when it is ready.  Simple replies and DF need one uninterrupted
 * run of bytes: the command becomes its connection's `stream`, its pieces leave in
 * order, and every other reply waits until it is done.
 */
#ifndef ENDPOINT_NBD_COMMAND_H
#define ENDPOINT_NBD_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "endpoint/nbd/conn.h"
#include "endpoint/nbd/proto.h"
#include "endpoint/nbd/reply.h"

struct nbd_piece {
    struct nbd_out out;
    struct list link; /* command->pieces: ordered reads, until they are queued */
    struct nbd_piece *next_free;
    struct nbd_command *cmd;
    struct nbd_conn *conn;
    struct client_io io;
    uint32_t filled; /* WRITE: [bytes] received */
    uint64_t offset; /* [bytes] in the volume */
    uint32_t length; /* [bytes] */
    bool done;       /* ordered reads: its data is there */
    bool last;       /* the command is answered when this is sent */
};

struct nbd_command {
    struct nbd_out out;    /* the reply, or the last chunk of it */
    struct list link;      /* conn->commands */
    struct list wait_link; /* conn->streams_waiting */
    struct nbd_command *next_free;
    struct nbd_conn *conn;
    uint32_t refs;
    uint16_t type;  /* enum nbd_command_type */
    uint16_t flags; /* enum nbd_command_flag */
    uint64_t cookie;
    uint64_t offset;    /* [bytes] */
    uint32_t length;    /* [bytes] */
    uint32_t issued;    /* [bytes] cut into pieces so far */
    uint32_t in_flight; /* pieces at vlmcd */
    uint32_t nr_pieces; /* alive: in flight, waiting or being sent */
    bool issued_all;
    bool answered;             /* its last reply is sent or dropped */
    bool abandoned;            /* its client has gone: there will be no reply */
    bool last_queued;          /* a read: its last chunk is queued */
    bool ordered;              /* its data leaves as a stream */
    bool head_queued;          /* ordered: the reply's head is queued */
    struct nbd_piece *filling; /* WRITE: the piece whose data arrives */
    struct list pieces;        /* ordered: not queued yet, in order of offset */
    uint32_t error;            /* enum nbd_error; the first one */
    const char *message;       /* for people, static; may be NULL */
    uint32_t nr_extents;       /* BLOCK_STATUS: found so far */
    uint32_t nr_asks;          /* BLOCK_STATUS: MAPR requests */
};

/** A new command of the connection from its head on the wire; NULL when out of memory.
 */
struct nbd_command *nbd_command_new(struct nbd_conn *conn, const uint8_t *head);

/**
 * Issue what can be issued now.
 * Returns true when all of it is: the command may be gone then.
 */
bool nbd_command_issue(struct nbd_command *cmd);

/** Answer with an error; nothing of it was issued. */
void nbd_command_refuse(struct nbd_command *cmd, uint32_t error, const char *message);

/** There will be no reply: keep only what is in flight. */
void nbd_command_abandon(struct nbd_command *cmd);

/** A piece with a descriptor, counted in the command; NULL when it has to wait. */
struct nbd_piece *nbd_command_piece(struct nbd_command *cmd, bool urgent);

/** Send a piece's range to vlmcd. */
void nbd_piece_submit(struct nbd_piece *piece, uint32_t op, uint32_t flags,
                      uint64_t data_off, uint64_t data_len);

/** Let go of a piece; frees the command with its last reference. */
void nbd_command_drop_piece(struct nbd_piece *piece);

/** Everything was issued: answer if nothing is in flight. */
void nbd_command_issued(struct nbd_command *cmd);

/** Queue the reply that has no data: success, or the error noted. */
void nbd_command_reply(struct nbd_command *cmd);

/** Let go of the reference that waits for the last reply.  Twice is harmless. */
void nbd_command_answered(struct nbd_command *cmd);

/** Note an error; the first one counts. */
void nbd_command_fail(struct nbd_command *cmd, uint32_t error, const char *message);

/** The wire's number for a negative result. */
uint32_t nbd_error_from(int64_t result);

/** Write the head of a chunk with `payload` bytes [bytes] after it. */
void nbd_put_chunk(uint8_t *head, const struct nbd_command *cmd, uint16_t flags,
                   uint16_t type, uint32_t payload);

/* ---- reads (read.c) ------------------------------------------------------- */

bool nbd_read_issue(struct nbd_command *cmd);
/** The data of a piece is there; or not, and the command has the error. */
void nbd_read_arrived(struct nbd_piece *piece, bool failed);
/** A read in which nothing is in flight any more: answer if it failed. */
void nbd_read_finish(struct nbd_command *cmd);

/* ---- BLOCK_STATUS (status.c) ------------------------------------------------ */

bool nbd_status_issue(struct nbd_command *cmd);
/** Runs arrived in the piece (a count or -errno): ask for more, or answer. */
void nbd_status_arrived(struct nbd_piece *piece, int64_t result);

#endif
