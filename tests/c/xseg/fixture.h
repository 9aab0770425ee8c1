/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of libxseg share: a small segment of their own, and its end.
 */
#ifndef TESTS_XSEG_FIXTURE_H
#define TESTS_XSEG_FIXTURE_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "xseg/xseg.h"

static const struct xseg_segment_options small_segment = {
    .nr_ports = 16,
    .nr_requests = 256,
    .heap_bytes = 16u << 20,
};

/** A name that no other test process uses. */
static inline const char *segment_name(void)
{
    static char name[64];
    snprintf(name, sizeof(name), "xseg-test-%d", (int)getpid());
    return name;
}

/* A test that fails must not leave its segment in /dev/shm. */
static pid_t segment_creator;
static char segment_created[64];
static inline void segment_cleanup(void)
{
    if (segment_creator == getpid())
        xseg_segment_destroy(segment_created);
}

static inline struct xseg_segment *
segment_new(const struct xseg_segment_options *options)
{
    struct xseg_segment *seg = NULL;
    if (segment_creator == 0)
        atexit(segment_cleanup);
    segment_creator = getpid();
    snprintf(segment_created, sizeof(segment_created), "%s", segment_name());
    CHECK_EQ(xseg_segment_create(segment_name(), options, &seg), 0);
    return seg;
}

/** Nothing leaked: no port, descriptor or buffer is in use. */
static inline void segment_check_idle(struct xseg_segment *seg)
{
    const struct xseg_header *header = xseg_segment_header(seg);
    for (uint32_t p = 0; p < header->nr_ports; p++)
        CHECK_EQ(xseg_segment_port(seg, p)->state, XSEG_PORT_FREE);
    for (uint32_t i = 0; i < header->nr_requests; i++)
        CHECK_EQ(xseg_segment_request(seg, i)->state, XSEG_RS_FREE);
    struct xseg_heap_usage usage;
    xseg_heap_usage(seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0);
    CHECK_EQ(usage.used_bytes, 0);
}

static inline void segment_end(struct xseg_segment *seg)
{
    segment_check_idle(seg);
    xseg_segment_detach(seg);
    CHECK_EQ(xseg_segment_destroy(segment_created), 0);
}

static inline struct xseg_port *port_new(struct xseg_segment *seg, uint32_t id,
                                         const char *role)
{
    struct xseg_port *port = NULL;
    CHECK_EQ(xseg_port_bind(seg, id, role, &port), 0);
    return port;
}

static inline struct xseg_request *request_new(struct xseg_port *port)
{
    struct xseg_request *rq = NULL;
    CHECK_EQ(xseg_request_alloc(port, &rq), 0);
    return rq;
}

/** The next request that is sent to a port. */
static inline struct xseg_request *request_awaited(struct xseg_port *port)
{
    struct xseg_request *rq;
    while (!(rq = xseg_port_accept(port)))
        xseg_port_wait(port, UINT64_MAX);
    return rq;
}

/** Send to a peer that may not have bound its port yet. */
static inline void request_send(struct xseg_port *port, struct xseg_request *rq,
                                uint32_t dst)
{
    int rc;
    while ((rc = xseg_request_submit(port, rq, dst)) == -EPIPE)
        sched_yield();
    CHECK_EQ(rc, 0);
}

/** How a child ends after its deeds: EXITS leaves all that it holds. */
enum child_end { CHILD_DETACHES, CHILD_DIES, CHILD_EXITS };

/** Run `deeds` in a child that has attached the segment on its own. */
static inline pid_t child_start(void (*deeds)(struct xseg_segment *own),
                                enum child_end how)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct xseg_segment *own;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK_EQ(xseg_segment_attach(segment_created, &own), 0);
        deeds(own);
        if (how == CHILD_DIES)
            raise(SIGKILL);
        if (how == CHILD_DETACHES)
            xseg_segment_detach(own);
        _exit(0);
    }
    return child;
}

/** Wait until a child has ended well. */
static inline void child_join(pid_t child)
{
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

/** Wait until a child was killed: none of its own checks has failed. */
static inline void child_bury(pid_t child)
{
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

#endif
