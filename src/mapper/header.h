/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header codec: bytes of a HEADER object to and from memory.
 *
 * Called by the native half on OPEN and UPDATE and by the control half through
 * archipelago._header.  Pure functions, any thread.  Nothing is used before it is
 * checked.
 */
#ifndef MAPPER_HEADER_H
#define MAPPER_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "mapper/map_format.h"

/** A name of up to XSEG_NAME_MAX bytes of UTF-8, also NUL terminated. */
struct map_name {
    uint16_t len;
    char bytes[XSEG_NAME_MAX + 1];
};

struct map_header {
    uint64_t version;
    uint64_t fence;
    uint8_t uuid[16];
    uint64_t size_bytes;
    uint64_t epoch;
    uint64_t created_ns;
    uint64_t journal;             /* number of the current one */
    uint64_t journal_least_bytes; /* of it was durable when this was written */
    uint32_t block_bytes;
    uint32_t flags; /* XSEG_VOL_READONLY, XSEG_VOL_TAIL */
    uint32_t nr_entries;
    struct map_entry *entries; /* top first; NULL if there are none */
    struct map_name name, parent, moving_to, moved_from;
};

/**
 * Read a header.
 *
 * @param data  `len` bytes, any alignment.
 * @param out   filled on success; map_header_fini gives its entries back.
 * @param why   out: a static line that says what is wrong, on failure.
 * Returns 0; -EBADMSG for damage or contradiction; -EPROTONOSUPPORT for another format;
 * -ENOMEM.
 */
int map_header_unpack(const void *data, size_t len, struct map_header *out,
                      const char **why);

/** Bytes that map_header_pack will write, at most MAP_HEADER_MAX_BYTES if it is valid.
 */
size_t map_header_bytes(const struct map_header *h);

/**
 * Write a header.
 *
 * @param data  room for map_header_bytes(h).
 * Returns the length in bytes, or -EINVAL with *why if unpacking it would be refused.
 */
int64_t map_header_pack(const struct map_header *h, void *data, size_t room,
                        const char **why);

/** Free what unpack allocated.  Harmless on a zeroed header. */
void map_header_fini(struct map_header *h);

#endif
