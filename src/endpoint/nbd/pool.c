/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free lists of the endpoint's records (see pool.h).
 */
#include "endpoint/nbd/pool.h"

#include <stdlib.h>
#include <string.h>

#include "endpoint/nbd/command.h"

void nbd_pool_fini(struct nbd_pool *pool)
{
    while (pool->free_commands) {
        struct nbd_command *cmd = pool->free_commands;
        pool->free_commands = cmd->next_free;
        free(cmd);
    }
    while (pool->free_pieces) {
        struct nbd_piece *piece = pool->free_pieces;
        pool->free_pieces = piece->next_free;
        free(piece);
    }
}

struct nbd_command *nbd_pool_command(struct nbd_pool *pool)
{
    struct nbd_command *cmd = pool->free_commands;

    if (!cmd)
        return calloc(1, sizeof(*cmd));
    pool->free_commands = cmd->next_free;
    memset(cmd, 0, sizeof(*cmd));
    return cmd;
}

void nbd_pool_put_command(struct nbd_pool *pool, struct nbd_command *cmd)
{
    cmd->next_free = pool->free_commands;
    pool->free_commands = cmd;
}

static struct nbd_piece *pool_take_piece(struct nbd_pool *pool)
{
    struct nbd_piece *piece = pool->free_pieces;

    if (!piece)
        return calloc(1, sizeof(*piece));
    pool->free_pieces = piece->next_free;
    memset(piece, 0, sizeof(*piece));
    return piece;
}

struct nbd_piece *nbd_pool_piece(struct nbd_pool *pool, struct nbd_conn *conn,
                                 bool urgent)
{
    struct nbd_piece *piece = pool_take_piece(pool);

    if (!piece)
        return NULL;
    list_init(&piece->link);
    list_init(&piece->out.link);
    piece->conn = conn;
    if (!client_io_begin(&piece->io, &conn->volume, urgent)) {
        piece->next_free = pool->free_pieces;
        pool->free_pieces = piece;
        return NULL;
    }
    return piece;
}

void nbd_pool_put_piece(struct nbd_pool *pool, struct nbd_piece *piece)
{
    client_io_end(&piece->io);
    piece->next_free = pool->free_pieces;
    pool->free_pieces = piece;
}
