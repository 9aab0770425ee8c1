/* SPDX-License-Identifier: Apache-2.0 */
/* The volumes behind nodes (see file.h). */
#include "endpoint/fuse/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

static void use_opened(struct client_volume *volume, int64_t result);
static void use_closed(struct client_volume *volume);

static uint32_t use_opens(const struct fuse_use *use)
{
    const struct fuse_node *node = use->file->node;

    return use == &use->file->use[FUSE_USE_WRITE] ? node->writers : node->readers;
}

static bool use_idle(const struct fuse_use *use)
{
    return use->volume.state == CLIENT_VOLUME_CLOSED;
}

static void file_free_unused(struct fuse_file *file)
{
    struct fuse_conn *conn = file->conn;

    if (file->nr_requests || !use_idle(&file->use[FUSE_USE_READ]) ||
        !use_idle(&file->use[FUSE_USE_WRITE]))
        return;
    conn->files[fuse_nodes_index(conn->nodes, file->node)] = NULL;
    fuse_nodes_forget(conn->nodes, file->node, 0);
    conn->nr_files--;
    free(file);
    fuse_conn_settle(conn);
}

struct fuse_file *fuse_file_get(struct fuse_conn *conn, struct fuse_node *node)
{
    uint32_t at = fuse_nodes_index(conn->nodes, node);
    struct fuse_file *file = conn->files[at];

    if (!file) {
        file = calloc(1, sizeof(*file));
        if (!file)
            return NULL;
        file->conn = conn;
        file->node = node;
        for (int mode = 0; mode < FUSE_NR_USES; mode++) {
            struct fuse_use *use = &file->use[mode];
            client_volume_init(&use->volume, &conn->peer->client);
            use->volume.opened = use_opened;
            use->volume.closed = use_closed;
            use->file = file;
            list_init(&use->waiting);
        }
        conn->files[at] = file;
        conn->nr_files++;
    }
    file->nr_requests++;
    return file;
}

void fuse_file_put(struct fuse_file *file)
{
    file->nr_requests--;
    file_free_unused(file);
}

/* ---- opening and closing ----------------------------------------------------------- */

static void use_open(struct fuse_use *use)
{
    const struct fuse_node *node = use->file->node;
    bool writes = use == &use->file->use[FUSE_USE_WRITE];

    client_volume_open(&use->volume, node->name, node->name_len,
                       writes ? CLIENT_OPEN_WRITE : CLIENT_OPEN_READ);
}

static void use_opened(struct client_volume *volume, int64_t result)
{
    struct fuse_use *use = LIST_ENTRY(volume, struct fuse_use, volume);
    struct fuse_file *file = use->file;
    struct list waiting;
    struct list *link;

    list_init(&waiting);
    while ((link = list_pop_front(&use->waiting)))
        list_push_back(&waiting, link);
    file->nr_requests++; /* the answers below may be the last that count on it */
    if (result >= 0)
        file->size_bytes = volume->size_bytes;
    else
        log_line(LOG_WARNING, "fuse", "cannot open \"%.*s\": %s",
                 (int)file->node->name_len, (const char *)file->node->name,
                 strerror((int)-result));
    while ((link = list_pop_front(&waiting))) {
        struct fuse_request *rq = LIST_ENTRY(link, struct fuse_request, link);
        if (result >= 0)
            fuse_io_go(rq);
        else
            fuse_conn_reply_error(rq, result);
    }
    fuse_file_check_opens(file);
    fuse_file_put(file);
}

static void use_closed(struct client_volume *volume)
{
    struct fuse_use *use = LIST_ENTRY(volume, struct fuse_use, volume);

    /* Opened again while it was being closed. */
    if (!list_empty(&use->waiting))
        use_open(use);
    else
        file_free_unused(use->file);
}

void fuse_file_with_volume(struct fuse_request *rq)
{
    struct fuse_use *use = &rq->file->use[rq->mode];

    if (client_volume_is_open(&use->volume)) {
        fuse_io_go(rq);
        return;
    }
    list_push_back(&use->waiting, &rq->link);
    if (use_idle(use))
        use_open(use);
}

void fuse_file_check_opens(struct fuse_file *file)
{
    for (int mode = 0; mode < FUSE_NR_USES; mode++) {
        struct fuse_use *use = &file->use[mode];
        if (use_opens(use) == 0 && list_empty(&use->waiting) &&
            client_volume_is_open(&use->volume))
            client_volume_close(&use->volume);
    }
}

void fuse_file_adopt_all(struct fuse_conn *conn)
{
    for (uint32_t at = 0; at < fuse_nodes_used(conn->nodes); at++) {
        struct fuse_node *node = fuse_nodes_at(conn->nodes, at);
        struct fuse_file *file;

        if (!node || (node->readers == 0 && node->writers == 0))
            continue;
        file = fuse_file_get(conn, node);
        if (!file)
            continue; /* opened with its next request */
        for (int mode = 0; mode < FUSE_NR_USES; mode++)
            if (use_opens(&file->use[mode]) && use_idle(&file->use[mode]))
                use_open(&file->use[mode]);
        fuse_file_put(file);
    }
}

static void use_close_now(struct fuse_use *use)
{
    struct list *link;

    while ((link = list_pop_front(&use->waiting)))
        fuse_conn_reply_error(LIST_ENTRY(link, struct fuse_request, link), -EIO);
    if (use->volume.state != CLIENT_VOLUME_CLOSED &&
        use->volume.state != CLIENT_VOLUME_CLOSING)
        client_volume_close(&use->volume);
}

void fuse_file_close_all(struct fuse_conn *conn)
{
    for (uint32_t at = 0; at < fuse_nodes_used(conn->nodes) && conn->nr_files; at++) {
        struct fuse_file *file = conn->files[at];

        if (!file)
            continue;
        file->nr_requests++;
        use_close_now(&file->use[FUSE_USE_READ]);
        use_close_now(&file->use[FUSE_USE_WRITE]);
        fuse_file_put(file);
    }
}
