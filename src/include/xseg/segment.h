/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segment: one named piece of POSIX shared memory that peers join.
 */
#ifndef XSEG_SEGMENT_H
#define XSEG_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "xseg/layout.h"
#include "xseg/process.h"

struct xseg_segment; /* this process's attachment */

/** How large to make a segment.  Zero in a field means its default. */
struct xseg_segment_options {
    uint32_t nr_ports;    /* default 1024; 16 to 4096 */
    uint32_t nr_requests; /* default 8192; a power of two, 64 to 65536 */
    uint64_t heap_bytes;  /* default 128 MiB; 16 MiB to 64 GiB, multiple of 4 MiB */
    mode_t mode;          /* default 0660 */
    gid_t gid;            /* default: leave; (gid_t)-1 leaves too */
};

/**
 * Create a segment and attach to it.
 *
 * @param name     1 to 200 bytes of [A-Za-z0-9._-], no leading dot: the name in /dev/shm.
 * @param options  sizes; NULL takes every default.
 * @param out      the attachment, owned by the caller until xseg_segment_detach.
 * Returns 0; -EEXIST if the name is taken; -EINVAL for a bad name or size; -ENOSPC
 * when shared memory cannot hold it (all of it is allocated now, so that a full
 * /dev/shm never becomes a SIGBUS later).
 * Thread-safety: safe.  Blocks: while the kernel allocates the pages.
 */
int xseg_segment_create(const char *name, const struct xseg_segment_options *options,
                        struct xseg_segment **out);

/**
 * Attach to an existing segment of root's or of the calling user's.
 *
 * Before a byte of it is believed, the open file must be a regular one of such a user,
 * with one name, that not everybody may write.  Header fields are then checked against
 * its size before anything is used.
 *
 * Returns 0; -ENOENT; -EPERM for a file that is not to be believed; -EACCES;
 * -EPROTONOSUPPORT for another layout version or unknown feature bits; -EBADMSG for a
 * header that contradicts itself.
 */
int xseg_segment_attach(const char *name, struct xseg_segment **out);

/** The same, and believe user `owner` too. */
int xseg_segment_attach_of(const char *name, uid_t owner, struct xseg_segment **out);

/** Unmap.  Ports bound through this attachment must be unbound first. */
void xseg_segment_detach(struct xseg_segment *seg);

/** Remove the name.  Memory goes with the last attachment.  0 or -ENOENT. */
int xseg_segment_destroy(const char *name);

const struct xseg_header *xseg_segment_header(const struct xseg_segment *seg);
const char *xseg_segment_name(const struct xseg_segment *seg);

/**
 * The address of `len` bytes at offset `off` of the buffer heap, or NULL when any
 * of them lies outside it.  Every offset that came from another peer goes through here.
 */
void *xseg_heap_ptr(const struct xseg_segment *seg, uint64_t off, uint64_t len);

/** Offset of an address inside the heap; 0 if it is not inside. */
uint64_t xseg_heap_off(const struct xseg_segment *seg, const void *ptr);

/** Port slot `id` for reading (status, counters), or NULL when out of range. */
const struct xseg_port_shared *xseg_segment_port(const struct xseg_segment *seg,
                                                 uint32_t id);

/** Does the process that bound port `id` still run?  DEAD for a port that is free. */
enum xseg_life xseg_port_life(const struct xseg_segment *seg, uint32_t id);

/** Request descriptor `index` for reading, or NULL when out of range. */
const struct xseg_request *xseg_segment_request(const struct xseg_segment *seg,
                                                uint32_t index);

/** What a reap gave back. */
struct xseg_reap_result {
    uint32_t ports;    /* ports unbound */
    uint32_t requests; /* descriptors freed or failed with -EOWNERDEAD */
    uint32_t buffers;  /* heap buffers freed */
};

/**
 * Reclaim what processes held that are proven dead: their ports, descriptors and
 * buffers.  Requests they were serving are completed to their senders with -EOWNERDEAD.
 * A process that cannot be looked at from here keeps what it has.
 *
 * For the one process that looks after the segment (in Archipelago the supervisor):
 * peers and clients never reap one another.
 *
 * Data comes first: while a living peer still works on the data of such a request, its
 * answer (and a dead owner's buffer) waits.  The answer is given by that peer's own
 * xseg_request_complete; the buffer by a later xseg_reap.
 *
 * Returns 0, also when there was nothing to do; -ENOMEM: buffers are left for later.
 * Thread-safety: one process at a time does the work; others return 0 at once.
 */
int xseg_reap(struct xseg_segment *seg, struct xseg_reap_result *result);

#endif
