/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that the durability of a store rests on, watched and made to fail.
 *
 * The linker sends every one of them here (--wrap).  A set is kept of inodes with changes
 * that no sync has covered: files after a write, directories after a name was made or
 * removed.
 */
#ifndef TESTS_BLOCKER_CALLS_H
#define TESTS_BLOCKER_CALLS_H

#include <stdbool.h>
#include <stddef.h>

/** Inodes with changes that are not durable. */
size_t calls_not_durable(void);
/** Calls of fsync, fdatasync, syncfs so far. */
unsigned calls_syncs(void);
/** True if a rename ever gave a name to bytes that were not durable. */
bool calls_named_unsynced(void);

/** The k-th call from now on fails with EIO; only that one. */
void calls_arm(unsigned k);
/** Stop failing; true if a call failed. */
bool calls_disarm(void);

/** The next `nr` syncs of files or directories fail with `error`. */
void calls_fail_syncs(unsigned nr, int error);

/** The next sync stops before it does anything, and fails then if `error` is not 0. */
void calls_hold(int error);
/** Wait until it has stopped. */
void calls_await_held(void);
/** It goes on. */
void calls_let_go(void);

#endif
