/* SPDX-License-Identifier: Apache-2.0 */
/* Listings (see dir.h). */
#include "endpoint/fuse/dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/list.h"

/* The kernel is told no number of a name that it did not look up (FUSE_UNKNOWN_INO). */
#define UNKNOWN_INODE UINT32_MAX
/* "." and ".." come first. */
#define NR_DOTS      2u
#define DT_DIRECTORY 4u
#define DT_REGULAR   8u

struct dir {
    struct list link; /* conn->dirs */
    struct fuse_conn *conn;
    uint64_t handle;
    struct client_list *list; /* until all is read */
    struct list waiting;      /* struct fuse_request, until then */
    int64_t error;
    uint8_t *names; /* a length byte and the name, in turn */
    size_t used, room;
    uint32_t *starts; /* position of each in `names` */
    uint32_t nr_names, max_names;
};

static void dir_free(struct dir *dir)
{
    struct list *link;

    while ((link = list_pop_front(&dir->waiting)))
        fuse_conn_reply_error(LIST_ENTRY(link, struct fuse_request, link), -EBADF);
    client_list_free(dir->list);
    list_remove(&dir->link);
    free(dir->names);
    free(dir->starts);
    free(dir);
}

static struct dir *dir_find(struct fuse_conn *conn, uint64_t handle)
{
    LIST_FOR_EACH(it, next, &conn->dirs)
    {
        struct dir *dir = LIST_ENTRY(it, struct dir, link);
        if (dir->handle == handle)
            return dir;
    }
    return NULL;
}

/* ---- answering --------------------------------------------------------------------- */

/** Append one entry; false if it does not fit. */
static bool dir_put(uint8_t *out, uint32_t size, uint32_t *at, uint64_t next,
                    uint32_t type, const void *name, uint32_t name_len)
{
    struct fuse_dirent entry = {
        .ino = UNKNOWN_INODE, .off = next, .namelen = name_len, .type = type};
    uint32_t head = (uint32_t)FUSE_NAME_OFFSET;
    uint32_t bytes = (uint32_t)FUSE_DIRENT_ALIGN(head + name_len);

    if (bytes > size - *at)
        return false;
    memset(out + *at, 0, bytes);
    memcpy(out + *at, &entry, head);
    memcpy(out + *at + head, name, name_len);
    *at += bytes;
    return true;
}

static void dir_answer(const struct dir *dir, struct fuse_request *rq)
{
    uint8_t *out;
    uint32_t used = 0;

    if (dir->error) {
        fuse_conn_reply_error(rq, dir->error);
        return;
    }
    out = malloc(rq->size);
    if (!out) {
        fuse_conn_reply_error(rq, -ENOMEM);
        return;
    }
    for (uint64_t at = rq->offset; at < dir->nr_names + NR_DOTS; at++) {
        const uint8_t *name;
        bool put;

        if (at < NR_DOTS) {
            put = dir_put(out, rq->size, &used, at + 1, DT_DIRECTORY, "..",
                          (uint32_t)at + 1);
        } else {
            name = dir->names + dir->starts[at - NR_DOTS];
            put = dir_put(out, rq->size, &used, at + 1, DT_REGULAR, name + 1, name[0]);
        }
        if (!put)
            break;
    }
    fuse_conn_reply(rq, out, used);
    free(out);
}

/* ---- reading the names ------------------------------------------------------------- */

static void *dir_grow(void *old, size_t *room, size_t wanted, size_t unit)
{
    size_t next = *room ? *room : 64;
    void *new;

    while (next < wanted)
        next *= 2;
    if (next == *room)
        return old;
    new = realloc(old, next * unit);
    if (new)
        *room = next;
    return new;
}

static int dir_name(void *arg, const uint8_t *name, size_t len)
{
    struct dir *dir = arg;
    size_t room = dir->max_names;
    uint8_t *names = dir_grow(dir->names, &dir->room, dir->used + 1 + len, 1);
    uint32_t *starts;

    if (!names)
        return -ENOMEM;
    dir->names = names;
    starts = dir_grow(dir->starts, &room, dir->nr_names + 1, sizeof(*starts));
    if (!starts)
        return -ENOMEM;
    dir->starts = starts;
    dir->max_names = (uint32_t)room;
    dir->starts[dir->nr_names++] = (uint32_t)dir->used;
    dir->names[dir->used] = (uint8_t)len;
    memcpy(dir->names + dir->used + 1, name, len);
    dir->used += 1 + len;
    return 0;
}

static void dir_page(void *arg, int64_t result)
{
    struct dir *dir = arg;
    struct list *link;

    if (result > 0) {
        client_list_next(dir->list);
        return;
    }
    dir->error = result;
    client_list_free(dir->list);
    dir->list = NULL;
    while ((link = list_pop_front(&dir->waiting)))
        dir_answer(dir, LIST_ENTRY(link, struct fuse_request, link));
}

static struct dir *dir_begin(struct fuse_conn *conn, uint64_t handle)
{
    struct dir *dir = calloc(1, sizeof(*dir));

    if (!dir)
        return NULL;
    dir->conn = conn;
    dir->handle = handle;
    list_init(&dir->waiting);
    list_push_back(&conn->dirs, &dir->link);
    dir->list = client_list_start(&conn->peer->client, dir_name, dir_page, dir);
    if (!dir->list) {
        dir_free(dir);
        return NULL;
    }
    return dir;
}

void fuse_dir_read(struct fuse_request *rq, uint64_t handle)
{
    struct dir *dir = dir_find(rq->conn, handle);

    if (rq->size > FUSE_MAX_TRANSFER)
        rq->size = FUSE_MAX_TRANSFER;
    if (dir && rq->offset == 0 && !dir->list && list_empty(&dir->waiting)) {
        dir_free(dir); /* rewound: read the names anew */
        dir = NULL;
    }
    if (!dir)
        dir = dir_begin(rq->conn, handle);
    if (!dir)
        fuse_conn_reply_error(rq, -ENOMEM);
    else if (dir->list)
        list_push_back(&dir->waiting, &rq->link);
    else
        dir_answer(dir, rq);
}

void fuse_dir_release(struct fuse_conn *conn, uint64_t handle)
{
    struct dir *dir = dir_find(conn, handle);

    if (dir)
        dir_free(dir);
}

void fuse_dir_release_all(struct fuse_conn *conn)
{
    while (!list_empty(&conn->dirs))
        dir_free(LIST_ENTRY(conn->dirs.next, struct dir, link));
}
