/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault injection of the mem backend, for tests of whatever stands on a blocker.
 */
#ifndef BLOCKER_MEM_H
#define BLOCKER_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "blocker/backend.h"

/** The backend's calls, as a fault names them. */
enum mem_call {
    MEM_READ,
    MEM_WRITE,
    MEM_ZERO,
    MEM_FLUSH,
    MEM_PUT,
    MEM_REPLACE,
    MEM_APPEND,
    MEM_STAT,
    MEM_LIST,
    MEM_REMOVE,
    MEM_ACQUIRE,
    MEM_RELEASE,
    MEM_RELEASE_EXTENT,
    MEM_NR_CALLS,
};

/** One planned fault. */
struct mem_fault {
    uint32_t kind;  /* enum xseg_object_kind it applies to, XSEG_OBJ_NONE for all */
    uint64_t after; /* calls that still succeed before it strikes */
    uint64_t times; /* how many calls it strikes; 0 disarms */
    int error;      /* positive errno to answer */
    bool torn;      /* WRITE, APPEND: store part of the data before failing */
    uint64_t
        torn_bytes; /* how much; a torn APPEND leaves it only to a reader's checksum */
};

/**
 * Plan a fault for one call of every mem store of this process, replacing the one that
 * was planned for it.  Thread-safety: safe.
 */
void mem_fault_set(enum mem_call call, const struct mem_fault *fault);

/** Forget all faults and counts. */
void mem_fault_clear(void);

/** Calls seen since the last mem_fault_clear, faults included. */
uint64_t mem_fault_calls(enum mem_call call);

#endif
