/* SPDX-License-Identifier: Apache-2.0 */
/* See node.h. */
#include "blocker/node.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/** A storm that is told nothing ends some time. */
#define STORM_WRITES 6000u
#define STORM_REPORT 64u

static uint8_t buf[1u << 20];

static int64_t storm(struct server *s, const struct order *order, int fd)
{
    int64_t rc = 0;

    for (uint64_t i = 0; i < STORM_WRITES && rc >= 0; i++) {
        memset(buf, (int)(i % 251 + 1), SECTOR);
        rc = do_write(s, &order->object, i % order->count * SECTOR, buf, SECTOR, 0);
        if (i % STORM_REPORT == 0)
            CHECK_EQ(write(fd, "", 1), 1);
    }
    return rc;
}

static int64_t read_fill(struct server *s, const struct order *order)
{
    int64_t rc =
        do_read_as(s, &order->object, order->off, buf, order->size, order->flags);
    for (uint64_t i = 0; rc > 0 && i < order->size; i++)
        if (buf[i] != order->fill)
            return 0;
    return rc;
}

static int64_t notified(struct server *s, const struct order *order)
{
    struct xseg_object which, want = lease_name(order->count);
    struct xseg_lease lease;

    start_notify(s);
    int64_t rc = await_notify(s, &which, &lease);
    return rc == 0 && blk_object_equal(&which, &want) ? (int64_t)lease.fence : -1;
}

static int64_t follow(struct server *s, const struct order *order, int fd)
{
    struct xseg_object l = lease_name(order->count);
    struct xseg_lease lease = lease_of("node");

    switch (order->verb) {
    case NODE_READ:
        return read_fill(s, order);
    case NODE_WRITE:
        memset(buf, order->fill, order->size);
        return do_write(s, &order->object, order->off, buf, order->size, order->flags);
    case NODE_FLUSH:
        return do_flush(s, &order->object);
    case NODE_RELEASE:
        return do_release(s, &order->object, order->flags);
    case NODE_STORM:
        return storm(s, order, fd);
    case NODE_ACQUIRE:
        return do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0);
    case NODE_NOTIFY:
        return notified(s, order);
    }
    return -EINVAL;
}

static void serve(const struct setup *setup, int fd)
{
    static struct server server;
    struct order order;

    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
    server_start(&server, setup);
    while (read(fd, &order, sizeof order) == sizeof order) {
        int64_t rc = follow(&server, &order, fd);
        CHECK_EQ(write(fd, &rc, sizeof rc), sizeof rc);
    }
    server_stop(&server);
    exit(0);
}

void node_start(struct node *node, const struct setup *setup)
{
    int fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    fflush(stdout);
    node->pid = fork();
    CHECK(node->pid >= 0);
    if (node->pid == 0) {
        close(fds[0]);
        serve(setup, fds[1]);
    }
    close(fds[1]);
    node->fd = fds[0];
}

void node_tell(struct node *node, const struct order *order)
{
    CHECK_EQ(write(node->fd, order, sizeof *order), sizeof *order);
}

int64_t node_result(struct node *node)
{
    int64_t rc;
    ssize_t got;

    /* Reports of a storm are one byte. */
    while ((got = read(node->fd, &rc, sizeof rc)) == 1)
        ;
    CHECK_EQ(got, sizeof rc);
    return rc;
}

int64_t node_do(struct node *node, struct order order)
{
    node_tell(node, &order);
    return node_result(node);
}

void node_pause(struct node *node)
{
    int status;
    CHECK_EQ(kill(node->pid, SIGSTOP), 0);
    CHECK_EQ(waitpid(node->pid, &status, WUNTRACED), node->pid);
    CHECK(WIFSTOPPED(status));
}

void node_continue(struct node *node)
{
    CHECK_EQ(kill(node->pid, SIGCONT), 0);
}

void node_kill(struct node *node)
{
    CHECK_EQ(kill(node->pid, SIGKILL), 0);
    CHECK_EQ(waitpid(node->pid, NULL, 0), node->pid);
    close(node->fd);
}

void node_stop(struct node *node)
{
    int status;
    /* Nodes that were forked later have copies of the descriptor. */
    CHECK_EQ(shutdown(node->fd, SHUT_RDWR), 0);
    close(node->fd);
    CHECK_EQ(waitpid(node->pid, &status, 0), node->pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
