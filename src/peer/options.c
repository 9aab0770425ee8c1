/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of the options of native peers (see options.h). */
#include "peer/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "blocker/backend.h"
#include "common/log.h"

#define ALL_ROLES                                                                      \
    (NATIVE_BLOCKERB | NATIVE_BLOCKERM | NATIVE_MAPPERD | NATIVE_VLMCD | NATIVE_NBD |  \
     NATIVE_FUSE)

const char *native_reason(const char *format, ...)
{
    static _Thread_local char line[512];
    char text[sizeof line]; /* an argument may be the last reason */
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(line, text, sizeof line);
    return line;
}

static int refuse(const char **why, const char *reason)
{
    *why = reason;
    return -EINVAL;
}

static int check_roles(const struct native_options *options, const char **why)
{
    if (options->roles == 0)
        return refuse(why, "no role to run: name at least one");
    if (options->roles & ~(uint32_t)ALL_ROLES)
        return refuse(why, native_reason("unknown role bits 0x%x",
                                         options->roles & ~(uint32_t)ALL_ROLES));
    if ((options->roles & NATIVE_NBD) && !(options->roles & NATIVE_VLMCD))
        return refuse(why, "role nbd runs only together with vlmcd");
    if ((options->roles & NATIVE_FUSE) && !(options->roles & NATIVE_VLMCD))
        return refuse(why, "role fuse runs only together with vlmcd");
    return 0;
}

static int check_path(const char *option, const char *path, const char **why)
{
    if (!path || !*path)
        return refuse(why, native_reason("%s is not set: the file backend needs a "
                                         "directory to keep its objects in",
                                         option));
    return 0;
}

static int check_store(const struct native_options *options, const char **why)
{
    static const char *const engines[] = {"auto", "io_uring", "threads"};
    bool known = false;
    int rc = 0;

    if (!(options->roles & (NATIVE_BLOCKERB | NATIVE_BLOCKERM)))
        return 0;
    if (!options->backend || !blk_backend_find(options->backend))
        return refuse(why, native_reason("unknown backend '%s': use file or mem",
                                         options->backend ? options->backend : ""));
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        known |= options->engine && strcmp(options->engine, engines[i]) == 0;
    if (!known)
        return refuse(
            why, native_reason("unknown engine '%s': use auto, io_uring or threads",
                               options->engine ? options->engine : ""));
    if (strcmp(options->backend, "file") != 0)
        return 0;
    if (options->roles & NATIVE_BLOCKERB)
        rc = check_path("data_path", options->data_path, why);
    if (!rc && (options->roles & NATIVE_BLOCKERM))
        rc = check_path("maps_path", options->maps_path, why);
    return rc;
}

static int check_listening(int fd, const char **why)
{
    int listening = 0;
    socklen_t len = sizeof listening;

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening)
        return 0;
    return refuse(why, native_reason("descriptor %d is not a listening socket", fd));
}

static int check_attach(const struct native_options *options, const char **why)
{
    if (options->roles & NATIVE_FUSE)
        return check_listening(options->attach_fd, why);
    if (options->attach_fd >= 0)
        return refuse(why, "attach_fd is given, but not the role fuse");
    return 0;
}

static int check_listeners(const struct native_options *options, const char **why)
{
    if (!(options->roles & NATIVE_NBD)) {
        if (options->nr_listen_fds)
            return refuse(why, "listening sockets are given, but not the role nbd");
        return 0;
    }
    if (!options->listen_fds || options->nr_listen_fds == 0)
        return refuse(why, "role nbd needs at least one listening socket");
    for (uint32_t i = 0; i < options->nr_listen_fds; i++) {
        int rc = check_listening(options->listen_fds[i], why);
        if (rc)
            return rc;
    }
    return 0;
}

int native_options_check(const struct native_options *options, const char **why)
{
    int rc;

    if (!options->segment || !*options->segment)
        return refuse(why, "no segment to join: name one");
    if (options->log_level > LOG_DEBUG)
        return refuse(why,
                      native_reason("log level %u is not 0 to 3", options->log_level));
    if (options->marks_fd >= 0 && !(options->roles & NATIVE_MAPPERD))
        return refuse(why, "marks_fd is given, but not the role mapperd");
    rc = check_roles(options, why);
    if (!rc)
        rc = check_store(options, why);
    if (!rc)
        rc = check_listeners(options, why);
    if (!rc)
        rc = check_attach(options, why);
    return rc;
}
