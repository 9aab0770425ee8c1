/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors of one reactor: level-triggered epoll.
 */
#ifndef REACTOR_FDS_H
#define REACTOR_FDS_H

#include <sys/epoll.h>

#include "reactor/reactor.h"

#define REACTOR_FDS_BATCH 64

struct reactor_fds {
    int epoll_fd;
    int nr_fetched; /* events of the batch that is being handled */
    int at;         /* the one whose callback runs */
    struct epoll_event events[REACTOR_FDS_BATCH];
};

/** 0 or -errno. */
int reactor_fds_init(struct reactor_fds *fds);
void reactor_fds_fini(struct reactor_fds *fds);

int reactor_fds_add(struct reactor_fds *fds, struct reactor_fd *fd);
int reactor_fds_mod(struct reactor_fds *fds, struct reactor_fd *fd, uint32_t events);
void reactor_fds_del(struct reactor_fds *fds, struct reactor_fd *fd);

/**
 * Wait at most `timeout_ms` (-1: for ever) and fetch what is ready.  Returns how many
 * events there are, 0 after a signal too, or -errno.
 */
int reactor_fds_wait(struct reactor_fds *fds, int timeout_ms);

/** Call the callbacks of what was fetched.  Returns how many were called. */
unsigned reactor_fds_run(struct reactor_fds *fds);

#endif
