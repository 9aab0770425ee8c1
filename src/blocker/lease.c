/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of leases and guarded replacement (see lease.h).  Pure but for looking at a
 * pid. */
#include "blocker/lease.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "xseg/process.h"

/** Flags that are asked with and never stored. */
#define ASK_ONLY (XSEG_LEASE_IF_FREE | XSEG_LEASE_UNLOCK | XSEG_LEASE_INHERIT)

void lease_boot_id(char out[40])
{
    memset(out, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, out, 36);
    if (got != 36)
        memset(out, 0, 40);
    close(fd);
}

static bool holder_dead(const struct xseg_lease *lease)
{
    char boot_id[40];

    if (lease->pid == 0)
        return false;
    lease_boot_id(boot_id);
    if (boot_id[0] == '\0' || strncmp(boot_id, lease->boot_id, sizeof boot_id) != 0)
        return false;
    return !xseg_process_alive(lease->pid, lease->pid_start);
}

bool lease_is_held(const struct xseg_lease *lease, uint64_t now_ns)
{
    if (lease->expires_ns == 0)
        return false;
    if (lease->flags & XSEG_LEASE_LOCK)
        return true;
    if (lease->expires_ns <= now_ns)
        return false;
    uint64_t left_ns = lease->expires_ns - now_ns;
    if (left_ns > lease->ttl_ns && left_ns - lease->ttl_ns > LEASE_MAX_SKEW_NS)
        return false;
    return !holder_dead(lease);
}

static bool same_owner(const struct xseg_lease *a, const struct xseg_lease *b)
{
    return strncmp(a->owner, b->owner, sizeof a->owner) == 0;
}

int lease_acquire(struct xseg_lease *stored, const struct xseg_lease *ask,
                  uint64_t now_ns, enum lease_change *change)
{
    bool locks = (ask->flags & XSEG_LEASE_LOCK) != 0;
    bool unlocks = (ask->flags & XSEG_LEASE_UNLOCK) != 0;
    bool inherits = (ask->flags & XSEG_LEASE_INHERIT) != 0;
    bool mine = stored->expires_ns != 0 && same_owner(stored, ask);

    if (ask->owner[0] == '\0' || (ask->ttl_ns == 0 && !locks) || (unlocks && locks) ||
        ((unlocks || inherits) && ask->fence == 0) ||
        (ask->flags & ~(XSEG_LEASE_LOCK | ASK_ONLY)) != 0)
        return -EINVAL;
    bool kept = (ask->flags & XSEG_LEASE_IF_FREE) != 0 && stored->expires_ns != 0;
    if (!mine && (kept || lease_is_held(stored, now_ns))) {
        stored->ttl_ns = stored->expires_ns > now_ns ? stored->expires_ns - now_ns : 0;
        return -EBUSY;
    }
    if (!mine && stored->fence == UINT64_MAX)
        return -EBUSY;
    /* A renewal must not take back what was broken a moment before. */
    if (ask->fence != 0 && (!mine || ask->fence != stored->fence))
        return -ESTALE;

    struct xseg_lease next = *ask;
    next.fence = mine ? stored->fence : stored->fence + 1;
    /* Who dies, or gives it back, and takes it again has had it all the while. */
    next.since = same_owner(stored, ask) && stored->since ? stored->since : next.fence;
    next.flags &= ~ASK_ONLY;
    /* An open by the instance that locked the volume must not undo the lock. */
    if (mine && !unlocks)
        next.flags |= stored->flags & XSEG_LEASE_LOCK;
    if ((next.flags & XSEG_LEASE_LOCK) || next.ttl_ns > UINT64_MAX - now_ns)
        next.expires_ns = UINT64_MAX;
    else
        next.expires_ns = now_ns + next.ttl_ns;
    /* A lock must outlive a power cut as surely as a new fence.  Who asks for a lease that
     * is his already may have died before he knew of it, and the blocker before it was
     * durable: only a renewal, which names its fence, relies on an earlier answer. */
    bool renews = mine && next.flags == stored->flags && ask->fence != 0 && !inherits;
    *change = renews ? LEASE_RENEWED : LEASE_GRANTED;
    *stored = next;
    return 0;
}

int lease_release(struct xseg_lease *stored, const struct xseg_lease *ask, bool force)
{
    if (!force) {
        if (stored->expires_ns == 0 || !same_owner(stored, ask) ||
            (ask->fence != 0 && ask->fence != stored->fence))
            return -ESTALE;
    } else if (stored->fence != UINT64_MAX) {
        /* Whoever still writes with the old fence is refused from now on. */
        stored->fence++;
    }
    if (force)
        stored->since = 0;
    stored->expires_ns = 0;
    stored->ttl_ns = 0;
    stored->flags = 0;
    return 0;
}

static struct xseg_versioned load(const void *data)
{
    struct xseg_versioned v;
    memcpy(&v, data, sizeof v);
    v.magic = le64toh(v.magic);
    v.version = le64toh(v.version);
    v.fence = le64toh(v.fence);
    v.length = le64toh(v.length);
    return v;
}

bool versioned_valid(const void *data, uint64_t bytes)
{
    return bytes >= sizeof(struct xseg_versioned) && load(data).length == bytes;
}

int versioned_may_replace(const void *stored, uint64_t stored_bytes, const void *next,
                          uint64_t next_bytes, uint64_t version)
{
    if (!versioned_valid(next, next_bytes))
        return -EINVAL;
    struct xseg_versioned new = load(next);
    if (version == UINT64_MAX || new.version != version + 1)
        return -EINVAL;
    if (!versioned_valid(stored, stored_bytes))
        return -EBADMSG;
    struct xseg_versioned old = load(stored);
    return old.version == version && new.fence >= old.fence ? 0 : -ESTALE;
}

int versioned_may_remove(const void *stored, uint64_t stored_bytes, uint64_t version)
{
    if (version == 0)
        return 0;
    if (!versioned_valid(stored, stored_bytes))
        return -EBADMSG;
    return load(stored).version == version ? 0 : -ESTALE;
}
