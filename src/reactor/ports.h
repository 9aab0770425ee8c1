/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports that a reactor serves, and the doorbell they share.
 */
#ifndef REACTOR_PORTS_H
#define REACTOR_PORTS_H

#include "common/list.h"
#include "reactor/fds.h"
#include "reactor/pending.h"
#include "reactor/reactor.h"

struct reactor_ports {
    struct list all;        /* struct served_port (ports.c), in order of adding */
    struct xseg_port *bell; /* whose doorbell wakes all of them; NULL without ports */
    struct reactor_fd bell_fd;
    struct reactor_fds *fds;
    struct reactor_pending *pending;
    bool visiting;    /* removed ports stay on the list until the visit ends */
    bool any_removed; /* during the visit */
};

void reactor_ports_init(struct reactor_ports *ports, struct reactor_fds *fds,
                        struct reactor_pending *pending);
void reactor_ports_fini(struct reactor_ports *ports);

/** 0 or -errno. */
int reactor_ports_add(struct reactor_ports *ports, struct xseg_port *port,
                      reactor_request_fn *on_request, void *ctx);

/** 0; -errno if the doorbell could not be handed to another port. */
int reactor_ports_remove(struct reactor_ports *ports, struct xseg_port *port);

/** Visit every port once: replies, then requests.  Returns how many were handled. */
unsigned reactor_ports_visit(struct reactor_ports *ports);

/** True if a request or reply waits at any port. */
bool reactor_ports_waiting(const struct reactor_ports *ports);

#endif
