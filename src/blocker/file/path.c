/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Object -> path relative to the store's root.  An id reaches a path only as lower-case
 * hex digits, so no id can leave its directory.
 *
 *   CONTENT  content/ab/cd/<64 hex>
 *   EXTENT   extents/<32 hex uuid>/<16 hex epoch>.<TiB in hex>
 *            extents/<32 hex uuid>/<16 hex epoch>.sealed, an empty mark
 *   LAYER    layers/<32 hex uuid>
 *   HEADER   headers/ab/<64 hex>
 *   JOURNAL  journals/<32 hex uuid>.<16 hex number>
 *   LEASE    leases/<32 hex uuid>
 *   PRESENCE presence/<32 hex uuid>
 *   CANDIDATES  candidates/<32 hex uuid>.<16 hex batch>
 *   GENERATION  generation/current
 */
#include "blocker/file/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "blocker/object.h"

static void put_hex(char *out, const uint8_t *bytes, size_t nr)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < nr; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * nr] = '\0';
}

const char *file_kind_dir(uint32_t kind)
{
    static const char *const dirs[XSEG_NR_OBJECT_KINDS] = {
        [XSEG_OBJ_NONE] = ".",
        [XSEG_OBJ_CONTENT] = "content",
        [XSEG_OBJ_EXTENT] = "extents",
        [XSEG_OBJ_LAYER] = "layers",
        [XSEG_OBJ_HEADER] = "headers",
        [XSEG_OBJ_JOURNAL] = "journals",
        [XSEG_OBJ_LEASE] = "leases",
        [XSEG_OBJ_PRESENCE] = "presence",
        [XSEG_OBJ_CANDIDATES] = "candidates",
        [XSEG_OBJ_GENERATION] = "generation",
    };
    return dirs[kind];
}

void file_path(char out[FILE_PATH_MAX], const struct xseg_object *object, uint64_t part)
{
    const char *dir = file_kind_dir(object->kind);
    const uint8_t *id = object->id;
    char hex[65];

    switch (object->kind) {
    case XSEG_OBJ_CONTENT:
        put_hex(hex, id, 32);
        snprintf(out, FILE_PATH_MAX, "%s/%02x/%02x/%s", dir, id[0], id[1], hex);
        break;
    case XSEG_OBJ_HEADER:
        put_hex(hex, id, 32);
        snprintf(out, FILE_PATH_MAX, "%s/%02x/%s", dir, id[0], hex);
        break;
    case XSEG_OBJ_EXTENT:
        put_hex(hex, id, 16);
        snprintf(out, FILE_PATH_MAX, "%s/%s/%016" PRIx64 ".%" PRIx64, dir, hex,
                 blk_object_number(object), part);
        break;
    case XSEG_OBJ_GENERATION:
        snprintf(out, FILE_PATH_MAX, "%s/current", dir);
        break;
    case XSEG_OBJ_JOURNAL:
    case XSEG_OBJ_CANDIDATES:
        put_hex(hex, id, 16);
        snprintf(out, FILE_PATH_MAX, "%s/%s.%016" PRIx64, dir, hex,
                 blk_object_number(object));
        break;
    default:
        put_hex(hex, id, 16);
        snprintf(out, FILE_PATH_MAX, "%s/%s", dir, hex);
        break;
    }
}

void file_path_seal(char out[FILE_PATH_MAX], const struct xseg_object *extent)
{
    file_path(out, extent, 0);
    memcpy(strrchr(out, '.'), ".sealed", sizeof ".sealed");
}

void file_path_parent(char path[FILE_PATH_MAX])
{
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    else
        memcpy(path, ".", 2);
}

bool file_parse_u64(const char *text, size_t digits, uint64_t *out)
{
    uint64_t value = 0;
    if (digits == 0 || digits > 16)
        return false;
    for (size_t i = 0; i < digits; i++) {
        int digit = blk_hex_digit(text[i]);
        if (digit < 0)
            return false;
        value = value << 4 | (uint64_t)digit;
    }
    *out = value;
    return true;
}

bool file_parse_part(const char *name, uint64_t *epoch, uint64_t *part)
{
    size_t len = strlen(name);
    return len >= 18 && file_parse_u64(name, 16, epoch) && name[16] == '.' &&
           file_parse_u64(name + 17, len - 17, part);
}
