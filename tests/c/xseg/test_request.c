/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a request: alloc, submit, accept, complete, reap, free, and its errors.
 */
#include <errno.h>

#include "fixture.h"
#include "xseg/internal.h"

static struct xseg_segment *seg;

static void round_trip_hands_over_fields_and_result(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_VLMCD, "vlmcd");
    CHECK(xseg_port_id(client) >= XSEG_PORT_DYNAMIC);
    CHECK_EQ(xseg_port_id(server), XSEG_PORT_VLMCD);

    struct xseg_request *rq = request_new(client);
    CHECK_EQ(rq->state, XSEG_RS_ALLOCATED);
    CHECK_EQ(rq->owner_pid, getpid());
    CHECK_EQ(rq->src_port, xseg_port_id(client));
    uint64_t off = 0;
    CHECK_EQ(xseg_buffer_alloc(seg, 4096, &off), 4096);
    rq->op = XSEG_OP_WRITE;
    rq->offset = 12345;
    rq->size = rq->data_len = 4096;
    rq->data_off = off;
    memcpy(rq->inline_data, "name", 4);
    memset(xseg_heap_ptr(seg, off, 4096), 0xa5, 4096);
    CHECK(!xseg_port_pending(server));
    CHECK(!xseg_port_accept(server));
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_VLMCD), 0);
    CHECK_EQ(rq->state, XSEG_RS_SUBMITTED);
    CHECK(rq->submitted_ns != 0);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_VLMCD), -EINVAL);

    CHECK(xseg_port_pending(server));
    struct xseg_request *got = xseg_port_accept(server);
    CHECK(got == rq);
    CHECK_EQ(got->state, XSEG_RS_SERVING);
    CHECK_EQ(got->offset, 12345);
    CHECK(memcmp(got->inline_data, "name", 4) == 0);
    const unsigned char *data = xseg_heap_ptr(seg, got->data_off, got->data_len);
    CHECK(data && data[0] == 0xa5 && data[4095] == 0xa5);
    CHECK(!xseg_port_accept(server));
    CHECK(!xseg_port_reap(client));
    CHECK_EQ(xseg_request_complete(server, got, 4096), 0);
    CHECK_EQ(xseg_request_complete(server, got, 4096), -EINVAL);

    CHECK(xseg_port_pending(client));
    CHECK(xseg_port_reap(client) == rq);
    CHECK_EQ(rq->result, 4096);
    CHECK(!xseg_port_reap(client));
    xseg_request_free(client, rq);
    CHECK_EQ(rq->state, XSEG_RS_FREE);
    CHECK_EQ(xseg_buffer_free(seg, off), 0);

    const struct xseg_port_stats *stats = xseg_port_stats(server);
    CHECK_EQ(stats->accepted, 1);
    CHECK_EQ(stats->completed, 1);
    CHECK_EQ(stats->errors, 0);
    CHECK_EQ(stats->write_bytes, 4096);
    CHECK_EQ(stats->read_bytes, 0);
    CHECK_EQ(stats->dropped, 1); /* the second complete */
    CHECK_EQ(xseg_port_stats(client)->submitted, 1);
    CHECK_EQ(xseg_port_stats(client)->reaped, 1);
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

static void bind_checks_number_role_and_owner(void)
{
    struct xseg_port *port, *other;
    char role[33];
    memset(role, 'r', 32);
    role[32] = '\0';
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_NONE, "x", &port), -EINVAL);
    CHECK(!port);
    CHECK_EQ(xseg_port_bind(seg, small_segment.nr_ports, "x", &port), -EINVAL);
    CHECK_EQ(xseg_port_bind(seg, 1, "", &port), -EINVAL);
    CHECK_EQ(xseg_port_bind(seg, 1, NULL, &port), -EINVAL);
    CHECK_EQ(xseg_port_bind(seg, 1, role, &port), -EINVAL);
    role[31] = '\0';
    port = port_new(seg, 1, role);
    CHECK(strcmp(xseg_segment_port(seg, 1)->role, role) == 0);
    CHECK_EQ(xseg_segment_port(seg, 1)->owner_pid, getpid());
    CHECK(xseg_port_segment(port) == seg);
    CHECK_EQ(xseg_port_bind(seg, 1, "x", &other), -EBUSY);
    uint32_t generation = xseg_segment_port(seg, 1)->generation;
    xseg_port_unbind(port);
    port = port_new(seg, 1, "x");
    CHECK_EQ(xseg_segment_port(seg, 1)->generation, generation + 1);
    xseg_port_unbind(port);
    xseg_port_unbind(NULL);
}

static void dynamic_ports_run_out_and_come_back(void)
{
    struct xseg_port *ports[16], *more;
    uint32_t n = small_segment.nr_ports - XSEG_PORT_DYNAMIC;
    for (uint32_t i = 0; i < n; i++)
        ports[i] = port_new(seg, XSEG_PORT_ANY, "client");
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_ANY, "client", &more), -ENOBUFS);
    xseg_port_unbind(ports[3]);
    ports[3] = port_new(seg, XSEG_PORT_ANY, "client");
    for (uint32_t i = 0; i < n; i++)
        xseg_port_unbind(ports[i]);
}

static void submit_names_what_is_wrong(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *other = port_new(seg, XSEG_PORT_ANY, "other");
    struct xseg_request *rq = request_new(client), local = *rq;
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_VLMCD), -EPIPE);
    CHECK_EQ(rq->state, XSEG_RS_ALLOCATED);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_NONE), -EPIPE);
    CHECK_EQ(xseg_request_submit(client, rq, small_segment.nr_ports), -EINVAL);
    CHECK_EQ(xseg_request_submit(client, rq, UINT32_MAX), -EINVAL);
    CHECK_EQ(xseg_request_submit(other, rq, xseg_port_id(other)), -EINVAL);
    CHECK_EQ(xseg_request_submit(client, &local, xseg_port_id(other)), -EINVAL);
    CHECK_EQ(xseg_request_submit(client, (struct xseg_request *)((char *)rq + 8),
                                 xseg_port_id(other)),
             -EINVAL);
    /* Free refuses what is not the port's, and frees once. */
    xseg_request_free(other, rq);
    CHECK_EQ(rq->state, XSEG_RS_ALLOCATED);
    CHECK_EQ(xseg_port_stats(other)->dropped, 1);
    xseg_request_free(client, &local);
    xseg_request_free(client, rq);
    CHECK_EQ(rq->state, XSEG_RS_FREE);
    xseg_request_free(client, rq);
    CHECK_EQ(xseg_port_stats(client)->dropped, 2);
    /* What is on its way is not the sender's to free. */
    rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, xseg_port_id(other)), 0);
    xseg_request_free(client, rq);
    CHECK_EQ(rq->state, XSEG_RS_SUBMITTED);
    CHECK(xseg_port_accept(other) == rq);
    CHECK_EQ(xseg_request_complete(client, rq, 0), -EINVAL);
    CHECK_EQ(xseg_request_complete(other, rq, -EIO), 0);
    CHECK_EQ(xseg_port_stats(other)->errors, 1);
    CHECK(xseg_port_reap(client) == rq);
    CHECK_EQ(rq->result, -EIO);
    xseg_request_free(client, rq);
    xseg_port_unbind(other);
    xseg_port_unbind(client);
}

static void a_fresh_descriptor_is_zeroed(void)
{
    struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "client");
    for (int round = 0; round < 2; round++) {
        struct xseg_request *rq = request_new(port);
        uint32_t index = rq->index;
        CHECK_EQ(rq->op | rq->flags | rq->dst_port, 0);
        const unsigned char *at = (const unsigned char *)&rq->result;
        for (; at < (const unsigned char *)(rq + 1); at++)
            CHECK_EQ(*at, 0);
        CHECK_EQ(rq->src_port, xseg_port_id(port));
        rq->op = rq->flags = 7;
        memset(&rq->result, 0xff, sizeof(*rq) - offsetof(struct xseg_request, result));
        xseg_request_free(port, rq);
        CHECK_EQ(rq->index, index);
    }
    xseg_port_unbind(port);
}

static uint32_t take_all(struct xseg_port *port, struct xseg_request **taken)
{
    uint32_t n = 0;
    while (xseg_request_alloc(port, &taken[n]) == 0)
        n++;
    CHECK(!taken[n]);
    return n;
}

static void descriptors_run_out_but_a_reserve_stays(void)
{
    struct xseg_request *taken[257], *kept[257];
    struct xseg_port *greedy = port_new(seg, XSEG_PORT_ANY, "greedy");
    struct xseg_port *careful = port_new(seg, XSEG_PORT_ANY, "careful");
    CHECK_EQ(xseg_port_reserve(careful, 10), 0);
    CHECK_EQ(xseg_port_reserve(careful, 257), -ENOBUFS);
    CHECK_EQ(take_all(greedy, taken), 246);
    CHECK_EQ(xseg_port_reserve(careful, 11), -ENOBUFS);
    for (int round = 0; round < 3; round++) {
        CHECK_EQ(take_all(careful, kept), 10);
        for (int i = 0; i < 10; i++)
            xseg_request_free(careful, kept[i]);
        xseg_request_free(careful, kept[0]); /* parked already: refused */
        CHECK_EQ(xseg_request_submit(careful, kept[0], xseg_port_id(greedy)), -EINVAL);
    }
    CHECK_EQ(xseg_port_stats(careful)->dropped, 3);
    /* Shrinking gives back; growing takes only what is missing. */
    CHECK_EQ(xseg_port_reserve(careful, 4), 0);
    CHECK_EQ(take_all(greedy, taken + 246), 6);
    xseg_request_free(greedy, taken[0]);
    CHECK_EQ(xseg_port_reserve(careful, 6), -ENOBUFS);
    CHECK_EQ(xseg_port_reserve(careful, 5), 0);
    CHECK_EQ(take_all(careful, kept), 5);
    xseg_port_unbind(careful);
    xseg_port_unbind(greedy);
    segment_check_idle(seg);
    /* All are usable again. */
    greedy = port_new(seg, XSEG_PORT_ANY, "greedy");
    CHECK_EQ(take_all(greedy, taken), 256);
    xseg_port_unbind(greedy);
}

/* A process that died between freeing descriptors and saying so in the map. */
static void descriptors_that_no_map_shows_are_found_by_a_reap(void)
{
    struct xseg_request *taken[257];
    struct xseg_reap_result reaped;
    struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "client");
    memset(seg->base + seg->geo.request_map_off, 0, seg->geo.nr_requests / 8);
    CHECK_EQ(xseg_request_alloc(port, taken), -ENOBUFS);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    CHECK_EQ(take_all(port, taken), 256);
    xseg_port_unbind(port);
}

static void unbind_answers_what_is_waiting(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    struct xseg_request *waiting = request_new(client), *served = request_new(client);
    CHECK_EQ(xseg_request_submit(client, served, XSEG_PORT_BLOCKERB), 0);
    CHECK(xseg_port_accept(server) == served);
    CHECK_EQ(xseg_request_submit(client, waiting, XSEG_PORT_BLOCKERB), 0);
    xseg_port_unbind(server);
    CHECK_EQ(xseg_port_wait(client, UINT64_MAX), 0);
    for (int i = 0; i < 2; i++) {
        struct xseg_request *rq = xseg_port_reap(client);
        CHECK(rq == waiting || rq == served);
        CHECK_EQ(rq->result, -EPIPE);
        xseg_request_free(client, rq);
    }
    CHECK(!xseg_port_reap(client));
    /* The next owner of the port finds nothing of the former one. */
    server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    CHECK(!xseg_port_accept(server));
    waiting = request_new(client);
    CHECK_EQ(xseg_request_submit(client, waiting, XSEG_PORT_BLOCKERB), 0);
    CHECK(xseg_port_accept(server) == waiting);
    CHECK_EQ(xseg_request_complete(server, waiting, 1), 0);
    CHECK(xseg_port_reap(client) == waiting);
    xseg_request_free(client, waiting);
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

static void a_sender_that_leaves_gets_no_answer(void)
{
    struct xseg_port *client = port_new(seg, 9, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    struct xseg_request *waiting = request_new(client), *served = request_new(client);
    CHECK_EQ(xseg_request_submit(client, served, XSEG_PORT_BLOCKERB), 0);
    CHECK(xseg_port_accept(server) == served);
    CHECK_EQ(xseg_request_submit(client, waiting, XSEG_PORT_BLOCKERB), 0);
    xseg_port_unbind(client);
    CHECK_EQ(waiting->state, XSEG_RS_FREE);
    CHECK_EQ(served->state, XSEG_RS_SERVING); /* still the server's */
    /* Not even when the same process binds the same port again. */
    client = port_new(seg, 9, "client");
    CHECK(!xseg_port_accept(server)); /* its entry names a free descriptor */
    CHECK_EQ(xseg_port_stats(server)->dropped, 1);
    CHECK_EQ(xseg_request_complete(server, served, 0), -EPIPE);
    CHECK_EQ(served->state, XSEG_RS_FREE);
    CHECK(!xseg_port_reap(client));
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

static void rubbish_in_a_ring_is_dropped_and_counted(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    struct xseg_request *own = request_new(client), *good = request_new(client);
    struct ring in = segment_ring(seg, XSEG_PORT_BLOCKERB, false);
    struct ring back = segment_ring(seg, xseg_port_id(client), true);
    const uint32_t rubbish[] = {256, UINT32_MAX - 1, 0x80000000, own->index, 200};
    for (size_t i = 0; i < 5; i++) {
        CHECK_EQ(ring_push(&in, rubbish[i], NULL, 0), 0);
        CHECK_EQ(ring_push(&back, rubbish[i], NULL, 0), 0);
    }
    CHECK_EQ(xseg_request_submit(client, good, XSEG_PORT_BLOCKERB), 0);
    CHECK_EQ(ring_push(&in, good->index, NULL, 0), 0); /* the same again */
    CHECK(xseg_port_accept(server) == good);
    CHECK(!xseg_port_accept(server));
    CHECK_EQ(xseg_port_stats(server)->dropped, 6);

    /* A reply whose sender scribbled over where it goes. */
    uint32_t src = good->src_port;
    good->src_port = 4000000000u;
    CHECK_EQ(xseg_request_complete(server, good, 0), -EPIPE);
    good = request_new(client);
    CHECK_EQ(good->src_port, src);
    CHECK_EQ(xseg_request_submit(client, good, XSEG_PORT_BLOCKERB), 0);
    CHECK(xseg_port_accept(server) == good);
    CHECK_EQ(xseg_request_complete(server, good, 5), 0);
    CHECK_EQ(ring_push(&back, good->index, NULL, 0), 0);
    CHECK(xseg_port_reap(client) == good);
    CHECK(!xseg_port_reap(client));
    CHECK_EQ(xseg_port_stats(client)->dropped, 6);

    /* A doorbell that names no port. */
    seg->ports[XSEG_PORT_BLOCKERB].bell_port = UINT32_MAX;
    seg->ports[XSEG_PORT_BLOCKERB].bell_sleeping = 1;
    CHECK_EQ(xseg_request_submit(client, good, XSEG_PORT_BLOCKERB), 0);
    CHECK_EQ(seg->ports[XSEG_PORT_BLOCKERB].bell_sleeping, 0);
    xseg_port_unbind(server);
    CHECK(xseg_port_reap(client) == good);
    xseg_request_free(client, good);
    xseg_request_free(client, own);
    xseg_port_unbind(client);
}

/* More stale entries than the ring holds must not lose an answer. */
static void a_full_reply_ring_loses_no_answer(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    struct xseg_request *rq = request_new(client);
    struct ring back = segment_ring(seg, xseg_port_id(client), true);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
    while (ring_push(&back, UINT32_MAX - 1, NULL, 0) == 0)
        ;
    CHECK(xseg_port_accept(server) == rq);
    CHECK_EQ(xseg_request_complete(server, rq, 3), 0);
    CHECK(xseg_port_reap(client) == rq);
    CHECK_EQ(rq->result, 3);
    CHECK(!xseg_port_reap(client));
    /* And a full request ring is the sender's to try again. */
    struct ring in = segment_ring(seg, XSEG_PORT_BLOCKERB, false);
    while (ring_push(&in, UINT32_MAX - 1, NULL, 0) == 0)
        ;
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), -EAGAIN);
    CHECK_EQ(rq->state, XSEG_RS_ALLOCATED);
    CHECK(!xseg_port_accept(server));
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

/* Every descriptor at once through one ring, many times round. */
static void all_descriptors_fit_in_one_ring(void)
{
    struct xseg_request *taken[257];
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    CHECK_EQ(take_all(client, taken), 256);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 256; i++) {
            taken[i]->op = XSEG_OP_READ;
            CHECK_EQ(xseg_request_submit(client, taken[i], XSEG_PORT_BLOCKERB), 0);
        }
        for (int i = 0; i < 256; i++) {
            struct xseg_request *rq = xseg_port_accept(server);
            CHECK(rq == taken[i]);
            CHECK_EQ(xseg_request_complete(server, rq, i), 0);
        }
        for (int i = 0; i < 256; i++) {
            CHECK(xseg_port_reap(client) == taken[i]);
            CHECK_EQ(taken[i]->result, i);
        }
    }
    CHECK_EQ(xseg_port_stats(server)->read_bytes, 20 * 255 * 128);
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

int main(void)
{
    seg = segment_new(&small_segment);
    round_trip_hands_over_fields_and_result();
    bind_checks_number_role_and_owner();
    dynamic_ports_run_out_and_come_back();
    submit_names_what_is_wrong();
    a_fresh_descriptor_is_zeroed();
    descriptors_run_out_but_a_reserve_stays();
    descriptors_that_no_map_shows_are_found_by_a_reap();
    unbind_answers_what_is_waiting();
    a_sender_that_leaves_gets_no_answer();
    rubbish_in_a_ring_is_dropped_and_counted();
    a_full_reply_ring_loses_no_answer();
    all_descriptors_fit_in_one_ring();
    segment_end(seg);
    return 0;
}
