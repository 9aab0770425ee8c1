/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of presences: the one heartbeat of a running instance.
 *
 * A presence is over if it was given back, if its time has run out, or if its process is
 * known to be dead.  A lease is held as long as the presence of its holder is not over.
 *
 * Times are CLOCK_REALTIME of the node that asks, and a pid says something on its own boot
 * and in its own pid namespace only.  They decide when an instance is taken for gone, and
 * may be wrong.  Safety does not depend on them: an instance that is taken for gone too
 * early is stopped by fences and seals.
 */
#ifndef BLOCKER_PRESENCE_H
#define BLOCKER_PRESENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "xseg/payload.h"

/** How much more than its whole life a presence may have left.  Beyond that the clock of
 *  its instance ran ahead of ours when it was renewed, and that time is not waited for. */
#define PRESENCE_MAX_SKEW_NS UINT64_C(60000000000)

/** True if the instance must be taken for gone at `now_ns` (CLOCK_REALTIME). */
bool presence_is_over(const struct xseg_presence *presence, uint64_t now_ns);

/** How a request changed a record, and so how it must be stored. */
enum presence_change {
    PRESENCE_BEGUN,   /* another incarnation: durable before the answer */
    PRESENCE_RENEWED, /* the same one: need not be durable, a power cut ends it anyway */
};

/** True if the asker names an incarnation and how long it lives. */
bool presence_ask_valid(const struct xseg_presence *ask);

/**
 * Begin or renew a presence.
 *
 * @param stored  in: the record, all zeros if there is none that can be read; out: the
 *                record to store.
 * @param ask     of the asker, valid: the incarnation, host, generation and ttl_ns.
 * @param now_ns  CLOCK_REALTIME.
 * @param change  out on success.
 * Returns 0; -EBUSY: another incarnation is there, *stored unchanged but for ttl_ns = what
 * is left.
 */
int presence_acquire(struct xseg_presence *stored, const struct xseg_presence *ask,
                     uint64_t now_ns, enum presence_change *change);

/** Give a presence back.  0 with *stored to be stored durably; -ESTALE if it is another
 * incarnation's, or was given back before. */
int presence_release(struct xseg_presence *stored, const struct xseg_presence *ask);

/** CLOCK_REALTIME [ns]. */
uint64_t presence_now_ns(void);

/** True if a nonce is set: zeros name no incarnation. */
bool presence_nonce_set(const uint8_t nonce[XSEG_NONCE_BYTES]);

#endif
