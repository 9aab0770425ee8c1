/* SPDX-License-Identifier: Apache-2.0 */
/*
 * READ: pieces out to vlmcd, data out to the client (and CACHE, whose data goes
 * nowhere).
 *
 * Called by command.c.  A piece keeps its segment buffer until its bytes are in
 * the socket: they are never copied.  Invariants: a command that is its connection's
 * stream has its head queued and its last part not; at most one is at a time.
 */
#include "endpoint/nbd/command.h"

/* Pieces of one command that hold memory at once: enough to keep vlmcd and the socket
 * both busy. */
#define READ_WINDOW 8u

/* A hint, and one may ask for 4 GiB: no more is warmed than could be read at once. */
static uint32_t length_of(const struct nbd_command *cmd)
{
    if (cmd->type == NBD_CMD_CACHE && cmd->length > NBD_MAX_PAYLOAD_BYTES)
        return NBD_MAX_PAYLOAD_BYTES;
    return cmd->length;
}

bool nbd_read_issue(struct nbd_command *cmd)
{
    uint32_t length = length_of(cmd);

    cmd->ordered = cmd->type == NBD_CMD_READ &&
                   (!cmd->conn->structured || cmd->flags & NBD_CMD_FLAG_DF);
    /* Once the head has promised the bytes, an error no longer ends a DF chunk early.
     */
    while (cmd->issued < length && (!cmd->error || cmd->head_queued)) {
        uint64_t offset = cmd->offset + cmd->issued;
        /* The stream blocks all other replies, and with them their memory. */
        bool urgent = cmd->conn->stream == cmd && cmd->nr_pieces == 0;
        struct nbd_piece *piece;

        if (cmd->nr_pieces >= READ_WINDOW)
            return false;
        piece = nbd_command_piece(cmd, urgent);
        if (!piece)
            return false;
        piece->offset = offset;
        piece->length =
            client_io_buffer(&piece->io, offset, length - cmd->issued, urgent);
        if (!piece->length) {
            nbd_command_drop_piece(piece);
            return false;
        }
        cmd->issued += piece->length;
        if (cmd->ordered)
            list_push_back(&cmd->pieces, &piece->link);
        nbd_piece_submit(piece, XSEG_OP_READ, 0, piece->io.buffer_off, piece->length);
    }
    nbd_command_issued(cmd);
    return true;
}

static void piece_sent(struct nbd_out *self)
{
    struct nbd_piece *piece = LIST_ENTRY(self, struct nbd_piece, out);

    if (piece->last)
        nbd_command_answered(piece->cmd);
    nbd_command_drop_piece(piece);
}

static void attach_data(struct nbd_piece *piece)
{
    piece->out.done = piece_sent;
    piece->out.data = piece->io.buffer;
    piece->out.data_len = piece->length;
    piece->out.head_len = 0;
}

/* ---- chunks in any order
 * ------------------------------------------------------------- */

/** True for zeros; ends at the first other byte, which in data comes early. */
static bool all_zeros(const uint8_t *data, uint32_t length)
{
    if (length < 512 || nbd_get64(data) != 0)
        return false;
    return memcmp(data, data + 8, length - 8) == 0;
}

static void send_chunk(struct nbd_piece *piece)
{
    struct nbd_command *cmd = piece->cmd;
    struct nbd_out *out = &piece->out;
    uint16_t flags = 0;

    if (cmd->issued_all && !cmd->in_flight && !cmd->error) {
        flags = NBD_REPLY_FLAG_DONE;
        piece->last = true;
        cmd->last_queued = true;
    }
    attach_data(piece);
    if (all_zeros(piece->io.buffer, piece->length)) {
        /* Comparing is cheaper than sending. */
        nbd_put_chunk(out->head, cmd, flags, NBD_REPLY_TYPE_OFFSET_HOLE, 12);
        nbd_put32(out->head + NBD_CHUNK_HEAD_BYTES + 8, piece->length);
        out->head_len = NBD_CHUNK_HEAD_BYTES + 12;
        out->data_len = 0;
    } else {
        nbd_put_chunk(out->head, cmd, flags, NBD_REPLY_TYPE_OFFSET_DATA,
                      8 + piece->length);
        out->head_len = NBD_CHUNK_HEAD_BYTES + 8;
    }
    nbd_put64(out->head + NBD_CHUNK_HEAD_BYTES, piece->offset);
    nbd_reply_queue(cmd->conn, out);
}

/* ---- one uninterrupted run
 * ------------------------------------------------------------ */

/** The head of the whole reply, in front of its first piece. */
static void put_head(struct nbd_command *cmd, struct nbd_piece *piece, uint16_t flags)
{
    struct nbd_out *out = &piece->out;

    if (cmd->conn->structured) {
        nbd_put_chunk(out->head, cmd, flags, NBD_REPLY_TYPE_OFFSET_DATA,
                      8 + cmd->length);
        nbd_put64(out->head + NBD_CHUNK_HEAD_BYTES, cmd->offset);
        out->head_len = NBD_CHUNK_HEAD_BYTES + 8;
    } else {
        nbd_put32(out->head, NBD_SIMPLE_REPLY_MAGIC);
        nbd_put32(out->head + 4, NBD_OK);
        nbd_put64(out->head + 8, cmd->cookie);
        out->head_len = NBD_SIMPLE_REPLY_BYTES;
    }
    cmd->head_queued = true;
}

/** The one piece is the whole reply. */
static void send_whole(struct nbd_piece *piece)
{
    list_remove(&piece->link);
    attach_data(piece);
    put_head(piece->cmd, piece, NBD_REPLY_FLAG_DONE);
    piece->last = true;
    piece->cmd->last_queued = true;
    nbd_reply_queue(piece->cmd->conn, &piece->out);
}

/** Queue the parts that are ready, in order.  True when the last one is queued. */
static bool stream_parts(struct nbd_command *cmd)
{
    struct nbd_conn *conn = cmd->conn;

    while (!list_empty(&cmd->pieces)) {
        struct nbd_piece *piece = LIST_ENTRY(cmd->pieces.next, struct nbd_piece, link);
        if (!piece->done)
            return false;
        list_remove(&piece->link);
        attach_data(piece);
        if (!cmd->head_queued) {
            conn->stream = cmd;
            put_head(cmd, piece, 0);
        }
        cmd->last_queued = cmd->issued_all && list_empty(&cmd->pieces);
        /* A chunk is not final while a part of it could still fail: NONE or an error
         * follows it.  A simple reply ends with its data. */
        piece->last = cmd->last_queued && !conn->structured;
        nbd_reply_queue_stream(conn, &piece->out);
    }
    if (cmd->last_queued && conn->structured)
        nbd_command_reply(cmd);
    return cmd->last_queued;
}

/** Go on with this command's stream, or wait for the one that is on. */
static void stream(struct nbd_command *cmd)
{
    struct nbd_conn *conn = cmd->conn;
    struct list *link;

    if (conn->stream && conn->stream != cmd) {
        list_remove(&cmd->wait_link);
        list_push_back(&conn->streams_waiting, &cmd->wait_link);
        return;
    }
    while (stream_parts(cmd)) {
        nbd_reply_end_stream(conn);
        link = list_pop_front(&conn->streams_waiting);
        if (!link)
            return;
        cmd = LIST_ENTRY(link, struct nbd_command, wait_link);
    }
}

/* ---- what vlmcd answered
 * --------------------------------------------------------------- */

static void ordered_arrived(struct nbd_piece *piece, bool failed)
{
    struct nbd_command *cmd = piece->cmd;
    struct nbd_conn *conn = cmd->conn;

    if (cmd->error && !cmd->head_queued) {
        nbd_command_drop_piece(piece); /* the reply will be the error alone */
        return;
    }
    if (failed && !conn->structured) {
        /* Success was promised: the protocol's way out is to disconnect. */
        nbd_conn_close(conn);
        nbd_command_drop_piece(piece);
        return;
    }
    if (failed)
        memset(piece->io.buffer, 0, piece->length);
    piece->done = true;
    if (piece->length == cmd->length)
        send_whole(piece);
    else
        stream(cmd);
}

void nbd_read_arrived(struct nbd_piece *piece, bool failed)
{
    if (piece->cmd->ordered)
        ordered_arrived(piece, failed);
    else if (failed)
        nbd_command_drop_piece(piece);
    else
        send_chunk(piece);
}

void nbd_read_finish(struct nbd_command *cmd)
{
    if (!cmd->error || cmd->head_queued || cmd->last_queued)
        return; /* its data is on the way out, and ends it */
    list_remove(&cmd->wait_link);
    while (!list_empty(&cmd->pieces))
        nbd_command_drop_piece(LIST_ENTRY(cmd->pieces.next, struct nbd_piece, link));
    cmd->last_queued = true;
    nbd_command_reply(cmd);
}
