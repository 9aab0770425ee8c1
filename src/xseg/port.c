/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: bind, unbind, reserve.  A port is used by one thread at a time; bind and
 * unbind take the segment's lock.
 *
 * A late sender may add to a port's rings at any moment, also while the port changes
 * hands: nothing is concluded from what lies in them (request.c).
 */
#include "xseg/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "xseg/internal.h"

/* A free dynamic port, or XSEG_PORT_NONE. */
static uint32_t find_dynamic(const struct xseg_segment *seg)
{
    for (uint32_t id = XSEG_PORT_DYNAMIC; id < seg->geo.nr_ports; id++) {
        if (load32_acquire(&seg->ports[id].state) == XSEG_PORT_FREE)
            return id;
    }
    return XSEG_PORT_NONE;
}

/* Choose a free slot for `id`.  What the dead hold is for xseg_reap to give back. */
static int port_choose_locked(struct xseg_segment *seg, uint32_t id, uint32_t *chosen)
{
    *chosen = id == XSEG_PORT_ANY ? find_dynamic(seg) : id;
    if (*chosen == XSEG_PORT_NONE)
        return -ENOBUFS;
    return load32_acquire(&seg->ports[*chosen].state) == XSEG_PORT_FREE ? 0 : -EBUSY;
}

/* Take out what the former owner left.  True if there was something. */
static bool empty(const struct ring *ring)
{
    uint32_t index, nr = 0;
    ring_repair_tail(ring);
    while (nr <= ring->mask && ring_pop(ring, &index))
        nr++;
    return nr > 0;
}

/* Make the slot ours.  State BINDING tells a later lock holder that we died in here. */
static void occupy_locked(struct xseg_port *port, const char *role)
{
    struct xseg_port_shared *slot = port->slot;
    struct timespec now;

    store32_seq(&slot->state, XSEG_PORT_BINDING);
    port->generation = load32_relaxed(&slot->generation) + 1;
    store32_relaxed(&slot->generation, port->generation);
    store32_relaxed(&slot->owner_pid, port->seg->pid);
    store64_relaxed(&slot->owner_start, port->seg->start);
    store64_relaxed(&slot->owner, port->seg->self);
    store32_relaxed(&slot->bell_port, port->id);
    store32_seq(&slot->bell_sleeping, 0);
    clock_gettime(CLOCK_REALTIME, &now);
    slot->bound_ns =
        (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    memset(slot->role, 0, sizeof(slot->role));
    memcpy(slot->role, role, strlen(role));
    memset(&slot->stats, 0, sizeof(slot->stats));
    store64_relaxed(&slot->push_intent, 0);
    store32_relaxed(&slot->complete_intent, 0);
    empty(&port->replies);
    /* A sender that has not noticed the change of owner means the new one. */
    store32_relaxed(&slot->rescan, empty(&port->requests) ? PORT_RESCAN_REQUESTS : 0);
    store32_seq(&slot->state, XSEG_PORT_BOUND);
}

int xseg_port_bind(struct xseg_segment *seg, uint32_t id, const char *role,
                   struct xseg_port **out)
{
    *out = NULL;
    size_t role_len = role ? strlen(role) : 0;
    if (role_len == 0 || role_len >= sizeof(seg->ports->role) || id == XSEG_PORT_NONE ||
        (id != XSEG_PORT_ANY && id >= seg->geo.nr_ports))
        return -EINVAL;
    struct xseg_port *port = calloc(1, sizeof(*port));
    if (!port)
        return -ENOMEM;

    segment_lock(seg);
    int rc = port_choose_locked(seg, id, &port->id);
    if (rc == 0) {
        port->seg = seg;
        port->slot = &seg->ports[port->id];
        port->requests = segment_ring(seg, port->id, false);
        port->replies = segment_ring(seg, port->id, true);
        port->requests_rescan_at = port->replies_rescan_at = seg->geo.nr_requests;
        /* Apart from the other ports: they do not fight for the same descriptors. */
        port->request_hint = port->id * 64;
        port->bell_fd = -1;
        occupy_locked(port, role);
    }
    segment_unlock(seg);
    if (rc < 0) {
        free(port);
        return rc;
    }
    *out = port;
    return 0;
}

void xseg_port_unbind(struct xseg_port *port)
{
    struct xseg_reap_result ignored = {0};
    if (!port)
        return;
    bell_stop(port);
    segment_lock(port->seg);
    /* Frees the descriptors in the reserve with the port's others. */
    reap_port_locked(port->seg, port->id, -EPIPE, &ignored);
    reap_orphans(port->seg);
    segment_unlock(port->seg);
    free(port->reserve);
    free(port);
}

uint32_t xseg_port_id(const struct xseg_port *port)
{
    return port->id;
}

struct xseg_segment *xseg_port_segment(const struct xseg_port *port)
{
    return port->seg;
}

struct xseg_port_stats *xseg_port_stats(struct xseg_port *port)
{
    return &port->slot->stats;
}

enum xseg_life xseg_port_life(const struct xseg_segment *seg, uint32_t id)
{
    if (id >= seg->geo.nr_ports ||
        load32_acquire(&seg->ports[id].state) == XSEG_PORT_FREE)
        return XSEG_LIFE_DEAD;
    return owner_life(seg, port_owner(&seg->ports[id]));
}

void xseg_port_share_bell(struct xseg_port *port, const struct xseg_port *bell)
{
    store32_relaxed(&port->slot->bell_port, bell->id);
}

int xseg_port_reserve(struct xseg_port *port, uint32_t nr)
{
    if (nr <= port->reserve_target) {
        port->reserve_target = nr;
        while (port->nr_reserve > nr)
            request_release(port->seg, port->reserve[--port->nr_reserve],
                            XSEG_RS_ALLOCATED);
        return 0;
    }
    if (nr > port->seg->geo.nr_requests)
        return -ENOBUFS;
    uint32_t *grown = realloc(port->reserve, nr * sizeof(*grown));
    if (!grown)
        return -ENOBUFS;
    port->reserve = grown;

    /* With an empty reserve, xseg_request_alloc takes from the segment. */
    uint32_t before = port->reserve_target, kept = port->nr_reserve;
    uint32_t missing = nr - before;
    port->nr_reserve = 0;
    port->reserve_target = 0;
    struct xseg_request *taken = NULL;
    uint32_t nr_taken = 0;
    for (; nr_taken < missing; nr_taken++) {
        if (xseg_request_alloc(port, &taken) < 0)
            break;
        port->reserve[kept + nr_taken] = segment_request_index(port->seg, taken);
        store32_relaxed(&taken->dst_port, REQUEST_PARKED);
    }
    port->reserve_target = nr;
    port->nr_reserve = kept + nr_taken;
    if (nr_taken == missing)
        return 0;
    xseg_port_reserve(port, before);
    return -ENOBUFS;
}
