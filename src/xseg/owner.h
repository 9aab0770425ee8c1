/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that owns something in the segment: pid and start time, packed into one
 * word that can be swapped at once.
 */
#ifndef XSEG_OWNER_H
#define XSEG_OWNER_H

#include <stdbool.h>
#include <stdint.h>

/* Linux pids have at most 22 bits; 42 bits of clock ticks are over a thousand years. */
#define PROCESS_START_BITS 42

static inline uint64_t process_pack(uint32_t pid, uint64_t start)
{
    return (uint64_t)pid << PROCESS_START_BITS |
           (start & ((UINT64_C(1) << PROCESS_START_BITS) - 1));
}

/** True unless the packed process is proven dead.  0 names no process: dead. */
bool process_packed_alive(uint64_t packed);

/** Answers remembered during one sweep, so that /proc is read once for each process. */
struct process_memo {
    uint64_t packed[64];
    bool alive[64];
    uint32_t nr;
};
bool process_memo_alive(struct process_memo *memo, uint64_t packed);

#endif
