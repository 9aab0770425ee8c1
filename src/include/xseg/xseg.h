/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libxseg: peers of one machine talk by requests in shared memory.
 *
 *   xseg_segment_create / _attach
 *        |
 *        +-- xseg_port_bind ------------------------------+
 *        |        |                                       |
 *        |   xseg_request_alloc, xseg_buffer_alloc        | xseg_port_accept
 *        |        |  fill                                 |     |  serve
 *        |   xseg_request_submit  ---- request ring --->  |     |
 *        |   xseg_port_reap       <--- reply ring ------  | xseg_request_complete
 *        |        |
 *        |   xseg_request_free, xseg_buffer_free
 *        |        |
 *        +-- xseg_port_unbind
 *        |
 *   xseg_segment_detach, xseg_segment_destroy
 *
 * Caveats
 *  - A port belongs to one thread at a time, or to two: one that waits, accepts and
 *    reaps, and one that allocates, submits, completes and frees.
 *  - The data of a request is lent from submit to reap: leave it alone.
 *  - Do not use an attachment after fork(2): the child attaches anew.
 *  - Nothing in the segment is trusted: an offset, length, index or op number that came
 *    from another peer is checked before use.  A process that writes nonsense
 *    into the segment makes requests fail or wait; xseg_check() says so, and the segment
 *    is made anew.  Its file mode is the border of trust.
 *  - A process that dies leaves its slots marked with its name; xseg_reap() gives them
 *    back.
 */
#ifndef XSEG_XSEG_H
#define XSEG_XSEG_H

#include "xseg/buffer.h"
#include "xseg/check.h"
#include "xseg/error.h"
#include "xseg/layout.h"
#include "xseg/payload.h"
#include "xseg/port.h"
#include "xseg/process.h"
#include "xseg/request.h"
#include "xseg/segment.h"

#define XSEG_VERSION "0.1.0"

/** Version of the library, "0.1.0". */
const char *xseg_version(void);

#endif
