/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports that a reactor serves (see ports.h).
 *
 * Invariants: all ports of the list share the doorbell of `bell`, one of them.  While
 * the list is visited, a removed port is only marked, because the visit stands on it.
 */
#include "reactor/ports.h"

#include <stdlib.h>
#include <sys/epoll.h>

/** Requests and replies taken from one port per visit, so that none starves others. */
#define VISIT_MAX 64u

struct served_port {
    struct list link;
    struct xseg_port *port;
    uint32_t id;
    bool removed;
    reactor_request_fn *on_request;
    void *ctx;
};

void reactor_ports_init(struct reactor_ports *ports, struct reactor_fds *fds,
                        struct reactor_pending *pending)
{
    *ports = (struct reactor_ports){.fds = fds, .pending = pending};
    list_init(&ports->all);
}

void reactor_ports_fini(struct reactor_ports *ports)
{
    struct list *link;

    while ((link = list_pop_front(&ports->all)))
        free(LIST_ENTRY(link, struct served_port, link));
}

/** The bell's eventfd only ends the sleep: xseg_bell_disarm empties it. */
static void on_bell(struct reactor_fd *self, uint32_t events)
{
    (void)self;
    (void)events;
}

/** Wake up through the doorbell of `port` from now on. */
static int take_bell(struct reactor_ports *ports, struct xseg_port *port)
{
    int fd = xseg_bell_fd(port);
    int rc;

    if (fd < 0)
        return fd;
    ports->bell_fd =
        (struct reactor_fd){.fd = fd, .events = EPOLLIN, .on_ready = on_bell};
    rc = reactor_fds_add(ports->fds, &ports->bell_fd);
    if (!rc)
        ports->bell = port;
    return rc;
}

int reactor_ports_add(struct reactor_ports *ports, struct xseg_port *port,
                      reactor_request_fn *on_request, void *ctx)
{
    struct served_port *served = calloc(1, sizeof *served);
    int rc = 0;

    if (!served)
        return -ENOMEM;
    if (ports->bell)
        xseg_port_share_bell(port, ports->bell);
    else
        rc = take_bell(ports, port);
    if (rc) {
        free(served);
        return rc;
    }
    served->port = port;
    served->id = xseg_port_id(port);
    served->on_request = on_request;
    served->ctx = ctx;
    list_push_back(&ports->all, &served->link);
    return 0;
}

/**
 * The port whose bell all share goes away: another of them takes over.  A sender that
 * still rings the old bell pushed its request before it looked up whose bell to ring,
 * so the look at all rings before the next sleep finds it.
 */
static int move_bell(struct reactor_ports *ports)
{
    int rc = 0;

    reactor_fds_del(ports->fds, &ports->bell_fd);
    ports->bell = NULL;
    LIST_FOR_EACH(link, next, &ports->all)
    {
        struct served_port *served = LIST_ENTRY(link, struct served_port, link);

        if (served->removed)
            continue;
        if (!ports->bell)
            rc = take_bell(ports, served->port);
        if (rc)
            break;
        xseg_port_share_bell(served->port, ports->bell);
    }
    return rc;
}

int reactor_ports_remove(struct reactor_ports *ports, struct xseg_port *port)
{
    struct served_port *found = NULL;
    int rc = 0;

    LIST_FOR_EACH(link, next, &ports->all)
    {
        struct served_port *served = LIST_ENTRY(link, struct served_port, link);

        if (served->port == port && !served->removed)
            found = served;
    }
    if (!found)
        return 0;
    found->removed = true;
    reactor_pending_forget_port(ports->pending, found->id);
    if (ports->bell == port)
        rc = move_bell(ports);
    if (ports->visiting) {
        ports->any_removed = true;
    } else {
        list_remove(&found->link);
        free(found);
    }
    return rc;
}

static unsigned visit_port(struct reactor_ports *ports, struct served_port *served)
{
    struct xseg_request *rq;
    unsigned nr_replies = 0, nr_requests = 0;

    /* replies first: they finish work and free what new requests need */
    while (!served->removed && nr_replies < VISIT_MAX &&
           (rq = xseg_port_reap(served->port))) {
        reactor_pending_reply(ports->pending, served->id, rq);
        nr_replies++;
    }
    while (!served->removed && nr_requests < VISIT_MAX &&
           (rq = xseg_port_accept(served->port))) {
        if (served->on_request)
            served->on_request(served->ctx, rq);
        else
            xseg_request_complete(served->port, rq, -EOPNOTSUPP);
        nr_requests++;
    }
    return nr_replies + nr_requests;
}

/** Free what was removed during the visit. */
static void sweep_removed(struct reactor_ports *ports)
{
    LIST_FOR_EACH(link, next, &ports->all)
    {
        struct served_port *served = LIST_ENTRY(link, struct served_port, link);

        if (served->removed) {
            list_remove(link);
            free(served);
        }
    }
    ports->any_removed = false;
}

unsigned reactor_ports_visit(struct reactor_ports *ports)
{
    unsigned nr = 0;

    ports->visiting = true;
    for (struct list *it = ports->all.next; it != &ports->all; it = it->next)
        nr += visit_port(ports, LIST_ENTRY(it, struct served_port, link));
    ports->visiting = false;
    if (ports->any_removed)
        sweep_removed(ports);
    return nr;
}

bool reactor_ports_waiting(const struct reactor_ports *ports)
{
    for (const struct list *it = ports->all.next; it != &ports->all; it = it->next)
        if (xseg_port_pending(LIST_ENTRY(it, struct served_port, link)->port))
            return true;
    return false;
}
