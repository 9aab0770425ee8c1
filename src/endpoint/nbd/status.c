/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BLOCK_STATUS: which ranges are holes, as the context base:allocation.
 *
 * Called by command.c.  One piece carries one buffer through as many MAPR requests
 * as the range takes: descriptors grow at its front, in wire form, and vlmcd puts runs
 * behind them.  An answer may end before the range does, so a very fragmented range
 * is answered in part.
 *
 *   buffer  descriptors 8192 (1024 of length 4, flags 4) | struct xseg_run 57344
 */
#include "endpoint/nbd/command.h"

#define DESCRIPTOR_BYTES 8u
#define MAX_EXTENTS      1024u
#define RUNS_OFF         (MAX_EXTENTS * DESCRIPTOR_BYTES)
#define STATUS_BYTES     (64u << 10)
#define MAX_RUNS         ((STATUS_BYTES - RUNS_OFF) / sizeof(struct xseg_run))
/* Range of one MAPR, and how many of them one answer may take. */
#define ASK_BYTES (1u << 30)
#define MAX_ASKS  64u

/** Ask for the runs from cmd->issued on.  Maps are kept in whole sectors. */
static void ask(struct nbd_piece *piece)
{
    struct nbd_command *cmd = piece->cmd;
    uint64_t sector = XSEG_SECTOR_BYTES - 1;
    uint64_t first = (cmd->offset + cmd->issued) & ~sector;
    uint64_t end = (cmd->offset + cmd->length + sector) & ~sector;

    piece->offset = first;
    piece->length = end - first < ASK_BYTES ? (uint32_t)(end - first) : ASK_BYTES;
    cmd->nr_asks++;
    nbd_piece_submit(piece, XSEG_OP_MAPR, 0, piece->io.buffer_off + RUNS_OFF,
                     STATUS_BYTES - RUNS_OFF);
}

bool nbd_status_issue(struct nbd_command *cmd)
{
    struct nbd_piece *piece = nbd_command_piece(cmd, false);

    if (!piece)
        return false;
    if (client_io_buffer(&piece->io, 0, STATUS_BYTES, false) < STATUS_BYTES) {
        nbd_command_drop_piece(piece);
        return false;
    }
    ask(piece);
    return true;
}

/** Add `size` bytes of one state; false when the answer is full. */
static bool add_extent(struct nbd_piece *piece, uint32_t size, uint32_t state)
{
    struct nbd_command *cmd = piece->cmd;
    uint8_t *at = piece->io.buffer + (size_t)cmd->nr_extents * DESCRIPTOR_BYTES;

    if (cmd->nr_extents && nbd_get32(at - 4) == state) {
        nbd_put32(at - 8, nbd_get32(at - 8) + size);
    } else {
        uint32_t most = cmd->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : MAX_EXTENTS;
        if (cmd->nr_extents == most)
            return false;
        nbd_put32(at, size);
        nbd_put32(at + 4, state);
        cmd->nr_extents++;
    }
    cmd->issued += size;
    return true;
}

enum taken { TAKEN_ALL, TAKEN_FULL, TAKEN_BAD };

/** Turn vlmcd's runs into descriptors.  What another peer wrote is checked. */
static enum taken take_runs(struct nbd_piece *piece, uint64_t nr)
{
    struct nbd_command *cmd = piece->cmd;
    uint64_t end = cmd->offset + cmd->length;

    if (nr == 0 || nr > MAX_RUNS)
        return TAKEN_BAD;
    for (uint64_t i = 0; i < nr && cmd->issued < cmd->length; i++) {
        uint64_t from = cmd->offset + cmd->issued;
        struct xseg_run run;
        uint64_t run_end;
        memcpy(&run, piece->io.buffer + RUNS_OFF + i * sizeof(run), sizeof(run));
        if (run.offset > from || run.size > UINT64_MAX - run.offset)
            return TAKEN_BAD;
        run_end = run.offset + run.size;
        if (run_end <= from)
            return TAKEN_BAD;
        if (run_end > end)
            run_end = end;
        /* Zeros take no space here, whether discarded or never written. */
        if (!add_extent(piece, (uint32_t)(run_end - from),
                        run.kind == XSEG_REF_ZERO ? NBD_STATE_HOLE | NBD_STATE_ZERO
                                                  : 0))
            return TAKEN_FULL;
    }
    return TAKEN_ALL;
}

static void status_sent(struct nbd_out *self)
{
    struct nbd_piece *piece = LIST_ENTRY(self, struct nbd_piece, out);

    nbd_command_answered(piece->cmd);
    nbd_command_drop_piece(piece);
}

static void answer(struct nbd_piece *piece)
{
    struct nbd_command *cmd = piece->cmd;
    struct nbd_out *out = &piece->out;

    out->done = status_sent;
    out->data = piece->io.buffer;
    out->data_len = cmd->nr_extents * DESCRIPTOR_BYTES;
    nbd_put_chunk(out->head, cmd, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS,
                  4 + out->data_len);
    nbd_put32(out->head + NBD_CHUNK_HEAD_BYTES, NBD_ALLOCATION_CONTEXT_ID);
    out->head_len = NBD_CHUNK_HEAD_BYTES + 4;
    nbd_reply_queue(cmd->conn, out);
}

void nbd_status_arrived(struct nbd_piece *piece, int64_t result)
{
    struct nbd_command *cmd = piece->cmd;
    enum taken taken = result < 0 ? TAKEN_BAD : take_runs(piece, (uint64_t)result);

    if (taken == TAKEN_BAD) {
        nbd_command_fail(cmd, NBD_EIO, NULL);
        nbd_command_drop_piece(piece);
        nbd_command_reply(cmd);
        return;
    }
    if (taken == TAKEN_ALL && cmd->issued < cmd->length && cmd->nr_asks < MAX_ASKS &&
        client_io_again(&piece->io, false))
        ask(piece);
    else
        answer(piece);
}
