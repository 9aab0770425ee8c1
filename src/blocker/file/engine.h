/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine moves bytes between open files and memory without blocking the reactor.
 *
 * Two implementations with the same behaviour: io_uring and threads.  Interrupted and
 * short transfers are continued, so `moved` is short of `size` only at the end of a
 * file.
 */
#ifndef BLOCKER_FILE_ENGINE_H
#define BLOCKER_FILE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "reactor/reactor.h"

enum file_verb {
    FILE_READ,
    FILE_WRITE,
    FILE_WRITE_DSYNC, /* written and durable, with what is needed to read it back */
    FILE_DATASYNC,
    FILE_SYNC,
    FILE_WRITE_BACK, /* starts writing what is dirty; promises nothing */
    FILE_PUNCH,      /* the range reads zeros, its space is given back where possible */
};

/**
 * Longest single buffered write [bytes].  The page cache makes folios as large as the
 * write, and ext4 then looks at every block of a folio for each later 4 KiB written
 * into it.  A 4 KiB overwrite after writes of 4 MiB took 10 to 12 us, of 1 MiB 6 to 7,
 * of 128 KiB 3, of 4 KiB 1.5 (Linux 6.18, idle machine; the same order on a busy one).
 * Smaller pieces than this begin to cost long writes.
 */
#define FILE_PIECE_BYTES (UINT64_C(128) << 10)

struct file_engine;

/** One transfer.  The caller's memory until done(call), on the reactor's thread. */
struct file_call {
    enum file_verb verb;
    int fd;
    uint64_t offset; /* [bytes] */
    uint8_t *data;
    uint64_t size; /* [bytes] */
    bool direct;   /* O_DIRECT: a read that ends off 4096 bytes has met the end */
    void (*done)(struct file_call *call);
    /* out */
    uint64_t moved; /* READ, WRITE: bytes */
    int result;     /* 0 or -errno */
    /* private to the engine */
    struct file_engine *engine;
    struct reactor_job job;
    struct list link;
};

struct file_engine {
    const char *name;
    struct reactor *reactor;
    uint32_t nr_reads; /* offered in this turn of the reactor */
    /* True while one submission for many costs less than a system call for each. */
    bool reads_come_in_numbers;
    void (*submit)(struct file_engine *engine, struct file_call *call);
    void (*destroy)(struct file_engine *engine); /* nothing is in flight */
};

/** Jobs of the reactor's worker threads. 0 or -ENOMEM. */
int file_threads_create(struct reactor *r, struct file_engine **out);

/**
 * An io_uring polled by the reactor.
 * @param depth  entries of its submission queue; more calls wait inside the engine.
 * Returns 0; -ENOSYS if built without it; -errno of the kernel's refusal.
 */
int file_uring_create(struct reactor *r, uint32_t depth, struct file_engine **out);

/** True if a read that moved something so far may find more. */
static inline bool file_call_may_go_on(const struct file_call *call)
{
    return call->moved < call->size && (!call->direct || call->moved % 4096 == 0);
}

/** Do it here and now; blocks.  Sets moved and result. */
void file_call_run(struct file_call *call);

/** fsync, or fdatasync if `data_only`.  Blocks.  0 or -errno. */
int file_sync_fd(int fd, bool data_only);

/** The lane of a call of data. */
static inline enum reactor_lane file_call_lane(const struct file_call *call)
{
    bool syncs = call->verb == FILE_DATASYNC || call->verb == FILE_SYNC ||
                 call->verb == FILE_WRITE_DSYNC || call->verb == FILE_WRITE_BACK;
    return syncs ? REACTOR_LANE_SYNC : REACTOR_LANE_DATA;
}

/** Do it, or what is left of it after `moved`, in a job of the reactor's threads, then
 *  done(call). */
void file_call_offload(struct reactor *r, struct file_call *call,
                       enum reactor_lane lane);

#endif
