/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transmission phase: requests in.
 *
 * Called by conn.c with what is buffered; each function is the handler of the state
 * it is named after.  A request is checked whole before anything of it is done.
 * Invariant: a connection has at most one command that is not wholly issued; the
 * next request is not looked at before it is.
 */
#include <errno.h>

#include "endpoint/nbd/command.h"

/* A refused WRITE is read to its end so that the client can go on; a length beyond this
 * is no WRITE but a stream out of step. */
#define SKIP_MAX_BYTES (2u * NBD_MAX_PAYLOAD_BYTES)

static uint16_t flags_allowed(const struct nbd_conn *conn, uint16_t type)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (conn->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

static bool mutates(uint16_t type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM ||
           type == NBD_CMD_WRITE_ZEROES;
}

/** Why a request cannot be served, NBD_OK if it can. */
static uint32_t check(const struct nbd_command *cmd, const char **message)
{
    const struct nbd_conn *conn = cmd->conn;

    *message = NULL;
    if (cmd->type > NBD_CMD_BLOCK_STATUS) {
        *message = "unknown command";
        return NBD_EINVAL;
    }
    if (cmd->flags & ~flags_allowed(conn, cmd->type)) {
        *message = "flag not valid for this command";
        return NBD_EINVAL;
    }
    if (cmd->type == NBD_CMD_FLUSH)
        return cmd->offset || cmd->length ? NBD_EINVAL : NBD_OK;
    if (conn->volume.read_only && mutates(cmd->type)) {
        *message = "the export is read-only";
        return NBD_EPERM;
    }
    if (cmd->type == NBD_CMD_BLOCK_STATUS && !conn->allocation) {
        *message = "no metadata context was negotiated";
        return NBD_EINVAL;
    }
    if (cmd->length == 0) {
        *message = "a length of zero";
        return NBD_EINVAL;
    }
    if ((cmd->type == NBD_CMD_READ || cmd->type == NBD_CMD_WRITE) &&
        cmd->length > NBD_MAX_PAYLOAD_BYTES) {
        *message = "more than 32 MiB at once";
        return NBD_EOVERFLOW;
    }
    if (cmd->offset > conn->volume.size_bytes ||
        cmd->length > conn->volume.size_bytes - cmd->offset) {
        *message = "beyond the end of the export";
        return cmd->type == NBD_CMD_WRITE || cmd->type == NBD_CMD_WRITE_ZEROES
                   ? NBD_ENOSPC
                   : NBD_EINVAL;
    }
    if ((cmd->flags & NBD_CMD_FLAG_FAST_ZERO) && (cmd->flags & NBD_CMD_FLAG_NO_HOLE)) {
        /* Allocated zeros have to be written. */
        *message = "zeros that are allocated are not fast";
        return NBD_ENOTSUP;
    }
    return NBD_OK;
}

/** Begin the WRITE whose head was read; its data follows on the wire. */
static enum nbd_step begin_write(struct nbd_command *cmd, uint32_t error,
                                 const char *message)
{
    struct nbd_conn *conn = cmd->conn;

    conn->incoming = cmd;
    if (!error) {
        conn->state = NBD_CONN_PAYLOAD;
        return NBD_STEP_AGAIN;
    }
    if (cmd->length > SKIP_MAX_BYTES)
        return NBD_STEP_CLOSE;
    nbd_command_fail(cmd, error, message);
    conn->skip_bytes = cmd->length;
    conn->state = NBD_CONN_PAYLOAD_SKIP;
    return NBD_STEP_AGAIN;
}

/** Issue what is left of the command before; false if it has to wait. */
static bool issue_pending(struct nbd_conn *conn)
{
    struct nbd_command *cmd = conn->issuing;

    if (!cmd)
        return true;
    if (!nbd_command_issue(cmd))
        return false;
    conn->issuing = NULL;
    return true;
}

/** What was taken is issued to its end, so that it can be answered. */
enum nbd_step nbd_on_draining(struct nbd_conn *conn)
{
    if (!issue_pending(conn))
        nbd_conn_stall(conn);
    return NBD_STEP_WAIT;
}

enum nbd_step nbd_on_request(struct nbd_conn *conn)
{
    const uint8_t *head = conn->in + conn->in_pos;
    struct nbd_command *cmd;
    const char *message;
    uint32_t error;

    if (!issue_pending(conn)) {
        nbd_conn_stall(conn);
        return NBD_STEP_WAIT;
    }
    if (nbd_conn_buffered(conn) < NBD_REQUEST_BYTES)
        return NBD_STEP_MORE;
    if (nbd_get32(head) != NBD_REQUEST_MAGIC)
        return NBD_STEP_CLOSE;
    if (nbd_get16(head + 6) == NBD_CMD_DISC) {
        nbd_conn_drain(conn);
        return NBD_STEP_WAIT;
    }
    if (conn->nr_commands >= NBD_MAX_COMMANDS || !(cmd = nbd_command_new(conn, head))) {
        nbd_conn_stall(conn);
        return NBD_STEP_WAIT;
    }
    conn->in_pos += NBD_REQUEST_BYTES;
    error = check(cmd, &message);
    if (cmd->type == NBD_CMD_WRITE)
        return begin_write(cmd, error, message);
    if (error)
        nbd_command_refuse(cmd, error, message);
    else
        conn->issuing = cmd;
    return NBD_STEP_AGAIN;
}

/** A piece for the next bytes of the WRITE; NULL when memory is short. */
static struct nbd_piece *new_piece(struct nbd_command *cmd)
{
    /* A client may well not read replies before its WRITE is taken. */
    bool urgent = cmd->nr_pieces == 0;
    uint64_t offset = cmd->offset + cmd->issued;
    struct nbd_piece *piece = nbd_command_piece(cmd, urgent);

    if (!piece)
        return NULL;
    piece->offset = offset;
    piece->length =
        client_io_buffer(&piece->io, offset, cmd->length - cmd->issued, urgent);
    if (!piece->length) {
        nbd_command_drop_piece(piece);
        return NULL;
    }
    return piece;
}

enum nbd_step nbd_on_payload(struct nbd_conn *conn)
{
    struct nbd_command *cmd = conn->incoming;
    struct nbd_piece *piece = cmd->filling;
    uint32_t take;

    if (!piece) {
        piece = cmd->filling = new_piece(cmd);
        if (!piece) {
            nbd_conn_stall(conn);
            return NBD_STEP_WAIT;
        }
    }
    take = piece->length - piece->filled;
    if (take > nbd_conn_buffered(conn))
        take = nbd_conn_buffered(conn);
    memcpy(piece->io.buffer + piece->filled, conn->in + conn->in_pos, take);
    conn->in_pos += take;
    piece->filled += take;
    if (piece->filled < piece->length)
        return NBD_STEP_MORE;

    cmd->filling = NULL;
    cmd->issued += piece->length;
    if (cmd->error)
        nbd_command_drop_piece(piece); /* an earlier piece failed: so does the WRITE */
    else
        nbd_piece_submit(piece, XSEG_OP_WRITE,
                         cmd->flags & NBD_CMD_FLAG_FUA ? XSEG_F_FUA : 0,
                         piece->io.buffer_off, piece->length);
    if (cmd->issued == cmd->length) {
        conn->incoming = NULL;
        conn->state = NBD_CONN_REQUEST;
        nbd_command_issued(cmd);
    }
    return NBD_STEP_AGAIN;
}

enum nbd_step nbd_on_payload_skip(struct nbd_conn *conn)
{
    struct nbd_command *cmd = conn->incoming;

    if (!nbd_conn_skipped(conn))
        return NBD_STEP_MORE;
    conn->incoming = NULL;
    conn->state = NBD_CONN_REQUEST;
    nbd_command_refuse(cmd, cmd->error, cmd->message);
    return NBD_STEP_AGAIN;
}
