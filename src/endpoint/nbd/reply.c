/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending replies: one sendmsg for as many as fit, straight from segment buffers.
 *
 * Called by commands and options to queue, and by the end-of-turn work to send.
 * Invariant: conn->out is in wire order; of its first message conn->out_sent bytes
 * are gone; while conn->stream is set only that command's parts are in front.
 */
#include "endpoint/nbd/reply.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "endpoint/nbd/conn.h"

/* Two per message; well below IOV_MAX, and enough for a full queue of small ones. */
#define NBD_IOVECS 128

void nbd_reply_queue(struct nbd_conn *conn, struct nbd_out *out)
{
    list_push_back(conn->stream ? &conn->held : &conn->out, &out->link);
    nbd_conn_dirty(conn);
}

void nbd_reply_queue_stream(struct nbd_conn *conn, struct nbd_out *out)
{
    list_push_back(&conn->out, &out->link);
    nbd_conn_dirty(conn);
}

void nbd_reply_end_stream(struct nbd_conn *conn)
{
    struct list *link;

    conn->stream = NULL;
    while ((link = list_pop_front(&conn->held)))
        list_push_back(&conn->out, link);
    nbd_conn_dirty(conn);
}

/** A message that owns its bytes. */
struct copied {
    struct nbd_out out;
    uint8_t bytes[];
};

static void copied_done(struct nbd_out *self)
{
    free(LIST_ENTRY(self, struct copied, out));
}

int nbd_reply_copy(struct nbd_conn *conn, const void *data, size_t len)
{
    struct copied *copy = malloc(sizeof(*copy) + len);

    if (!copy)
        return -ENOMEM;
    memcpy(copy->bytes, data, len);
    copy->out.done = copied_done;
    copy->out.head_len = 0;
    copy->out.data = copy->bytes;
    copy->out.data_len = (uint32_t)len;
    nbd_reply_queue(conn, &copy->out);
    return 0;
}

/** Describe the unsent bytes; returns the number of iovecs and sets their sum. */
static int gather(const struct nbd_conn *conn, struct iovec *iov, size_t *total)
{
    uint32_t skip = conn->out_sent;
    int n = 0;

    *total = 0;
    for (struct list *it = conn->out.next; it != &conn->out && n + 2 <= NBD_IOVECS;
         it = it->next) {
        struct nbd_out *out = LIST_ENTRY(it, struct nbd_out, link);
        if (skip < out->head_len) {
            iov[n].iov_base = out->head + skip;
            iov[n].iov_len = out->head_len - skip;
            *total += iov[n++].iov_len;
            skip = 0;
        } else {
            skip -= out->head_len;
        }
        if (skip < out->data_len) {
            iov[n].iov_base = (uint8_t *)out->data + skip;
            iov[n].iov_len = out->data_len - skip;
            *total += iov[n++].iov_len;
        }
        skip = 0;
    }
    return n;
}

/** `sent` more bytes are gone: finish the messages they complete. */
static void consume(struct nbd_conn *conn, size_t sent)
{
    while (!list_empty(&conn->out)) {
        struct nbd_out *out = LIST_ENTRY(conn->out.next, struct nbd_out, link);
        size_t left = (size_t)out->head_len + out->data_len - conn->out_sent;
        if (sent < left) {
            conn->out_sent += (uint32_t)sent;
            return;
        }
        sent -= left;
        conn->out_sent = 0;
        list_remove(&out->link);
        out->done(out);
    }
}

int nbd_reply_flush(struct nbd_conn *conn)
{
    struct iovec iov[NBD_IOVECS];

    while (!list_empty(&conn->out)) {
        size_t total;
        struct msghdr msg = {.msg_iov = iov,
                             .msg_iovlen = (size_t)gather(conn, iov, &total)};
        ssize_t sent = sendmsg(conn->io.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return 1;
            return -errno;
        }
        consume(conn, (size_t)sent);
        if ((size_t)sent < total)
            return 1;
    }
    return 0;
}

void nbd_reply_drop(struct nbd_conn *conn)
{
    struct list *link;

    conn->out_sent = 0;
    while ((link = list_pop_front(&conn->out)) ||
           (link = list_pop_front(&conn->held))) {
        struct nbd_out *out = LIST_ENTRY(link, struct nbd_out, link);
        out->done(out);
    }
}
