/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mapper over a fake blockerm, and a client of it, all on one reactor and one
 * thread: a test says when time passes (rig_run...), so it repeats exactly.
 */
#ifndef TESTS_MAPPER_RIG_H
#define TESTS_MAPPER_RIG_H

#include "fake_blocker.h"
#include "mapper/header.h"
#include "mapper/mapper.h"

struct rig {
    struct xseg_segment *seg;
    struct reactor *reactor;
    struct fake_blocker fake;
    struct peer *mapper;
    struct xseg_port *client;
    uint32_t nr_calls; /* on their way */
    bool stopped;
};

/** One request of the client.  Set the first part; the second is the answer. */
struct call {
    uint32_t op, flags;
    uint64_t handle, offset, size, generation;
    struct xseg_object object;
    const void *data; /* to send, `size` bytes */
    uint64_t room;    /* bytes of a buffer for the answer */

    struct rig *rig;
    bool done;
    int64_t result;
    uint64_t data_off;
    uint8_t answer[XSEG_INLINE_BYTES];
    void *bytes; /* copy of the buffer, malloc'ed; NULL without one */
    struct call *wanted;
};

void rig_start(struct rig *rig, uint64_t seed, const struct mapper_options *options);
void rig_end(struct rig *rig);
/** Stop the mapper without a flush and start another one. */
void rig_restart_mapper(struct rig *rig, const struct mapper_options *options);
/** Memory for a mark log. */
int rig_memfd(uint64_t bytes);
/** The mark log as it is now, in a memory of its own. */
int rig_copy_memory(const struct mapper_options *options);
/** The same as if the mapper had died now: its end leaves no trace in the mark log.
 * options->marks_fd becomes another descriptor. */
void rig_kill_mapper(struct rig *rig, struct mapper_options *options);

void rig_submit(struct rig *rig, struct call *call);
/** Let the reactor run until `call` is answered. */
int64_t rig_wait(struct rig *rig, struct call *call);
int64_t rig_call(struct rig *rig, struct call *call);
/** Let it run for some turns: what can happen without more calls happens. */
void rig_run(struct rig *rig, uint32_t turns);
void call_fini(struct call *call);

/* ---- short forms ---- */

/** Returns the handle, or -errno. */
int64_t rig_open(struct rig *rig, const struct map_header *header, uint32_t flags);
int64_t rig_close(struct rig *rig, uint64_t handle);
int64_t rig_mark(struct rig *rig, uint64_t handle, uint64_t sector, uint64_t nr,
                 uint32_t flags, uint64_t generation);
int64_t rig_flush(struct rig *rig, uint64_t handle, uint64_t generation);
int64_t rig_hold(struct rig *rig, uint64_t handle, struct xseg_journal_info *info);
int64_t rig_update(struct rig *rig, uint64_t handle, const struct map_header *header);
struct xseg_map_info rig_info(struct rig *rig, uint64_t handle);
/** All runs of a range, in as many calls as it takes; malloc'ed.  Returns how many. */
int64_t rig_runs(struct rig *rig, uint64_t handle, uint64_t sector, uint64_t nr,
                 uint32_t runs_per_call, struct xseg_run **out);

/** A header of 64 KiB blocks with an empty stack. */
void header_init(struct map_header *h, uint8_t uuid, uint64_t size);
/** Put an entry on top of the stack. */
struct map_entry *header_push(struct map_header *h, uint32_t type);

#endif
