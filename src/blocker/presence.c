/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of presences (see presence.h).  Pure but for looking at a process. */
#include "blocker/presence.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "xseg/process.h"

/** True if the process of an incarnation has ended: only what is proved counts.  Another
 *  boot id may be another machine's, and proves nothing. */
static bool presence_process_gone(const struct xseg_presence *presence)
{
    const struct xseg_process *process = &presence->process;
    struct xseg_process here;

    xseg_process_self(&here);
    return memcmp(process->boot_id, here.boot_id, sizeof here.boot_id) == 0 &&
           xseg_process_life(process->boot_id, process->pid_namespace, process->pid,
                             process->start) == XSEG_LIFE_DEAD;
}

uint64_t presence_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

bool presence_is_over(const struct xseg_presence *presence, uint64_t now_ns)
{
    if (presence->expires_ns <= now_ns)
        return true;
    uint64_t left_ns = presence->expires_ns - now_ns;
    if (left_ns > presence->ttl_ns && left_ns - presence->ttl_ns > PRESENCE_MAX_SKEW_NS)
        return true;
    return presence_process_gone(presence);
}

bool presence_nonce_set(const uint8_t nonce[XSEG_NONCE_BYTES])
{
    static const uint8_t zeros[XSEG_NONCE_BYTES];
    return memcmp(nonce, zeros, sizeof zeros) != 0;
}

static bool same_incarnation(const struct xseg_presence *a,
                             const struct xseg_presence *b)
{
    return memcmp(a->nonce, b->nonce, sizeof a->nonce) == 0;
}

bool presence_ask_valid(const struct xseg_presence *ask)
{
    return ask->ttl_ns != 0 && presence_nonce_set(ask->nonce);
}

int presence_acquire(struct xseg_presence *stored, const struct xseg_presence *ask,
                     uint64_t now_ns, enum presence_change *change)
{
    bool mine = same_incarnation(stored, ask);
    if (!mine && !presence_is_over(stored, now_ns)) {
        stored->ttl_ns = stored->expires_ns - now_ns;
        return -EBUSY;
    }
    /* What was given back is begun anew: others may have counted it as over. */
    *change = mine && stored->expires_ns != 0 ? PRESENCE_RENEWED : PRESENCE_BEGUN;
    uint64_t since_ns = mine && stored->since_ns ? stored->since_ns : now_ns;
    *stored = *ask;
    stored->since_ns = since_ns;
    stored->expires_ns =
        ask->ttl_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + ask->ttl_ns;
    return 0;
}

int presence_release(struct xseg_presence *stored, const struct xseg_presence *ask)
{
    if (!same_incarnation(stored, ask) || stored->expires_ns == 0)
        return -ESTALE;
    stored->expires_ns = 0;
    return 0;
}
