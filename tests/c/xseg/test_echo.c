/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The echo peer of docs/examples works as it stands there.
 */
#include <string.h>

#include "fixture.h"

static int64_t ask(struct xseg_port *port, uint32_t op, uint64_t off, uint64_t len)
{
    struct xseg_request *rq = request_new(port);
    rq->op = op;
    rq->data_off = off;
    rq->data_len = len;
    request_send(port, rq, 9);
    while (!xseg_port_reap(port))
        xseg_port_wait(port, UINT64_MAX);
    int64_t result = rq->result;
    xseg_request_free(port, rq);
    return result;
}

int main(void)
{
    struct xseg_segment *seg = segment_new(&small_segment);
    pid_t peer = fork();
    CHECK(peer >= 0);
    if (peer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(ECHO_PEER, ECHO_PEER, segment_created, (char *)NULL);
        _exit(127);
    }
    struct xseg_port *port = port_new(seg, XSEG_PORT_DYNAMIC, "client");
    uint64_t off;
    CHECK(xseg_buffer_alloc(seg, 5, &off) > 0);
    memcpy(xseg_heap_ptr(seg, off, 5), "hello", 5);
    CHECK_EQ(ask(port, XSEG_OP_PING, off, 5), 5);
    CHECK(memcmp(xseg_heap_ptr(seg, off, 5), "hello", 5) == 0);
    CHECK_EQ(ask(port, XSEG_OP_PING, 4096, 5), -EINVAL); /* not in the heap */
    CHECK_EQ(ask(port, XSEG_OP_CLOSE, off, 0), 0);
    child_join(peer);
    CHECK_EQ(xseg_buffer_free(seg, off), 0);
    xseg_port_unbind(port);
    segment_end(seg);
    return 0;
}
