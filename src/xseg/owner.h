/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owner words: the process that holds something in the segment, as one word that can be
 * swapped at once.
 *
 *   0                      nobody
 *   bit 63 clear           pid << 41 | start time, of the segment's boot and namespace
 *   bit 63 set             1 << 63 | key: the owner keeps byte `key` of the segment's
 *                          file locked (an open file description lock, fcntl(2))
 *
 * A pid is nothing in another pid namespace.  So an attachment from another one, or one
 * that cannot read its own start time, is named by a lock: the kernel releases it with
 * the process, and every other attachment can ask for it, wherever it runs.
 */
#ifndef XSEG_OWNER_H
#define XSEG_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/process.h"

struct xseg_segment;

/* Linux pids have at most 22 bits; 41 bits of clock ticks are 700 years. */
#define OWNER_START_BITS 41
#define OWNER_LOCK_BIT   (UINT64_C(1) << 63)

static inline uint64_t owner_pack(uint32_t pid, uint64_t start)
{
    return ((uint64_t)pid << OWNER_START_BITS |
            (start & ((UINT64_C(1) << OWNER_START_BITS) - 1))) &
           ~OWNER_LOCK_BIT;
}

/** Give the attachment its word in `seg->self`.  `seg->fd` is open.  0 or -errno. */
int owner_identify(struct xseg_segment *seg);

/** Does that owner still run?  0, which names no process, is DEAD. */
enum xseg_life owner_life(const struct xseg_segment *seg, uint64_t owner);

/** Answers remembered during one sweep, so that /proc is read once for each process. */
struct owner_memo {
    uint64_t owner[512];
    uint8_t life[512];
};

/** True if that owner is proven dead. */
bool owner_dead(const struct xseg_segment *seg, struct owner_memo *memo,
                uint64_t owner);

#endif
