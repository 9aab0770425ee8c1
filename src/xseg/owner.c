/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owner words: how an attachment names itself, and whether an owner still runs.
 */
#include "xseg/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "xseg/internal.h"

/* One byte of the segment's file.  Offsets are not limited by the file's size. */
static struct flock owner_byte(uint64_t owner)
{
    return (struct flock){
        .l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)(owner & ~OWNER_LOCK_BIT),
        .l_len = 1,
    };
}

static int owner_take_lock(struct xseg_segment *seg)
{
    for (;;) {
        uint64_t key;
        if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
            return -EIO;
        uint64_t owner = OWNER_LOCK_BIT | key >> 2; /* offsets end at 2^63 */
        struct flock byte = owner_byte(owner);
        if (fcntl(seg->fd, F_OFD_SETLK, &byte) == 0) {
            seg->self = owner;
            return 0;
        }
        if (errno != EAGAIN && errno != EACCES)
            return -errno;
    }
}

int owner_identify(struct xseg_segment *seg)
{
    struct xseg_process self;
    xseg_process_self(&self);
    seg->pid = self.pid;
    seg->start = self.start;
    seg->self = owner_pack(self.pid, self.start);
    /* Alive by its own record: the numbers mean here what they mean to the creator. */
    if (self.start != 0 && owner_life(seg, seg->self) == XSEG_LIFE_ALIVE)
        return 0;
    return owner_take_lock(seg);
}

enum xseg_life owner_life(const struct xseg_segment *seg, uint64_t owner)
{
    if (owner == 0)
        return XSEG_LIFE_DEAD;
    if (owner & OWNER_LOCK_BIT) {
        if (owner == seg->self) /* a lock is not in its own holder's way */
            return XSEG_LIFE_ALIVE;
        struct flock byte = owner_byte(owner);
        if (fcntl(seg->fd, F_OFD_GETLK, &byte) < 0)
            return XSEG_LIFE_UNKNOWN;
        return byte.l_type == F_UNLCK ? XSEG_LIFE_DEAD : XSEG_LIFE_ALIVE;
    }
    return xseg_process_life(seg->boot_id, seg->pid_namespace,
                             (uint32_t)(owner >> OWNER_START_BITS),
                             owner & ((UINT64_C(1) << OWNER_START_BITS) - 1));
}

bool owner_dead(const struct xseg_segment *seg, struct owner_memo *memo, uint64_t owner)
{
    /* Fibonacci hashing: the top nine bits of the product. */
    size_t at = (size_t)((owner * UINT64_C(0x9e3779b97f4a7c15)) >> 55);
    if (owner == seg->self)
        return false;
    if (memo->owner[at] != owner || owner == 0) {
        memo->owner[at] = owner;
        memo->life[at] = (uint8_t)owner_life(seg, owner);
    }
    return memo->life[at] == XSEG_LIFE_DEAD;
}
