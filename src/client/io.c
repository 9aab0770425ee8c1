/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of a volume: their descriptors and buffers, their way to vlmcd and back.
 *
 * Called by the owner of a volume, and by the reactor with vlmcd's replies.  Invariants:
 * client->used_bytes is the sum of the volumes' used_bytes, nr_requests of their
 * nr_requests.  A request keeps its own copy of what it asks: the descriptor is shared
 * memory, and vlmcd may have died while it wrote there.
 */
#include <string.h>

#include "client/volume.h"

static uint64_t clamp_u64(uint64_t value, uint64_t low, uint64_t high)
{
    if (value > high)
        value = high;
    return value < low ? low : value;
}

static uint32_t sharers(const struct client *client)
{
    return client->nr_sharers ? client->nr_sharers : 1;
}

/* ---- descriptors ------------------------------------------------------------------- */

static bool request_allowed(const struct client_volume *v)
{
    const struct client *client = v->client;
    uint64_t share =
        clamp_u64(client->max_requests / sharers(client), 2, CLIENT_MAX_REQUESTS);

    return v->nr_requests < 2 ||
           (v->nr_requests < share && client->nr_requests < client->max_requests);
}

bool client_io_again(struct client_io *io, bool urgent)
{
    struct client_volume *v = io->volume;

    if (!urgent && !request_allowed(v))
        return false;
    if (xseg_request_alloc(v->client->port, &io->rq))
        return false;
    v->nr_requests++;
    v->client->nr_requests++;
    return true;
}

bool client_io_begin(struct client_io *io, struct client_volume *v, bool urgent)
{
    io->volume = v;
    list_init(&io->link);
    return client_io_again(io, urgent);
}

static void io_put_request(struct client_io *io)
{
    struct client_volume *v = io->volume;

    if (!io->rq)
        return;
    xseg_request_free(v->client->port, io->rq);
    io->rq = NULL;
    v->nr_requests--;
    v->client->nr_requests--;
}

/* ---- buffers ----------------------------------------------------------------------- */

/** The volume may hold `size` bytes more. */
static bool bytes_allowed(const struct client_volume *v, uint64_t size)
{
    const struct client *client = v->client;
    uint64_t after = v->used_bytes + size;

    if (after <= client->min_piece_bytes)
        return true;
    return after <= clamp_u64(client->budget_bytes / sharers(client),
                              client->min_piece_bytes, client->max_share_bytes) &&
           client->used_bytes + size <= client->budget_bytes;
}

/** `size`, or less so that it ends at a sector's border. */
static uint32_t end_at_sector(uint64_t offset, uint32_t want, uint32_t size)
{
    uint32_t inside = (uint32_t)(offset & (XSEG_SECTOR_BYTES - 1));

    if (want <= size)
        return want;
    return size - inside;
}

static bool take_buffer(struct client_io *io, uint32_t size)
{
    struct client_volume *v = io->volume;
    int64_t got = xseg_buffer_alloc(v->client->segment, size, &io->buffer_off);

    if (got < 0) {
        io->buffer_off = 0;
        return false;
    }
    io->capacity = (uint32_t)got;
    io->buffer = xseg_heap_ptr(v->client->segment, io->buffer_off, size);
    v->used_bytes += io->capacity;
    v->client->used_bytes += io->capacity;
    return true;
}

/** The largest power of two below `size`. */
static uint32_t next_smaller(uint32_t size)
{
    return 1u << (31 - __builtin_clz(size - 1));
}

uint32_t client_io_buffer(struct client_io *io, uint64_t offset, uint32_t want,
                          bool urgent)
{
    uint32_t least = io->volume->client->min_piece_bytes;
    uint32_t size = want < CLIENT_PIECE_BYTES ? want : CLIENT_PIECE_BYTES;
    uint32_t length;

    /* A class that is used up need not mean that smaller ones are. */
    for (;;) {
        length = end_at_sector(offset, want, size);
        if (bytes_allowed(io->volume, length) && take_buffer(io, length))
            return length;
        if (size <= least)
            break;
        size = next_smaller(size);
        if (size < least)
            size = least;
    }
    return urgent && take_buffer(io, length) ? length : 0;
}

void client_io_end(struct client_io *io)
{
    struct client_volume *v = io->volume;

    io_put_request(io);
    if (io->buffer_off) {
        xseg_buffer_free(v->client->segment, io->buffer_off);
        io->buffer_off = 0;
        v->used_bytes -= io->capacity;
        v->client->used_bytes -= io->capacity;
    }
    client_wake(v->client);
}

/* ---- to vlmcd and back ------------------------------------------------------------- */

static void io_answered(void *arg, struct xseg_request *rq);

/** Requests are served, now or when the volume is open again. */
static bool may_come_back(const struct client_volume *v)
{
    return v->state >= CLIENT_VOLUME_OPEN && v->state < CLIENT_VOLUME_LOST;
}

static void io_send(struct client_io *io)
{
    struct client *client = io->volume->client;
    struct xseg_request *rq = io->rq;
    bool usable = may_come_back(io->volume);

    /* Of a lost volume nothing is asked: a PING ends the request like any other.  Its
     * handle may even be that of another volume of the same name. */
    io->handle = usable ? io->volume->handle : 0;
    rq->op = usable ? io->op : XSEG_OP_PING;
    rq->flags = io->flags;
    rq->handle = io->handle;
    rq->offset = io->offset;
    rq->size = io->length;
    rq->data_off = io->data_off;
    rq->data_len = io->data_len;
    reactor_submit(client->reactor, client->port, rq, XSEG_PORT_VLMCD, io_answered, io);
}

static bool io_changes(const struct client_io *io)
{
    return io->op == XSEG_OP_WRITE || io->op == XSEG_OP_ZERO ||
           io->op == XSEG_OP_DISCARD;
}

/** Keep count of what is durable; returns what the owner is told. */
static int64_t io_account(struct client_io *io, int64_t result)
{
    struct client_volume *v = io->volume;
    bool whole = io_changes(io) || io->op == XSEG_OP_READ;

    if (result < 0)
        return result;
    if (whole && result != (int64_t)io->length)
        return -EIO;
    if (io_changes(io) && !(io->flags & XSEG_F_FUA))
        v->nr_changes++;
    if (io->op != XSEG_OP_FLUSH)
        return result;
    if (io->changes > v->nr_flushed)
        v->nr_flushed = io->changes;
    if (v->doubtful) {
        v->doubtful = false;
        return -EIO;
    }
    return result;
}

static void io_end(struct client_io *io, int64_t result)
{
    struct client_volume *v = io->volume;

    io_put_request(io);
    result = io_account(io, result);
    io->done(io, result); /* may free it, or submit it again */
    v->nr_submitted--;
    client_volume_settle(v);
}

/** Not served, and may be: it waits until the volume is open again. */
static void io_unserved(struct client_io *io, int64_t result)
{
    struct client_volume *v = io->volume;
    /* A late answer to the handle of before says nothing of the present one. */
    bool late = result == -ESTALE && io->handle != v->handle;

    list_push_back(&v->unserved, &io->link);
    if (late && v->state == CLIENT_VOLUME_OPEN)
        client_io_send_unserved(v);
    else if (!late)
        client_volume_unserved(v, result);
}

static void io_answered(void *arg, struct xseg_request *rq)
{
    struct client_io *io = arg;
    struct client_volume *v = io->volume;
    int64_t result = rq->result;
    bool away = client_is_away(result);

    if (!io->handle)
        result = v->error ? v->error : -ECANCELED;
    else if ((away || result == -ESTALE) && may_come_back(v)) {
        io_unserved(io, result);
        return;
    }
    if (!away)
        v->away_ns = 0;
    io_end(io, result);
}

void client_io_send_unserved(struct client_volume *v)
{
    struct list *link;

    while ((link = list_pop_front(&v->unserved)))
        io_send(LIST_ENTRY(link, struct client_io, link));
}

void client_io_fail_unserved(struct client_volume *v, int64_t error)
{
    struct list *link;

    v->nr_submitted++; /* what ends here does not close it before all has ended */
    while ((link = list_pop_front(&v->unserved)))
        io_end(LIST_ENTRY(link, struct client_io, link), error);
    v->nr_submitted--;
    client_volume_settle(v);
}

void client_io_submit(struct client_io *io, uint32_t op, uint32_t flags)
{
    struct client_volume *v = io->volume;

    io->op = op;
    io->flags = flags;
    io->changes = v->nr_changes;
    v->nr_submitted++;
    if (v->state == CLIENT_VOLUME_CHECKING || v->state == CLIENT_VOLUME_REOPENING)
        list_push_back(&v->unserved, &io->link);
    else
        io_send(io);
}
