/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: where requests arrive and replies come back, and how to sleep on them.
 *
 * A port is used by one thread at a time.  Its doorbell is one futex word plus a
 * `sleeping` flag: senders ring only when the owner sleeps.  Several ports of one
 * thread may share one doorbell.
 */
#ifndef XSEG_PORT_H
#define XSEG_PORT_H

#include <stdbool.h>
#include <stdint.h>

struct xseg_segment;
struct xseg_port;

/**
 * Bind a port.
 *
 * @param id    a well-known number, or XSEG_PORT_ANY for the first free dynamic one.
 * @param role  1 to 31 bytes, shown by status.
 * Returns 0; -EBUSY if it is bound, also by a process that died and was not reaped yet
 * (xseg_reap); -ENOBUFS if no dynamic port is free; -EINVAL.
 */
int xseg_port_bind(struct xseg_segment *seg, uint32_t id, const char *role,
                   struct xseg_port **out);

/** Free the port.  Requests still in its ring are completed with -EPIPE. */
void xseg_port_unbind(struct xseg_port *port);

uint32_t xseg_port_id(const struct xseg_port *port);
struct xseg_segment *xseg_port_segment(const struct xseg_port *port);
struct xseg_port_stats *xseg_port_stats(struct xseg_port *port);

/** Let `port` be woken through the doorbell of `bell`, a port of the same thread. */
void xseg_port_share_bell(struct xseg_port *port, const struct xseg_port *bell);

/**
 * Keep `nr` descriptors for this port alone, so that it can always make progress.
 * Returns 0 or -ENOBUFS.  xseg_port_unbind gives them back.
 */
int xseg_port_reserve(struct xseg_port *port, uint32_t nr);

/**
 * Sleep until a request or reply arrives, at most `timeout_ns` (UINT64_MAX: for ever).
 *
 * Returns 0 when something is there (or may be), -ETIMEDOUT, -EINTR on a signal.
 * Spins briefly first.  Only for threads that have nothing else to wait for;
 * a loop uses the three calls below.
 */
int xseg_port_wait(struct xseg_port *port, uint64_t timeout_ns);

/** True if a request or a reply is waiting, or may be: accept and reap then tell. */
bool xseg_port_pending(const struct xseg_port *port);

/**
 * Sleeping in a loop: a helper thread turns the futex into an eventfd.
 * xseg_bell_fd starts it on first use and returns the eventfd (owned by the port,
 * readable after a ring), or -errno.  Before sleeping the loop calls
 * xseg_bell_arm, looks at all rings once more, sleeps on the fd, and then calls
 * xseg_bell_disarm, which also drains the eventfd.
 */
int xseg_bell_fd(struct xseg_port *port);
void xseg_bell_arm(struct xseg_port *port);
void xseg_bell_disarm(struct xseg_port *port);

#endif
