/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a process still run?  ALIVE, DEAD or UNKNOWN: only proof counts as death.
 *
 * A pid means something on one boot and in one pid namespace.  Whoever records a
 * process records all four numbers of struct xseg_process, and treats UNKNOWN as alive.
 */
#ifndef XSEG_PROCESS_H
#define XSEG_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/** A process, named so that no other process can be taken for it. */
struct xseg_process {
    uint8_t boot_id[16];    /* /proc/sys/kernel/random/boot_id; zeros: not known */
    uint64_t pid_namespace; /* inode of its pid namespace; 0: not known */
    uint64_t start;         /* start time [clock ticks since boot], proc(5), stat 22 */
    uint32_t pid;           /* in that namespace */
    uint32_t reserved;      /* 0 */
};

enum xseg_life {
    XSEG_LIFE_UNKNOWN = 0, /* it cannot be told from here: treat it as alive */
    XSEG_LIFE_ALIVE = 1,
    XSEG_LIFE_DEAD = 2, /* proven */
};

/**
 * Name the calling process.
 *
 * @param self  out: fields that cannot be read (no /proc, or the /proc of another pid
 *              namespace; no descriptor free) are zero, and a record with such a field
 *              is UNKNOWN to everybody.
 * Thread-safety: safe.  Blocks: no longer than /proc takes.
 */
void xseg_process_self(struct xseg_process *self);

/**
 * Does the process with these numbers still run?
 *
 * The record must have been written on this machine: the boot id of another machine
 * looks like an earlier boot of this one.  A caller that shares records between
 * machines asks only about its own.
 *
 * @param boot_id        16 bytes.
 * @param pid_namespace  inode of the namespace in which `pid` was read.
 * @param start          0: not known; then a process with that pid is UNKNOWN.
 * Returns DEAD if the boot id is another one; or if, in that very pid namespace, no
 * process has that pid, or it has another start time, or it is a zombie.  Every failure
 * to look is UNKNOWN: another namespace, no descriptor free, hidepid, a field of 0.
 * Thread-safety: safe.  Blocks: no longer than /proc takes.
 */
enum xseg_life xseg_process_life(const uint8_t boot_id[16], uint64_t pid_namespace,
                                 uint32_t pid, uint64_t start);

/**
 * True unless the process with this pid, read in the caller's pid namespace since the
 * last boot, is proven to be dead.  False for pid 0, which names no process.
 */
bool xseg_process_alive(uint32_t pid, uint64_t start);

/**
 * Start time of a process of the caller's pid namespace [clock ticks since boot]; 0 if
 * it is dead or cannot be looked at.
 */
uint64_t xseg_process_start(uint32_t pid);

#endif
