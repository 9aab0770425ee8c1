/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: one whole line each, cut when too long, dropped below the threshold. */
#include "common/log.h"

#include <unistd.h>

#include "check.h"

/** What logging `text` writes to stderr. */
static const char *logged(enum log_level level, const char *text)
{
    static char line[4096];
    int saved = dup(STDERR_FILENO);
    int fds[2];
    ssize_t n;

    CHECK(saved >= 0);
    CHECK_EQ(pipe(fds), 0);
    CHECK(dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
    log_line(level, "test", "text %s", text);
    CHECK(dup2(saved, STDERR_FILENO) == STDERR_FILENO);
    close(saved);
    close(fds[1]);
    n = read(fds[0], line, sizeof line - 1);
    CHECK(n >= 0);
    close(fds[0]);
    line[n] = '\0';
    CHECK_EQ(strlen(line), n);
    return line;
}

int main(void)
{
    char longest[2000];
    const char *line;

    log_set_level(LOG_WARNING);
    CHECK_EQ(strlen(logged(LOG_INFO, "not wanted")), 0);

    line = logged(LOG_ERROR, "7");
    CHECK(strlen(line) > 20 && line[10] == 'T' && line[19] == 'Z');
    CHECK_EQ(strcmp(line + 20, " error test: text 7\n"), 0);

    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    line = logged(LOG_WARNING, longest);
    CHECK_EQ(strlen(line), 512);
    CHECK(line[511] == '\n' && line[510] == 'x');
    return 0;
}
