/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepting connections.
 *
 * Called by peer.c.  The listening sockets are the caller's: they are watched here
 * and never closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "endpoint/nbd/conn.h"

/* Connections taken per wake-up. */
#define ACCEPTS_PER_TURN 16

/** Out of descriptors or memory: the queue is left to wait instead of spinning on it.
 */
static void pause_listener(struct nbd_listener *listener, int error)
{
    struct nbd_peer *peer = listener->peer;

    log_line(LOG_WARNING, "nbd", "cannot accept a connection: %s", strerror(error));
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

static void on_connection(struct reactor_fd *self, uint32_t events)
{
    struct nbd_listener *listener = LIST_ENTRY(self, struct nbd_listener, io);
    struct nbd_peer *peer = listener->peer;

    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(self->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int rc;
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                errno == ENOMEM)
                pause_listener(listener, errno);
            return;
        }
        if (peer->nr_conns >= peer->max_conns) {
            log_line(LOG_WARNING, "nbd", "refused a connection: all %u are in use",
                     peer->max_conns);
            close(fd);
            continue;
        }
        rc = nbd_conn_create(peer, fd);
        if (rc)
            log_line(LOG_WARNING, "nbd", "dropped a connection: %s", strerror(-rc));
    }
}

int nbd_listen_start(struct nbd_peer *peer, const struct nbd_options *options)
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
