/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which extent a file belongs to, in an extended attribute (docs/format/store.md).
 *
 * The data of an extent is written in place, so no checksum can tell one extent from
 * another.  The attribute is set when a file is made and compared when it is opened: two
 * files that were swapped are noticed.  A file without one is accepted, since not every
 * filesystem has attributes, not every copy keeps them, and a power cut may take the
 * attribute of a file that has no data yet.
 *
 * Any thread; may block.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "blocker/file/file.h"
#include "blocker/object.h"
#include "common/log.h"

#define ATTRIBUTE "user.archipelago.extent"

/** Little endian, as everything that is stored. */
struct extent_identity {
    uint8_t uuid[16];
    uint64_t epoch;
    uint64_t part; /* TiB of address space */
};
static_assert(sizeof(struct extent_identity) == 32, "extent identity");

static struct extent_identity identity_of(const struct xseg_object *object,
                                          uint64_t part)
{
    struct extent_identity identity = {.epoch = htole64(blk_object_number(object)),
                                       .part = htole64(part)};
    memcpy(identity.uuid, object->id, sizeof identity.uuid);
    return identity;
}

void file_identity_set(int fd, const struct xseg_object *object, uint64_t part)
{
    struct extent_identity identity = identity_of(object, part);
    if (object->kind == XSEG_OBJ_EXTENT)
        (void)fsetxattr(fd, ATTRIBUTE, &identity, sizeof identity, 0);
}

int file_identity_check(int fd, const struct xseg_object *object, uint64_t part)
{
    struct extent_identity want = identity_of(object, part), found;
    char path[FILE_PATH_MAX];

    if (object->kind != XSEG_OBJ_EXTENT)
        return 0;
    ssize_t len = fgetxattr(fd, ATTRIBUTE, &found, sizeof found);
    if (len < 0 && errno != ERANGE)
        return 0;
    if (len == (ssize_t)sizeof found && memcmp(&found, &want, sizeof want) == 0)
        return 0;
    file_path(path, object, part);
    log_line(LOG_ERROR, "blocker",
             "%s is the file of another extent, put in its place: put the right file "
             "back (docs/damage.md)",
             path);
    return -EBADMSG;
}
