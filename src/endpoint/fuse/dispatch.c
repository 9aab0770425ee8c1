/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each request of the kernel means: arguments in, handed to its noun.
 *
 * The kernel is trusted to speak the protocol, but sizes are checked: a program with the
 * descriptor of another filesystem's connection could have been handed to us.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "endpoint/fuse/dir.h"
#include "endpoint/fuse/file.h"
#include "endpoint/fuse/look.h"

/* Requests that the kernel may have under way at once without a program waiting for
 * each: read-ahead, direct I/O of loop devices. */
#define MAX_BACKGROUND 256u
#define CONGESTION     192u

/** The arguments, copied: the input is not aligned for them. */
#define ARGS(rq, type) (*(const struct type *)(const void *)(rq)->conn->args)

/* ---- the connection ---------------------------------------------------------------- */

static void serve_init(struct fuse_request *rq)
{
    const uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
                            FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_INIT_EXT |
                            FUSE_PROTO_ALLOW_MMAP | FUSE_PROTO_HAS_RESEND;
    struct fuse_table *table = fuse_nodes_table(rq->conn->nodes);
    struct fuse_init_in in = ARGS(rq, fuse_init_in);
    uint64_t flags = in.flags;
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION};

    if (in.major != FUSE_KERNEL_VERSION || in.minor < FUSE_PROTO_MIN_MINOR) {
        log_line(LOG_ERROR, "fuse", "%s: the kernel speaks FUSE %u.%u; 7.%u is needed",
                 rq->conn->about.path, in.major, in.minor, FUSE_PROTO_MIN_MINOR);
        fuse_conn_reply_error(rq, -EPROTO);
        return;
    }
    if (flags & FUSE_INIT_EXT)
        flags |= (uint64_t)in.flags2 << 32;
    flags &= wanted;
    out.minor = FUSE_KERNEL_MINOR_VERSION;
    out.max_readahead = in.max_readahead;
    out.flags = (uint32_t)flags;
    out.flags2 = (uint32_t)(flags >> 32);
    out.max_background = MAX_BACKGROUND;
    out.congestion_threshold = CONGESTION;
    out.max_write = FUSE_MAX_TRANSFER;
    out.time_gran = 1;
    out.max_pages = FUSE_MAX_TRANSFER_PAGES;
    table->minor = in.minor < out.minor ? in.minor : out.minor;
    table->flags = flags & FUSE_PROTO_HAS_RESEND ? FUSE_TABLE_RESENDS : 0;
    table->initialized = 1;
    fuse_conn_reply(rq, &out, sizeof(out));
}

static void serve_statfs(struct fuse_request *rq)
{
    struct fuse_statfs_out out = {
        .st = {.bsize = 4096, .frsize = 4096, .namelen = XSEG_NAME_MAX}};

    fuse_conn_reply(rq, &out, sizeof(out));
}

/* ---- names ------------------------------------------------------------------------- */

static void serve_lookup(struct fuse_request *rq, uint32_t bytes)
{
    const uint8_t *name = rq->conn->args;
    size_t len = strnlen((const char *)name, bytes);

    if (rq->node != FUSE_NODE_ROOT) {
        fuse_conn_reply_error(rq, -ENOTDIR);
    } else if (len == 0 || len > XSEG_NAME_MAX) {
        fuse_conn_reply_error(rq, len ? -ENAMETOOLONG : -ENOENT);
    } else {
        memcpy(rq->name, name, len);
        rq->name_len = (uint8_t)len;
        fuse_look_name(rq);
    }
}

static void forget_one(struct fuse_conn *conn, uint64_t id, uint64_t count)
{
    struct fuse_node *node = fuse_nodes_by_id(conn->nodes, id);

    if (node && !conn->files[fuse_nodes_index(conn->nodes, node)])
        fuse_nodes_forget(conn->nodes, node, count);
    else if (node) /* its file frees it */
        node->lookups = count < node->lookups ? node->lookups - count : 0;
}

static void serve_forget(struct fuse_request *rq)
{
    forget_one(rq->conn, rq->node, ARGS(rq, fuse_forget_in).nlookup);
    fuse_conn_forget(rq);
}

static void serve_batch_forget(struct fuse_request *rq, uint32_t bytes)
{
    struct fuse_batch_forget_in in = ARGS(rq, fuse_batch_forget_in);
    const uint8_t *at = rq->conn->args + sizeof(in);
    size_t room = (bytes - sizeof(in)) / sizeof(struct fuse_forget_one);

    for (uint32_t i = 0; i < in.count && i < room; i++) {
        struct fuse_forget_one one;
        memcpy(&one, at + i * sizeof(one), sizeof(one));
        forget_one(rq->conn, one.nodeid, one.nlookup);
    }
    fuse_conn_forget(rq);
}

/* ---- files ------------------------------------------------------------------------- */

/** Count the request on its node's file; answers it and returns false if there is none. */
static bool with_file(struct fuse_request *rq)
{
    struct fuse_node *node = fuse_nodes_by_id(rq->conn->nodes, rq->node);

    if (!node) {
        fuse_conn_reply_error(rq, rq->node == FUSE_NODE_ROOT ? -EISDIR : -ESTALE);
        return false;
    }
    rq->file = fuse_file_get(rq->conn, node);
    if (!rq->file) {
        fuse_conn_reply_error(rq, -ENOMEM);
        return false;
    }
    return true;
}

/** The handle of OPEN is the mode; another one was never given out. */
static bool with_handle(struct fuse_request *rq, uint64_t handle)
{
    if (handle >= FUSE_NR_USES) {
        fuse_conn_reply_error(rq, -EBADF);
        return false;
    }
    rq->mode = (uint32_t)handle;
    return with_file(rq);
}

static void serve_attributes(struct fuse_request *rq)
{
    if (rq->node == FUSE_NODE_ROOT || with_file(rq))
        fuse_look_node(rq);
}

/** Times may be set to no effect.  Sizes, modes and owners are not changed here. */
static void serve_setattr(struct fuse_request *rq)
{
    uint32_t valid = ARGS(rq, fuse_setattr_in).valid;
    const uint32_t kept = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE;

    if (valid & kept)
        fuse_conn_reply_error(rq, -EPERM);
    else
        serve_attributes(rq);
}

static void serve_open(struct fuse_request *rq)
{
    uint32_t flags = ARGS(rq, fuse_open_in).flags;

    rq->mode = (flags & O_ACCMODE) == O_RDONLY ? FUSE_USE_READ : FUSE_USE_WRITE;
    if (with_file(rq))
        fuse_file_with_volume(rq);
}

static void serve_release(struct fuse_request *rq)
{
    struct fuse_file *file;

    if (!with_handle(rq, ARGS(rq, fuse_release_in).fh))
        return;
    file = rq->file;
    if (fuse_conn_count(rq)) {
        uint32_t *opens =
            rq->mode == FUSE_USE_WRITE ? &file->node->writers : &file->node->readers;
        if (*opens)
            --*opens;
    }
    fuse_file_check_opens(file);
    fuse_conn_reply_error(rq, 0);
}

static void serve_read(struct fuse_request *rq)
{
    struct fuse_read_in in = ARGS(rq, fuse_read_in);

    rq->offset = in.offset;
    rq->size = in.size;
    if (in.size > FUSE_MAX_TRANSFER)
        fuse_conn_reply_error(rq, -EINVAL);
    else if (with_handle(rq, in.fh))
        fuse_file_with_volume(rq);
}

static void serve_write(struct fuse_request *rq, uint32_t bytes)
{
    struct fuse_write_in in = ARGS(rq, fuse_write_in);

    rq->offset = in.offset;
    rq->size = in.size;
    if (in.size > FUSE_MAX_TRANSFER || in.size != bytes - sizeof(in))
        fuse_conn_reply_error(rq, -EINVAL);
    else if (with_handle(rq, in.fh))
        fuse_file_with_volume(rq);
}

static void serve_fsync(struct fuse_request *rq)
{
    rq->op = XSEG_OP_FLUSH;
    if (with_handle(rq, ARGS(rq, fuse_fsync_in).fh))
        fuse_file_with_volume(rq);
}

static void serve_fallocate(struct fuse_request *rq)
{
    struct fuse_fallocate_in in = ARGS(rq, fuse_fallocate_in);

    rq->offset = in.offset;
    rq->length = in.length;
    switch (in.mode) {
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        rq->op = XSEG_OP_DISCARD;
        break;
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        rq->op = XSEG_OP_ZERO;
        break;
    default:
        fuse_conn_reply_error(rq, -EOPNOTSUPP);
        return;
    }
    if (with_handle(rq, in.fh))
        fuse_file_with_volume(rq);
}

static void serve_lseek(struct fuse_request *rq)
{
    struct fuse_lseek_in in = ARGS(rq, fuse_lseek_in);

    rq->offset = in.offset;
    rq->whence = in.whence;
    if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE)
        fuse_conn_reply_error(rq, -EINVAL);
    else if (with_handle(rq, in.fh))
        fuse_file_with_volume(rq);
}

/* ---- the directory ----------------------------------------------------------------- */

static void serve_opendir(struct fuse_request *rq)
{
    struct fuse_open_out out = {.fh = ++rq->conn->next_dir};

    if (rq->node != FUSE_NODE_ROOT)
        fuse_conn_reply_error(rq, -ENOTDIR);
    else
        fuse_conn_reply(rq, &out, sizeof(out));
}

static void serve_readdir(struct fuse_request *rq)
{
    struct fuse_read_in in = ARGS(rq, fuse_read_in);

    rq->offset = in.offset;
    rq->size = in.size;
    fuse_dir_read(rq, in.fh);
}

static void serve_releasedir(struct fuse_request *rq)
{
    fuse_dir_release(rq->conn, ARGS(rq, fuse_release_in).fh);
    fuse_conn_reply_error(rq, 0);
}

static void serve_success(struct fuse_request *rq)
{
    fuse_conn_reply_error(rq, 0);
}

static void serve_nothing(struct fuse_request *rq)
{
    fuse_conn_forget(rq);
}

static void serve_refused(struct fuse_request *rq)
{
    fuse_conn_reply_error(rq, -EPERM);
}

/* ---- the table --------------------------------------------------------------------- */

static const struct {
    uint32_t least; /* shortest arguments [bytes] */
    void (*serve)(struct fuse_request *rq);
    void (*serve_bytes)(struct fuse_request *rq, uint32_t bytes);
} handlers[] = {
    [FUSE_LOOKUP] = {2, NULL, serve_lookup},
    [FUSE_FORGET] = {sizeof(struct fuse_forget_in), serve_forget, NULL},
    [FUSE_GETATTR] = {0, serve_attributes, NULL},
    [FUSE_SETATTR] = {sizeof(struct fuse_setattr_in), serve_setattr, NULL},
    [FUSE_SYMLINK] = {0, serve_refused, NULL},
    [FUSE_MKNOD] = {0, serve_refused, NULL},
    [FUSE_MKDIR] = {0, serve_refused, NULL},
    [FUSE_UNLINK] = {0, serve_refused, NULL},
    [FUSE_RMDIR] = {0, serve_refused, NULL},
    [FUSE_RENAME] = {0, serve_refused, NULL},
    [FUSE_RENAME2] = {0, serve_refused, NULL},
    [FUSE_LINK] = {0, serve_refused, NULL},
    [FUSE_CREATE] = {0, serve_refused, NULL},
    [FUSE_OPEN] = {sizeof(struct fuse_open_in), serve_open, NULL},
    [FUSE_READ] = {sizeof(struct fuse_read_in), serve_read, NULL},
    [FUSE_WRITE] = {sizeof(struct fuse_write_in), NULL, serve_write},
    [FUSE_STATFS] = {0, serve_statfs, NULL},
    [FUSE_RELEASE] = {sizeof(struct fuse_release_in), serve_release, NULL},
    [FUSE_FSYNC] = {sizeof(struct fuse_fsync_in), serve_fsync, NULL},
    [FUSE_INIT] = {sizeof(struct fuse_init_in), serve_init, NULL},
    [FUSE_OPENDIR] = {sizeof(struct fuse_open_in), serve_opendir, NULL},
    [FUSE_READDIR] = {sizeof(struct fuse_read_in), serve_readdir, NULL},
    [FUSE_RELEASEDIR] = {sizeof(struct fuse_release_in), serve_releasedir, NULL},
    [FUSE_FSYNCDIR] = {0, serve_success, NULL},
    [FUSE_INTERRUPT] = {0, serve_nothing, NULL},
    [FUSE_DESTROY] = {0, serve_success, NULL},
    [FUSE_BATCH_FORGET] = {sizeof(struct fuse_batch_forget_in), NULL,
                           serve_batch_forget},
    [FUSE_FALLOCATE] = {sizeof(struct fuse_fallocate_in), serve_fallocate, NULL},
    [FUSE_LSEEK] = {sizeof(struct fuse_lseek_in), serve_lseek, NULL},
};

void fuse_dispatch(struct fuse_request *rq, uint32_t args_bytes)
{
    bool known = rq->opcode < sizeof(handlers) / sizeof(handlers[0]) &&
                 (handlers[rq->opcode].serve || handlers[rq->opcode].serve_bytes);

    if (!known) {
        fuse_conn_reply_error(rq,
                              -ENOSYS); /* the kernel does without, or asks no more */
    } else if (args_bytes < handlers[rq->opcode].least) {
        log_line(LOG_ERROR, "fuse", "%s: request %u is too short", rq->conn->about.path,
                 rq->opcode);
        fuse_conn_reply_error(rq, -EINVAL);
    } else if (handlers[rq->opcode].serve) {
        handlers[rq->opcode].serve(rq);
    } else {
        handlers[rq->opcode].serve_bytes(rq, args_bytes);
    }
}
