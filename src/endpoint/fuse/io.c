/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on an open volume: OPEN, READ, WRITE, FSYNC, FALLOCATE, LSEEK.
 *
 * READ and WRITE go on in pieces when memory is short, one after another, and are answered
 * once, whole: the kernel takes a short READ for the end of the file.  A large WRITE is
 * lent to vlmcd where it was read; a small one is copied, so that the input buffer is
 * free for the next.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "endpoint/fuse/file.h"

/* Up to that size a copy costs less than an input buffer that is not free [bytes]. */
#define COPY_MOST_BYTES (64u << 10)
/* Runs asked for at once by LSEEK. */
#define SEEK_RUNS_BYTES 4096u

static void io_go_on(struct fuse_request *rq);

static void io_waited(struct client_waiter *self)
{
    io_go_on(LIST_ENTRY(self, struct fuse_request, waiter));
}

static void io_wait(struct fuse_request *rq)
{
    client_io_end(&rq->io);
    rq->waiter.resume = io_waited;
    client_wait(&rq->conn->peer->client, &rq->waiter);
}

/* ---- READ -------------------------------------------------------------------------- */

static void read_answered(struct client_io *io, int64_t result)
{
    struct fuse_request *rq = LIST_ENTRY(io, struct fuse_request, io);

    if (result < 0) {
        fuse_conn_reply_error(rq, result);
        return;
    }
    if (!rq->bounce && rq->moved == 0 && io->length == rq->size) {
        fuse_conn_reply(rq, io->buffer, rq->size);
        return;
    }
    memcpy(rq->bounce + rq->moved, io->buffer, io->length);
    rq->moved += (uint32_t)io->length;
    client_io_end(io);
    if (rq->moved == rq->size)
        fuse_conn_reply(rq, rq->bounce, rq->size);
    else
        io_go_on(rq);
}

static void read_piece(struct fuse_request *rq)
{
    struct client_volume *volume = &rq->file->use[rq->mode].volume;
    uint32_t want = rq->size - rq->moved;
    uint32_t got;

    if (!client_io_begin(&rq->io, volume, false)) {
        io_wait(rq);
        return;
    }
    got = client_io_buffer(&rq->io, rq->offset + rq->moved, want, false);
    if (got && got < rq->size && !rq->bounce) {
        rq->bounce = malloc(rq->size);
        if (!rq->bounce) {
            fuse_conn_reply_error(rq, -ENOMEM);
            return;
        }
    }
    if (!got) {
        io_wait(rq);
        return;
    }
    rq->io.offset = rq->offset + rq->moved;
    rq->io.length = got;
    rq->io.data_off = rq->io.buffer_off;
    rq->io.data_len = got;
    rq->io.done = read_answered;
    client_io_submit(&rq->io, XSEG_OP_READ, 0);
}

/* ---- WRITE ------------------------------------------------------------------------- */

static void write_answered(struct client_io *io, int64_t result)
{
    struct fuse_request *rq = LIST_ENTRY(io, struct fuse_request, io);
    struct fuse_write_out out = {.size = rq->size};

    if (result < 0)
        fuse_conn_reply_error(rq, result);
    else
        fuse_conn_reply(rq, &out, sizeof(out));
}

static void write_whole(struct fuse_request *rq)
{
    struct client_volume *volume = &rq->file->use[rq->mode].volume;

    if (!client_io_begin(&rq->io, volume, false)) {
        io_wait(rq);
        return;
    }
    rq->io.offset = rq->offset;
    rq->io.length = rq->size;
    rq->io.data_off = rq->input->off;
    rq->io.data_len = rq->size;
    if (rq->size <= COPY_MOST_BYTES &&
        client_io_buffer(&rq->io, rq->offset, rq->size, false) == rq->size) {
        memcpy(rq->io.buffer, rq->input->data, rq->size);
        rq->io.data_off = rq->io.buffer_off;
        fuse_conn_free_input(rq);
    }
    rq->io.done = write_answered;
    client_io_submit(&rq->io, XSEG_OP_WRITE, 0);
}

/* ---- FSYNC, FALLOCATE -------------------------------------------------------------- */

static void plain_answered(struct client_io *io, int64_t result)
{
    struct fuse_request *rq = LIST_ENTRY(io, struct fuse_request, io);

    fuse_conn_reply_error(rq, result < 0 ? result : 0);
}

static void plain_request(struct fuse_request *rq)
{
    struct client_volume *volume = &rq->file->use[rq->mode].volume;

    if (!client_io_begin(&rq->io, volume, true)) {
        io_wait(rq);
        return;
    }
    rq->io.offset = rq->offset;
    rq->io.length = rq->length;
    rq->io.done = plain_answered;
    client_io_submit(&rq->io, rq->op, 0);
}

/* ---- LSEEK ------------------------------------------------------------------------- */

/** Where the wanted kind of run begins, or how far the answer looked. */
static bool seek_scan(struct fuse_request *rq, int64_t nr_runs)
{
    const struct xseg_run *runs = (const struct xseg_run *)(void *)rq->io.buffer;

    for (int64_t i = 0; i < nr_runs; i++) {
        struct xseg_run run = runs[i];
        bool data = run.kind != XSEG_REF_ZERO;
        if (run.size == 0 || run.offset > rq->offset || run.size > INT64_MAX)
            continue; /* from another process: skip what makes no sense */
        if (run.offset + run.size <= rq->offset)
            continue;
        if (data == (rq->whence == SEEK_DATA))
            return true;
        rq->offset = run.offset + run.size;
    }
    return false;
}

static void seek_answered(struct client_io *io, int64_t result)
{
    struct fuse_request *rq = LIST_ENTRY(io, struct fuse_request, io);
    struct fuse_lseek_out out;
    uint64_t before = rq->offset;
    bool found;

    if (result < 0 || result > (int64_t)(SEEK_RUNS_BYTES / sizeof(struct xseg_run))) {
        fuse_conn_reply_error(rq, result < 0 ? result : -EIO);
        return;
    }
    found = seek_scan(rq, result);
    if (rq->offset >= rq->file->size_bytes) {
        rq->offset = rq->file->size_bytes;
        if (rq->whence == SEEK_DATA) {
            fuse_conn_reply_error(rq, -ENXIO);
            return;
        }
        found = true; /* the end of a file is a hole */
    }
    if (found) {
        out.offset = rq->offset;
        fuse_conn_reply(rq, &out, sizeof(out));
    } else if (rq->offset == before) {
        fuse_conn_reply_error(rq, -EIO); /* an answer that leads nowhere */
    } else {
        client_io_end(io);
        io_go_on(rq);
    }
}

static void seek_piece(struct fuse_request *rq)
{
    struct client_volume *volume = &rq->file->use[rq->mode].volume;
    uint64_t aligned = rq->offset & ~(uint64_t)(XSEG_SECTOR_BYTES - 1);

    if (!client_io_begin(&rq->io, volume, true) ||
        client_io_buffer(&rq->io, 0, SEEK_RUNS_BYTES, true) < SEEK_RUNS_BYTES) {
        io_wait(rq);
        return;
    }
    rq->io.offset = aligned;
    rq->io.length = rq->file->size_bytes - aligned;
    rq->io.data_off = rq->io.buffer_off;
    rq->io.data_len = SEEK_RUNS_BYTES;
    rq->io.done = seek_answered;
    client_io_submit(&rq->io, XSEG_OP_MAPR, 0);
}

/* ---- all of them ------------------------------------------------------------------- */

static void io_go_on(struct fuse_request *rq)
{
    switch (rq->opcode) {
    case FUSE_READ:
        read_piece(rq);
        break;
    case FUSE_WRITE:
        write_whole(rq);
        break;
    case FUSE_LSEEK:
        seek_piece(rq);
        break;
    default:
        plain_request(rq);
        break;
    }
}

static void open_reply(struct fuse_request *rq)
{
    struct fuse_file *file = rq->file;
    struct fuse_node *node = file->node;
    struct fuse_open_out out = {
        .fh = rq->mode,
        .open_flags = FOPEN_DIRECT_IO | FUSE_PROTO_PARALLEL_WRITES,
    };

    if (rq->mode == FUSE_USE_WRITE && file->use[FUSE_USE_WRITE].volume.snapshot) {
        fuse_conn_reply_error(rq, -EROFS); /* root may open what its mode forbids */
        return;
    }
    if (fuse_conn_count(rq)) {
        if (rq->mode == FUSE_USE_WRITE)
            node->writers++;
        else
            node->readers++;
    }
    fuse_conn_reply(rq, &out, sizeof(out));
}

void fuse_io_go(struct fuse_request *rq)
{
    uint64_t end = rq->file->size_bytes;

    switch (rq->opcode) {
    case FUSE_OPEN:
        open_reply(rq);
        return;
    case FUSE_READ:
        if (rq->offset >= end || rq->size == 0) {
            fuse_conn_reply(rq, NULL, 0);
            return;
        }
        if (rq->size > end - rq->offset)
            rq->size = (uint32_t)(end - rq->offset);
        break;
    case FUSE_WRITE:
        /* As a block device: what does not fit is not written. */
        if (rq->offset >= end || rq->size == 0) {
            fuse_conn_reply_error(rq, -ENOSPC);
            return;
        }
        if (rq->size > end - rq->offset)
            rq->size = (uint32_t)(end - rq->offset);
        break;
    case FUSE_LSEEK:
        if (rq->offset >= end) {
            fuse_conn_reply_error(rq, -ENXIO);
            return;
        }
        break;
    case FUSE_FALLOCATE:
        if (rq->offset > end || rq->length > end - rq->offset) {
            fuse_conn_reply_error(rq, -ENOSPC);
            return;
        }
        break;
    default:
        break;
    }
    io_go_on(rq);
}
