/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of requests in flight: segment buffers, descriptors and records, with limits
 * that keep one connection from starving the others.
 *
 * All connections together use at most half of the heap and a quarter of the
 * descriptors.  Each has a fair share of that, at most an eighth of the heap; and
 * each may always have a small piece more when it has none, so that every connection
 * makes progress whatever the others hold.
 */
#ifndef ENDPOINT_NBD_POOL_H
#define ENDPOINT_NBD_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/xseg.h"

struct nbd_conn;
struct nbd_command;
struct nbd_piece;

/** Largest piece of a command [bytes]: large enough to pipeline, small enough to share.
 */
#define NBD_PIECE_BYTES (1u << 20)
/** Commands of one connection in flight. */
#define NBD_MAX_COMMANDS 256u

struct nbd_pool {
    struct xseg_segment *segment;
    struct xseg_port *port;
    uint64_t budget_bytes; /* for all connections */
    uint64_t max_share_bytes;
    uint64_t used_bytes;
    uint32_t min_piece_bytes; /* what each connection gets in any case */
    uint32_t max_requests;    /* descriptors for all connections */
    uint32_t nr_requests;     /* in use */
    uint32_t nr_sharers;      /* connections past the handshake */
    uint64_t zero_off;        /* buffer of NBD_PIECE_BYTES zeros, 0 until needed */
    struct nbd_command *free_commands;
    struct nbd_piece *free_pieces;
};

void nbd_pool_init(struct nbd_pool *pool, struct xseg_port *port, uint32_t max_conns);
void nbd_pool_fini(struct nbd_pool *pool);

/** A zeroed command record, or NULL. */
struct nbd_command *nbd_pool_command(struct nbd_pool *pool);
void nbd_pool_put_command(struct nbd_pool *pool, struct nbd_command *cmd);

/**
 * A zeroed piece with a descriptor, or NULL when the connection has to wait.
 * @param urgent  the connection cannot go on without it: only exhaustion refuses.
 */
struct nbd_piece *nbd_pool_piece(struct nbd_pool *pool, struct nbd_conn *conn,
                                 bool urgent);

/**
 * Give the piece a buffer of up to `want` bytes, less when memory is short, ending
 * at a sector border of `offset` [bytes in the volume] if it is less.
 * Returns the length to use [bytes], 0 when the connection has to wait.
 */
uint32_t nbd_pool_buffer(struct nbd_pool *pool, struct nbd_piece *piece,
                         uint64_t offset, uint32_t want, bool urgent);

/** A descriptor for a piece whose last one was given back; false when none is free. */
bool nbd_pool_request(struct nbd_pool *pool, struct nbd_piece *piece, bool urgent);
/** Give the descriptor back; the piece and its buffer stay. */
void nbd_pool_put_request(struct nbd_pool *pool, struct nbd_piece *piece);
/** Give back the piece and all it holds. */
void nbd_pool_put_piece(struct nbd_pool *pool, struct nbd_piece *piece);

/** Segment offset of NBD_PIECE_BYTES zeros that nobody writes; 0 when memory is short.
 */
uint64_t nbd_pool_zeros(struct nbd_pool *pool);

#endif
