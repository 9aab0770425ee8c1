/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake: greeting, flags, and the frame of each option.
 *
 * Called by conn.c; each handler is named after its state.  What the options mean
 * is in options.c.  Limits: MAX_OPTIONS options, OPTION_MAX_BYTES each, all
 * within the time of endpoint_options.handshake_ms.
 */
#include "endpoint/nbd/handshake.h"

#include <errno.h>

/* A client needs a few, one that looks at every export some for each. */
#define MAX_OPTIONS 4096u
/* Larger than any option a client has reason to send; less than the input buffer. */
#define OPTION_MAX_BYTES (16u << 10)
/* A longer option is not read to its end: the connection is. */
#define OPTION_SKIP_BYTES (1u << 20)

int nbd_handshake_greet(struct nbd_conn *conn)
{
    uint8_t greeting[NBD_GREETING_BYTES];

    nbd_put64(greeting, NBD_INIT_MAGIC);
    nbd_put64(greeting + 8, NBD_OPTION_MAGIC);
    nbd_put16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    return nbd_reply_copy(conn, greeting, sizeof(greeting));
}

enum nbd_step nbd_on_client_flags(struct nbd_conn *conn)
{
    uint32_t flags;

    if (nbd_conn_buffered(conn) < NBD_CLIENT_FLAGS_BYTES)
        return NBD_STEP_MORE;
    flags = nbd_get32(conn->in + conn->in_pos);
    conn->in_pos += NBD_CLIENT_FLAGS_BYTES;
    if (flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
        return NBD_STEP_CLOSE;
    conn->fixed_newstyle = flags & NBD_FLAG_C_FIXED_NEWSTYLE;
    conn->no_zeroes = flags & NBD_FLAG_C_NO_ZEROES;
    conn->state = NBD_CONN_OPTION;
    return NBD_STEP_AGAIN;
}

int nbd_option_reply(struct nbd_conn *conn, uint32_t type, const void *data,
                     uint32_t len)
{
    uint8_t reply[NBD_OPTION_REPLY_HEAD_BYTES + 4 + NBD_MAX_STRING_BYTES];

    nbd_put64(reply, NBD_OPTION_REPLY_MAGIC);
    nbd_put32(reply + 8, conn->option);
    nbd_put32(reply + 12, type);
    nbd_put32(reply + 16, len);
    if (len)
        memcpy(reply + NBD_OPTION_REPLY_HEAD_BYTES, data, len);
    return nbd_reply_copy(conn, reply, NBD_OPTION_REPLY_HEAD_BYTES + len);
}

int nbd_option_error(struct nbd_conn *conn, uint32_t type, const char *message)
{
    return nbd_option_reply(conn, type, message, (uint32_t)strlen(message));
}

enum nbd_step nbd_on_option(struct nbd_conn *conn)
{
    const uint8_t *head = conn->in + conn->in_pos;
    enum nbd_step step;
    uint32_t len;

    if (!list_empty(&conn->out))
        return NBD_STEP_WAIT; /* one option at a time: resumed when its reply is sent */
    if (nbd_conn_buffered(conn) < NBD_OPTION_HEAD_BYTES)
        return NBD_STEP_MORE;
    if (nbd_get64(head) != NBD_OPTION_MAGIC)
        return NBD_STEP_CLOSE;
    conn->option = nbd_get32(head + 8);
    len = nbd_get32(head + 12);
    if (len > OPTION_SKIP_BYTES || conn->nr_options >= MAX_OPTIONS)
        return NBD_STEP_CLOSE;
    if (len > OPTION_MAX_BYTES) {
        conn->in_pos += NBD_OPTION_HEAD_BYTES;
        conn->nr_options++;
        conn->skip_bytes = len;
        conn->state = NBD_CONN_OPTION_SKIP;
        return NBD_STEP_AGAIN;
    }
    if (nbd_conn_buffered(conn) < NBD_OPTION_HEAD_BYTES + len)
        return NBD_STEP_MORE;
    conn->nr_options++;
    /* Only EXPORT_NAME can be answered to a client that knows no option replies. */
    if (!conn->fixed_newstyle && conn->option != NBD_OPT_EXPORT_NAME)
        return NBD_STEP_CLOSE;
    step = nbd_option_serve(conn, head + NBD_OPTION_HEAD_BYTES, len);
    conn->in_pos += NBD_OPTION_HEAD_BYTES + len;
    return step;
}

enum nbd_step nbd_on_option_skip(struct nbd_conn *conn)
{
    if (!nbd_conn_skipped(conn))
        return NBD_STEP_MORE;
    if (!conn->fixed_newstyle || conn->option == NBD_OPT_EXPORT_NAME)
        return NBD_STEP_CLOSE;
    conn->state = NBD_CONN_OPTION;
    return nbd_option_error(conn, NBD_REP_ERR_TOO_BIG, "the option is too long")
               ? NBD_STEP_CLOSE
               : NBD_STEP_AGAIN;
}

void nbd_handshake_done(struct nbd_conn *conn)
{
    reactor_disarm_timer(conn->peer->reactor, &conn->timer);
    nbd_conn_leave_handshake(conn);
    conn->state = NBD_CONN_REQUEST;
}
