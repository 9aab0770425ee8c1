/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a connection: bytes in, states, end.
 *
 * Runs on the reactor's thread.  Bytes are read into the input buffer, many requests
 * at a time; what is missing of a WRITE's data is read straight into its segment
 * buffer.  Then the handler of the state is called until it needs something.
 *
 *   accepted -> CLIENT_FLAGS -> OPTION ... -> REQUEST ... -> DRAINING -> CLOSED ->
 * freed
 *                                  `------------ any error ---------------^
 * Invariant: a CLOSED connection is freed when it has no command and its volume is
 * closed.
 */
#include "endpoint/nbd/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"
#include "endpoint/nbd/command.h"
#include "endpoint/nbd/handshake.h"
#include "endpoint/nbd/volume.h"

/* Reads of one connection per wake-up, so that a busy one leaves room for others. */
#define READS_PER_TURN 4
/* Enough that one large reply fits whole; the system may grant less. */
#define SOCKET_BUFFER_BYTES (2 << 20)

static enum nbd_step on_nothing(struct nbd_conn *conn)
{
    (void)conn;
    return NBD_STEP_WAIT;
}

static enum nbd_step (*const handlers[NBD_NR_CONN_STATES])(struct nbd_conn *) = {
    [NBD_CONN_CLIENT_FLAGS] = nbd_on_client_flags,
    [NBD_CONN_OPTION] = nbd_on_option,
    [NBD_CONN_OPTION_SKIP] = nbd_on_option_skip,
    [NBD_CONN_OPTION_WAIT] = on_nothing,
    [NBD_CONN_REQUEST] = nbd_on_request,
    [NBD_CONN_PAYLOAD] = nbd_on_payload,
    [NBD_CONN_PAYLOAD_SKIP] = nbd_on_payload_skip,
    [NBD_CONN_DRAINING] = nbd_on_draining,
    [NBD_CONN_CLOSED] = on_nothing,
};

static bool in_handshake(const struct nbd_conn *conn)
{
    return conn->state < NBD_CONN_REQUEST;
}

/** Handle what is buffered as far as it goes. */
static void run(struct nbd_conn *conn)
{
    enum nbd_step step;

    do {
        step = handlers[conn->state](conn);
    } while (step == NBD_STEP_AGAIN);
    conn->waiting = step == NBD_STEP_WAIT;
    if (step == NBD_STEP_CLOSE)
        nbd_conn_close(conn);
}

/** Listen for what can be used now: readiness that is not wanted would spin the loop.
 */
static void set_interest(struct nbd_conn *conn, bool in)
{
    uint32_t events = (in ? EPOLLIN : 0) | (conn->out_blocked ? EPOLLOUT : 0);

    if (conn->io.fd >= 0 && events != conn->io.events &&
        reactor_mod_fd(conn->peer->reactor, &conn->io, events))
        nbd_conn_close(conn);
}

/* ---- input -------------------------------------------------------------------------
 */

/** Make room behind what is buffered: only ever a part of a request or option. */
static void compact(struct nbd_conn *conn)
{
    uint32_t left = nbd_conn_buffered(conn);

    if (conn->in_pos == 0)
        return;
    memmove(conn->in, conn->in + conn->in_pos, left);
    conn->in_pos = 0;
    conn->in_len = left;
}

/** Read once.  Returns 1 if there may be more, 0 if not, -errno; -ECONNRESET at the
 * end. */
static int read_once(struct nbd_conn *conn)
{
    struct nbd_piece *piece =
        conn->state == NBD_CONN_PAYLOAD ? conn->incoming->filling : NULL;
    struct iovec iov[2];
    size_t direct = 0, room;
    ssize_t got;
    int n = 0;

    compact(conn);
    if (piece && nbd_conn_buffered(conn) == 0) {
        direct = piece->length - piece->filled;
        iov[n++] = (struct iovec){piece->io.buffer + piece->filled, direct};
    }
    room = sizeof(conn->in) - conn->in_len;
    iov[n++] = (struct iovec){conn->in + conn->in_len, room};
    do {
        got = readv(conn->io.fd, iov, n);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    if (got == 0)
        return -ECONNRESET;
    if ((size_t)got <= direct) {
        piece->filled += (uint32_t)got;
    } else {
        if (direct)
            piece->filled = piece->length;
        conn->in_len += (uint32_t)((size_t)got - direct);
    }
    return (size_t)got == direct + room;
}

/** The client will send no more.  Replies still go out: it may only have shut down its
 *  sending side. */
static void end_of_input(struct nbd_conn *conn)
{
    if (in_handshake(conn))
        nbd_conn_close(conn);
    else
        nbd_conn_drain(conn);
}

static void receive(struct nbd_conn *conn)
{
    for (int i = 0; i < READS_PER_TURN && conn->io.fd >= 0; i++) {
        int rc;
        if (conn->waiting) {
            set_interest(conn, false);
            return;
        }
        rc = read_once(conn);
        if (rc == -ECONNRESET) {
            end_of_input(conn);
            return;
        }
        if (rc < 0) {
            nbd_conn_close(conn);
            return;
        }
        run(conn);
        if (rc == 0)
            return;
    }
}

static void on_ready(struct reactor_fd *self, uint32_t events)
{
    struct nbd_conn *conn = LIST_ENTRY(self, struct nbd_conn, io);

    if (events & EPOLLERR) {
        nbd_conn_close(conn);
        return;
    }
    if (events & EPOLLOUT)
        nbd_conn_flush(conn);
    if (events & EPOLLIN)
        receive(conn);
    /* Both directions are gone and nothing is left to read. */
    if (events & EPOLLHUP && (conn->waiting || !(events & EPOLLIN)))
        nbd_conn_close(conn);
}

void nbd_conn_resume(struct nbd_conn *conn)
{
    client_wait_cancel(&conn->stall);
    run(conn);
    if (!conn->waiting)
        set_interest(conn, true);
}

void nbd_conn_stall(struct nbd_conn *conn)
{
    client_wait(&conn->peer->client, &conn->stall);
}

static void on_memory(struct client_waiter *self)
{
    nbd_conn_resume(LIST_ENTRY(self, struct nbd_conn, stall));
}

/* ---- output -----------------------------------------------------------------------
 */

void nbd_conn_dirty(struct nbd_conn *conn)
{
    if (list_empty(&conn->dirty_link))
        list_push_back(&conn->peer->dirty, &conn->dirty_link);
    nbd_peer_arm(conn->peer);
}

/** Nothing is left to answer. */
static bool idle(const struct nbd_conn *conn)
{
    return list_empty(&conn->out) && !conn->nr_commands;
}

void nbd_conn_flush(struct nbd_conn *conn)
{
    bool was_blocked = conn->out_blocked;
    int rc;

    if (conn->io.fd < 0)
        return;
    rc = nbd_reply_flush(conn);
    if (rc < 0) {
        nbd_conn_close(conn);
        return;
    }
    conn->out_blocked = rc > 0;
    if (conn->out_blocked != was_blocked)
        set_interest(conn, conn->io.events & EPOLLIN);
    if (rc > 0 || conn->io.fd < 0)
        return;
    if (conn->state == NBD_CONN_DRAINING && idle(conn))
        nbd_conn_close(conn);
    else if (conn->exports)
        nbd_exports_continue(conn);
    else if (conn->state == NBD_CONN_OPTION && conn->waiting)
        nbd_conn_resume(conn);
}

/* ---- life -------------------------------------------------------------------------
 */

static void on_timeout(struct reactor_timer *self)
{
    struct nbd_conn *conn = LIST_ENTRY(self, struct nbd_conn, timer);

    if (conn->state == NBD_CONN_OPTION_WAIT) {
        /* It waits for us, not we for it. */
        reactor_arm_timer(conn->peer->reactor, self, conn->peer->handshake_ns);
        return;
    }
    if (in_handshake(conn)) {
        conn->peer->counted.timed_out++;
        log_line(LOG_INFO, "nbd", "a client did not finish its handshake in time");
    }
    nbd_conn_close(conn);
}

static void tune_socket(int fd)
{
    int one = 1, size = SOCKET_BUFFER_BYTES;

    /* All of these only make it faster, and some do not apply to every kind of socket.
     */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

int nbd_conn_create(struct nbd_peer *peer, int fd)
{
    struct nbd_conn *conn = calloc(1, sizeof(*conn));
    int rc;

    if (!conn) {
        rc = -ENOMEM;
        goto fail_fd;
    }
    conn->peer = peer;
    conn->io = (struct reactor_fd){.fd = fd, .events = EPOLLIN, .on_ready = on_ready};
    conn->timer.on_fire = on_timeout;
    list_init(&conn->link);
    list_init(&conn->handshake_link);
    list_init(&conn->dirty_link);
    list_init(&conn->stall.link);
    conn->stall.resume = on_memory;
    nbd_volume_init(conn);
    list_init(&conn->commands);
    list_init(&conn->streams_waiting);
    list_init(&conn->out);
    list_init(&conn->held);
    tune_socket(fd);
    rc = reactor_add_fd(peer->reactor, &conn->io);
    if (rc)
        goto fail_conn;
    list_push_back(&peer->conns, &conn->link);
    list_push_back(&peer->handshakes, &conn->handshake_link);
    peer->nr_conns++;
    peer->nr_sockets++;
    peer->counted.handshakes++;
    reactor_arm_timer(peer->reactor, &conn->timer, peer->handshake_ns);
    if (nbd_handshake_greet(conn))
        nbd_conn_close(conn);
    return 0;

fail_conn:
    free(conn);
fail_fd:
    close(fd);
    return rc;
}

void nbd_conn_leave_handshake(struct nbd_conn *conn)
{
    if (list_empty(&conn->handshake_link))
        return;
    list_remove(&conn->handshake_link);
    conn->peer->counted.handshakes--;
}

void nbd_conn_drain(struct nbd_conn *conn)
{
    struct nbd_command *cmd = conn->incoming;

    conn->incoming = NULL;
    if (cmd)
        nbd_command_abandon(cmd);
    if (conn->nr_commands)
        client_volume_leave(&conn->volume);
    conn->state = NBD_CONN_DRAINING;
    nbd_conn_leave_handshake(conn);
    conn->waiting = true;
    set_interest(conn, false);
    if (conn->state == NBD_CONN_CLOSED)
        return;
    reactor_arm_timer(conn->peer->reactor, &conn->timer, NBD_DRAIN_TIMEOUT_NS);
    nbd_conn_dirty(conn);
}

void nbd_conn_close(struct nbd_conn *conn)
{
    if (conn->state == NBD_CONN_CLOSED)
        return;
    conn->state = NBD_CONN_CLOSED;
    nbd_conn_leave_handshake(conn);
    conn->peer->nr_sockets--;
    conn->waiting = true;
    reactor_disarm_timer(conn->peer->reactor, &conn->timer);
    reactor_del_fd(conn->peer->reactor, &conn->io);
    close(conn->io.fd);
    conn->io.fd = -1;
    list_remove(&conn->dirty_link);
    client_wait_cancel(&conn->stall);
    nbd_exports_free(conn);
    conn->incoming = NULL;
    conn->issuing = NULL;
    conn->stream = NULL;
    nbd_reply_drop(conn);
    LIST_FOR_EACH(it, next, &conn->commands)
    nbd_command_abandon(LIST_ENTRY(it, struct nbd_command, link));
    nbd_volume_close(conn);
    nbd_conn_settle(conn);
}

void nbd_conn_settle(struct nbd_conn *conn)
{
    struct nbd_peer *peer = conn->peer;

    if (conn->state != NBD_CONN_CLOSED || conn->nr_commands || conn->dead ||
        conn->volume.state != CLIENT_VOLUME_CLOSED)
        return;
    conn->dead = true;
    list_remove(&conn->link);
    list_push_back(&peer->dead, &conn->link);
    peer->nr_conns--;
    nbd_peer_arm(peer);
}

void nbd_conn_free(struct nbd_conn *conn)
{
    list_remove(&conn->link);
    free(conn);
}
