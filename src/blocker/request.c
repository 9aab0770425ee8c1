/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks and translation of requests (see request.h).  The table is xseg/payload.h.
 */
#include "blocker/request.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "blocker/object.h"

#define KIND(k)    (1u << (k))
#define DATA_KINDS (KIND(XSEG_OBJ_CONTENT) | KIND(XSEG_OBJ_EXTENT))
#define MAP_KINDS                                                                      \
    (KIND(XSEG_OBJ_LAYER) | KIND(XSEG_OBJ_HEADER) | KIND(XSEG_OBJ_JOURNAL) |           \
     KIND(XSEG_OBJ_LEASE) | KIND(XSEG_OBJ_PRESENCE) | KIND(XSEG_OBJ_CANDIDATES) |      \
     KIND(XSEG_OBJ_GENERATION))
#define ANY_KIND    (DATA_KINDS | MAP_KINDS)
#define NAMED_KINDS (ANY_KIND & ~KIND(XSEG_OBJ_GENERATION))
#define STORE       KIND(XSEG_OBJ_NONE)

/** What an op needs of its request. */
enum need {
    NEED_DATA = 1u << 0,    /* `size` bytes of data, at least one */
    NEED_RANGE = 1u << 1,   /* offset + size inside what a file can address */
    NEED_LEASE = 1u << 2,   /* an inline struct xseg_lease or xseg_presence */
    NEED_ENTRIES = 1u << 3, /* data for at least one list entry */
    NEED_CURSOR = 1u << 8,  /* an inline struct xseg_opaque */
    NEED_SOURCE = 1u << 10, /* an inline struct xseg_object: an extent */
    NEED_TOKEN = 1u << 9,   /* the same, with FORCE */
    NEED_ALIGNED = 1u << 4, /* the backend's alignment, for extents */
    MAY_BE_EMPTY = 1u << 5, /* `size` 0 is an op of its own, without data */
    NEED_STAMPS = 1u << 6,  /* data for all stamps of CHANGES */
};

struct rule {
    uint32_t kinds; /* of object that the op takes */
    uint32_t needs; /* enum need */
    size_t call;    /* offset of the callback in struct blk_backend_ops; 0: none */
};

#define CALL(name) offsetof(struct blk_backend_ops, name)

static const struct rule rules[XSEG_NR_OPS] = {
    [XSEG_OP_READ] = {ANY_KIND, NEED_DATA | NEED_RANGE, CALL(read)},
    [XSEG_OP_WRITE] = {KIND(XSEG_OBJ_EXTENT) | KIND(XSEG_OBJ_LAYER) |
                           KIND(XSEG_OBJ_CANDIDATES),
                       NEED_DATA | NEED_RANGE | NEED_ALIGNED, CALL(write)},
    [XSEG_OP_ZERO] = {KIND(XSEG_OBJ_EXTENT), NEED_RANGE, CALL(zero)},
    [XSEG_OP_DISCARD] = {KIND(XSEG_OBJ_EXTENT), NEED_RANGE, CALL(zero)},
    [XSEG_OP_FLUSH] = {STORE | KIND(XSEG_OBJ_EXTENT) | KIND(XSEG_OBJ_LAYER) |
                           KIND(XSEG_OBJ_JOURNAL) | KIND(XSEG_OBJ_HEADER),
                       0, CALL(flush)},
    [XSEG_OP_CREATE] = {KIND(XSEG_OBJ_CONTENT) | KIND(XSEG_OBJ_HEADER) |
                            KIND(XSEG_OBJ_LAYER) | KIND(XSEG_OBJ_GENERATION),
                        NEED_DATA, CALL(put_if_absent)},
    [XSEG_OP_COPY] = {KIND(XSEG_OBJ_CONTENT), NEED_RANGE | NEED_SOURCE,
                      CALL(put_content_from_extent)},
    [XSEG_OP_UPDATE] = {KIND(XSEG_OBJ_HEADER) | KIND(XSEG_OBJ_GENERATION), NEED_DATA,
                        CALL(replace_if)},
    [XSEG_OP_APPEND] = {KIND(XSEG_OBJ_JOURNAL), NEED_DATA | NEED_RANGE | MAY_BE_EMPTY,
                        CALL(append_if)},
    [XSEG_OP_INFO] = {STORE | ANY_KIND, 0, CALL(stat)},
    [XSEG_OP_LIST] = {NAMED_KINDS, NEED_ENTRIES | NEED_CURSOR, CALL(list)},
    [XSEG_OP_CHANGES] = {KIND(XSEG_OBJ_HEADER), NEED_STAMPS, CALL(changes)},
    [XSEG_OP_DELETE] = {NAMED_KINDS, 0, CALL(remove)},
    [XSEG_OP_ACQUIRE] = {KIND(XSEG_OBJ_LEASE) | KIND(XSEG_OBJ_PRESENCE), NEED_LEASE,
                         CALL(lease_acquire)},
    [XSEG_OP_RELEASE] = {KIND(XSEG_OBJ_LEASE) | KIND(XSEG_OBJ_PRESENCE), NEED_LEASE,
                         CALL(lease_release)},
    [XSEG_OP_NOTIFY] = {KIND(XSEG_OBJ_LEASE), 0, 0}, /* lease_watch.c */
};

static const struct rule release_extent = {KIND(XSEG_OBJ_EXTENT), NEED_TOKEN,
                                           CALL(extent_release)};

static request_call_fn call_of(const struct blk_backend_ops *ops, size_t offset)
{
    request_call_fn call;
    memcpy(&call, (const char *)ops + offset, sizeof call);
    return call;
}

/** One read of a shared field, so that the checked value is the used value. */
#define LOAD(field) (*(const volatile __typeof__(field) *)&(field))

/** How much of its data an op fills for each unit of its result [bytes]; 0: none, it
 *  stores the data. */
static uint32_t fill_unit(uint32_t op)
{
    switch (op) {
    case XSEG_OP_WRITE:
    case XSEG_OP_CREATE:
    case XSEG_OP_UPDATE:
    case XSEG_OP_APPEND:
        return 0;
    case XSEG_OP_READ:
        return 1;
    case XSEG_OP_LIST:
        return sizeof(struct xseg_list_entry);
    default:
        return sizeof(uint64_t); /* an array of numbers */
    }
}

static int decode_data(struct xseg_segment *seg, const struct xseg_request *rq,
                       struct blk_io *io)
{
    uint64_t off = LOAD(rq->data_off), len = LOAD(rq->data_len);

    if (io->size == 0 || io->size > len || off == 0)
        return -EINVAL;
    io->data = xseg_heap_ptr(seg, off, io->size);
    return io->data ? 0 : -EINVAL;
}

static int decode_presence(const struct xseg_request *rq, struct blk_io *io)
{
    memcpy(&io->presence, rq->inline_data, sizeof io->presence);
    if (memchr(io->presence.host, '\0', sizeof io->presence.host) == NULL ||
        io->presence.process.reserved != 0)
        return -EINVAL;
    return 0;
}

static int decode_lease(const struct xseg_request *rq, struct blk_io *io)
{
    if (io->object.kind == XSEG_OBJ_PRESENCE)
        return decode_presence(rq, io);
    memcpy(&io->lease, rq->inline_data, sizeof io->lease);
    return memchr(io->lease.host, '\0', sizeof io->lease.host) == NULL ? -EINVAL : 0;
}

static int decode_opaque(const struct xseg_request *rq, uint32_t max,
                         struct xseg_opaque *out)
{
    memcpy(out, rq->inline_data, sizeof *out);
    return out->length > max || out->reserved != 0 ? -EINVAL : 0;
}

static int decode_source(const struct xseg_request *rq, struct blk_io *io)
{
    memcpy(&io->source, rq->inline_data, sizeof io->source);
    bool extent = io->source.kind == XSEG_OBJ_EXTENT && blk_object_valid(&io->source);
    return extent && io->size <= XSEG_BLOCK_MAX_BYTES ? 0 : -EINVAL;
}

/** The ids that LIST is asked for, by their first bytes. */
static int decode_first_bytes(const struct xseg_request *rq, struct blk_io *io)
{
    bool by_digest =
        io->object.kind == XSEG_OBJ_HEADER || io->object.kind == XSEG_OBJ_CONTENT;
    uint64_t first = LOAD(rq->arg[0]), end = LOAD(rq->arg[1]);

    if (!by_digest && (first != 0 || end != 0))
        return -EINVAL;
    if (end == 0)
        end = XSEG_NR_STAMPS;
    if (first >= end || end > XSEG_NR_STAMPS)
        return -EINVAL;
    io->first_byte = (uint32_t)first;
    io->end_byte = (uint32_t)end;
    return 0;
}

int request_decode(struct xseg_segment *seg, uint32_t port, uint32_t align,
                   const struct blk_backend_ops *ops, uint32_t op,
                   const struct xseg_request *rq, struct blk_io *io,
                   request_call_fn *call)
{
    uint32_t kinds = STORE | (port == XSEG_PORT_BLOCKERB ? DATA_KINDS : MAP_KINDS);
    uint32_t needs;
    int rc = 0;

    *call = NULL;
    if (op == XSEG_OP_PING)
        return 0;
    if (op >= XSEG_NR_OPS)
        return -EINVAL;
    const struct rule *rule = &rules[op];
    if (rule->kinds == 0)
        return -EOPNOTSUPP;

    memcpy(&io->object, &rq->object, sizeof io->object);
    if (op == XSEG_OP_RELEASE && io->object.kind == XSEG_OBJ_EXTENT)
        rule = &release_extent;
    io->flags = LOAD(rq->flags);
    io->offset = LOAD(rq->offset);
    io->size = LOAD(rq->size);
    io->data = NULL;
    bool versioned = op == XSEG_OP_UPDATE ||
                     (op == XSEG_OP_DELETE && io->object.kind == XSEG_OBJ_HEADER);
    io->version = versioned ? LOAD(rq->arg[0]) : 0;
    io->fence = op == XSEG_OP_APPEND ? LOAD(rq->arg[0]) : 0;
    bool generation =
        (op == XSEG_OP_CREATE || op == XSEG_OP_COPY || op == XSEG_OP_DELETE) &&
        blk_object_has_generation(&io->object);
    io->generation = generation ? LOAD(rq->arg[0]) : 0;
    io->result = 0;
    io->lost = false;
    io->fill_unit = fill_unit(op);
    io->abandoned = false;
    io->nr_lent = 0;
    io->lent = NULL;

    if (!blk_object_valid(&io->object) ||
        (rule->kinds & kinds & KIND(io->object.kind)) == 0)
        return -EINVAL;
    needs = rule->needs;
    if (io->size == 0 && (needs & MAY_BE_EMPTY))
        needs &= ~(uint32_t)(NEED_DATA | NEED_RANGE);
    if ((needs & NEED_RANGE) && (io->size == 0 || io->offset > (uint64_t)INT64_MAX ||
                                 io->size > (uint64_t)INT64_MAX - io->offset))
        return -EINVAL;
    if ((needs & NEED_ALIGNED) && io->object.kind == XSEG_OBJ_EXTENT &&
        ((io->offset | io->size) & (align - 1)) != 0)
        return -EINVAL;
    if (needs & NEED_ENTRIES) {
        if (io->size == 0)
            io->size = LOAD(rq->data_len);
        if (io->size < sizeof(struct xseg_list_entry))
            return -EINVAL;
    }
    if (needs & NEED_STAMPS)
        io->size = XSEG_NR_STAMPS * sizeof(uint64_t);
    if (needs & (NEED_DATA | NEED_ENTRIES | NEED_STAMPS))
        rc = decode_data(seg, rq, io);
    else if (needs & NEED_LEASE)
        rc = decode_lease(rq, io);
    if (rc == 0 && (needs & NEED_CURSOR))
        rc = decode_opaque(rq, XSEG_CURSOR_MAX, &io->cursor);
    if (rc == 0 && (needs & NEED_CURSOR))
        rc = decode_first_bytes(rq, io);
    memset(&io->source, 0, sizeof io->source);
    if (rc == 0 && (needs & NEED_SOURCE))
        rc = decode_source(rq, io);
    memset(&io->token, 0, sizeof io->token);
    if (rc == 0 && (needs & NEED_TOKEN) && (io->flags & XSEG_F_FORCE))
        rc = decode_opaque(rq, XSEG_OPAQUE_MAX, &io->token);
    if (rc == 0 && rule->call != 0)
        *call = call_of(ops, rule->call);
    return rc;
}

static_assert(sizeof(struct xseg_object_info) <= XSEG_INLINE_BYTES, "info fits inline");
static_assert(sizeof(struct xseg_lease) <= XSEG_INLINE_BYTES, "lease fits inline");
static_assert(sizeof(struct xseg_presence) <= XSEG_INLINE_BYTES, "presence fits");

void request_encode(struct xseg_request *rq, uint32_t op, const struct blk_io *io)
{
    switch (op) {
    case XSEG_OP_INFO:
        if (io->result >= 0)
            memcpy(rq->inline_data, &io->info, sizeof io->info);
        break;
    case XSEG_OP_ACQUIRE:
    case XSEG_OP_RELEASE:
        if (io->object.kind == XSEG_OBJ_LEASE)
            memcpy(rq->inline_data, &io->lease, sizeof io->lease);
        else if (io->object.kind == XSEG_OBJ_PRESENCE)
            memcpy(rq->inline_data, &io->presence, sizeof io->presence);
        break;
    case XSEG_OP_FLUSH:
        rq->arg[0] = io->result < 0 && io->lost;
        break;
    case XSEG_OP_LIST:
        if (io->result >= 0)
            memcpy(rq->inline_data, &io->cursor, sizeof io->cursor);
        break;
    default:
        break;
    }
}
