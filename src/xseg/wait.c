/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells: how a sender wakes a receiver, and how a thread sleeps on its port.
 *
 *   sender                          receiver
 *   publish in the ring (seq_cst)   bell_sleeping = 1 (seq_cst)
 *   look at bell_sleeping           look at the rings
 *   if 1: swap to 0, word++, wake   if empty: futex_wait(word as read before)
 *
 * All four are seq_cst, so at least one of the two sees the other: a request is never
 * missed.  While the receiver is awake the sender makes no system call and writes
 * nothing.
 */
#include <errno.h>
#include <time.h>

#include "xseg/futex.h"
#include "xseg/internal.h"
#include "xseg/port.h"

#define SPIN_MIN 4u
#define SPIN_MAX 256u

/* The slot whose doorbell belongs to `slot`; a wild number from shared memory means its
 * own. */
static struct xseg_port_shared *bell_of(const struct xseg_segment *seg,
                                        struct xseg_port_shared *slot)
{
    uint32_t bell = load32_relaxed(&slot->bell_port);
    return bell > 0 && bell < seg->geo.nr_ports ? &seg->ports[bell] : slot;
}

struct xseg_port_shared *bell_slot(const struct xseg_port *port)
{
    return bell_of(port->seg, port->slot);
}

void bell_ring(const struct xseg_segment *seg, struct xseg_port_shared *slot)
{
    struct xseg_port_shared *bell = bell_of(seg, slot);
    if (load32_seq(&bell->bell_sleeping) == 1 &&
        exchange32_seq(&bell->bell_sleeping, 0) == 1) {
        add32_seq(&bell->bell_word, 1);
        futex_wake_all(&bell->bell_word);
    }
}

void bell_force(const struct xseg_segment *seg, struct xseg_port_shared *slot)
{
    struct xseg_port_shared *bell = bell_of(seg, slot);
    add32_seq(&bell->bell_word, 1);
    futex_wake_all(&bell->bell_word);
}

bool xseg_port_pending(const struct xseg_port *port)
{
    return ring_ready(&port->requests) || ring_ready(&port->replies) ||
           load32_seq(&port->slot->rescan) != 0;
}

static uint64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Spin a little; longer where spinning has paid off, hardly at all where it has not. */
static bool spin(struct xseg_port *port)
{
    for (uint32_t i = 0; i < port->spin; i++) {
        if (xseg_port_pending(port)) {
            port->spin = port->spin < SPIN_MAX / 2 ? port->spin * 2 : SPIN_MAX;
            return true;
        }
        cpu_relax();
    }
    port->spin = port->spin / 2 > SPIN_MIN ? port->spin / 2 : SPIN_MIN;
    return false;
}

int xseg_port_wait(struct xseg_port *port, uint64_t timeout_ns)
{
    if (xseg_port_pending(port) || (timeout_ns > 0 && spin(port)))
        return 0;
    if (timeout_ns == 0)
        return -ETIMEDOUT;

    struct xseg_port_shared *bell = bell_slot(port);
    uint64_t start = timeout_ns == UINT64_MAX ? 0 : monotonic_ns();
    uint64_t left = timeout_ns;
    int rc = 0;
    /* The word is read before the flag is set: a ring after that changes it. */
    uint32_t word = load32_seq(&bell->bell_word);
    store32_seq(&bell->bell_sleeping, 1);
    while (!xseg_port_pending(port) && load32_seq(&bell->bell_word) == word) {
        count64(&port->slot->stats.sleeps, 1);
        rc = futex_wait(&bell->bell_word, word, left);
        if (rc < 0)
            break;
        if (timeout_ns != UINT64_MAX) { /* woken by nothing: sleep the rest */
            uint64_t gone = monotonic_ns() - start;
            left = gone < timeout_ns ? timeout_ns - gone : 0;
        }
    }
    store32_seq(&bell->bell_sleeping, 0);
    if (rc < 0 && xseg_port_pending(port))
        return 0;
    return rc;
}
