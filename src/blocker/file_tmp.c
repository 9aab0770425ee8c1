/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files written aside in tmp/ and then given their name in one step, so that an object
 * is whole or absent whatever happens.
 *
 * A temporary name says who writes it, "<pid>.<start>.<number>", so that the next open
 * of the store can remove what a dead process left.  Any thread.
 */
#include "blocker/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_temp_create(struct file_store *store, struct file_temp *out)
{
    snprintf(out->path, sizeof out->path, "tmp/%" PRIu32 ".%" PRIu64 ".%" PRIu64,
             store->pid, store->pid_start,
             (uint64_t)atomic_fetch_add_explicit(&store->next_temp, 1,
                                                 memory_order_relaxed));
    out->fd =
        openat(store->root_fd, out->path,
               O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, store->file_mode);
    return out->fd < 0 ? -errno : 0;
}

int file_temp_fill(struct file_temp *temp, const void *data, uint64_t size)
{
    struct file_call call = {
        .verb = FILE_WRITE_DSYNC,
        .fd = temp->fd,
        .data = (uint8_t *)(uintptr_t)data, /* only read by a write */
        .size = size,
    };
    file_call_run(&call);
    return call.result;
}

void file_temp_discard(struct file_store *store, struct file_temp *temp)
{
    close(temp->fd);
    temp->fd = -1;
    (void)unlinkat(store->root_fd, temp->path, 0);
}

int file_temp_link(struct file_store *store, struct file_temp *temp, const char *path)
{
    int root = store->root_fd;

    if (renameat2(root, temp->path, root, path, RENAME_NOREPLACE) == 0) {
        close(temp->fd);
        return 0;
    }
    int rc = -errno;
    if (rc == -EINVAL || rc == -ENOSYS)
        rc = linkat(root, temp->path, root, path, 0) < 0 ? -errno : 0;
    file_temp_discard(store, temp);
    return rc;
}

int file_temp_replace(struct file_store *store, struct file_temp *temp,
                      const char *path)
{
    if (renameat(store->root_fd, temp->path, store->root_fd, path) < 0) {
        int rc = -errno;
        file_temp_discard(store, temp);
        return rc;
    }
    close(temp->fd);
    return 0;
}

static int clean_one(void *arg, int dir_fd, const char *name)
{
    uint32_t pid;
    uint64_t start, number;
    char rest;

    (void)arg;
    if (sscanf(name, "%" SCNu32 ".%" SCNu64 ".%" SCNu64 "%c", &pid, &start, &number,
               &rest) != 3)
        return 0;
    if (xseg_process_alive(pid, start))
        return 0;
    return unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int file_temp_clean(struct file_store *store)
{
    return file_scan(store, "tmp", clean_one, NULL);
}
