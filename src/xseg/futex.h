/* SPDX-License-Identifier: Apache-2.0 */
/*
 * futex(2) on words of the segment: shared between processes, so never PRIVATE.
 */
#ifndef XSEG_FUTEX_H
#define XSEG_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/**
 * Sleep while `*word` is `expected`, at most `timeout_ns` (UINT64_MAX: for ever).
 * Returns 0 (woken, or the word had changed), -ETIMEDOUT, -EINTR.
 */
static inline int futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / UINT64_C(1000000000)),
                          .tv_nsec = (long)(timeout_ns % UINT64_C(1000000000))};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT, expected,
                      timeout_ns == UINT64_MAX ? NULL : &ts, NULL, 0);
    if (rc == 0 || errno == EAGAIN)
        return 0;
    return -errno;
}

static inline void futex_wake_all(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

#endif
