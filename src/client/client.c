/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's port, its waiting list, its zeros (see client.h).
 *
 * Invariants: used_bytes and nr_requests are the sums over the volumes; while something
 * waits, either the next turn looks at it or the retry timer is armed.
 */
#include "client/client.h"

#include <string.h>

/* When to look again for memory that other processes may have given back. */
#define RETRY_NS UINT64_C(2000000)
/* Descriptors kept for this client alone: OPEN, CLOSE and a few requests get through
 * when other clients have taken all the rest. */
#define RESERVED_REQUESTS 64u

static uint64_t floor_power(uint64_t value)
{
    return UINT64_C(1) << (63 - __builtin_clzll(value));
}

/* ---- waiting ----------------------------------------------------------------------
 */

static void client_arm(struct client *client)
{
    if (client->turn_armed)
        return;
    client->turn_armed = true;
    reactor_defer(client->reactor, &client->turn);
}

void client_wake(struct client *client)
{
    if (!list_empty(&client->waiting))
        client_arm(client);
}

void client_wait(struct client *client, struct client_waiter *w)
{
    if (list_empty(&w->link))
        list_push_back(&client->waiting, &w->link);
    /* Our own memory coming back wakes it at once; that of others is looked for. */
    if (!client->retry.armed)
        reactor_arm_timer(client->reactor, &client->retry, RETRY_NS);
}

/** Let each that waits try once; what still has to wait puts itself back. */
static void client_on_turn(struct reactor_task *self)
{
    struct client *client = LIST_ENTRY(self, struct client, turn);
    struct list waiting;
    struct list *link;

    client->turn_armed =
        false; /* what is given back from here on is for the next turn */
    list_init(&waiting);
    while ((link = list_pop_front(&client->waiting)))
        list_push_back(&waiting, link);
    while ((link = list_pop_front(&waiting))) {
        struct client_waiter *w = LIST_ENTRY(link, struct client_waiter, link);
        w->resume(w);
    }
}

static void client_on_retry(struct reactor_timer *self)
{
    client_wake(LIST_ENTRY(self, struct client, retry));
}

/* ---- zeros ------------------------------------------------------------------------
 */

uint64_t client_zeros(struct client *client)
{
    uint64_t off;

    if (client->zero_off)
        return client->zero_off;
    if (xseg_buffer_alloc(client->segment, CLIENT_PIECE_BYTES, &off) < 0)
        return 0;
    memset(xseg_heap_ptr(client->segment, off, CLIENT_PIECE_BYTES), 0,
           CLIENT_PIECE_BYTES);
    client->zero_off = off;
    return off;
}

/* ---- life -------------------------------------------------------------------------
 */

static void client_set_limits(struct client *client, uint32_t max_volumes)
{
    const struct xseg_header *header = xseg_segment_header(client->segment);
    uint64_t least = floor_power(header->heap_bytes / 8 / max_volumes + 1);

    if (least < XSEG_BUFFER_MIN_BYTES)
        least = XSEG_BUFFER_MIN_BYTES;
    if (least > 64u << 10)
        least = 64u << 10;
    client->budget_bytes = header->heap_bytes / 2;
    client->max_share_bytes = header->heap_bytes / 8;
    client->min_piece_bytes = (uint32_t)least;
    client->max_requests = header->nr_requests / 4;
}

int client_init(struct client *client, struct reactor *r, uint32_t port,
                const char *name, uint32_t max_volumes, const char **why)
{
    struct xseg_segment *seg = reactor_segment(r);
    uint32_t reserve = xseg_segment_header(seg)->nr_requests / 16;
    int rc;

    memset(client, 0, sizeof(*client));
    client->reactor = r;
    client->segment = seg;
    client->turn.fn = client_on_turn;
    client->retry.on_fire = client_on_retry;
    list_init(&client->waiting);
    client_set_limits(client, max_volumes);

    rc = xseg_port_bind(seg, port, name, &client->port);
    if (rc) {
        *why = rc == -EBUSY ? "another process serves the endpoint's port"
                            : "cannot bind the endpoint's port";
        return rc;
    }
    rc = xseg_port_reserve(client->port,
                           reserve < RESERVED_REQUESTS ? reserve : RESERVED_REQUESTS);
    if (rc) {
        *why = "the segment has no request descriptors left";
        goto fail_port;
    }
    rc = reactor_add_port(r, client->port, NULL, NULL);
    if (rc) {
        *why = "cannot serve the endpoint's port";
        goto fail_port;
    }
    return 0;

fail_port:
    xseg_port_unbind(client->port);
    return rc;
}

bool client_idle(const struct client *client)
{
    return !client->turn_armed && !client->nr_lists && !client->nr_notices &&
           list_empty(&client->waiting);
}

void client_fini(struct client *client)
{
    reactor_disarm_timer(client->reactor, &client->retry);
    reactor_remove_port(client->reactor, client->port);
    if (client->zero_off)
        xseg_buffer_free(client->segment, client->zero_off);
    xseg_port_unbind(client->port);
}
