/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port's doorbell for a loop: a helper thread turns the futex into an eventfd.
 *
 * The helper sleeps on bell_word, which moves only when somebody rings for a sleeper,
 * so it costs nothing while the loop is awake.  The loop's thread calls everything here
 * but helper_main.
 */
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "xseg/futex.h"
#include "xseg/internal.h"
#include "xseg/port.h"

static void *helper_main(void *arg)
{
    struct xseg_port *port = arg;
    struct xseg_port_shared *bell = port->slot;
    uint32_t seen = port->bell_seen;
    while (!load32_acquire(&port->bell_quit)) {
        uint32_t word = load32_seq(&bell->bell_word);
        if (word == seen) {
            futex_wait(&bell->bell_word, word, UINT64_MAX);
            continue;
        }
        seen = word;
        const uint64_t one = 1;
        /* Cannot block and fail but by a full counter, which is readable already. */
        ssize_t ignored = write(port->bell_fd, &one, sizeof(one));
        (void)ignored;
        /* Release: after the write; partner in xseg_bell_disarm. */
        add32_seq(&port->bell_written, 1);
    }
    return NULL;
}

int xseg_bell_fd(struct xseg_port *port)
{
    if (port->bell_running)
        return port->bell_fd;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    port->bell_fd = fd;
    port->bell_seen = load32_seq(&port->slot->bell_word);
    store32_release(&port->bell_quit, 0);

    /* The helper takes no signals: they are the program's business. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&port->bell_thread, NULL, helper_main, port);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        close(fd);
        port->bell_fd = -1;
        return -rc;
    }
    port->bell_running = true;
    return fd;
}

void xseg_bell_arm(struct xseg_port *port)
{
    count64(&port->slot->stats.sleeps, 1);
    /* seq_cst: before the loop's last look at its rings; partner in bell_ring. */
    store32_seq(&port->slot->bell_sleeping, 1);
}

void xseg_bell_disarm(struct xseg_port *port)
{
    store32_seq(&port->slot->bell_sleeping, 0);
    if (port->bell_fd < 0)
        return;
    /*
     * Most sleeps of a busy loop end without a ring: no system call then.  A write that
     * is not counted yet leaves the eventfd readable, and a later disarm empties it.
     */
    uint32_t written = load32_acquire(&port->bell_written);
    if (written == port->bell_drained)
        return;
    port->bell_drained = written;
    uint64_t count;
    ssize_t ignored = read(port->bell_fd, &count, sizeof(count));
    (void)ignored;
}

void bell_stop(struct xseg_port *port)
{
    if (!port->bell_running)
        return;
    store32_release(&port->bell_quit, 1);
    bell_force(port->seg, port->slot);
    pthread_join(port->bell_thread, NULL);
    close(port->bell_fd);
    port->bell_fd = -1;
    port->bell_running = false;
}
