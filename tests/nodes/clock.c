/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another time of day for one process: a library for LD_PRELOAD.
 *
 *   CLOCK_SHIFT  seconds that CLOCK_REALTIME is ahead, or behind if negative
 *
 * All other clocks stay what they are.  The shift is read once, before main.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static time_t shift_s;

__attribute__((constructor)) static void read_shift(void)
{
    const char *text = getenv("CLOCK_SHIFT");

    shift_s = text ? (time_t)strtoll(text, NULL, 10) : 0;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *now)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, now);

    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift_s;
    return rc;
}

EXPORT int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int rc = (int)syscall(SYS_gettimeofday, now, zone);

    if (rc == 0)
        now->tv_sec += shift_s;
    return rc;
}

EXPORT time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
