/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: issuing their pieces, collecting what comes back, answering.
 *
 * Called by transmit.c, and by the client library with vlmcd's answers.
 * Invariant: refs = 1 until answered + nr_pieces; in_flight <= nr_pieces.
 */
#include "endpoint/nbd/command.h"

#include <errno.h>

#include "common/log.h"

/* vlmcd gets a large ZERO or DISCARD in parts, so that others have their turn. */
#define ZERO_PIECE_BYTES (64u << 20)
#define ZERO_WINDOW      4u

uint32_t nbd_error_from(int64_t result)
{
    switch (-result) {
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case ENOMEM:
    case ENOBUFS:
        return NBD_ENOMEM;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    default:
        return NBD_EIO;
    }
}

struct nbd_command *nbd_command_new(struct nbd_conn *conn, const uint8_t *head)
{
    struct nbd_command *cmd = nbd_pool_command(&conn->peer->pool);

    if (!cmd)
        return NULL;
    cmd->conn = conn;
    cmd->refs = 1;
    cmd->flags = nbd_get16(head + 4);
    cmd->type = nbd_get16(head + 6);
    cmd->cookie = nbd_get64(head + 8);
    cmd->offset = nbd_get64(head + 16);
    cmd->length = nbd_get32(head + 24);
    list_init(&cmd->pieces);
    list_init(&cmd->wait_link);
    list_init(&cmd->out.link);
    list_push_back(&conn->commands, &cmd->link);
    conn->nr_commands++;
    xseg_port_stats(conn->peer->client.port)->accepted++;
    return cmd;
}

static void command_put(struct nbd_command *cmd)
{
    struct nbd_conn *conn = cmd->conn;

    if (--cmd->refs)
        return;
    list_remove(&cmd->link);
    list_remove(&cmd->wait_link);
    conn->nr_commands--;
    nbd_pool_put_command(&conn->peer->pool, cmd);
    client_wake(&conn->peer->client);
    if (conn->state == NBD_CONN_DRAINING && !conn->nr_commands)
        nbd_conn_dirty(conn); /* closes it */
    nbd_conn_settle(conn);
}

void nbd_command_answered(struct nbd_command *cmd)
{
    struct xseg_port_stats *stats = xseg_port_stats(cmd->conn->peer->client.port);

    if (cmd->answered)
        return;
    cmd->answered = true;
    stats->completed++;
    if (cmd->error)
        stats->errors++;
    else if (cmd->type == NBD_CMD_READ)
        stats->read_bytes += cmd->length;
    else if (cmd->type == NBD_CMD_WRITE)
        stats->write_bytes += cmd->length;
    command_put(cmd);
}

void nbd_command_fail(struct nbd_command *cmd, uint32_t error, const char *message)
{
    if (cmd->error)
        return;
    cmd->error = error;
    cmd->message = message;
}

/* ---- replies without data ----------------------------------------------------------
 */

static void reply_done(struct nbd_out *self)
{
    nbd_command_answered(LIST_ENTRY(self, struct nbd_command, out));
}

void nbd_put_chunk(uint8_t *head, const struct nbd_command *cmd, uint16_t flags,
                   uint16_t type, uint32_t payload)
{
    nbd_put32(head, NBD_STRUCTURED_REPLY_MAGIC);
    nbd_put16(head + 4, flags);
    nbd_put16(head + 6, type);
    nbd_put64(head + 8, cmd->cookie);
    nbd_put32(head + 16, payload);
}

void nbd_command_reply(struct nbd_command *cmd)
{
    struct nbd_out *out = &cmd->out;

    out->done = reply_done;
    out->data = NULL;
    out->data_len = 0;
    if (cmd->conn->structured && cmd->error) {
        out->data = cmd->message;
        out->data_len = cmd->message ? (uint32_t)strlen(cmd->message) : 0;
        nbd_put_chunk(out->head, cmd, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR,
                      6 + out->data_len);
        nbd_put32(out->head + NBD_CHUNK_HEAD_BYTES, cmd->error);
        nbd_put16(out->head + NBD_CHUNK_HEAD_BYTES + 4, (uint16_t)out->data_len);
        out->head_len = NBD_CHUNK_HEAD_BYTES + 6;
    } else if (cmd->conn->structured && cmd->type == NBD_CMD_READ) {
        nbd_put_chunk(out->head, cmd, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0);
        out->head_len = NBD_CHUNK_HEAD_BYTES;
    } else {
        nbd_put32(out->head, NBD_SIMPLE_REPLY_MAGIC);
        nbd_put32(out->head + 4, cmd->error);
        nbd_put64(out->head + 8, cmd->cookie);
        out->head_len = NBD_SIMPLE_REPLY_BYTES;
    }
    if (cmd->conn->stream == cmd)
        nbd_reply_queue_stream(cmd->conn, out);
    else
        nbd_reply_queue(cmd->conn, out);
}

void nbd_command_refuse(struct nbd_command *cmd, uint32_t error, const char *message)
{
    cmd->issued_all = true;
    nbd_command_fail(cmd, error, message);
    nbd_command_reply(cmd);
}

/* ---- pieces ---------------------------------------------------------------------- */

struct nbd_piece *nbd_command_piece(struct nbd_command *cmd, bool urgent)
{
    struct nbd_piece *piece = nbd_pool_piece(&cmd->conn->peer->pool, cmd->conn, urgent);

    if (!piece)
        return NULL;
    piece->cmd = cmd;
    cmd->nr_pieces++;
    cmd->refs++;
    return piece;
}

void nbd_command_drop_piece(struct nbd_piece *piece)
{
    struct nbd_command *cmd = piece->cmd;
    struct nbd_peer *peer = cmd->conn->peer;

    list_remove(&piece->link);
    nbd_pool_put_piece(&peer->pool, piece);
    cmd->nr_pieces--;
    command_put(cmd);
}

/** Nothing is in flight and nothing will be. */
static void command_finish(struct nbd_command *cmd)
{
    if (cmd->abandoned)
        nbd_command_answered(cmd);
    else if (cmd->type == NBD_CMD_READ)
        nbd_read_finish(cmd);
    else
        nbd_command_reply(cmd);
}

void nbd_command_issued(struct nbd_command *cmd)
{
    cmd->issued_all = true;
    if (!cmd->in_flight)
        command_finish(cmd);
}

/** vlmcd did not come back in time: the client has to connect again. */
static void command_give_up(struct nbd_command *cmd, int64_t result)
{
    log_line(LOG_WARNING, "nbd", "closing a connection: vlmcd is away: %s",
             strerror((int)-result));
    nbd_conn_close(cmd->conn);
}

static void piece_answered(struct client_io *io, int64_t result)
{
    struct nbd_piece *piece = LIST_ENTRY(io, struct nbd_piece, io);
    struct nbd_command *cmd = piece->cmd;

    cmd->in_flight--;
    if (result < 0)
        nbd_command_fail(cmd, nbd_error_from(result), NULL);

    cmd->refs++; /* what follows may let go of the rest */
    if (client_is_away(result) && cmd->conn->state != NBD_CONN_CLOSED)
        command_give_up(cmd, result);
    if (cmd->abandoned)
        nbd_command_drop_piece(piece);
    else if (cmd->type == NBD_CMD_READ)
        nbd_read_arrived(piece, result < 0);
    else if (cmd->type == NBD_CMD_BLOCK_STATUS)
        nbd_status_arrived(piece, result);
    else
        nbd_command_drop_piece(piece);
    if (cmd->issued_all && !cmd->in_flight)
        command_finish(cmd);
    command_put(cmd);
}

void nbd_piece_submit(struct nbd_piece *piece, uint32_t op, uint32_t flags,
                      uint64_t data_off, uint64_t data_len)
{
    struct client_io *io = &piece->io;

    io->offset = piece->offset;
    io->length = piece->length;
    io->data_off = data_off;
    io->data_len = data_len;
    io->done = piece_answered;
    piece->cmd->in_flight++;
    client_io_submit(io, op, flags);
}

void nbd_command_abandon(struct nbd_command *cmd)
{
    cmd->refs++;
    cmd->abandoned = true;
    cmd->issued_all = true;
    list_remove(&cmd->wait_link);
    if (cmd->filling) {
        nbd_command_drop_piece(cmd->filling);
        cmd->filling = NULL;
    }
    LIST_FOR_EACH(it, next, &cmd->pieces)
    {
        struct nbd_piece *piece = LIST_ENTRY(it, struct nbd_piece, link);
        if (piece->done)
            nbd_command_drop_piece(piece);
    }
    if (!cmd->in_flight)
        nbd_command_answered(cmd);
    command_put(cmd);
}

/* ---- commands without data ---------------------------------------------------------
 */

/** FUA covers each piece; vlmcd joins the flushes that come of it. */
static uint32_t durability(const struct nbd_command *cmd)
{
    return cmd->flags & NBD_CMD_FLAG_FUA ? XSEG_F_FUA : 0;
}

/** TRIM and WRITE_ZEROES.  With NO_HOLE zeros are written, so that space is allocated.
 */
static bool issue_zeros(struct nbd_command *cmd)
{
    bool allocate =
        cmd->type == NBD_CMD_WRITE_ZEROES && cmd->flags & NBD_CMD_FLAG_NO_HOLE;
    uint32_t op = cmd->type == NBD_CMD_TRIM ? XSEG_OP_DISCARD : XSEG_OP_ZERO;
    uint32_t most = allocate ? CLIENT_PIECE_BYTES : ZERO_PIECE_BYTES;
    uint64_t zeros = 0;

    if (allocate && !(zeros = client_zeros(&cmd->conn->peer->client)))
        return false;
    while (cmd->issued < cmd->length && !cmd->error) {
        uint64_t offset = cmd->offset + cmd->issued;
        uint32_t left = cmd->length - cmd->issued;
        uint32_t inside = (uint32_t)(offset & (XSEG_SECTOR_BYTES - 1));
        struct nbd_piece *piece;

        if (cmd->nr_pieces >= ZERO_WINDOW)
            return false;
        piece = nbd_command_piece(cmd, false);
        if (!piece)
            return false;
        piece->offset = offset;
        piece->length = left <= most - inside ? left : most - inside;
        cmd->issued += piece->length;
        if (allocate)
            nbd_piece_submit(piece, XSEG_OP_WRITE, durability(cmd), zeros,
                             piece->length);
        else
            nbd_piece_submit(piece, op, durability(cmd), 0, 0);
    }
    nbd_command_issued(cmd);
    return true;
}

static bool issue_flush(struct nbd_command *cmd)
{
    struct nbd_piece *piece = nbd_command_piece(cmd, false);

    if (!piece)
        return false;
    nbd_piece_submit(piece, XSEG_OP_FLUSH, 0, 0, 0);
    nbd_command_issued(cmd);
    return true;
}

bool nbd_command_issue(struct nbd_command *cmd)
{
    switch (cmd->type) {
    case NBD_CMD_READ:
    case NBD_CMD_CACHE:
        return nbd_read_issue(cmd);
    case NBD_CMD_TRIM:
    case NBD_CMD_WRITE_ZEROES:
        return issue_zeros(cmd);
    case NBD_CMD_BLOCK_STATUS:
        return nbd_status_issue(cmd);
    default: /* FLUSH; the others never come here */
        return issue_flush(cmd);
    }
}
