/* SPDX-License-Identifier: Apache-2.0 */
/* The header codec (see header.h; bytes in map_format.h). */
#include "mapper/header.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"

#define CRC_AT offsetof(struct map_header_disk, crc32c)

/** Checksum of the whole object with its own field as zero. */
static uint32_t header_crc(const void *data, size_t len)
{
    static const uint8_t zero[4];
    const uint8_t *p = data;
    uint32_t crc = crc32c(0, p, CRC_AT);
    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, p + CRC_AT + 4, len - CRC_AT - 4);
}

static bool all_zero(const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++)
        if (p[i])
            return false;
    return true;
}

/** Well-formed UTF-8 without NUL (Unicode 15, table 3-7). */
static bool is_text(const uint8_t *p, size_t len)
{
    size_t i = 0;
    while (i < len) {
        uint8_t c = p[i];
        size_t more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        if (c == 0 || (c >= 0x80 && c < 0xc2) || c > 0xf4 || i + more >= len)
            return false;
        for (size_t k = 1; k <= more; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) ||
            (c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

static const char *check_entry(const struct map_entry *e)
{
    if (e->flags & ~MAP_ENTRY_OWNED)
        return "unknown flag in a stack entry";
    if (e->type == MAP_ENTRY_LAYER) {
        if (e->number || e->extent_epoch || !all_zero(e->extent_uuid, 16))
            return "layer entry with the fields of a journal";
        if (e->length_bytes < LAYER_PAGE_BYTES || e->length_bytes % LAYER_PAGE_BYTES ||
            e->length_bytes / LAYER_PAGE_BYTES > UINT32_MAX)
            return "length of a layer entry is not a whole number of pages";
        return NULL;
    }
    if (e->type == MAP_ENTRY_JOURNAL) {
        if (e->length_bytes > MAP_JOURNAL_MAX_BYTES)
            return "journal entry is too long";
        return NULL;
    }
    return "unknown type of stack entry";
}

static const char *check_name(const struct map_name *n)
{
    if (n->len > XSEG_NAME_MAX)
        return "name is too long";
    if (!is_text((const uint8_t *)n->bytes, n->len))
        return "name is not UTF-8 text";
    return NULL;
}

/** What pack and unpack both demand; NULL if all is well. */
static const char *check_header(const struct map_header *h)
{
    if (h->block_bytes < XSEG_BLOCK_MIN_BYTES ||
        h->block_bytes > XSEG_BLOCK_MAX_BYTES ||
        (h->block_bytes & (h->block_bytes - 1)))
        return "block size is not a power of two from 64 KiB to 4 MiB";
    if (h->size_bytes > MAP_SIZE_MAX)
        return "size is beyond the largest volume";
    if (h->flags & ~MAP_HEADER_FLAGS)
        return "unknown header flag";
    if (all_zero(h->uuid, sizeof h->uuid))
        return "uuid is zero";
    if (h->journal_least_bytes > MAP_JOURNAL_MAX_BYTES)
        return "journal is too long";
    if (h->nr_entries > MAP_HEADER_MAX_ENTRIES)
        return "too many stack entries";
    for (uint32_t i = 0; i < h->nr_entries; i++) {
        const char *why = check_entry(&h->entries[i]);
        if (why)
            return why;
    }
    if (h->name.len == 0)
        return "name is empty";
    const struct map_name *names[] = {&h->name, &h->parent, &h->moving_to,
                                      &h->moved_from};
    for (size_t i = 0; i < 4; i++) {
        const char *why = check_name(names[i]);
        if (why)
            return why;
    }
    return NULL;
}

size_t map_header_bytes(const struct map_header *h)
{
    return sizeof(struct map_header_disk) + h->nr_entries * sizeof(struct map_entry) +
           h->name.len + h->parent.len + h->moving_to.len + h->moved_from.len;
}

static uint8_t *put_name(uint8_t *at, const struct map_name *n)
{
    memcpy(at, n->bytes, n->len);
    return at + n->len;
}

int64_t map_header_pack(const struct map_header *h, void *data, size_t room,
                        const char **why)
{
    *why = check_header(h);
    if (*why)
        return -EINVAL;
    size_t len = map_header_bytes(h);
    if (len > room) {
        *why = "no room for the header";
        return -EINVAL;
    }
    struct map_header_disk d = {
        .versioned = {.magic = MAP_HEADER_MAGIC,
                      .version = h->version,
                      .fence = h->fence,
                      .length = len},
        .format = MAP_HEADER_FORMAT,
        .size_bytes = h->size_bytes,
        .block_bytes = h->block_bytes,
        .flags = h->flags,
        .epoch = h->epoch,
        .created_ns = h->created_ns,
        .journal = h->journal,
        .journal_least_bytes = h->journal_least_bytes,
        .nr_entries = h->nr_entries,
        .name_len = h->name.len,
        .parent_len = h->parent.len,
        .moving_to_len = h->moving_to.len,
        .moved_from_len = h->moved_from.len,
    };
    memcpy(d.uuid, h->uuid, sizeof d.uuid);
    uint8_t *at = data;
    memcpy(at, &d, sizeof d);
    at += sizeof d;
    if (h->nr_entries)
        memcpy(at, h->entries, h->nr_entries * sizeof *h->entries);
    at += h->nr_entries * sizeof *h->entries;
    at = put_name(at, &h->name);
    at = put_name(at, &h->parent);
    at = put_name(at, &h->moving_to);
    put_name(at, &h->moved_from);
    uint32_t crc = header_crc(data, len);
    memcpy((uint8_t *)data + CRC_AT, &crc, sizeof crc);
    return (int64_t)len;
}

/** Check the fixed part against the length of the whole; 0 or -errno. */
static int check_disk(const struct map_header_disk *d, const void *data, size_t len,
                      const char **why)
{
    int rc = -EBADMSG;
    *why = "not a map header";
    if (d->versioned.magic != MAP_HEADER_MAGIC)
        return rc;
    *why = "header is cut short or has bytes after its end";
    if (d->versioned.length != len || len > MAP_HEADER_MAX_BYTES)
        return rc;
    *why = "checksum of the header does not match";
    if (d->crc32c != header_crc(data, len))
        return rc;
    *why = "header format is newer than this program";
    if (d->format == 0 || d->format > MAP_HEADER_FORMAT)
        return -EPROTONOSUPPORT;
    *why = "reserved bytes of the header are in use";
    if (d->reserved0 || !all_zero(d->reserved1, sizeof d->reserved1) ||
        (d->format == 1 && d->journal_least_bytes))
        return rc;
    *why = "too many stack entries";
    if (d->nr_entries > MAP_HEADER_MAX_ENTRIES)
        return rc;
    *why = "lengths inside the header contradict its length";
    if (sizeof *d + d->nr_entries * sizeof(struct map_entry) + d->name_len +
            d->parent_len + d->moving_to_len + d->moved_from_len !=
        len)
        return rc;
    *why = "name is too long";
    if (d->name_len > XSEG_NAME_MAX || d->parent_len > XSEG_NAME_MAX ||
        d->moving_to_len > XSEG_NAME_MAX || d->moved_from_len > XSEG_NAME_MAX)
        return rc;
    *why = NULL;
    return 0;
}

static const uint8_t *get_name(const uint8_t *at, uint16_t len, struct map_name *n)
{
    n->len = len;
    memcpy(n->bytes, at, len);
    n->bytes[len] = 0;
    return at + len;
}

int map_header_unpack(const void *data, size_t len, struct map_header *out,
                      const char **why)
{
    struct map_header_disk d;
    memset(out, 0, sizeof *out);
    if (len < sizeof d) {
        *why = "header is cut short";
        return -EBADMSG;
    }
    memcpy(&d, data, sizeof d);
    int rc = check_disk(&d, data, len, why);
    if (rc < 0)
        return rc;
    const uint8_t *at = (const uint8_t *)data + sizeof d;
    if (d.nr_entries) {
        size_t bytes = d.nr_entries * sizeof *out->entries;
        out->entries = malloc(bytes);
        if (!out->entries) {
            *why = "no memory";
            return -ENOMEM;
        }
        memcpy(out->entries, at, bytes);
        at += bytes;
    }
    out->version = d.versioned.version;
    out->fence = d.versioned.fence;
    memcpy(out->uuid, d.uuid, sizeof out->uuid);
    out->size_bytes = d.size_bytes;
    out->epoch = d.epoch;
    out->created_ns = d.created_ns;
    out->journal = d.journal;
    out->journal_least_bytes = d.journal_least_bytes;
    out->block_bytes = d.block_bytes;
    out->flags = d.flags;
    out->nr_entries = d.nr_entries;
    at = get_name(at, d.name_len, &out->name);
    at = get_name(at, d.parent_len, &out->parent);
    at = get_name(at, d.moving_to_len, &out->moving_to);
    get_name(at, d.moved_from_len, &out->moved_from);
    *why = check_header(out);
    if (*why) {
        map_header_fini(out);
        return -EBADMSG;
    }
    return 0;
}

void map_header_fini(struct map_header *h)
{
    free(h->entries);
    h->entries = NULL;
    h->nr_entries = 0;
}
