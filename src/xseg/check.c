/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a segment.  Called by any thread of any process; it only reads.
 */
#include "xseg/check.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "xseg/internal.h"

/* How often what looks wrong is looked at before it is called so. */
#define LOOKS 200

struct check {
    const struct xseg_segment *seg;
    xseg_check_report *report;
    void *arg;
    uint32_t nr_found;
};

static void check_found(struct check *check, const char *text)
{
    check->nr_found++;
    if (check->report)
        check->report(check->arg, text);
}

static void check_header(struct check *check)
{
    const struct xseg_header *h = check->seg->header;
    const struct segment_geometry *geo = &check->seg->geo;
    if (load64_relaxed(&h->magic) != XSEG_MAGIC)
        check_found(check, "header: not the bytes that a segment begins with");
    if (h->layout_version != XSEG_LAYOUT_VERSION || h->features != 0)
        check_found(check, "header: another layout version or features");
    if (h->size_bytes != geo->size_bytes || h->nr_ports != geo->nr_ports ||
        h->nr_requests != geo->nr_requests || h->heap_bytes != geo->heap_bytes)
        check_found(check, "header: sizes are not those of the segment");
    if (h->ports_off != geo->ports_off || h->rings_off != geo->rings_off ||
        h->requests_off != geo->requests_off ||
        h->request_map_off != geo->request_map_off ||
        h->heap_table_off != geo->heap_table_off || h->heap_off != geo->heap_off)
        check_found(check, "header: offsets are not those of the segment");
    if (memcmp(h->creator_boot_id, check->seg->boot_id, sizeof(h->creator_boot_id)) !=
            0 ||
        h->creator_pid_namespace != check->seg->pid_namespace)
        check_found(check, "header: its creator's boot or pid namespace has changed");
    if (load32_relaxed(&h->nr_orphans) > geo->nr_requests)
        check_found(check, "header: more orphans than requests");
}

/*
 * True if a cell has the sequence of its position.  From the tail to the head that is
 * reserved or published; at the tail it may be consumed already; elsewhere it is empty.
 */
static bool cell_sound(const struct ring *ring, uint32_t cell)
{
    uint32_t capacity = ring->mask + 1;
    uint32_t tail = load32_seq(&ring->shared->tail);
    uint32_t pos = tail + ((cell - tail) & ring->mask);
    uint32_t sequence = load32_seq(&ring->cells[cell].sequence);
    /* Afterwards: the head moves before a cell is published. */
    uint32_t nr_filled = load32_seq(&ring->shared->head) - tail;
    bool filled = pos - tail < nr_filled;
    return load32_seq(&ring->shared->tail) == tail && nr_filled <= capacity &&
           (sequence == pos || (filled && sequence == pos + 1) ||
            (filled && pos == tail && sequence == pos + capacity));
}

static bool ring_sound(const struct ring *ring)
{
    for (uint32_t cell = 0; cell <= ring->mask; cell++) {
        for (int look = 0; !cell_sound(ring, cell); look++) {
            if (look == LOOKS)
                return false;
            sched_yield();
        }
    }
    return true;
}

static void check_ring(struct check *check, uint32_t port, bool replies)
{
    struct ring ring = segment_ring(check->seg, port, replies);
    char text[96];
    const char *what = replies ? "replies" : "requests";
    if (ring.shared->capacity != ring.mask + 1) {
        snprintf(text, sizeof(text), "port %u, ring of %s: a wrong capacity", port,
                 what);
        check_found(check, text);
    }
    if (ring_sound(&ring))
        return;
    snprintf(text, sizeof(text), "port %u, ring of %s: head, tail and cells disagree",
             port, what);
    check_found(check, text);
}

static void check_port(struct check *check, uint32_t id)
{
    const struct xseg_port_shared *slot = &check->seg->ports[id];
    char text[96];
    uint32_t state = load32_acquire(&slot->state);
    if (state > XSEG_PORT_DEAD || (id == XSEG_PORT_NONE && state != XSEG_PORT_FREE)) {
        snprintf(text, sizeof(text), "port %u: no such state as %u", id, state);
        check_found(check, text);
    }
    if (state == XSEG_PORT_BOUND && slot->role[sizeof(slot->role) - 1] != '\0') {
        snprintf(text, sizeof(text), "port %u: its role does not end", id);
        check_found(check, text);
    }
    check_ring(check, id, false);
    check_ring(check, id, true);
}

static bool request_sound(const struct xseg_segment *seg, uint32_t index)
{
    const struct xseg_request *rq = &seg->requests[index];
    uint32_t state = load32_acquire(&rq->state);
    uint32_t src = load32_relaxed(&rq->src_port), dst = load32_relaxed(&rq->dst_port);
    if (load32_relaxed(&rq->index) != index || state > XSEG_RS_DONE)
        return false;
    if (state == XSEG_RS_FREE || state == XSEG_RS_ALLOCATED)
        return true;
    return src < seg->geo.nr_ports && dst < seg->geo.nr_ports;
}

static void check_request(struct check *check, uint32_t index)
{
    char text[96];
    for (int look = 0; look < LOOKS; look++) {
        if (request_sound(check->seg, index))
            return;
        sched_yield();
    }
    snprintf(text, sizeof(text), "request %u: index, state or ports cannot be", index);
    check_found(check, text);
}

uint32_t xseg_check(const struct xseg_segment *seg, xseg_check_report *report,
                    void *arg)
{
    struct check check = {.seg = seg, .report = report, .arg = arg};
    check_header(&check);
    for (uint32_t p = 0; p < seg->geo.nr_ports; p++)
        check_port(&check, p);
    for (uint32_t i = 0; i < seg->geo.nr_requests; i++)
        check_request(&check, i);
    return check.nr_found;
}
