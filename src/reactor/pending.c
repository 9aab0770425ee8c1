/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests sent and their callbacks (see pending.h).
 *
 * Invariants: an entry is in use from reactor_submit to its callback, at most once for
 * each descriptor (a descriptor is sent once before it is reaped).  An entry on the
 * failed list is in use.
 */
#include "reactor/pending.h"

#include <assert.h>
#include <stdlib.h>

#include "common/log.h"

int reactor_pending_init(struct reactor_pending *p, struct xseg_segment *seg)
{
    *p = (struct reactor_pending){.seg = seg};
    p->nr_entries = xseg_segment_header(seg)->nr_requests;
    p->entries = calloc(p->nr_entries, sizeof *p->entries);
    return p->entries ? 0 : -ENOMEM;
}

void reactor_pending_fini(struct reactor_pending *p)
{
    free(p->entries);
    p->entries = NULL;
}

/** The entry of a descriptor, by its address alone: what it says of itself is shared.
 */
static struct reactor_pending_entry *entry_of(struct reactor_pending *p,
                                              const struct xseg_request *rq)
{
    uintptr_t first = (uintptr_t)xseg_segment_request(p->seg, 0);
    size_t distance = (uintptr_t)rq - first; /* wraps to a large one below it */

    if (distance % sizeof *rq != 0 || distance / sizeof *rq >= p->nr_entries)
        return NULL;
    return &p->entries[distance / sizeof *rq];
}

void reactor_pending_add(struct reactor_pending *p, const struct xseg_request *rq,
                         uint32_t port, reactor_reply_fn *done, void *arg)
{
    struct reactor_pending_entry *entry = entry_of(p, rq);

    assert(entry && !entry->done && done);
    *entry = (struct reactor_pending_entry){.done = done, .arg = arg, .port = port};
}

/** Append to the failed list. */
static void push_failed(struct reactor_pending *p, struct reactor_pending_entry *entry)
{
    uint32_t place = (uint32_t)(entry - p->entries) + 1;

    entry->next_failed = 0;
    if (p->failed_last)
        p->entries[p->failed_last - 1].next_failed = place;
    else
        p->failed_first = place;
    p->failed_last = place;
    p->nr_failed++;
}

/** Take the oldest from the failed list: index + 1, or 0. */
static uint32_t pop_failed(struct reactor_pending *p)
{
    uint32_t place = p->failed_first;

    if (place) {
        p->failed_first = p->entries[place - 1].next_failed;
        if (!p->failed_first)
            p->failed_last = 0;
        p->nr_failed--;
    }
    return place;
}

void reactor_pending_fail(struct reactor_pending *p, const struct xseg_request *rq,
                          int error)
{
    struct reactor_pending_entry *entry = entry_of(p, rq);

    assert(entry && entry->done);
    entry->error = error;
    push_failed(p, entry);
}

unsigned reactor_pending_run_failed(struct reactor_pending *p)
{
    uint32_t due = p->nr_failed; /* what fails from now on is for the next turn */
    unsigned nr = 0;

    while (nr < due) {
        uint32_t place = pop_failed(p);
        struct reactor_pending_entry entry;
        struct xseg_request *rq;

        if (!place)
            break;
        entry = p->entries[place - 1];
        p->entries[place - 1].done = NULL;
        /* the cast is right: a descriptor that was not sent is ours to write */
        rq = (struct xseg_request *)(uintptr_t)xseg_segment_request(p->seg, place - 1);
        rq->result = entry.error;
        entry.done(entry.arg, rq);
        nr++;
    }
    return nr;
}

void reactor_pending_reply(struct reactor_pending *p, uint32_t port,
                           struct xseg_request *rq)
{
    struct reactor_pending_entry *entry = entry_of(p, rq);
    reactor_reply_fn *done;
    void *arg;

    if (!entry || !entry->done || entry->port != port || entry->error) {
        if (p->nr_unknown++ == 0)
            log_line(LOG_WARNING, "reactor",
                     "port %u got a reply that it does not wait for; dropped", port);
        return;
    }
    done = entry->done;
    arg = entry->arg;
    entry->done = NULL;
    done(arg, rq);
}

void reactor_pending_forget_port(struct reactor_pending *p, uint32_t port)
{
    for (uint32_t left = p->nr_failed; left; left--) {
        struct reactor_pending_entry *entry = &p->entries[pop_failed(p) - 1];

        if (entry->port != port)
            push_failed(p, entry);
    }
    for (uint32_t i = 0; i < p->nr_entries; i++)
        if (p->entries[i].port == port)
            p->entries[i].done = NULL;
}
