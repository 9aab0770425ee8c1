/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying one file to another that is empty: shared blocks where the filesystem can, else
 * the data without the holes.  Blocks; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file/file.h"

#define COPY_BYTES ((size_t)1 << 20)

/** The kernel does not copy between these files: read and write. */
static bool is_refusal(int error)
{
    return error == EXDEV || error == EINVAL || error == EOPNOTSUPP ||
           error == ENOSYS || error == EPERM;
}

static int copy_by_hand(int from, int to, off_t at, off_t end)
{
    int rc = 0;
    uint8_t *buf = malloc(COPY_BYTES);
    if (!buf)
        return -ENOMEM;
    while (rc == 0 && at < end) {
        struct file_call get = {.verb = FILE_READ, .fd = from, .data = buf};
        get.offset = (uint64_t)at;
        get.size =
            (uint64_t)(end - at) < COPY_BYTES ? (uint64_t)(end - at) : COPY_BYTES;
        file_call_run(&get);
        rc = get.result;
        if (rc < 0 || get.moved == 0)
            break;
        struct file_call put = {.verb = FILE_WRITE,
                                .fd = to,
                                .offset = get.offset,
                                .data = buf,
                                .size = get.moved};
        file_call_run(&put);
        rc = put.result;
        at += (off_t)get.moved;
    }
    free(buf);
    return rc;
}

static int copy_range(int from, int to, off_t at, off_t end)
{
    while (at < end) {
        off_t in = at, out = at;
        ssize_t moved = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0 && is_refusal(errno))
            return copy_by_hand(from, to, at, end);
        if (moved < 0)
            return -errno;
        if (moved == 0)
            return 0; /* cut shorter meanwhile */
        at = in;
    }
    return 0;
}

int file_copy(int from, int to)
{
    struct stat st;
    int rc = 0;

    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    if (fstat(from, &st) < 0)
        return -errno;
    if (ftruncate(to, st.st_size) < 0)
        return -errno;
    for (off_t at = 0; rc == 0 && at < st.st_size;) {
        at = lseek(from, at, SEEK_DATA);
        if (at < 0 && errno == ENXIO)
            break; /* a hole to the end */
        off_t end = at < 0 ? -1 : lseek(from, at, SEEK_HOLE);
        if (at < 0 || end < 0)
            return -errno;
        if (end > st.st_size)
            end = st.st_size;
        rc = copy_range(from, to, at, end);
        at = end;
    }
    return rc;
}
