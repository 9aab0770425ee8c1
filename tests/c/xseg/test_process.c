/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alive, dead or unknown: only proof counts as death (issue 9, fault 1).
 */
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "fixture.h"

static struct xseg_process self;

static enum xseg_life life_of(const struct xseg_process *process)
{
    return xseg_process_life(process->boot_id, process->pid_namespace, process->pid,
                             process->start);
}

static void this_process_is_alive(void)
{
    xseg_process_self(&self);
    CHECK_EQ(self.pid, getpid());
    CHECK(self.start != 0);
    CHECK(self.pid_namespace != 0);
    CHECK_EQ(life_of(&self), XSEG_LIFE_ALIVE);
    CHECK(xseg_process_alive(self.pid, self.start));
}

static void another_start_time_or_boot_is_death(void)
{
    struct xseg_process other = self;
    other.start++;
    CHECK_EQ(life_of(&other), XSEG_LIFE_DEAD);
    other = self;
    other.boot_id[0] ^= 1;
    CHECK_EQ(life_of(&other), XSEG_LIFE_DEAD);
}

static void what_was_not_recorded_is_unknown(void)
{
    struct xseg_process other = self;
    memset(other.boot_id, 0, sizeof(other.boot_id));
    CHECK_EQ(life_of(&other), XSEG_LIFE_UNKNOWN);
    other = self;
    other.pid_namespace = 0;
    CHECK_EQ(life_of(&other), XSEG_LIFE_UNKNOWN);
    other.pid_namespace = self.pid_namespace + 1;
    CHECK_EQ(life_of(&other), XSEG_LIFE_UNKNOWN);
    other = self;
    other.start = 0;
    CHECK_EQ(life_of(&other), XSEG_LIFE_UNKNOWN);
    other.pid = 0;
    CHECK_EQ(life_of(&other), XSEG_LIFE_UNKNOWN);
}

static void a_process_that_ended_is_dead(void)
{
    int go[2];
    CHECK_EQ(pipe(go), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte;
        close(go[1]);
        _exit(read(go[0], &byte, 1) < 0);
    }
    struct xseg_process other = self;
    other.pid = (uint32_t)child;
    other.start = xseg_process_start(other.pid);
    CHECK_EQ(life_of(&other), XSEG_LIFE_ALIVE);
    close(go[0]);
    close(go[1]);
    siginfo_t info;
    CHECK_EQ(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    CHECK_EQ(life_of(&other), XSEG_LIFE_DEAD); /* a zombie */
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(life_of(&other), XSEG_LIFE_DEAD);
    CHECK(!xseg_process_alive(other.pid, other.start));
    other.start = 0;
    CHECK_EQ(life_of(&other), XSEG_LIFE_DEAD); /* the pid is free: whatever it was */
}

static void in_child(int (*body)(void))
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(body());
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

/* A living process is not dead because no descriptor is free to look at it. */
static int looks_without_descriptors(void)
{
    struct rlimit none = {0, 0};
    struct xseg_process gone = self;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_EQ(life_of(&self), XSEG_LIFE_UNKNOWN);
    CHECK(xseg_process_alive(self.pid, self.start));
    /* That a pid is free can be seen all the same. */
    gone.pid = (1u << 22) - 1;
    CHECK_EQ(life_of(&gone), XSEG_LIFE_DEAD);
    return 0;
}

static int looks_from_another_namespace(void)
{
    struct xseg_process inner;
    xseg_process_self(&inner);
    /* /proc shows the outer namespace: nothing here can be told from it. */
    CHECK_EQ(inner.pid_namespace, 0);
    CHECK_EQ(inner.start, 0);
    CHECK_EQ(life_of(&self), XSEG_LIFE_UNKNOWN);
    CHECK_EQ(mount("proc", "/proc", "proc", 0, NULL), 0);
    xseg_process_self(&inner);
    CHECK(inner.pid_namespace != self.pid_namespace);
    CHECK_EQ(life_of(&inner), XSEG_LIFE_ALIVE);
    CHECK_EQ(life_of(&self), XSEG_LIFE_UNKNOWN);
    return 0;
}

static int enters_another_namespace(void)
{
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        printf("skipped: no namespaces here\n");
        return 0;
    }
    in_child(looks_from_another_namespace);
    return 0;
}

static int looks_at_hidden_processes(void)
{
    if (unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("proc", "/proc", "proc", 0, "hidepid=2") < 0) {
        printf("skipped: no mounts here\n");
        return 0;
    }
    CHECK_EQ(setgroups(0, NULL), 0);
    CHECK_EQ(setgid(65534), 0);
    CHECK_EQ(setuid(65534), 0);
    CHECK_EQ(life_of(&self), XSEG_LIFE_UNKNOWN);
    CHECK(xseg_process_alive(self.pid, self.start));
    return 0;
}

int main(void)
{
    this_process_is_alive();
    another_start_time_or_boot_is_death();
    what_was_not_recorded_is_unknown();
    a_process_that_ended_is_dead();
    in_child(looks_without_descriptors);
    in_child(enters_another_namespace);
    in_child(looks_at_hidden_processes);
    return 0;
}
