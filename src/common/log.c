/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines of native code (see log.h). */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static enum log_level threshold = LOG_WARNING;

void log_set_level(enum log_level level)
{
    threshold = level;
}

void log_line(enum log_level level, const char *tag, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[512];
    struct tm tm;
    struct timespec now;
    va_list args;

    if (level > threshold)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%SZ ", &tm);
    int n = snprintf(line + used, sizeof line - used, "%s %s: ", names[level], tag);
    used += (size_t)n;
    va_start(args, format);
    size_t room = sizeof line - used; /* its last byte is for the newline */
    n = vsnprintf(line + used, room, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < room ? (size_t)n : room - 1;
    line[used++] = '\n';
    /* one write per line, so that lines of several processes do not mix */
    if (write(STDERR_FILENO, line, used) < 0)
        return;
}
