/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is that process still the one it was?  Read from /proc/PID/stat (proc(5)).
 */
#include "xseg/process.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xseg/segment.h"

/* Read state (field 3), threads (20) and start time (22). */
static bool read_stat(uint32_t pid, char *state, unsigned long *nr_threads,
                      uint64_t *start)
{
    char path[32], text[1024];
    snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    /* The name in parentheses may hold anything, parentheses too: start at the last. */
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ')
        return false;
    at += 2;
    for (int field = 3; field <= 22; field++) {
        if (field == 3)
            *state = *at;
        else if (field == 20)
            *nr_threads = strtoul(at, NULL, 10);
        else if (field == 22)
            *start = strtoull(at, NULL, 10);
        at = strchr(at, ' ');
        if (!at)
            return false;
        at++;
    }
    return true;
}

uint64_t xseg_process_start(uint32_t pid)
{
    char state = '?';
    unsigned long nr_threads = 0;
    uint64_t start = 0;
    if (pid == 0 || !read_stat(pid, &state, &nr_threads, &start))
        return 0;
    /*
     * A zombie is dead, although it keeps its pid until its parent looks; but one
     * whose first thread alone has ended still runs.
     */
    if (state == 'X' || (state == 'Z' && nr_threads <= 1))
        return 0;
    return start;
}

bool xseg_process_alive(uint32_t pid, uint64_t start)
{
    uint64_t now = xseg_process_start(pid);
    return now != 0 && now == start;
}

bool process_packed_alive(uint64_t packed)
{
    uint64_t start = packed & ((UINT64_C(1) << PROCESS_START_BITS) - 1);
    return packed != 0 &&
           xseg_process_alive((uint32_t)(packed >> PROCESS_START_BITS), start);
}

bool process_memo_alive(struct process_memo *memo, uint64_t packed)
{
    for (uint32_t i = 0; i < memo->nr; i++) {
        if (memo->packed[i] == packed)
            return memo->alive[i];
    }
    bool alive = process_packed_alive(packed);
    if (memo->nr < sizeof(memo->packed) / sizeof(memo->packed[0])) {
        memo->packed[memo->nr] = packed;
        memo->alive[memo->nr] = alive;
        memo->nr++;
    }
    return alive;
}
