/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of leases and of guarded replacement, apart from where records are stored.
 *
 * A lease record that was ever written is never forgotten while its volume exists: a
 * free lease keeps its fence, so that the next holder's is higher.
 *
 * Times are CLOCK_REALTIME of the node that asks, and a pid says something on its own boot
 * only: they decide when a lease may be taken over, and may be wrong.  Safety does not
 * depend on them: whoever was taken over too early is stopped by the fence and the seal.
 */
#ifndef BLOCKER_LEASE_H
#define BLOCKER_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/payload.h"

/** This boot's id; empty if the kernel does not tell, and then no pid is known dead. */
void lease_boot_id(char out[40]);

/** How much more than its whole life a lease may have left.  Beyond that its holder's
 *  clock ran ahead of ours when it was granted, and nobody waits for that time. */
#define LEASE_MAX_SKEW_NS UINT64_C(60000000000)

/** True if somebody holds the lease now: not free, not expired, not due later than one
 * life and LEASE_MAX_SKEW_NS from now, its process not known dead. */
bool lease_is_held(const struct xseg_lease *lease, uint64_t now_ns);

/** How an acquire changed the record, and so how it must be stored. */
enum lease_change {
    LEASE_GRANTED, /* new holder, new fence: must be durable before the answer */
    LEASE_RENEWED, /* same holder and fence, later expiry: need not be durable */
};

/**
 * Acquire or renew.
 *
 * @param stored  in: the record, all zeros if there was none; out: the record to store.
 * @param ask     owner, host, pid, boot_id, flags and ttl_ns of the asker; a fence other
 *                than 0 asks to renew the lease of that fence only.
 * @param now_ns  CLOCK_REALTIME.
 * @param change  out on success.
 * Returns 0; -EBUSY and *stored unchanged but for ttl_ns = what is left; -ESTALE and
 * *stored unchanged if there is nothing to renew; -EINVAL.
 */
int lease_acquire(struct xseg_lease *stored, const struct xseg_lease *ask,
                  uint64_t now_ns, enum lease_change *change);

/**
 * Give up or, with `force`, break a lease.
 * Returns 0 with *stored to be stored durably; -ESTALE if it is not the asker's.
 */
int lease_release(struct xseg_lease *stored, const struct xseg_lease *ask, bool force);

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
