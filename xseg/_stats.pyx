# SPDX-License-Identifier: Apache-2.0
"""Read the counters of a segment into the records of `xseg.statistics`.

Called by `Segment`, which keeps the mapping alive.  Other processes change what is read
here at any time: every shared word is loaded once, and nothing read is used as an
index or length without a check.
"""

import time as _time
import uuid as _uuid

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from xseg.c.buffer cimport xseg_heap_usage, xseg_heap_usage_s
from xseg.c.layout cimport XSEG_PORT_FREE, xseg_header, xseg_port_shared
from xseg.c.request cimport (
    XSEG_INLINE_BYTES,
    XSEG_RS_ALLOCATED,
    XSEG_RS_FREE,
    xseg_op_name,
    xseg_request,
    xseg_request_state_name,
)
from xseg.c.process cimport XSEG_LIFE_DEAD
from xseg.c.segment cimport (
    xseg_port_life,
    xseg_segment,
    xseg_segment_header,
    xseg_segment_port,
    xseg_segment_request,
)

from xseg.constants import NAME_MAX as _NAME_MAX
from xseg.constants import ObjectKind as _ObjectKind
from xseg.statistics import PortStatistics as _PortStatistics
from xseg.statistics import RequestInfo as _RequestInfo
from xseg.statistics import SegmentStatistics as _SegmentStatistics

cdef extern from *:
    """
    /* Status only: no order with other words is needed. */
    static inline uint32_t stats_load32(const uint32_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_RELAXED);
    }
    static inline uint64_t stats_load64(const uint64_t *word)
    {
        return __atomic_load_n(word, __ATOMIC_RELAXED);
    }
    """
    uint32_t load32 "stats_load32"(const uint32_t *word) nogil
    uint64_t load64 "stats_load64"(const uint64_t *word) nogil

cdef uint32_t LONGEST_NAME = _NAME_MAX

cdef tuple _PORT_STATES = ("free", "binding", "bound", "dead")
cdef dict _KINDS = {int(kind): kind.name for kind in _ObjectKind}


cdef object segment_statistics(const xseg_segment *seg, str name):
    cdef const xseg_header *header = xseg_segment_header(seg)
    cdef const xseg_request *rq
    cdef xseg_heap_usage_s usage
    cdef uint32_t index
    cdef uint32_t nr_free = 0

    with nogil:
        xseg_heap_usage(seg, &usage)
        for index in range(header.nr_requests):
            rq = xseg_segment_request(seg, index)
            if rq != NULL and load32(&rq.state) == <uint32_t>XSEG_RS_FREE:
                nr_free += 1
    return _SegmentStatistics(
        name=name,
        uuid=str(_uuid.UUID(bytes=(<const char *>header.uuid)[:16])),
        size_bytes=header.size_bytes,
        heap_bytes=usage.total_bytes,
        heap_used_bytes=usage.used_bytes,
        nr_buffers=usage.nr_buffers,
        nr_used_buffers=usage.nr_used_buffers,
        nr_requests=header.nr_requests,
        nr_free_requests=nr_free,
        nr_ports=header.nr_ports,
        creator_pid=header.creator_pid,
    )


cdef list port_statistics(const xseg_segment *seg):
    cdef uint32_t nr_ports = xseg_segment_header(seg).nr_ports
    cdef const xseg_port_shared *port
    cdef uint32_t index, state, pid, depth
    cdef list found = []

    for index in range(nr_ports):
        port = xseg_segment_port(seg, index)
        if port == NULL:
            continue
        state = load32(&port.state)
        if state == <uint32_t>XSEG_PORT_FREE:
            continue
        pid = load32(&port.owner_pid)
        # The two ends move on between the loads: a difference that wrapped is "none".
        depth = load32(&port.requests.head) - load32(&port.requests.tail)
        if depth > port.requests.capacity:
            depth = 0
        found.append(
            _PortStatistics(
                id=index,
                state=_PORT_STATES[state] if state < 4 else "?",
                role=_role(port),
                owner_pid=pid,
                alive=xseg_port_life(seg, index) != XSEG_LIFE_DEAD,
                bell_sleeping=load32(&port.bell_sleeping) != 0,
                queue_depth=depth,
                accepted=load64(&port.stats.accepted),
                completed=load64(&port.stats.completed),
                errors=load64(&port.stats.errors),
                submitted=load64(&port.stats.submitted),
                reaped=load64(&port.stats.reaped),
                read_bytes=load64(&port.stats.read_bytes),
                write_bytes=load64(&port.stats.write_bytes),
                sleeps=load64(&port.stats.sleeps),
                bound_ns=load64(&port.bound_ns),
            )
        )
    return found


cdef str _role(const xseg_port_shared *port):
    cdef bytes raw = (<const char *>port.role)[:32]
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


cdef list request_infos(const xseg_segment *seg):
    cdef uint32_t nr_requests = xseg_segment_header(seg).nr_requests
    cdef const xseg_request *shared
    cdef xseg_request rq
    cdef uint32_t index
    cdef uint64_t now = _time.monotonic_ns()
    cdef uint64_t age
    cdef list found = []

    for index in range(nr_requests):
        shared = xseg_segment_request(seg, index)
        if shared == NULL or load32(&shared.state) == <uint32_t>XSEG_RS_FREE:
            continue
        memcpy(&rq, shared, sizeof(rq))
        age = 0
        if rq.state > <uint32_t>XSEG_RS_ALLOCATED and 0 < rq.submitted_ns < now:
            age = now - rq.submitted_ns
        found.append(
            _RequestInfo(
                index=index,
                state=xseg_request_state_name(rq.state).decode("ascii"),
                op=xseg_op_name(rq.op).decode("ascii"),
                src_port=rq.src_port,
                dst_port=rq.dst_port,
                owner_pid=rq.owner_pid,
                target=_target(&rq),
                offset=rq.offset,
                size=rq.size,
                result=rq.result,
                age_ns=age,
            )
        )
    return found


cdef str _target(const xseg_request *rq):
    """The object or the name a request is about.

    A reply overwrites the inline bytes, so text that is not printable is not shown.
    """
    cdef uint64_t length = rq.arg[4]
    cdef bytes raw
    cdef str text

    if rq.object.kind:
        raw = (<const char *>rq.object.id)[:32]
        kind = _KINDS.get(rq.object.kind, str(rq.object.kind))
        return f"{kind}:{raw.hex()}"
    if length == 0 or length > LONGEST_NAME or length > <uint64_t>XSEG_INLINE_BYTES:
        return ""
    raw = (<const char *>rq.inline_data)[:length]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""
