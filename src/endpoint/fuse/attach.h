/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a mounted connection is handed over: one message on a SOCK_SEQPACKET socket.
 *
 *   request: struct fuse_attach, with two descriptors (SCM_RIGHTS): the connection
 *            (/dev/fuse, mounted) and the memory file of its nodes (nodes.h)
 *   answer:  int32_t, 0 or -errno; then the socket is closed
 *
 * The sender keeps its own descriptors.  A connection that was attached before, to a
 * process that died, is taken up where that one left it.
 */
#ifndef ENDPOINT_FUSE_ATTACH_H
#define ENDPOINT_FUSE_ATTACH_H

#include <assert.h>
#include <stdint.h>

#define FUSE_ATTACH_MAGIC UINT32_C(0x46504341) /* "ACPF" */

struct fuse_attach {
    uint32_t magic;
    uint32_t version; /* 1 */
    uint32_t uid;     /* owner of the files */
    uint32_t gid;
    uint32_t mode; /* of the files, 0660; snapshots lose the write bits */
    uint32_t reserved;
    char path[232]; /* where it is mounted, for people; NUL padded */
};
static_assert(sizeof(struct fuse_attach) == 256, "attach message");

struct fuse_peer;

/** Watch the socket.  0 or -errno. */
int fuse_attach_start(struct fuse_peer *peer, int listen_fd);
void fuse_attach_stop(struct fuse_peer *peer);

#endif
