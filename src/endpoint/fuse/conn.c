/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading requests from the device and writing answers (see conn.h).
 *
 * Each read takes one whole request.  Its first FUSE_HEAD_BYTES go to memory of our own,
 * the rest to a free input buffer in the segment, so that the data of a WRITE can be lent
 * to vlmcd where it lies.
 */
#include "endpoint/fuse/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "endpoint/fuse/dir.h"
#include "endpoint/fuse/file.h"

/* Requests taken per wake-up: other sources of the loop get their turn. */
#define READS_PER_TURN 32

/* ---- answers ----------------------------------------------------------------------- */

/** The error as the kernel takes it: its own numbers, none of ours. */
static int32_t conn_errno(int64_t result)
{
    switch (-result) {
    case EBADMSG:
    case ESTALE:
    case EPIPE:
    case EOWNERDEAD:
    case ECANCELED:
    case EPROTO:
        return -EIO;
    default:
        return result < -511 ? -EIO : (int32_t)result;
    }
}

static void conn_write(struct fuse_conn *conn, uint64_t unique, int32_t error,
                       const void *data, uint32_t bytes)
{
    struct fuse_out_header head = {
        .len = (uint32_t)sizeof(head) + bytes, .error = error, .unique = unique};
    struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, bytes}};

    if (conn->io.fd < 0)
        return;
    /* ENOENT: the request was interrupted.  ENODEV: it was unmounted. */
    if (writev(conn->io.fd, iov, bytes ? 2 : 1) < 0 && errno != ENOENT &&
        errno != ENODEV)
        log_line(LOG_WARNING, "fuse", "%s: an answer was not taken: %s",
                 conn->about.path, strerror(errno));
}

void fuse_conn_reply(struct fuse_request *rq, const void *data, uint32_t bytes)
{
    conn_write(rq->conn, rq->unique, 0, data, bytes);
    fuse_conn_forget(rq);
}

void fuse_conn_reply_error(struct fuse_request *rq, int64_t result)
{
    conn_write(rq->conn, rq->unique, conn_errno(result), NULL, 0);
    fuse_conn_forget(rq);
}

/** Take no more until something is given back. */
static void conn_pause(struct fuse_conn *conn)
{
    if (conn->paused)
        return;
    conn->paused = true;
    if (reactor_mod_fd(conn->peer->reactor, &conn->io, 0))
        log_line(LOG_ERROR, "fuse", "%s: cannot pause the connection",
                 conn->about.path);
}

static void conn_resume(struct fuse_conn *conn)
{
    if (!conn->paused || conn->state != FUSE_CONN_SERVING)
        return;
    conn->paused = false;
    if (reactor_mod_fd(conn->peer->reactor, &conn->io, EPOLLIN))
        conn_pause(conn);
}

void fuse_conn_free_input(struct fuse_request *rq)
{
    if (!rq->input)
        return;
    list_push_back(&rq->conn->inputs, &rq->input->link);
    rq->input = NULL;
    conn_resume(rq->conn);
}

void fuse_conn_forget(struct fuse_request *rq)
{
    struct fuse_conn *conn = rq->conn;

    client_wait_cancel(&rq->waiter);
    if (rq->io.volume)
        client_io_end(&rq->io);
    fuse_conn_free_input(rq);
    free(rq->bounce);
    conn->nr_requests--;
    if (rq->file)
        fuse_file_put(rq->file);
    free(rq);
    fuse_conn_settle(conn);
}

bool fuse_conn_count(const struct fuse_request *rq)
{
    struct fuse_table *table = fuse_nodes_table(rq->conn->nodes);
    uint64_t unique = rq->unique & ~FUSE_PROTO_UNIQUE_RESEND;

    if (unique != rq->unique && table->counted == unique)
        return false;
    table->counted = unique;
    return true;
}

/* ---- requests ---------------------------------------------------------------------- */

/** The arguments in one piece: what of them was read behind the head is joined to it. */
static uint32_t conn_join(struct fuse_conn *conn, const struct fuse_input *input,
                          uint32_t bytes)
{
    uint32_t args = bytes - (uint32_t)sizeof(struct fuse_in_header);
    uint32_t in_head = FUSE_HEAD_BYTES - (uint32_t)sizeof(struct fuse_in_header);
    uint32_t first = args < in_head ? args : in_head;
    uint32_t rest = args - first;

    if (rest > FUSE_ARGS_BYTES - in_head)
        rest = FUSE_ARGS_BYTES - in_head;
    memcpy(conn->args, conn->head + sizeof(struct fuse_in_header), first);
    memcpy(conn->args + first, input->data, rest);
    return first + rest;
}

static bool conn_take(struct fuse_conn *conn, struct fuse_input *input, uint32_t bytes)
{
    struct fuse_in_header head;
    struct fuse_request *rq;
    uint32_t args;

    memcpy(&head, conn->head, sizeof(head));
    if (bytes < sizeof(head) || head.len != bytes) {
        log_line(LOG_ERROR, "fuse", "%s: a request of %u bytes makes no sense",
                 conn->about.path, bytes);
        return false;
    }
    args = conn_join(conn, input, bytes);
    rq = calloc(1, sizeof(*rq));
    if (!rq) {
        conn_write(conn, head.unique, -ENOMEM, NULL, 0);
        return false;
    }
    list_init(&rq->link);
    list_init(&rq->waiter.link);
    rq->conn = conn;
    rq->unique = head.unique;
    rq->node = head.nodeid;
    rq->opcode = head.opcode;
    conn->nr_requests++;
    if (head.opcode != FUSE_WRITE) {
        fuse_dispatch(rq, args);
        return false;
    }
    rq->input = input;
    fuse_dispatch(rq, bytes - (uint32_t)sizeof(head));
    return true;
}

static void conn_ended(struct fuse_conn *conn, int error)
{
    if (error == ENODEV)
        log_line(LOG_INFO, "fuse", "%s is unmounted", conn->about.path);
    else
        log_line(LOG_ERROR, "fuse", "%s: the connection failed: %s", conn->about.path,
                 strerror(error));
    fuse_conn_drain(conn);
}

static void conn_ready(struct reactor_fd *self, uint32_t events)
{
    struct fuse_conn *conn = LIST_ENTRY(self, struct fuse_conn, io);

    (void)events;
    for (int i = 0; i < READS_PER_TURN && conn->state == FUSE_CONN_SERVING; i++) {
        struct list *link = list_pop_front(&conn->inputs);
        struct fuse_input *input;
        ssize_t got;

        if (!link) {
            conn_pause(conn);
            return;
        }
        input = LIST_ENTRY(link, struct fuse_input, link);
        struct iovec iov[2] = {{conn->head, FUSE_HEAD_BYTES},
                               {input->data, FUSE_MAX_TRANSFER}};
        got = readv(conn->io.fd, iov, 2);
        int error = got < 0 ? errno : 0;
        if (got < 0 || !conn_take(conn, input, (uint32_t)got))
            list_push_front(&conn->inputs, &input->link);
        if (error == EAGAIN)
            return;
        /* ENOENT: the request was interrupted while it was read. */
        if (error && error != EINTR && error != ENOENT) {
            conn_ended(conn, error);
            return;
        }
    }
}

/* ---- life -------------------------------------------------------------------------- */

static int conn_inputs_alloc(struct fuse_conn *conn)
{
    struct xseg_segment *segment = conn->peer->client.segment;

    for (uint32_t i = 0; i < FUSE_NR_INPUTS; i++) {
        struct fuse_input *input = &conn->input[i];
        int64_t got = xseg_buffer_alloc(segment, FUSE_MAX_TRANSFER, &input->off);
        if (got < 0 && i == 0)
            return (int)got;
        if (got < 0)
            break; /* fewer will do */
        input->data = xseg_heap_ptr(segment, input->off, FUSE_MAX_TRANSFER);
        list_push_back(&conn->inputs, &input->link);
    }
    return 0;
}

/** The process that served it died: have the kernel send again what it did not answer,
 *  and take its volumes up again. */
static void conn_adopt(struct fuse_conn *conn)
{
    struct fuse_out_header notice = {.len = sizeof(notice),
                                     .error = FUSE_PROTO_NOTIFY_RESEND};

    fuse_file_adopt_all(conn);
    if (!(fuse_nodes_table(conn->nodes)->flags & FUSE_TABLE_RESENDS))
        log_line(LOG_WARNING, "fuse",
                 "%s: this kernel does not repeat requests: what was under way hangs "
                 "until it is unmounted",
                 conn->about.path);
    else if (write(conn->io.fd, &notice, sizeof(notice)) < 0)
        log_line(LOG_ERROR, "fuse", "%s: requests are not repeated: %s",
                 conn->about.path, strerror(errno));
}

int fuse_conn_create(struct fuse_peer *peer, int fd, int nodes_fd,
                     const struct fuse_attach *about)
{
    struct fuse_conn *conn = calloc(1, sizeof(*conn));
    int rc = -ENOMEM;

    if (!conn)
        goto fail_fds;
    conn->io = (struct reactor_fd){.fd = fd, .events = EPOLLIN, .on_ready = conn_ready};
    conn->peer = peer;
    conn->about = *about;
    list_init(&conn->inputs);
    list_init(&conn->dirs);
    conn->since = (uint64_t)time(NULL);
    rc = fuse_nodes_map(nodes_fd, &conn->nodes);
    if (rc)
        goto fail;
    rc = -ENOMEM;
    conn->files = calloc(FUSE_NODES_MAX, sizeof(struct fuse_file *));
    if (!conn->files)
        goto fail;
    rc = conn_inputs_alloc(conn);
    if (rc)
        goto fail;
    rc = reactor_add_fd(peer->reactor, &conn->io);
    if (rc)
        goto fail;
    close(nodes_fd);
    list_push_back(&peer->conns, &conn->link);
    peer->nr_attached++;
    if (fuse_nodes_table(conn->nodes)->initialized)
        conn_adopt(conn);
    log_line(LOG_INFO, "fuse", "%s is served", conn->about.path);
    return 0;

fail:
    conn->io.fd = -1;
    conn->state = FUSE_CONN_CLOSED;
    list_init(&conn->link);
    fuse_conn_free(conn);
fail_fds:
    close(fd);
    close(nodes_fd);
    return rc;
}

void fuse_conn_drain(struct fuse_conn *conn)
{
    if (conn->state != FUSE_CONN_SERVING)
        return;
    conn->state = FUSE_CONN_DRAINING;
    reactor_del_fd(conn->peer->reactor, &conn->io);
    fuse_conn_settle(conn);
}

void fuse_conn_abandon(struct fuse_conn *conn)
{
    if (conn->state >= FUSE_CONN_CLOSING)
        return;
    if (conn->state == FUSE_CONN_SERVING)
        reactor_del_fd(conn->peer->reactor, &conn->io);
    conn->state = FUSE_CONN_CLOSING;
    close(conn->io.fd); /* the supervisor's descriptor keeps the mount alive */
    conn->io.fd = -1;
    fuse_dir_release_all(conn);
    fuse_file_close_all(conn);
    fuse_conn_settle(conn);
}

void fuse_conn_settle(struct fuse_conn *conn)
{
    switch (conn->state) {
    case FUSE_CONN_SERVING:
        conn_resume(conn);
        return;
    case FUSE_CONN_DRAINING:
        if (!conn->nr_requests)
            fuse_conn_abandon(conn);
        return;
    case FUSE_CONN_CLOSING:
        if (conn->nr_requests || conn->nr_files)
            return;
        conn->state = FUSE_CONN_CLOSED;
        fuse_peer_arm(conn->peer);
        return;
    case FUSE_CONN_CLOSED:
        return;
    }
}

void fuse_conn_free(struct fuse_conn *conn)
{
    for (uint32_t i = 0; i < FUSE_NR_INPUTS; i++)
        if (conn->input[i].off)
            xseg_buffer_free(conn->peer->client.segment, conn->input[i].off);
    list_remove(&conn->link);
    fuse_nodes_unmap(conn->nodes);
    free(conn->files);
    free(conn);
}
