/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: what processes do to the files under one directory, in one order.
 *
 * A library for LD_PRELOAD, so that nothing of the recorder is in the product: system
 * calls of the file backend (calls.c) and liburing's functions (uring.c) come here
 * first.  Each operation is logged when it is issued and when it has returned, before
 * its caller can act on that.
 *
 *   CRASH_ROOT    the directory
 *   CRASH_LOG     a directory: one file for each process, and `shared`
 *   CRASH_MORTAL  this process may be killed at one of its records
 *
 * Several processes: each record takes the next number from a page that all map, so
 * sorting by number gives one order: no record comes before one that it could know of.
 * A record that a killed process wrote in part is the last of its file: an operation
 * that was not begun, or whose end no process acted on.
 *
 * Files are named by inode number; the end of a CREATE says which path got it.
 */
#ifndef CRASH_LOG_H
#define CRASH_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EXPORT         __attribute__((visibility("default")))
#define PATH_MAX_BYTES 4096u

enum kind {
    KIND_END = 0, /* id: of the record that began it; offset: result; length: inode */
    KIND_MARK = 1,
    KIND_CREATE = 2,
    KIND_WRITE = 3,
    KIND_PUNCH = 4,
    KIND_TRUNCATE = 5,
    KIND_SYNC = 6,
    KIND_SYNCFS = 7,
    KIND_RENAME = 8,
    KIND_LINK = 9,
    KIND_UNLINK = 10,
    KIND_MKDIR = 11,
    KIND_RMDIR = 12,
    KIND_SYNCDIR = 13,
    KIND_WRITE_DSYNC = 14,
    KIND_OBSERVED = 15, /* as END, for a call of a dead process: what came of it */
};

struct record {
    uint64_t number;
    uint32_t kind;
    uint32_t path_bytes;
    uint32_t path2_bytes;
    uint32_t data_bytes;
    uint64_t id;
    uint64_t inode;
    int64_t offset;
    uint64_t length;
};

/** False if this process is not recorded. */
bool log_is_on(void);

/**
 * Log what is about to be done.  Both paths may be NULL.
 * Returns its id, never 0.
 */
uint64_t log_begin(enum kind kind, uint64_t inode, int64_t offset, uint64_t length,
                   const char *path, const char *path2, const void *data,
                   size_t data_bytes);

/** Log that it has returned; keeps errno.  Nothing if `id` is 0. */
void log_end(enum kind kind, uint64_t id, int64_t result, uint64_t inode);

/** Path below the root, or NULL if it is not there. */
const char *log_below(const char *path);

/** Inode of an open file below the root, 0 if it is elsewhere; keeps errno. */
uint64_t log_inode(int fd, bool *is_dir, char path[PATH_MAX_BYTES]);

/** A write or punch of an open file; 0 if it is elsewhere. */
uint64_t log_begin_data(enum kind kind, int fd, const void *data, uint64_t length,
                        int64_t offset);

/** A sync of an open file or directory; 0 if it is elsewhere. */
uint64_t log_begin_sync(int fd);

/** The next function of that name, as `dlsym` says. */
void *log_next(const char *library, const char *name);

#endif
