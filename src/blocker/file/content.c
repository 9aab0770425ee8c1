/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content made from a range of an extent, inside the store.
 *
 * Where the filesystem can, the new file shares the blocks of the extent (FICLONERANGE);
 * else it gets a copy.  The extent may be written to meanwhile, so what counts is what
 * the new file holds: its digest is compared before it gets its name.
 *
 * Blocks; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"
#include "common/digest.h"

/** Read up to `size` bytes; what the file does not have is zeros. */
static int content_read(int fd, uint64_t offset, uint8_t *out, uint64_t size)
{
    struct file_call call = {
        .verb = FILE_READ, .fd = fd, .offset = offset, .data = out, .size = size};

    file_call_run(&call);
    if (call.result == 0)
        memset(out + call.moved, 0, size - call.moved);
    return call.result;
}

static int content_write(int fd, uint8_t *bytes, uint64_t size)
{
    struct file_call call = {.verb = FILE_WRITE, .fd = fd, .data = bytes, .size = size};

    file_call_run(&call);
    return call.result;
}

/** Let `to` share the blocks of the range.  False if that cannot be here. */
static bool content_clone(int to, int from, uint64_t offset, uint64_t size)
{
    /* The kernel shares whole blocks: what is too much is cut off. */
    struct file_clone_range range = {
        .src_fd = from,
        .src_offset = offset,
        .src_length =
            (size + FILE_DIRECT_ALIGN - 1) & ~(uint64_t)(FILE_DIRECT_ALIGN - 1),
    };

    if (ioctl(to, FICLONERANGE, &range) == 0)
        return ftruncate(to, (off_t)size) == 0;
    return false;
}

static int content_check(const struct blk_io *io, const uint8_t *bytes)
{
    uint8_t id[DIGEST_BYTES];

    if (digest_stripped_bytes(bytes, io->size) != io->size)
        return -EBADMSG;
    int rc = digest_block_id(bytes, io->size, id);
    return rc < 0 ? rc : memcmp(id, io->object.id, sizeof id) == 0 ? 0 : -EBADMSG;
}

/** Fill the empty file `to` from one file of the extent. */
static int content_fill(const struct blk_io *io, int to, int from, uint64_t offset,
                        uint8_t *bytes)
{
    bool cloned = content_clone(to, from, offset, io->size);

    if (!cloned && ftruncate(to, 0) < 0)
        return -errno;
    int rc = content_read(cloned ? to : from, cloned ? 0 : offset, bytes, io->size);
    if (rc == 0)
        rc = content_check(io, bytes);
    if (rc == 0 && !cloned)
        rc = content_write(to, bytes, io->size);
    return rc;
}

int file_content_fill(struct file_store *store, struct file_temp *temp,
                      const struct blk_io *io)
{
    uint64_t part = io->offset / FILE_PART_BYTES, offset = io->offset % FILE_PART_BYTES;
    char path[FILE_PATH_MAX];

    /* Blocks of volumes never cross the border of two files. */
    if (io->size > FILE_PART_BYTES - offset)
        return -EINVAL;
    file_path(path, &io->source, part);
    int from = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0)
        return -errno;
    uint8_t *bytes = malloc(io->size);
    int rc = bytes ? content_fill(io, temp->fd, from, offset, bytes) : -ENOMEM;
    free(bytes);
    close(from);
    return rc;
}
