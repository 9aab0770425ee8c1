/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another node of the same store: a process of its own with its own blockers, which does
 * what it is told, one thing after the other.
 */
#ifndef TESTS_BLOCKER_NODE_H
#define TESTS_BLOCKER_NODE_H

#include <sys/types.h>

#include "blocker/client.h"

struct node {
    pid_t pid;
    int fd; /* socket: struct order there, int64_t back */
};

enum node_verb {
    NODE_READ,  /* answers whether all bytes are `fill` */
    NODE_WRITE, /* of `size` bytes of `fill` */
    NODE_FLUSH,
    NODE_RELEASE,
    NODE_STORM,   /* writes `count` sectors from 0 on, over and over; one byte to
                     `progress` for each 64 that were acknowledged */
    NODE_ACQUIRE, /* LEASE number `count` for owner "node", for an hour */
    NODE_NOTIFY,  /* answers the fence that is told, for LEASE `count`; else -1 */
};

struct order {
    enum node_verb verb;
    struct xseg_object object;
    uint64_t off, size, count;
    uint32_t flags;
    uint8_t fill;
};

/** Start one.  The caller's own blockers do not run: a fork takes no threads along. */
void node_start(struct node *node, const struct setup *setup);
/** Tell it; node_result waits for its answer. */
void node_tell(struct node *node, const struct order *order);
int64_t node_result(struct node *node);
int64_t node_do(struct node *node, struct order order);
/** Pause it, and wait until it is. */
void node_pause(struct node *node);
void node_continue(struct node *node);
void node_kill(struct node *node);
/** Orderly end. */
void node_stop(struct node *node);

#endif
