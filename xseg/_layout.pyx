# SPDX-License-Identifier: Apache-2.0
"""What the C headers say, for the tests that hold the Python constants to them."""

from libc.stdint cimport uint64_t

cdef extern from "xseg/xseg.h" nogil:
    const uint64_t XSEG_PORT_NONE
    const uint64_t XSEG_PORT_BLOCKERB
    const uint64_t XSEG_PORT_BLOCKERM
    const uint64_t XSEG_PORT_MAPPERD
    const uint64_t XSEG_PORT_CONTROL
    const uint64_t XSEG_PORT_VLMCD
    const uint64_t XSEG_PORT_ENDPOINT
    const uint64_t XSEG_PORT_FUSE
    const uint64_t XSEG_PORT_DYNAMIC
    const uint64_t XSEG_PORT_FREE
    const uint64_t XSEG_PORT_BINDING
    const uint64_t XSEG_PORT_BOUND
    const uint64_t XSEG_PORT_DEAD
    const uint64_t XSEG_MAGIC
    const uint64_t XSEG_LAYOUT_VERSION
    const uint64_t XSEG_PAGE_BYTES
    const uint64_t XSEG_CACHE_LINE
    const uint64_t XSEG_NAME_MAX
    const uint64_t XSEG_PORT_ANY
    const uint64_t XSEG_OP_PING
    const uint64_t XSEG_OP_READ
    const uint64_t XSEG_OP_WRITE
    const uint64_t XSEG_OP_SYNC
    const uint64_t XSEG_OP_TRUNCATE
    const uint64_t XSEG_OP_DELETE
    const uint64_t XSEG_OP_ACQUIRE
    const uint64_t XSEG_OP_RELEASE
    const uint64_t XSEG_OP_COPY
    const uint64_t XSEG_OP_CLONE
    const uint64_t XSEG_OP_COMMIT
    const uint64_t XSEG_OP_INFO
    const uint64_t XSEG_OP_MAPR
    const uint64_t XSEG_OP_MAPW
    const uint64_t XSEG_OP_OPEN
    const uint64_t XSEG_OP_CLOSE
    const uint64_t XSEG_OP_SNAPSHOT
    const uint64_t XSEG_OP_HASH
    const uint64_t XSEG_OP_CREATE
    const uint64_t XSEG_OP_RENAME
    const uint64_t XSEG_OP_FLUSH
    const uint64_t XSEG_OP_UPDATE
    const uint64_t XSEG_OP_DISCARD
    const uint64_t XSEG_OP_ZERO
    const uint64_t XSEG_OP_APPEND
    const uint64_t XSEG_OP_LIST
    const uint64_t XSEG_OP_NOTIFY
    const uint64_t XSEG_OP_CHANGES
    const uint64_t XSEG_OP_USAGE
    const uint64_t XSEG_NR_OPS
    const uint64_t XSEG_F_FUA
    const uint64_t XSEG_F_FLUSH
    const uint64_t XSEG_F_NOSYNC
    const uint64_t XSEG_F_FORCE
    const uint64_t XSEG_F_RDONLY
    const uint64_t XSEG_F_HOLD
    const uint64_t XSEG_F_ZERO
    const uint64_t XSEG_F_MORE
    const uint64_t XSEG_F_LIVE
    const uint64_t XSEG_RS_FREE
    const uint64_t XSEG_RS_ALLOCATED
    const uint64_t XSEG_RS_SUBMITTED
    const uint64_t XSEG_RS_SERVING
    const uint64_t XSEG_RS_DONE
    const uint64_t XSEG_OBJ_NONE
    const uint64_t XSEG_OBJ_CONTENT
    const uint64_t XSEG_OBJ_EXTENT
    const uint64_t XSEG_OBJ_LAYER
    const uint64_t XSEG_OBJ_HEADER
    const uint64_t XSEG_OBJ_JOURNAL
    const uint64_t XSEG_OBJ_LEASE
    const uint64_t XSEG_OBJ_PRESENCE
    const uint64_t XSEG_OBJ_CANDIDATES
    const uint64_t XSEG_OBJ_GENERATION
    const uint64_t XSEG_NR_OBJECT_KINDS
    const uint64_t XSEG_INLINE_BYTES
    const uint64_t XSEG_REF_ZERO
    const uint64_t XSEG_REF_CONTENT
    const uint64_t XSEG_REF_EXTENT
    const uint64_t XSEG_VOL_READONLY
    const uint64_t XSEG_VOL_TAIL
    const uint64_t XSEG_VOL_HELD
    const uint64_t XSEG_VOL_RDONLY_OPEN
    const uint64_t XSEG_SECTOR_BYTES
    const uint64_t XSEG_BLOCK_MIN_BYTES
    const uint64_t XSEG_BLOCK_MAX_BYTES
    const uint64_t XSEG_ARG_NAME_LEN
    const uint64_t XSEG_INLINE_RUNS
    const uint64_t XSEG_RUN_OWNED
    const uint64_t XSEG_RUN_HOLE
    const uint64_t XSEG_RUN_LIVE
    const uint64_t XSEG_USER_READONLY
    const uint64_t XSEG_USER_HELD
    const uint64_t XSEG_USER_LEAVING
    const uint64_t XSEG_LEASE_LOCK
    const uint64_t XSEG_LEASE_IF_FREE
    const uint64_t XSEG_LEASE_UNLOCK
    const uint64_t XSEG_LEASE_INHERIT
    const uint64_t XSEG_BUFFER_MIN_BYTES
    const uint64_t XSEG_NR_STAMPS
    const uint64_t XSEG_BUFFER_MAX_BYTES

    struct xseg_ring_shared:
        pass

    struct xseg_port_stats:
        pass

    struct xseg_port_shared:
        pass

    struct xseg_header:
        pass

    struct xseg_object:
        pass

    struct xseg_request:
        pass

    struct xseg_run:
        pass

    struct xseg_volume_info:
        pass

    struct xseg_failure:
        pass

    struct xseg_volume_user:
        pass

    struct xseg_object_info:
        pass

    struct xseg_list_entry:
        pass

    struct xseg_presence:
        pass

    struct xseg_lease:
        pass

    struct xseg_journal_info:
        pass

    struct xseg_map_info:
        pass

    struct xseg_versioned:
        pass


def c_values():
    """Every public number by its C name, and the sizes of the public structs [bytes].

    Returns:
        ``{"XSEG_OP_READ": 1, ..., "sizeof xseg_run": 64, ...}``.
    """
    return {
        "XSEG_PORT_NONE": XSEG_PORT_NONE,
        "XSEG_PORT_BLOCKERB": XSEG_PORT_BLOCKERB,
        "XSEG_PORT_BLOCKERM": XSEG_PORT_BLOCKERM,
        "XSEG_PORT_MAPPERD": XSEG_PORT_MAPPERD,
        "XSEG_PORT_CONTROL": XSEG_PORT_CONTROL,
        "XSEG_PORT_VLMCD": XSEG_PORT_VLMCD,
        "XSEG_PORT_ENDPOINT": XSEG_PORT_ENDPOINT,
        "XSEG_PORT_FUSE": XSEG_PORT_FUSE,
        "XSEG_PORT_DYNAMIC": XSEG_PORT_DYNAMIC,
        "XSEG_PORT_FREE": XSEG_PORT_FREE,
        "XSEG_PORT_BINDING": XSEG_PORT_BINDING,
        "XSEG_PORT_BOUND": XSEG_PORT_BOUND,
        "XSEG_PORT_DEAD": XSEG_PORT_DEAD,
        "XSEG_MAGIC": XSEG_MAGIC,
        "XSEG_LAYOUT_VERSION": XSEG_LAYOUT_VERSION,
        "XSEG_PAGE_BYTES": XSEG_PAGE_BYTES,
        "XSEG_CACHE_LINE": XSEG_CACHE_LINE,
        "XSEG_NAME_MAX": XSEG_NAME_MAX,
        "XSEG_PORT_ANY": XSEG_PORT_ANY,
        "XSEG_OP_PING": XSEG_OP_PING,
        "XSEG_OP_READ": XSEG_OP_READ,
        "XSEG_OP_WRITE": XSEG_OP_WRITE,
        "XSEG_OP_SYNC": XSEG_OP_SYNC,
        "XSEG_OP_TRUNCATE": XSEG_OP_TRUNCATE,
        "XSEG_OP_DELETE": XSEG_OP_DELETE,
        "XSEG_OP_ACQUIRE": XSEG_OP_ACQUIRE,
        "XSEG_OP_RELEASE": XSEG_OP_RELEASE,
        "XSEG_OP_COPY": XSEG_OP_COPY,
        "XSEG_OP_CLONE": XSEG_OP_CLONE,
        "XSEG_OP_COMMIT": XSEG_OP_COMMIT,
        "XSEG_OP_INFO": XSEG_OP_INFO,
        "XSEG_OP_MAPR": XSEG_OP_MAPR,
        "XSEG_OP_MAPW": XSEG_OP_MAPW,
        "XSEG_OP_OPEN": XSEG_OP_OPEN,
        "XSEG_OP_CLOSE": XSEG_OP_CLOSE,
        "XSEG_OP_SNAPSHOT": XSEG_OP_SNAPSHOT,
        "XSEG_OP_HASH": XSEG_OP_HASH,
        "XSEG_OP_CREATE": XSEG_OP_CREATE,
        "XSEG_OP_RENAME": XSEG_OP_RENAME,
        "XSEG_OP_FLUSH": XSEG_OP_FLUSH,
        "XSEG_OP_UPDATE": XSEG_OP_UPDATE,
        "XSEG_OP_DISCARD": XSEG_OP_DISCARD,
        "XSEG_OP_ZERO": XSEG_OP_ZERO,
        "XSEG_OP_APPEND": XSEG_OP_APPEND,
        "XSEG_OP_LIST": XSEG_OP_LIST,
        "XSEG_OP_NOTIFY": XSEG_OP_NOTIFY,
        "XSEG_OP_CHANGES": XSEG_OP_CHANGES,
        "XSEG_OP_USAGE": XSEG_OP_USAGE,
        "XSEG_NR_OPS": XSEG_NR_OPS,
        "XSEG_F_FUA": XSEG_F_FUA,
        "XSEG_F_FLUSH": XSEG_F_FLUSH,
        "XSEG_F_NOSYNC": XSEG_F_NOSYNC,
        "XSEG_F_FORCE": XSEG_F_FORCE,
        "XSEG_F_RDONLY": XSEG_F_RDONLY,
        "XSEG_F_HOLD": XSEG_F_HOLD,
        "XSEG_F_ZERO": XSEG_F_ZERO,
        "XSEG_F_MORE": XSEG_F_MORE,
        "XSEG_F_LIVE": XSEG_F_LIVE,
        "XSEG_RS_FREE": XSEG_RS_FREE,
        "XSEG_RS_ALLOCATED": XSEG_RS_ALLOCATED,
        "XSEG_RS_SUBMITTED": XSEG_RS_SUBMITTED,
        "XSEG_RS_SERVING": XSEG_RS_SERVING,
        "XSEG_RS_DONE": XSEG_RS_DONE,
        "XSEG_OBJ_NONE": XSEG_OBJ_NONE,
        "XSEG_OBJ_CONTENT": XSEG_OBJ_CONTENT,
        "XSEG_OBJ_EXTENT": XSEG_OBJ_EXTENT,
        "XSEG_OBJ_LAYER": XSEG_OBJ_LAYER,
        "XSEG_OBJ_HEADER": XSEG_OBJ_HEADER,
        "XSEG_OBJ_JOURNAL": XSEG_OBJ_JOURNAL,
        "XSEG_OBJ_LEASE": XSEG_OBJ_LEASE,
        "XSEG_OBJ_PRESENCE": XSEG_OBJ_PRESENCE,
        "XSEG_OBJ_CANDIDATES": XSEG_OBJ_CANDIDATES,
        "XSEG_OBJ_GENERATION": XSEG_OBJ_GENERATION,
        "XSEG_NR_OBJECT_KINDS": XSEG_NR_OBJECT_KINDS,
        "XSEG_INLINE_BYTES": XSEG_INLINE_BYTES,
        "XSEG_REF_ZERO": XSEG_REF_ZERO,
        "XSEG_REF_CONTENT": XSEG_REF_CONTENT,
        "XSEG_REF_EXTENT": XSEG_REF_EXTENT,
        "XSEG_VOL_READONLY": XSEG_VOL_READONLY,
        "XSEG_VOL_TAIL": XSEG_VOL_TAIL,
        "XSEG_VOL_HELD": XSEG_VOL_HELD,
        "XSEG_VOL_RDONLY_OPEN": XSEG_VOL_RDONLY_OPEN,
        "XSEG_SECTOR_BYTES": XSEG_SECTOR_BYTES,
        "XSEG_BLOCK_MIN_BYTES": XSEG_BLOCK_MIN_BYTES,
        "XSEG_BLOCK_MAX_BYTES": XSEG_BLOCK_MAX_BYTES,
        "XSEG_ARG_NAME_LEN": XSEG_ARG_NAME_LEN,
        "XSEG_INLINE_RUNS": XSEG_INLINE_RUNS,
        "XSEG_RUN_OWNED": XSEG_RUN_OWNED,
        "XSEG_RUN_HOLE": XSEG_RUN_HOLE,
        "XSEG_RUN_LIVE": XSEG_RUN_LIVE,
        "XSEG_USER_READONLY": XSEG_USER_READONLY,
        "XSEG_USER_HELD": XSEG_USER_HELD,
        "XSEG_USER_LEAVING": XSEG_USER_LEAVING,
        "XSEG_LEASE_LOCK": XSEG_LEASE_LOCK,
        "XSEG_LEASE_IF_FREE": XSEG_LEASE_IF_FREE,
        "XSEG_LEASE_UNLOCK": XSEG_LEASE_UNLOCK,
        "XSEG_LEASE_INHERIT": XSEG_LEASE_INHERIT,
        "XSEG_BUFFER_MIN_BYTES": XSEG_BUFFER_MIN_BYTES,
        "XSEG_NR_STAMPS": XSEG_NR_STAMPS,
        "XSEG_BUFFER_MAX_BYTES": XSEG_BUFFER_MAX_BYTES,
        "sizeof xseg_ring_shared": sizeof(xseg_ring_shared),
        "sizeof xseg_port_stats": sizeof(xseg_port_stats),
        "sizeof xseg_port_shared": sizeof(xseg_port_shared),
        "sizeof xseg_header": sizeof(xseg_header),
        "sizeof xseg_object": sizeof(xseg_object),
        "sizeof xseg_request": sizeof(xseg_request),
        "sizeof xseg_run": sizeof(xseg_run),
        "sizeof xseg_volume_info": sizeof(xseg_volume_info),
        "sizeof xseg_failure": sizeof(xseg_failure),
        "sizeof xseg_volume_user": sizeof(xseg_volume_user),
        "sizeof xseg_object_info": sizeof(xseg_object_info),
        "sizeof xseg_list_entry": sizeof(xseg_list_entry),
        "sizeof xseg_lease": sizeof(xseg_lease),
        "sizeof xseg_presence": sizeof(xseg_presence),
        "sizeof xseg_journal_info": sizeof(xseg_journal_info),
        "sizeof xseg_map_info": sizeof(xseg_map_info),
        "sizeof xseg_versioned": sizeof(xseg_versioned),
    }
