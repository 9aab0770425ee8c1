/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of commands and pieces, kept for reuse.  There are never more than were in
 * flight at once, and those are limited (client/client.h).
 */
#ifndef ENDPOINT_NBD_POOL_H
#define ENDPOINT_NBD_POOL_H

#include <stdbool.h>

struct nbd_conn;
struct nbd_command;
struct nbd_piece;

/** Commands of one connection in flight. */
#define NBD_MAX_COMMANDS 256u

struct nbd_pool {
    struct nbd_command *free_commands;
    struct nbd_piece *free_pieces;
};

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
/** Give back the piece and all it holds. */
void nbd_pool_put_piece(struct nbd_pool *pool, struct nbd_piece *piece);

#endif
