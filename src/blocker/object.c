/* SPDX-License-Identifier: Apache-2.0 */
/* Object names (see object.h).  Pure functions, any thread. */
#include "blocker/object.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/hashtab.h"

/** How many bytes of the id a kind uses; the rest is zero. */
static const uint8_t id_bytes[XSEG_NR_OBJECT_KINDS] = {
    [XSEG_OBJ_NONE] = 0,       [XSEG_OBJ_CONTENT] = 32,  [XSEG_OBJ_EXTENT] = 24,
    [XSEG_OBJ_LAYER] = 16,     [XSEG_OBJ_HEADER] = 32,   [XSEG_OBJ_JOURNAL] = 24,
    [XSEG_OBJ_LEASE] = 16,     [XSEG_OBJ_PRESENCE] = 16, [XSEG_OBJ_CANDIDATES] = 24,
    [XSEG_OBJ_GENERATION] = 0,
};

bool blk_object_valid(const struct xseg_object *object)
{
    static const uint8_t zeros[sizeof object->id];

    if (object->kind >= XSEG_NR_OBJECT_KINDS || object->reserved != 0)
        return false;
    size_t used = id_bytes[object->kind];
    return memcmp(object->id + used, zeros, sizeof zeros - used) == 0;
}

bool blk_object_equal(const struct xseg_object *a, const struct xseg_object *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

uint64_t blk_object_hash(const struct xseg_object *object)
{
    return hash_bytes(object, sizeof *object);
}

uint64_t blk_object_number(const struct xseg_object *object)
{
    uint64_t number;
    memcpy(&number, object->id + 16, sizeof number);
    return le64toh(number);
}

int blk_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool blk_parse_hex(const char *text, uint8_t *out, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        int high = blk_hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : blk_hex_digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool blk_object_is_versioned(const struct xseg_object *object)
{
    return object->kind == XSEG_OBJ_HEADER || object->kind == XSEG_OBJ_GENERATION;
}

bool blk_object_has_generation(const struct xseg_object *object)
{
    return object->kind == XSEG_OBJ_CONTENT || object->kind == XSEG_OBJ_LAYER;
}

struct xseg_object blk_object_lease_of(const struct xseg_object *journal)
{
    struct xseg_object lease = {.kind = XSEG_OBJ_LEASE};
    memcpy(lease.id, journal->id, 16);
    return lease;
}

uint64_t blk_object_key(const struct xseg_object *object)
{
    if (object->kind == XSEG_OBJ_CONTENT || object->kind == XSEG_OBJ_HEADER) {
        uint64_t prefix;
        memcpy(&prefix, object->id, sizeof prefix);
        return be64toh(prefix);
    }
    return blk_object_hash(object);
}

void blk_cursor_from_key(uint64_t key, struct xseg_opaque *out)
{
    uint64_t stored = htole64(key);

    memset(out, 0, sizeof *out);
    if (key == 0)
        return;
    out->length = sizeof stored;
    memcpy(out->bytes, &stored, sizeof stored);
}

int blk_cursor_to_key(const struct xseg_opaque *cursor, uint64_t *out)
{
    uint64_t stored = 0;

    if (cursor->length != 0 && cursor->length != sizeof stored)
        return -EINVAL;
    if (cursor->length)
        memcpy(&stored, cursor->bytes, sizeof stored);
    *out = le64toh(stored);
    return 0;
}
