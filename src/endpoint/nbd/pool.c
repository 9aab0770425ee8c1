/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits and free lists of the endpoint's memory (see pool.h).
 *
 * Called by commands and volumes, on the reactor's thread.  Invariants: used_bytes is
 * the sum of the connections' used_bytes, nr_requests of their nr_requests.
 */
#include "endpoint/nbd/pool.h"

#include <stdlib.h>
#include <string.h>

#include "endpoint/nbd/command.h"

/* Records kept for reuse are not limited: there are never more than were in flight at
 * once, and those are limited above. */

static uint64_t clamp_u64(uint64_t value, uint64_t low, uint64_t high)
{
    if (value > high)
        value = high;
    return value < low ? low : value;
}

/** The largest power of two that is not larger; `value` is not 0. */
static uint64_t floor_power(uint64_t value)
{
    return UINT64_C(1) << (63 - __builtin_clzll(value));
}

void nbd_pool_init(struct nbd_pool *pool, struct xseg_port *port, uint32_t max_conns)
{
    struct xseg_segment *seg = xseg_port_segment(port);
    uint64_t heap_bytes = xseg_segment_header(seg)->heap_bytes;

    memset(pool, 0, sizeof(*pool));
    pool->segment = seg;
    pool->port = port;
    pool->budget_bytes = heap_bytes / 2;
    pool->max_share_bytes = heap_bytes / 8;
    pool->min_piece_bytes = (uint32_t)clamp_u64(
        floor_power(heap_bytes / 8 / max_conns + 1), XSEG_BUFFER_MIN_BYTES, 64u << 10);
    pool->max_requests = xseg_segment_header(seg)->nr_requests / 4;
}

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
    if (pool->zero_off)
        xseg_buffer_free(pool->segment, pool->zero_off);
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

static uint32_t sharers(const struct nbd_pool *pool)
{
    return pool->nr_sharers ? pool->nr_sharers : 1;
}

static bool request_allowed(const struct nbd_pool *pool, const struct nbd_conn *conn)
{
    uint64_t share = clamp_u64(pool->max_requests / sharers(pool), 2, NBD_MAX_COMMANDS);

    return conn->nr_requests < 2 ||
           (conn->nr_requests < share && pool->nr_requests < pool->max_requests);
}

bool nbd_pool_request(struct nbd_pool *pool, struct nbd_piece *piece, bool urgent)
{
    if (!urgent && !request_allowed(pool, piece->conn))
        return false;
    if (xseg_request_alloc(pool->port, &piece->rq))
        return false;
    piece->conn->nr_requests++;
    pool->nr_requests++;
    return true;
}

static struct nbd_piece *take_piece(struct nbd_pool *pool)
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
    struct nbd_piece *piece = take_piece(pool);

    if (!piece)
        return NULL;
    list_init(&piece->link);
    list_init(&piece->out.link);
    piece->conn = conn;
    if (!nbd_pool_request(pool, piece, urgent)) {
        nbd_pool_put_piece(pool, piece);
        return NULL;
    }
    return piece;
}

/** The connection may hold `size` bytes more. */
static bool bytes_allowed(const struct nbd_pool *pool, const struct nbd_conn *conn,
                          uint64_t size)
{
    uint64_t after = conn->used_bytes + size;

    if (after <= pool->min_piece_bytes)
        return true;
    return after <= clamp_u64(pool->budget_bytes / sharers(pool), pool->min_piece_bytes,
                              pool->max_share_bytes) &&
           pool->used_bytes + size <= pool->budget_bytes;
}

/** `size`, or less so that the piece ends at a sector border. */
static uint32_t end_at_sector(uint64_t offset, uint32_t want, uint32_t size)
{
    uint32_t inside = (uint32_t)(offset & (XSEG_SECTOR_BYTES - 1));

    if (want <= size)
        return want;
    return size - inside;
}

static bool take_buffer(struct nbd_pool *pool, struct nbd_piece *piece, uint32_t size)
{
    int64_t got = xseg_buffer_alloc(pool->segment, size, &piece->buffer_off);

    if (got < 0) {
        piece->buffer_off = 0;
        return false;
    }
    piece->capacity = (uint32_t)got;
    piece->buffer = xseg_heap_ptr(pool->segment, piece->buffer_off, size);
    piece->conn->used_bytes += piece->capacity;
    pool->used_bytes += piece->capacity;
    return true;
}

uint32_t nbd_pool_buffer(struct nbd_pool *pool, struct nbd_piece *piece,
                         uint64_t offset, uint32_t want, bool urgent)
{
    uint32_t size = want < NBD_PIECE_BYTES ? want : NBD_PIECE_BYTES;

    /* A class that is used up need not mean that smaller ones are. */
    for (;;) {
        uint32_t length = end_at_sector(offset, want, size);
        if (bytes_allowed(pool, piece->conn, length) &&
            take_buffer(pool, piece, length))
            return length;
        if (size <= pool->min_piece_bytes)
            break;
        size = (uint32_t)floor_power(size - 1);
        if (size < pool->min_piece_bytes)
            size = pool->min_piece_bytes;
    }
    if (urgent) {
        uint32_t length = end_at_sector(offset, want, size);
        if (take_buffer(pool, piece, length))
            return length;
    }
    return 0;
}

void nbd_pool_put_request(struct nbd_pool *pool, struct nbd_piece *piece)
{
    if (!piece->rq)
        return;
    xseg_request_free(pool->port, piece->rq);
    piece->rq = NULL;
    piece->conn->nr_requests--;
    pool->nr_requests--;
}

void nbd_pool_put_piece(struct nbd_pool *pool, struct nbd_piece *piece)
{
    nbd_pool_put_request(pool, piece);
    if (piece->buffer_off) {
        xseg_buffer_free(pool->segment, piece->buffer_off);
        piece->conn->used_bytes -= piece->capacity;
        pool->used_bytes -= piece->capacity;
    }
    piece->next_free = pool->free_pieces;
    pool->free_pieces = piece;
}

uint64_t nbd_pool_zeros(struct nbd_pool *pool)
{
    uint64_t off;
    void *zeros;

    if (pool->zero_off)
        return pool->zero_off;
    if (xseg_buffer_alloc(pool->segment, NBD_PIECE_BYTES, &off) < 0)
        return 0;
    zeros = xseg_heap_ptr(pool->segment, off, NBD_PIECE_BYTES);
    memset(zeros, 0, NBD_PIECE_BYTES);
    pool->zero_off = off;
    return off;
}
