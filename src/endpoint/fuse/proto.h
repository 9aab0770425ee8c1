/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE protocol as spoken here: the kernel's header, and what an older one lacks.
 *
 * The protocol is spoken directly rather than through libfuse3, because a connection
 * outlives the process that serves it: libfuse3 begins each session with INIT, and a
 * process that takes a connection over gets none.
 *
 * Source: Linux include/uapi/linux/fuse.h; Documentation/filesystems/fuse.rst.
 */
#ifndef ENDPOINT_FUSE_PROTO_H
#define ENDPOINT_FUSE_PROTO_H

#include <linux/fuse.h>

/* Linux 6.3 (7.38) to 6.9 (7.40), by value, so that an old header serves a new kernel. */
#define FUSE_PROTO_PARALLEL_WRITES (1u << 6) /* FOPEN_PARALLEL_DIRECT_WRITES */
#define FUSE_PROTO_ALLOW_MMAP      (UINT64_C(1) << 36) /* FUSE_DIRECT_IO_ALLOW_MMAP */
#define FUSE_PROTO_HAS_RESEND      (UINT64_C(1) << 39) /* FUSE_HAS_RESEND */
#define FUSE_PROTO_UNIQUE_RESEND   (UINT64_C(1) << 63) /* FUSE_UNIQUE_RESEND */
#define FUSE_PROTO_NOTIFY_RESEND   7                   /* FUSE_NOTIFY_RESEND */

/** Oldest minor version of protocol 7 that is served: Linux 4.20. */
#define FUSE_PROTO_MIN_MINOR 28u

/** Largest WRITE and READ [bytes]. */
#define FUSE_MAX_TRANSFER (1u << 20)
/** Pages of that. */
#define FUSE_MAX_TRANSFER_PAGES (FUSE_MAX_TRANSFER / 4096u)

/** Where the data of a WRITE begins: all before it is read into memory of its own, so
 *  that the data lies at the start of a page. */
#define FUSE_HEAD_BYTES                                                                \
    ((uint32_t)(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in)))

#endif
