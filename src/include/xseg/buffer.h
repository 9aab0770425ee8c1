/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer heap: page-aligned buffers in power-of-two size classes.
 */
#ifndef XSEG_BUFFER_H
#define XSEG_BUFFER_H

#include <stdint.h>

struct xseg_segment;

#define XSEG_BUFFER_MIN_BYTES 4096u
#define XSEG_BUFFER_MAX_BYTES (4u << 20)

/**
 * Take a buffer of at least `size` bytes.
 *
 * @param size  1 to XSEG_BUFFER_MAX_BYTES [bytes].
 * @param off   out: segment offset of the buffer, page aligned, never 0 on success.
 * Returns the buffer's capacity in bytes (the size class, or a larger one when its own
 * is exhausted); -ENOBUFS; -EINVAL.
 * Ownership: the calling process, recorded in the heap table, until xseg_buffer_free.
 * The bytes are whatever was there before.
 * Thread-safety: safe, lock-free.  Blocks: never.
 * After peer death: reclaimed by xseg_reap().
 */
int64_t xseg_buffer_alloc(struct xseg_segment *seg, uint64_t size, uint64_t *off);

/** Give a buffer back.  -EINVAL if `off` is not the start of an allocated buffer. */
int xseg_buffer_free(struct xseg_segment *seg, uint64_t off);

/** Use of the heap now. */
struct xseg_heap_usage {
    uint64_t total_bytes;
    uint64_t used_bytes;
    uint32_t nr_buffers; /* in all classes */
    uint32_t nr_used_buffers;
};
void xseg_heap_usage(const struct xseg_segment *seg, struct xseg_heap_usage *usage);

#endif
