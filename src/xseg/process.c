/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a process still run?  Called by any thread; keeps nothing but the boot id.
 *
 * kill(2) with signal 0 proves that a pid is free: it looks in the caller's own pid
 * namespace, needs no descriptor, and no /proc option hides a process from it.  Only a
 * pid that is taken needs /proc/PID/stat, to tell its process from an earlier one.
 */
#include "xseg/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xseg/atomics.h"

/* What proc(5) says of a process in its file "stat". */
struct process_stat {
    char state;               /* field 3 */
    unsigned long nr_threads; /* field 20 */
    uint64_t start;           /* field 22 */
};

/* Bytes of a file of /proc, NUL terminated; 0 if it cannot be read. */
static size_t process_read(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, room - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return n < 0 ? 0 : (size_t)n;
}

static bool process_stat_parse(char *text, struct process_stat *stat)
{
    /* The name in parentheses may hold anything, parentheses too: start at the last. */
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ')
        return false;
    at += 2;
    for (int field = 3; field <= 22; field++) {
        if (field == 3)
            stat->state = *at;
        else if (field == 20)
            stat->nr_threads = strtoul(at, NULL, 10);
        else if (field == 22)
            stat->start = strtoull(at, NULL, 10);
        at = strchr(at, ' ');
        if (!at)
            return false;
        at++;
    }
    return stat->start != 0;
}

/* True if /proc shows the pid namespace of this process.  Needs no descriptor. */
static bool process_proc_is_ours(void)
{
    char target[16];
    ssize_t n = readlink("/proc/self", target, sizeof(target) - 1);
    if (n <= 0)
        return false;
    target[n] = '\0';
    return strtoul(target, NULL, 10) == (unsigned long)getpid();
}

static bool process_stat_read(uint32_t pid, struct process_stat *stat)
{
    char path[32], text[1024];
    snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
    return process_proc_is_ours() && process_read(path, text, sizeof(text)) > 0 &&
           process_stat_parse(text, stat);
}

/*
 * A zombie is dead, although it keeps its pid until its parent looks; but one whose
 * first thread alone has ended still runs.
 */
static bool process_ended(const struct process_stat *stat)
{
    return stat->state == 'X' || (stat->state == 'Z' && stat->nr_threads <= 1);
}

/* The answer for a pid of this boot and this pid namespace. */
static enum xseg_life process_life_here(uint32_t pid, uint64_t start)
{
    struct process_stat stat = {0};
    if (pid == 0 || pid > INT32_MAX)
        return XSEG_LIFE_UNKNOWN;
    if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
        return XSEG_LIFE_DEAD;
    if (!process_stat_read(pid, &stat)) /* also if it has ended since: ask again */
        return kill((pid_t)pid, 0) < 0 && errno == ESRCH ? XSEG_LIFE_DEAD
                                                         : XSEG_LIFE_UNKNOWN;
    if (process_ended(&stat))
        return XSEG_LIFE_DEAD;
    if (start == 0)
        return XSEG_LIFE_UNKNOWN;
    return stat.start == start ? XSEG_LIFE_ALIVE : XSEG_LIFE_DEAD;
}

/* 0 if it cannot be told.  stat(2) follows the link and needs no descriptor. */
static uint64_t process_pid_namespace(void)
{
    struct stat st;
    return process_proc_is_ours() && stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino
                                                                         : 0;
}

static bool process_boot_id_parse(const char *text, uint8_t id[16])
{
    size_t nr_digits = 0;
    memset(id, 0, 16);
    for (; *text && *text != '\n'; text++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = strchr(digits, *text);
        if (*text == '-')
            continue;
        if (!digit || nr_digits == 32)
            return false;
        id[nr_digits / 2] = (uint8_t)(id[nr_digits / 2] << 4 | (digit - digits));
        nr_digits++;
    }
    return nr_digits == 32;
}

/* The boot id does not change while a process runs, so it is read once. */
static bool process_boot_id(uint8_t out[16])
{
    static uint64_t kept[2];
    static uint32_t known; /* atomic; 1 once `kept` is whole */
    uint64_t id[2];
    if (!load32_acquire(&known)) {
        char text[64];
        if (process_read("/proc/sys/kernel/random/boot_id", text, sizeof(text)) == 0 ||
            !process_boot_id_parse(text, (uint8_t *)id))
            return false;
        /* Two threads that come here at once store the same words. */
        store64_relaxed(&kept[0], id[0]);
        store64_relaxed(&kept[1], id[1]);
        store32_release(&known, 1);
    }
    id[0] = load64_relaxed(&kept[0]);
    id[1] = load64_relaxed(&kept[1]);
    memcpy(out, id, 16);
    return true;
}

void xseg_process_self(struct xseg_process *self)
{
    memset(self, 0, sizeof(*self));
    if (!process_boot_id(self->boot_id))
        memset(self->boot_id, 0, sizeof(self->boot_id));
    self->pid_namespace = process_pid_namespace();
    self->pid = (uint32_t)getpid();
    self->start = xseg_process_start(self->pid);
}

enum xseg_life xseg_process_life(const uint8_t boot_id[16], uint64_t pid_namespace,
                                 uint32_t pid, uint64_t start)
{
    static const uint8_t unknown[16];
    uint8_t here[16];
    if (memcmp(boot_id, unknown, sizeof(unknown)) == 0 || !process_boot_id(here))
        return XSEG_LIFE_UNKNOWN;
    if (memcmp(boot_id, here, sizeof(here)) != 0)
        return XSEG_LIFE_DEAD;
    if (pid_namespace == 0 || pid_namespace != process_pid_namespace())
        return XSEG_LIFE_UNKNOWN;
    return process_life_here(pid, start);
}

bool xseg_process_alive(uint32_t pid, uint64_t start)
{
    return pid != 0 && process_life_here(pid, start) != XSEG_LIFE_DEAD;
}

uint64_t xseg_process_start(uint32_t pid)
{
    struct process_stat stat = {0};
    if (pid == 0 || !process_stat_read(pid, &stat) || process_ended(&stat))
        return 0;
    return stat.start;
}
