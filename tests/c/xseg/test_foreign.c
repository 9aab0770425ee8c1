/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process of another pid namespace joins: it takes nobody for dead, nobody takes it
 * for dead while it lives, and what it held comes back when it has ended (issue 9,
 * fault 1).
 */
#include <sys/resource.h>

#include "fixture.h"
#include "xseg/internal.h"

#define SKIPPED 77

static struct xseg_segment *seg;
static struct xseg_reap_result reaped;
static int to_child[2], to_parent[2];

static void say(int fd)
{
    CHECK_EQ(write(fd, "!", 1), 1);
}

static void hear(int fd)
{
    char byte;
    CHECK_EQ(read(fd, &byte, 1), 1);
}

/* Everything that a process without a view of the others might break. */
static void change_nothing(struct xseg_segment *own)
{
    struct xseg_port *port;
    CHECK_EQ(xseg_reap(own, &reaped), 0);
    CHECK_EQ(reaped.ports + reaped.requests + reaped.buffers, 0);
    CHECK_EQ(xseg_port_bind(own, XSEG_PORT_VLMCD, "thief", &port), -EBUSY);
    CHECK_EQ(xseg_port_life(own, XSEG_PORT_VLMCD), XSEG_LIFE_UNKNOWN);
    /* The lock of a process that cannot be looked at is not taken. */
    uint64_t vlmcd = own->ports[XSEG_PORT_VLMCD].owner;
    store64_relaxed(&own->header->lock_owner, vlmcd);
    CHECK(!segment_trylock(own));
    store64_relaxed(&own->header->lock_owner, 0);
}

static void stranger(void)
{
    struct xseg_segment *own;
    uint64_t off;
    CHECK_EQ(xseg_segment_attach(segment_created, &own), 0);
    CHECK(own->self & OWNER_LOCK_BIT);
    change_nothing(own);
    struct xseg_port *port = port_new(own, XSEG_PORT_ANY, "stranger");
    CHECK_EQ(xseg_port_life(own, xseg_port_id(port)), XSEG_LIFE_ALIVE);
    request_new(port);
    CHECK(xseg_buffer_alloc(own, 4096, &off) > 0);
    CHECK_EQ(xseg_request_submit(port, request_new(port), XSEG_PORT_VLMCD), 0);
    say(to_parent[1]);
    for (;;)
        pause();
}

/* The child of a child: the first in its namespace. */
static int stranger_begin(void)
{
    if (unshare(CLONE_NEWPID) < 0)
        return SKIPPED;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        stranger();
    }
    hear(to_child[0]);
    /* From outside: the first process of a namespace ignores its own signals. */
    CHECK_EQ(kill(child, SIGKILL), 0);
    child_bury(child);
    return 0;
}

static int a_stranger_lives_and_dies(void)
{
    int status;
    struct xseg_port *vlmcd = port_new(seg, XSEG_PORT_VLMCD, "vlmcd");
    CHECK_EQ(pipe(to_child), 0);
    CHECK_EQ(pipe(to_parent), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(stranger_begin());
    close(to_parent[1]);
    char byte;
    if (read(to_parent[0], &byte, 1) != 1) {
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED);
        xseg_port_unbind(vlmcd);
        segment_end(seg);
        return SKIPPED;
    }
    /* It has pid 1 in its namespace, which is another process here. */
    CHECK_EQ(xseg_port_life(seg, XSEG_PORT_DYNAMIC), XSEG_LIFE_ALIVE);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    CHECK_EQ(reaped.ports + reaped.requests + reaped.buffers, 0);
    CHECK(xseg_port_accept(vlmcd));
    say(to_child[1]);
    child_join(child);
    CHECK_EQ(xseg_port_life(seg, XSEG_PORT_DYNAMIC), XSEG_LIFE_DEAD);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    CHECK_EQ(reaped.ports, 1);
    CHECK_EQ(reaped.buffers, 1);
    xseg_port_unbind(vlmcd);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    segment_check_idle(seg);
    return 0;
}

/* A client whose descriptors are used up looks at living peers. */
static void look_without_descriptors(struct xseg_segment *own)
{
    struct rlimit none = {0, 0};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    change_nothing(own);
}

static void look_from_outside_proc(struct xseg_segment *own)
{
    CHECK_EQ(chroot("/var"), 0); /* no /proc there */
    change_nothing(own);
}

static void nobody_is_taken_for_dead(void (*look)(struct xseg_segment *own))
{
    struct xseg_port *vlmcd = port_new(seg, XSEG_PORT_VLMCD, "vlmcd");
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_request *rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_VLMCD), 0);
    child_join(child_start(look, CHILD_DETACHES));
    CHECK(xseg_port_accept(vlmcd) == rq);
    CHECK_EQ(xseg_request_complete(vlmcd, rq, 0), 0);
    CHECK(xseg_port_reap(client) == rq);
    xseg_port_unbind(client);
    xseg_port_unbind(vlmcd);
    segment_check_idle(seg);
}

int main(void)
{
    seg = segment_new(&small_segment);
    nobody_is_taken_for_dead(look_without_descriptors);
    if (geteuid() == 0)
        nobody_is_taken_for_dead(look_from_outside_proc);
    if (a_stranger_lives_and_dies() == SKIPPED)
        return 0;
    segment_end(seg);
    return 0;
}
