/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room for metadata on a full disk: a file that takes space, and gives it back piece by
 * piece when a header or a lease finds none.
 *
 * Without it a full disk could not be mended through an open volume: opening for write
 * stores a header, and so a volume could not be opened to discard what it does not need.
 * Data and content never get this room.  The file is filled again at each start and after
 * removals, if the disk has room then.
 *
 * All processes of a store share the file; its size on disk is the only state.  Any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "blocker/file/file.h"

#define RESERVE_FILE "reserve"
/* The whole, what is given back at once, and what must be free before it is filled again.
 * A header takes a few KiB, and a directory may need a block of its own. */
#define RESERVE_BYTES ((off_t)2 << 20)
#define PIECE_BYTES   ((off_t)64 << 10)
#define PLENTY_BYTES  (UINT64_C(64) << 20)

static int reserve_open(struct file_store *store)
{
    return openat(store->root_fd, RESERVE_FILE,
                  O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, store->file_mode);
}

void file_reserve_fill(struct file_store *store)
{
    struct statvfs vfs;
    struct stat st;
    int fd;

    if (fstatvfs(store->root_fd, &vfs) ||
        (uint64_t)vfs.f_bavail * vfs.f_frsize < PLENTY_BYTES)
        return;
    fd = reserve_open(store);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size < RESERVE_BYTES)
        (void)fallocate(fd, 0, 0, RESERVE_BYTES); /* less is better than nothing */
    close(fd);
}

bool file_reserve_give(struct file_store *store)
{
    struct stat st;
    bool given = false;
    int fd = openat(store->root_fd, RESERVE_FILE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        off_t left = st.st_size > PIECE_BYTES ? st.st_size - PIECE_BYTES : 0;
        /* Durable: some filesystems give the space back only then. */
        given = ftruncate(fd, left) == 0 && fsync(fd) == 0;
    }
    close(fd);
    return given;
}
