/* SPDX-License-Identifier: Apache-2.0 */
/* Words of the mapper's log: ids as the file store names them, errors as people say. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mapper/text.h"

const char *map_uuid_text(const uint8_t uuid[16], char out[MAP_UUID_TEXT])
{
    for (size_t i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", uuid[i]);
    return out;
}

const char *map_error_text(int rc)
{
    switch (rc) {
    case -EBADMSG:
        return "missing, cut short, another's, or its checksum fails";
    case -EPROTONOSUPPORT:
        return "written by a newer version";
    case -ECANCELED:
        return "not read, since mapperd stops";
    default:
        return strerror(-rc);
    }
}
