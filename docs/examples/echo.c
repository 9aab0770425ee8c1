/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that sends each request's bytes back.  cc echo.c $(pkg-config --cflags --libs xseg) */
#include <stdio.h>
#include <string.h>

#include "xseg/xseg.h"

enum { ECHO_PORT = 9 };

int main(int argc, char **argv)
{
    struct xseg_segment *seg = NULL;
    struct xseg_port *port = NULL;
    int rc = argc == 2 ? xseg_segment_attach(argv[1], &seg) : -EINVAL;
    if (rc == 0)
        rc = xseg_port_bind(seg, ECHO_PORT, "echo", &port);
    if (rc < 0) {
        fprintf(stderr, "echo SEGMENT: %s\n", strerror(-rc));
        return 1;
    }
    for (int open = 1; open;) {
        struct xseg_request *rq = xseg_port_accept(port);
        if (!rq) {
            xseg_port_wait(port, UINT64_MAX);
            continue;
        }
        open = rq->op != XSEG_OP_CLOSE;
        /* The bytes lie in the asker's buffer; whatever it claims of it is checked. */
        const void *data = xseg_heap_ptr(seg, rq->data_off, rq->data_len);
        xseg_request_complete(port, rq, data ? (int64_t)rq->data_len : -EINVAL);
    }
    xseg_port_unbind(port);
    xseg_segment_detach(seg);
    return 0;
}
