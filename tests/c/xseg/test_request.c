/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a request: alloc, submit, accept, complete, reap, free, and its errors.
 */
#include "fixture.h"

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

int main(void)
{
    seg = segment_new(&small_segment);
    round_trip_hands_over_fields_and_result();
    segment_end(seg);
    return 0;
}
