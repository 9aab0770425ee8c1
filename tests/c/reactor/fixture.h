/* SPDX-License-Identifier: Apache-2.0 */
/* What the reactor's tests share: a segment of their own, ports, and pings. */
#ifndef TESTS_REACTOR_FIXTURE_H
#define TESTS_REACTOR_FIXTURE_H

#include <stdio.h>
#include <unistd.h>

#include "check.h"
#include "reactor/reactor.h"

/** A segment that no other test has; its name goes at once, its memory with the test.
 */
static inline struct xseg_segment *fixture_segment_named(char *name, size_t size)
{
    const struct xseg_segment_options options = {
        .nr_requests = 1024,
        .heap_bytes = 16u << 20,
    };
    struct xseg_segment *seg;

    snprintf(name, size, "test-reactor-%d", (int)getpid());
    xseg_segment_destroy(name); /* of a dead process of the same number */
    CHECK_EQ(xseg_segment_create(name, &options, &seg), 0);
    return seg;
}

static inline struct xseg_segment *fixture_segment(void)
{
    char name[64];
    struct xseg_segment *seg = fixture_segment_named(name, sizeof name);

    CHECK_EQ(xseg_segment_destroy(name), 0);
    return seg;
}

static inline struct reactor *fixture_reactor(struct xseg_segment *seg)
{
    const struct reactor_options options = {.nr_workers = 2};
    struct reactor *r;

    CHECK_EQ(reactor_create(seg, &options, &r), 0);
    return r;
}

static inline struct xseg_port *fixture_port(struct reactor *r, uint32_t id,
                                             reactor_request_fn *on_request, void *ctx)
{
    struct xseg_port *port;

    CHECK_EQ(xseg_port_bind(reactor_segment(r), id, "test", &port), 0);
    CHECK_EQ(reactor_add_port(r, port, on_request, ctx), 0);
    return port;
}

static inline void fixture_drop_port(struct reactor *r, struct xseg_port *port)
{
    reactor_remove_port(r, port);
    xseg_port_unbind(port);
}

/** Answers each request with what it carries in arg[0], plus one.  ctx: its port. */
static inline void fixture_answer(void *ctx, struct xseg_request *rq)
{
    struct xseg_port **port = ctx;

    CHECK_EQ(rq->op, XSEG_OP_PING);
    CHECK_EQ(xseg_request_complete(*port, rq, (int64_t)rq->arg[0] + 1), 0);
}

/** Keeps `depth` pings on their way until `left` of them came back. */
struct pinger {
    struct reactor *r;
    struct xseg_port *port;
    uint32_t dst;
    uint64_t left, to_send;
    bool stop_at_end;
};

static inline void pinger_done(void *arg, struct xseg_request *rq);

static inline void pinger_send(struct pinger *p)
{
    struct xseg_request *rq;

    CHECK_EQ(xseg_request_alloc(p->port, &rq), 0);
    rq->op = XSEG_OP_PING;
    rq->arg[0] = p->to_send--;
    rq->arg[1] = rq->arg[0];
    reactor_submit(p->r, p->port, rq, p->dst, pinger_done, p);
}

static inline void pinger_done(void *arg, struct xseg_request *rq)
{
    struct pinger *p = arg;

    CHECK_EQ(rq->result, rq->arg[1] + 1);
    xseg_request_free(p->port, rq);
    p->left--;
    if (p->to_send)
        pinger_send(p);
    else if (p->left == 0 && p->stop_at_end)
        reactor_stop(p->r);
}

static inline void pinger_start(struct pinger *p, uint64_t nr, uint32_t depth)
{
    p->left = p->to_send = nr;
    while (depth-- && p->to_send)
        pinger_send(p);
}

#endif
