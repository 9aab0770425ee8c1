/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepting connections.
 *
 * Called by peer.c.  The listening sockets are the caller's: they are watched here
 * and never closed.
 *
 * Places for connections are limited by the process's descriptors.  When they are short,
 * the oldest connection that has not finished its handshake makes place for the new one:
 * clients that connect and say nothing cannot keep others out.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "endpoint/nbd/conn.h"

/* Connections taken per wake-up. */
#define ACCEPTS_PER_TURN 16

/* Connections that an instance serves even where descriptors are scarce, and the most
 * that make sense: each has an input buffer of NBD_INPUT_BYTES. */
#define MIN_PLACES 16u
#define MAX_PLACES 8192u
/* The log is told of a shortage at most this often. */
#define TELL_NS UINT64_C(1000000000)

uint32_t nbd_listen_places(const struct nbd_peer *peer)
{
    struct rlimit limit;

    if (peer->max_sockets)
        return peer->max_sockets;
    /* The other half is for the files of peers in the same process. */
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur / 2 > MAX_PLACES)
        return MAX_PLACES;
    return limit.rlim_cur / 2 < MIN_PLACES ? MIN_PLACES
                                           : (uint32_t)(limit.rlim_cur / 2);
}

/** Say that places are short, with what that has cost so far. */
static void listen_tell(struct nbd_peer *peer, const char *what)
{
    uint64_t now = reactor_now_ns(peer->reactor);

    if (peer->told_ns && now - peer->told_ns < TELL_NS)
        return;
    peer->told_ns = now;
    log_line(LOG_WARNING, "nbd",
             "%s: %u connections of at most %u; so far %llu refused, and %llu closed "
             "because they did not finish their handshake",
             what, peer->nr_sockets, nbd_listen_places(peer),
             (unsigned long long)peer->counted.refused,
             (unsigned long long)peer->counted.overtaken);
}

/**
 * Close the oldest connection that has not finished its handshake, to make place for a
 * newer one.  One that waits for us rather than we for it is closed last.
 */
static bool listen_make_place(struct nbd_peer *peer)
{
    struct nbd_conn *victim = NULL;

    LIST_FOR_EACH(it, next, &peer->handshakes)
    {
        struct nbd_conn *conn = LIST_ENTRY(it, struct nbd_conn, handshake_link);
        if (!victim)
            victim = conn;
        if (conn->state != NBD_CONN_OPTION_WAIT) {
            victim = conn;
            break;
        }
    }
    if (!victim)
        return false;
    peer->counted.overtaken++;
    nbd_conn_close(victim);
    return true;
}

/** Out of descriptors or memory: the queue is left to wait instead of spinning on it.
 */
static void pause_listener(struct nbd_listener *listener, int error)
{
    struct nbd_peer *peer = listener->peer;

    listen_tell(peer, strerror(error));
    listener->paused = true;
    if (reactor_mod_fd(peer->reactor, &listener->io, 0))
        log_line(LOG_ERROR, "nbd", "cannot pause a listening socket");
    reactor_arm_timer(peer->reactor, &peer->accept_retry, NBD_ACCEPT_RETRY_NS);
}

static void resume_listeners(struct reactor_timer *self)
{
    struct nbd_peer *peer = LIST_ENTRY(self, struct nbd_peer, accept_retry);

    for (uint32_t i = 0; i < peer->nr_listeners; i++) {
        struct nbd_listener *listener = &peer->listeners[i];
        if (!listener->paused)
            continue;
        listener->paused = false;
        if (reactor_mod_fd(peer->reactor, &listener->io, EPOLLIN))
            pause_listener(listener, EIO);
    }
}

/** Serve an accepted socket, if there is a place for it or one can be made. */
static void listen_serve(struct nbd_peer *peer, int fd)
{
    int rc;

    peer->counted.accepted++;
    if (peer->nr_sockets >= nbd_listen_places(peer)) {
        bool made = listen_make_place(peer);
        peer->counted.refused += !made;
        listen_tell(peer,
                    made ? "connection places are short" : "refused a connection");
        if (!made) {
            close(fd);
            return;
        }
    }
    rc = nbd_conn_create(peer, fd);
    if (rc) {
        peer->counted.refused++;
        listen_tell(peer, strerror(-rc));
    }
}

static void on_connection(struct reactor_fd *self, uint32_t events)
{
    struct nbd_listener *listener = LIST_ENTRY(self, struct nbd_listener, io);
    struct nbd_peer *peer = listener->peer;

    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(self->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listen_serve(peer, fd);
            continue;
        }
        if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
            return;
        if (errno == EMFILE && listen_make_place(peer)) {
            listen_tell(peer, "descriptors are short");
            continue;
        }
        pause_listener(listener, errno);
        return;
    }
}

int nbd_listen_start(struct nbd_peer *peer, const struct endpoint_options *options)
{
    int rc;

    peer->accept_retry.on_fire = resume_listeners;
    peer->listeners = calloc(options->nr_listen_fds + 1, sizeof(*peer->listeners));
    if (!peer->listeners)
        return -ENOMEM;
    for (uint32_t i = 0; i < options->nr_listen_fds; i++) {
        struct nbd_listener *listener = &peer->listeners[i];
        listener->peer = peer;
        listener->io = (struct reactor_fd){
            .fd = options->listen_fds[i], .events = EPOLLIN, .on_ready = on_connection};
        rc = reactor_add_fd(peer->reactor, &listener->io);
        if (rc) {
            nbd_listen_stop(peer);
            return rc;
        }
        peer->nr_listeners++;
    }
    return 0;
}

void nbd_listen_stop(struct nbd_peer *peer)
{
    reactor_disarm_timer(peer->reactor, &peer->accept_retry);
    for (uint32_t i = 0; i < peer->nr_listeners; i++)
        reactor_del_fd(peer->reactor, &peer->listeners[i].io);
    peer->nr_listeners = 0;
    free(peer->listeners);
    peer->listeners = NULL;
}
