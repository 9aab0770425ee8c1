/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rename in headers/ waits while the file $GATE is there: for LD_PRELOAD.
 *
 * That $GATE.waiting appears says that one waits.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void pass_gate(const char *to)
{
    const char *gate = getenv("GATE");
    char waiting[PATH_MAX];
    if (!gate || strncmp(to, "headers/", 8) != 0 || access(gate, F_OK) != 0)
        return;
    snprintf(waiting, sizeof waiting, "%s.waiting", gate);
    close(open(waiting, O_CREAT | O_WRONLY, 0600));
    while (access(gate, F_OK) == 0)
        usleep(1000);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int (*real)(int, const char *, int, const char *) = dlsym(RTLD_NEXT, "renameat");
    pass_gate(to);
    return real(from_dir, from, to_dir, to);
}
