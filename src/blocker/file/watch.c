/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of lease files by other processes, seen through inotify and told to the one
 * watch of the store.  The kernel tells what happens on this machine; changes that other
 * machines make on a shared filesystem it does not tell.  Reactor's thread.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

/** Room for some events with the names of lease files. */
#define WATCH_EVENTS 16u

static void watch_tell(struct file_store *store, const struct inotify_event *event)
{
    struct xseg_object lease = {.kind = XSEG_OBJ_LEASE};

    if (event->mask & IN_Q_OVERFLOW)
        store->watch->changed(store->watch, NULL);
    else if (event->len > 0 && strlen(event->name) == 32 &&
             blk_parse_hex(event->name, lease.id, 16))
        store->watch->changed(store->watch, &lease);
}

static void watch_ready(struct reactor_fd *fd, uint32_t events)
{
    struct file_store *store = LIST_ENTRY(fd, struct file_store, changes);
    _Alignas(struct inotify_event) char
        buf[WATCH_EVENTS * (sizeof(struct inotify_event) + 64)];
    const struct inotify_event *event;
    ssize_t got;

    (void)events;
    /* The one that is told may end the watch. */
    while (store->watch && (got = read(fd->fd, buf, sizeof buf)) > 0) {
        for (char *at = buf; store->watch && at < buf + got;
             at += sizeof *event + event->len) {
            event = (const struct inotify_event *)(void *)at;
            watch_tell(store, event);
        }
    }
}

/** An inotify descriptor for the directory of leases, or -errno. */
static int watch_open(const struct file_store *store)
{
    char path[64];

    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", store->root_fd,
             file_kind_dir(XSEG_OBJ_LEASE));
    if (inotify_add_watch(fd, path, IN_MODIFY | IN_DELETE | IN_MOVED_TO) >= 0)
        return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

static int watch_start(struct file_store *store)
{
    int fd = watch_open(store);
    if (fd < 0)
        return fd;
    store->changes =
        (struct reactor_fd){.fd = fd, .events = EPOLLIN, .on_ready = watch_ready};
    int rc = reactor_add_fd(store->base.reactor, &store->changes);
    if (rc < 0)
        close(fd);
    return rc;
}

int file_watch_leases(struct blk_backend *be, struct blk_lease_watch *watch)
{
    struct file_store *store = file_store_of(be);
    int rc = 0;

    if (watch && !store->watch)
        rc = watch_start(store);
    if (!watch && store->watch) {
        reactor_del_fd(be->reactor, &store->changes);
        close(store->changes.fd);
    }
    store->watch = rc == 0 ? watch : NULL;
    return rc;
}
