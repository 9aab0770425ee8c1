/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of leases and of guarded replacement, apart from where records are stored.
 *
 * A lease record that was ever written is never forgotten while its volume exists: a
 * free lease keeps its fence, so that the next holder's is higher.
 *
 * A lease has no time of its own: it is held while it is locked, or while the presence of
 * its holder is not over (presence.h).
 */
#ifndef BLOCKER_LEASE_H
#define BLOCKER_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/payload.h"

/** This boot's id; empty if the kernel does not tell. */
void lease_boot_id(char out[40]);

/** True if no run of an instance has it. */
bool lease_is_free(const struct xseg_lease *lease);

/**
 * Is the holder of a lease that is not free over, unless the lease is locked?
 *
 * @param rc        0, or the -errno with which its owner's presence could not be read.
 * @param presence  as stored.
 * @param now_ns    CLOCK_REALTIME.
 * Only a presence that is not there, is another run's, or is over ends a lease: one that
 * cannot be read proves nothing.
 */
bool lease_holder_over(const struct xseg_lease *lease, int rc,
                       const struct xseg_presence *presence, uint64_t now_ns);

/** How an acquire changed the record, and so how it must be stored. */
enum lease_change {
    LEASE_GRANTED, /* must be durable before the answer */
    LEASE_KEPT,    /* the asker's already, and durable: nothing is stored */
};

/** True if an ask makes sense. */
bool lease_ask_valid(const struct xseg_lease *ask);

/**
 * Acquire.
 *
 * @param stored       in: the record, all zeros if there was none; out: the record to
 *                     store.
 * @param ask          of the asker, valid: owner, nonce, host, pid and flags; a fence
 *                     other than 0 asks for the lease of that fence only.
 * @param holder_over  of the record, if another run has it.
 * @param change       out on success.
 * Returns 0; -EBUSY and *stored unchanged; -ESTALE and *stored unchanged if the asker has
 * no lease of that fence.
 */
int lease_acquire(struct xseg_lease *stored, const struct xseg_lease *ask,
                  bool holder_over, enum lease_change *change);

/**
 * Give up or, with `force`, break a lease.
 * Returns 0 with *stored to be stored durably; -ESTALE if it is not the asker's.
 */
int lease_release(struct xseg_lease *stored, const struct xseg_lease *ask, bool force);

/** The record that takes the place of one that cannot be read, to be broken at once: its
 *  fence is far above `fence`, since the damaged record may have been ahead of it. */
struct xseg_lease lease_of_damaged(uint64_t fence);

/**
 * May `next` replace `stored`?  Both start with struct xseg_versioned.
 * Returns 0; -EINVAL for a malformed successor; -ESTALE; -EBADMSG if what is stored is
 * no versioned object.
 */
int versioned_may_replace(const void *stored, uint64_t stored_bytes, const void *next,
                          uint64_t next_bytes, uint64_t version);

/** May a stored header be removed by who knows this version of it (0: any)? */
int versioned_may_remove(const void *stored, uint64_t stored_bytes, uint64_t version);

/** True if data is a versioned object of just that length. */
bool versioned_valid(const void *data, uint64_t bytes);

#endif
