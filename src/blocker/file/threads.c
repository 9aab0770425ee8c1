/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of worker threads, and the blocking form of every call, which the io_uring
 * engine falls back to for what the kernel does not offer there.
 */
#include "blocker/file/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int file_sync_fd(int fd, bool data_only)
{
    int rc;
    do {
        rc = data_only ? fdatasync(fd) : fsync(fd);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

static void run_read(struct file_call *call)
{
    while (file_call_may_go_on(call)) {
        ssize_t got =
            pread(call->fd, call->data + call->moved, call->size - call->moved,
                  (off_t)(call->offset + call->moved));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            call->result = -errno;
        if (got <= 0)
            return;
        call->moved += (uint64_t)got;
    }
}

static void run_write(struct file_call *call)
{
    while (call->moved < call->size) {
        uint64_t part = call->size - call->moved;
        if (!call->direct && part > FILE_PIECE_BYTES)
            part = FILE_PIECE_BYTES;
        ssize_t put = pwrite(call->fd, call->data + call->moved, part,
                             (off_t)(call->offset + call->moved));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            call->result = put < 0 ? -errno : -EIO;
            return;
        }
        call->moved += (uint64_t)put;
    }
    if (call->verb == FILE_WRITE_DSYNC)
        call->result = file_sync_fd(call->fd, true);
}

/** Zeros over what there is of the range, for filesystems that cannot punch. */
static int write_zeros(int fd, uint64_t offset, uint64_t size)
{
    static _Alignas(4096) const uint8_t zeros[64 << 10];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (offset >= (uint64_t)st.st_size)
        return 0;
    if (size > (uint64_t)st.st_size - offset)
        size = (uint64_t)st.st_size - offset;
    while (size > 0) {
        size_t part = size < sizeof zeros ? size : sizeof zeros;
        ssize_t put = pwrite(fd, zeros, part, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        offset += (uint64_t)put;
        size -= (uint64_t)put;
    }
    return 0;
}

static void run_punch(struct file_call *call)
{
    static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        int rc;
        do {
            rc = fallocate(call->fd, modes[i], (off_t)call->offset, (off_t)call->size);
        } while (rc < 0 && errno == EINTR);
        if (rc == 0)
            return;
        if (errno != EOPNOTSUPP && errno != ENOSYS) {
            call->result = -errno;
            return;
        }
    }
    call->result = write_zeros(call->fd, call->offset, call->size);
}

void file_call_run(struct file_call *call)
{
    call->result = 0;
    switch (call->verb) {
    case FILE_READ:
        run_read(call);
        break;
    case FILE_WRITE:
    case FILE_WRITE_DSYNC:
        run_write(call);
        break;
    case FILE_DATASYNC:
        call->result = file_sync_fd(call->fd, true);
        break;
    case FILE_SYNC:
        call->result = file_sync_fd(call->fd, false);
        break;
    case FILE_WRITE_BACK:
        call->result =
            sync_file_range(call->fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0 ? -errno : 0;
        break;
    case FILE_PUNCH:
        run_punch(call);
        break;
    }
}

static struct file_call *call_of(struct reactor_job *job)
{
    return LIST_ENTRY(job, struct file_call, job);
}

static void job_run(struct reactor_job *job)
{
    file_call_run(call_of(job));
}

static void job_done(struct reactor_job *job)
{
    struct file_call *call = call_of(job);
    call->done(call);
}

void file_call_offload(struct reactor *r, struct file_call *call,
                       enum reactor_lane lane)
{
    call->job.run = job_run;
    call->job.done = job_done;
    call->job.lane = lane;
    reactor_offload(r, &call->job);
}

static void threads_submit(struct file_engine *engine, struct file_call *call)
{
    call->engine = engine;
    call->moved = 0;
    file_call_offload(engine->reactor, call, file_call_lane(call));
}

static void threads_destroy(struct file_engine *engine)
{
    free(engine);
}

int file_threads_create(struct reactor *r, struct file_engine **out)
{
    struct file_engine *engine = calloc(1, sizeof *engine);
    *out = engine;
    if (!engine)
        return -ENOMEM;
    engine->name = "threads";
    engine->reactor = r;
    engine->submit = threads_submit;
    engine->destroy = threads_destroy;
    return 0;
}
