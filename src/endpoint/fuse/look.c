/* SPDX-License-Identifier: Apache-2.0 */
/* What a file is: names, sizes, modes (see look.h). */
#include "endpoint/fuse/look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "endpoint/fuse/file.h"

/* How long the kernel may keep a name and attributes [s]: a resize shows after that. */
#define VALID_SECONDS 1u

/** One question under way. */
struct look {
    struct client_volume volume;
    struct fuse_request *rq;
    int64_t result;
};

static void look_fill(const struct fuse_conn *conn, uint64_t id, uint64_t size_bytes,
                      bool read_only, struct fuse_attr *attr)
{
    const struct fuse_attach *about = &conn->about;

    *attr = (struct fuse_attr){
        .ino = id,
        .size = size_bytes,
        .blocks = (size_bytes + 511) / 512,
        .atime = conn->since,
        .mtime = conn->since,
        .ctime = conn->since,
        .mode = S_IFREG | (about->mode & (read_only ? 0444u : 0666u)),
        .nlink = 1,
        .uid = about->uid,
        .gid = about->gid,
        .blksize = 4096,
    };
}

static void look_fill_root(const struct fuse_conn *conn, struct fuse_attr *attr)
{
    const struct fuse_attach *about = &conn->about;
    uint32_t read = about->mode & 0444u;

    look_fill(conn, FUSE_NODE_ROOT, 0, true, attr);
    attr->mode = S_IFDIR | read | read >> 2; /* enter where reading is allowed */
    attr->nlink = 2;
}

static void look_reply_attr(struct fuse_request *rq, const struct fuse_attr *attr)
{
    struct fuse_attr_out out = {.attr_valid = VALID_SECONDS, .attr = *attr};

    fuse_conn_reply(rq, &out, sizeof(out));
}

/** The node counts one more look-up when the kernel hears of it. */
static void look_reply_entry(struct fuse_request *rq,
                             const struct client_volume *volume)
{
    struct fuse_nodes *nodes = rq->conn->nodes;
    struct fuse_node *node = fuse_nodes_by_name(nodes, rq->name, rq->name_len);
    struct fuse_entry_out out = {.entry_valid = VALID_SECONDS,
                                 .attr_valid = VALID_SECONDS};
    struct fuse_file *file;

    if (!node)
        node = fuse_nodes_add(nodes, rq->name, rq->name_len);
    if (!node) {
        fuse_conn_reply_error(rq, -ENFILE);
        return;
    }
    if (fuse_conn_count(rq))
        node->lookups++;
    file = rq->conn->files[fuse_nodes_index(nodes, node)];
    if (file)
        file->size_bytes = volume->size_bytes;
    out.nodeid = node->id;
    look_fill(rq->conn, node->id, volume->size_bytes, volume->snapshot, &out.attr);
    fuse_conn_reply(rq, &out, sizeof(out));
}

static void look_done(struct client_volume *volume)
{
    struct look *look = LIST_ENTRY(volume, struct look, volume);
    struct fuse_request *rq = look->rq;

    if (look->result < 0) {
        fuse_conn_reply_error(rq, look->result);
    } else if (rq->opcode == FUSE_LOOKUP) {
        look_reply_entry(rq, volume);
    } else {
        struct fuse_attr attr;
        rq->file->size_bytes = volume->size_bytes;
        look_fill(rq->conn, rq->node, volume->size_bytes, volume->snapshot, &attr);
        look_reply_attr(rq, &attr);
    }
    free(look);
}

static void look_opened(struct client_volume *volume, int64_t result)
{
    struct look *look = LIST_ENTRY(volume, struct look, volume);

    look->result = result;
    if (volume->state == CLIENT_VOLUME_CLOSED)
        look_done(volume);
    else
        client_volume_close(volume);
}

static void look_begin(struct fuse_request *rq, const uint8_t *name, uint32_t name_len)
{
    struct look *look = calloc(1, sizeof(*look));

    if (!look) {
        fuse_conn_reply_error(rq, -ENOMEM);
        return;
    }
    client_volume_init(&look->volume, &rq->conn->peer->client);
    look->volume.opened = look_opened;
    look->volume.closed = look_done;
    look->rq = rq;
    client_volume_open(&look->volume, name, name_len, CLIENT_OPEN_READ);
}

void fuse_look_name(struct fuse_request *rq)
{
    look_begin(rq, rq->name, rq->name_len);
}

void fuse_look_node(struct fuse_request *rq)
{
    struct fuse_attr attr;

    if (rq->node == FUSE_NODE_ROOT) {
        look_fill_root(rq->conn, &attr);
        look_reply_attr(rq, &attr);
        return;
    }
    look_begin(rq, rq->file->node->name, rq->file->node->name_len);
}
