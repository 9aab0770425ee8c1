/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of leases and guarded replacement (see lease.h).  Pure but for looking
 * at a process. */
#include "blocker/lease.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "blocker/presence.h"

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

bool lease_is_free(const struct xseg_lease *lease)
{
    return !presence_nonce_set(lease->nonce);
}

bool lease_holder_over(const struct xseg_lease *lease, int rc,
                       const struct xseg_presence *presence, uint64_t now_ns)
{
    if (rc < 0)
        return rc == -ENOENT;
    return memcmp(presence->nonce, lease->nonce, sizeof lease->nonce) != 0 ||
           presence_is_over(presence, now_ns);
}

static bool lease_same_owner(const struct xseg_lease *a, const struct xseg_lease *b)
{
    return memcmp(a->owner, b->owner, sizeof a->owner) == 0;
}

/** The same run of the same instance. */
static bool lease_same_holder(const struct xseg_lease *a, const struct xseg_lease *b)
{
    return lease_same_owner(a, b) && memcmp(a->nonce, b->nonce, sizeof a->nonce) == 0;
}

bool lease_ask_valid(const struct xseg_lease *ask)
{
    static const uint8_t zeros[sizeof ask->owner];
    bool locks = (ask->flags & XSEG_LEASE_LOCK) != 0;
    bool unlocks = (ask->flags & XSEG_LEASE_UNLOCK) != 0;
    bool inherits = (ask->flags & XSEG_LEASE_INHERIT) != 0;

    return memcmp(ask->owner, zeros, sizeof zeros) != 0 && !lease_is_free(ask) &&
           !(unlocks && locks) && !((unlocks || inherits) && ask->fence == 0) &&
           (ask->flags & ~(XSEG_LEASE_LOCK | ASK_ONLY)) == 0;
}

int lease_acquire(struct xseg_lease *stored, const struct xseg_lease *ask,
                  bool holder_over, enum lease_change *change)
{
    bool inherits = (ask->flags & XSEG_LEASE_INHERIT) != 0;
    bool if_free = (ask->flags & XSEG_LEASE_IF_FREE) != 0;
    bool mine = !lease_is_free(stored) && lease_same_holder(stored, ask);

    if (!mine && !lease_is_free(stored)) {
        /* A lock binds other instances, not a later run of its own. */
        bool locked =
            (stored->flags & XSEG_LEASE_LOCK) != 0 && !lease_same_owner(stored, ask);
        if (locked || if_free || !holder_over)
            return -EBUSY;
    }
    if (!mine && stored->fence == UINT64_MAX)
        return -EBUSY;
    /* What was broken a moment before is not taken back. */
    if (ask->fence != 0 && (!mine || ask->fence != stored->fence))
        return -ESTALE;

    struct xseg_lease next = *ask;
    next.fence = mine ? stored->fence : stored->fence + 1;
    /* An owner that gives it back, or dies, and takes it again has had it all the while. */
    next.since =
        lease_same_owner(stored, ask) && stored->since ? stored->since : next.fence;
    next.flags &= ~ASK_ONLY;
    /* An open by the instance that locked the volume must not undo the lock. */
    if (lease_same_owner(stored, ask) && !lease_is_free(stored) &&
        !(ask->flags & XSEG_LEASE_UNLOCK))
        next.flags |= stored->flags & XSEG_LEASE_LOCK;
    /* An asker that does not name the fence has no answer to rely on: the process that was
     * granted the lease may have died before it was durable. */
    bool kept = mine && next.flags == stored->flags && ask->fence != 0 && !inherits;
    *change = kept ? LEASE_KEPT : LEASE_GRANTED;
    *stored = next;
    return 0;
}

int lease_release(struct xseg_lease *stored, const struct xseg_lease *ask, bool force)
{
    /* A lock is undone by any run of its owner. */
    bool own =
        lease_same_holder(stored, ask) ||
        ((stored->flags & XSEG_LEASE_LOCK) != 0 && lease_same_owner(stored, ask));

    if (!force) {
        if (lease_is_free(stored) || !own ||
            (ask->fence != 0 && ask->fence != stored->fence))
            return -ESTALE;
    } else if (stored->fence != UINT64_MAX) {
        /* A process that still writes with the old fence is refused from now on. */
        stored->fence++;
    }
    if (force)
        stored->since = 0;
    memset(stored->nonce, 0, sizeof stored->nonce);
    stored->flags = 0;
    return 0;
}

struct xseg_lease lease_of_damaged(uint64_t fence)
{
    const uint64_t leap = UINT64_C(1) << 32;
    return (struct xseg_lease){
        .fence = fence < UINT64_MAX - leap ? fence + leap : UINT64_MAX - 1,
    };
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
