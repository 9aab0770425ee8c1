/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file in /dev/shm that is a segment's memory: its name, and whether to believe it.
 */
#ifndef XSEG_SEGFILE_H
#define XSEG_SEGFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SHM_DIR            "/dev/shm"
#define SEGFILE_NAME_MAX   200
#define SEGFILE_PATH_BYTES (sizeof(SHM_DIR) + 1 + SEGFILE_NAME_MAX)

/** Write the path of a segment.  0 or -EINVAL for a bad name. */
int segfile_path(const char *name, char path[SEGFILE_PATH_BYTES]);

/**
 * Open the file of a segment that root, this user or `owner` made.
 *
 * @param size_bytes  out: of the file.
 * Returns a descriptor, or -errno: -EINVAL for a bad name; -ENOENT; -EPERM if the file
 * is not to be believed, see below.
 *
 * Everybody may make a name in /dev/shm.  So nothing in the file is read before its
 * descriptor says: it is a regular file of one of those users, not every user may write
 * it, and it has one name only.  A second name would let its maker put the file of an
 * instance under the name of another.  And /dev/shm must be a directory in which only
 * the owner of a name can remove it (sticky), or only root writes.
 */
int segfile_open(const char *name, uid_t owner, uint64_t *size_bytes);

/** Make a file without a name, `size_bytes` long, all of it allocated.  Or -errno. */
int segfile_make(uint64_t size_bytes, mode_t mode, gid_t gid);

/** Give it its name.  0 or -EEXIST, -errno. */
int segfile_link(int fd, const char *name);

#endif
