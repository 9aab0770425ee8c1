/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Presences in files: ACQUIRE and RELEASE PRESENCE, and reading one.
 */
#ifndef BLOCKER_FILE_PRESENCE_H
#define BLOCKER_FILE_PRESENCE_H

#include "blocker/file/file.h"

/** ACQUIRE or RELEASE of a PRESENCE, in a job. */
int file_presence_change(struct file_store *store, struct blk_io *io, bool acquire);

/** The stored presence.  -ENOENT; -EBADMSG: damaged; -errno.  Takes no lock.  Blocks. */
int file_presence_read(struct file_store *store, const struct xseg_object *object,
                       struct xseg_presence *out);

#endif
