/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files written aside in tmp/ and then given their name in one step, so that an object
 * is whole or absent whatever happens.
 *
 * A temporary name says who writes it, "<boot id>.<pid>.<start>.<number>", so that the next
 * open of the store can remove what a dead process left.  A pid says nothing about
 * processes of another machine or boot: their files are removed when they are old.  Any
 * thread.
 */
#include "blocker/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "xseg/process.h"

/** A temporary file of another machine or boot that old is abandoned [s].  A writer that was
 *  paused for so long meets -ENOENT when it names the file, and nothing is harmed. */
#define FOREIGN_LIFE_S (24 * 60 * 60)

int file_temp_create(struct file_store *store, struct file_temp *out)
{
    snprintf(out->path, sizeof out->path, "tmp/%s.%" PRIu32 ".%" PRIu64 ".%" PRIu64,
             store->boot_id[0] ? store->boot_id : "unknown", store->pid,
             store->pid_start,
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

int file_temp_make(struct file_store *store, struct file_temp *out, const void *data,
                   uint64_t size)
{
    int rc;

    do {
        rc = file_temp_create(store, out);
        if (rc == 0) {
            rc = file_temp_fill(out, data, size);
            if (rc < 0)
                file_temp_discard(store, out);
        }
    } while ((rc == -ENOSPC || rc == -EDQUOT) && file_reserve_give(store));
    return rc;
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

static bool is_old(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_mtime + FOREIGN_LIFE_S < time(NULL);
}

static int clean_one(void *arg, int dir_fd, const char *name)
{
    const struct file_store *store = arg;
    char boot_id[40], rest;
    uint32_t pid;
    uint64_t start, number;

    if (sscanf(name, "%39[^.].%" SCNu32 ".%" SCNu64 ".%" SCNu64 "%c", boot_id, &pid,
               &start, &number, &rest) != 4)
        return 0;
    bool here = store->boot_id[0] != '\0' && strcmp(boot_id, store->boot_id) == 0;
    if (here ? xseg_process_alive(pid, start) : !is_old(dir_fd, name))
        return 0;
    return unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int file_temp_clean(struct file_store *store)
{
    return file_scan(store, "tmp", clean_one, store);
}
