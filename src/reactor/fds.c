/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors of one reactor (see fds.h).
 *
 * Invariant: events after `at` in the batch belong to descriptors that are still added:
 * removing one clears its events, so a callback never sees a freed struct reactor_fd.
 */
#include "reactor/fds.h"

#include <errno.h>
#include <unistd.h>

int reactor_fds_init(struct reactor_fds *fds)
{
    fds->nr_fetched = 0;
    fds->at = 0;
    fds->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return fds->epoll_fd < 0 ? -errno : 0;
}

void reactor_fds_fini(struct reactor_fds *fds)
{
    if (fds->epoll_fd >= 0)
        close(fds->epoll_fd);
    fds->epoll_fd = -1;
}

int reactor_fds_add(struct reactor_fds *fds, struct reactor_fd *fd)
{
    struct epoll_event event = {.events = fd->events, .data.ptr = fd};

    return epoll_ctl(fds->epoll_fd, EPOLL_CTL_ADD, fd->fd, &event) < 0 ? -errno : 0;
}

int reactor_fds_mod(struct reactor_fds *fds, struct reactor_fd *fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = fd};

    if (fd->events == events)
        return 0;
    if (epoll_ctl(fds->epoll_fd, EPOLL_CTL_MOD, fd->fd, &event) < 0)
        return -errno;
    fd->events = events;
    return 0;
}

void reactor_fds_del(struct reactor_fds *fds, struct reactor_fd *fd)
{
    /* fails only for one that was closed or never added: then nothing is left to do */
    epoll_ctl(fds->epoll_fd, EPOLL_CTL_DEL, fd->fd, NULL);
    for (int i = fds->at; i < fds->nr_fetched; i++)
        if (fds->events[i].data.ptr == fd)
            fds->events[i].data.ptr = NULL;
}

int reactor_fds_wait(struct reactor_fds *fds, int timeout_ms)
{
    int nr = epoll_wait(fds->epoll_fd, fds->events, REACTOR_FDS_BATCH, timeout_ms);

    if (nr < 0) {
        fds->nr_fetched = 0;
        return errno == EINTR ? 0 : -errno;
    }
    fds->nr_fetched = nr;
    return nr;
}

unsigned reactor_fds_run(struct reactor_fds *fds)
{
    unsigned nr = 0;

    for (fds->at = 0; fds->at < fds->nr_fetched; fds->at++) {
        struct reactor_fd *fd = fds->events[fds->at].data.ptr;
        uint32_t events = fds->events[fds->at].events;

        if (!fd)
            continue;
        /* an earlier callback of the batch may have asked for less */
        events &= fd->events | EPOLLERR | EPOLLHUP;
        if (!events)
            continue;
        fd->on_ready(fd, events);
        nr++;
    }
    fds->at = fds->nr_fetched = 0;
    return nr;
}
