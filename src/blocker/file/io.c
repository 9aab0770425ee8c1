/* SPDX-License-Identifier: Apache-2.0 */
/*
 * READ, WRITE and ZERO of open files.
 *
 * An io becomes one piece (struct file_op) for each file it touches; io->scratch
 * counts them down.  Reactor's thread throughout, but for the run() of jobs.
 *
 * O_DIRECT: the blocker refuses extent writes that are not aligned; everything else
 * that the kernel would refuse (memory, or the edges of a read) goes through a bounce
 * buffer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/file/presence.h"
#include "blocker/object.h"

/** Transfers up to this much use private memory [bytes]. */
#define PRIVATE_BYTES (UINT64_C(64) << 10)

/* ---- joining pieces ----------------------------------------------------- */

void file_join_begin(struct blk_io *io, int64_t success)
{
    *file_join_of(io) = (struct file_join){.nr_pending = 1, .success = success};
}

void file_join_end(struct file_store *store, struct blk_io *io, int rc)
{
    struct file_join *join = file_join_of(io);

    if (rc < 0 && join->error == 0)
        join->error = rc;
    if (--join->nr_pending > 0)
        return;
    if (join->error == 0 && join->flush_after) {
        join->flush_after = false;
        join->nr_pending = 1;
        file_flush_joined(store, io);
        return;
    }
    file_answer(io, join->error < 0 ? join->error : join->success);
}

/* ---- read, write, zero -------------------------------------------------- */

static bool fills_with_zeros(const struct blk_io *io)
{
    return io->object.kind == XSEG_OBJ_CONTENT || io->object.kind == XSEG_OBJ_EXTENT;
}

static void finish_read(struct file_op *op)
{
    struct file_call *call = &op->call;
    uint64_t got = call->moved > op->bounce_skip ? call->moved - op->bounce_skip : 0;

    if (op->io->abandoned)
        return; /* op->data is another's by now */
    if (got > op->wanted)
        got = op->wanted;
    if (op->bounce)
        memcpy(op->data, (uint8_t *)op->bounce + op->bounce_skip, got);
    if (fills_with_zeros(op->io))
        memset(op->data + got, 0, op->wanted - got);
    else
        file_join_of(op->io)->success = (int64_t)got;
}

/** Failures of a durable write that say nothing about earlier writes.  A lack of space
 *  does: where blocks are allocated late, it is also how pages of earlier writes are
 *  lost, and this write was told of it in place of their flush. */
static bool is_local_error(int rc)
{
    return rc == -EFBIG || rc == -EINVAL || rc == -EBADF || rc == -EPERM;
}

/** False if the file is so new that its inode or a directory was not synced yet. */
static bool name_durable(struct file_fd *file)
{
    char dir[FILE_PATH_MAX];

    if (file->created) {
        file_sync_dirty(file); /* so that a flush takes the inode along */
        return false;
    }
    if (file->first && file->first->created)
        return false;
    file_path(dir, &file->object, file->part);
    file_path_parent(dir);
    return !file_dirs_pending(file->store->dirs, dir);
}

static void called(struct file_call *call)
{
    struct file_op *op = LIST_ENTRY(call, struct file_op, call);
    struct file_store *store = op->store;
    struct blk_io *io = op->io;
    int rc = call->result;

    io->nr_lent -= op->lends;
    op->lends = false;
    switch (call->verb) {
    case FILE_READ:
        if (rc == 0)
            finish_read(op);
        break;
    case FILE_WRITE_DSYNC:
        if (rc < 0 && !is_local_error(rc))
            file_sync_fail(op->file, rc);
        else if (rc == 0 && !name_durable(op->file))
            file_join_of(io)->flush_after = true;
        break;
    default:
        /* Also after a failure: part of it may have been written. */
        file_sync_dirty(op->file);
        if (call->verb == FILE_WRITE && !call->direct)
            file_sync_wrote(op->file, call->moved);
        break;
    }
    file_op_put(op);
    file_join_end(store, io, rc);
}

static bool aligned(uint64_t x)
{
    return x % FILE_DIRECT_ALIGN == 0;
}

/** Give the call memory that O_DIRECT accepts.  0 or -ENOMEM. */
static int use_bounce(struct file_op *op)
{
    struct file_call *call = &op->call;
    uint64_t mask = FILE_DIRECT_ALIGN - 1;
    uint64_t first = call->offset & ~mask;
    uint64_t last = (call->offset + call->size + mask) & ~mask;

    op->bounce = aligned_alloc(FILE_DIRECT_ALIGN, last - first);
    if (!op->bounce)
        return -ENOMEM;
    op->bounce_skip = call->offset - first;
    if (call->verb != FILE_READ)
        memcpy(op->bounce, op->data, op->wanted);
    call->offset = first;
    call->size = last - first;
    call->data = op->bounce;
    return 0;
}

/** As use_bounce, for what the kernel takes as it is. */
static int use_private(struct file_op *op)
{
    struct file_call *call = &op->call;

    op->bounce = malloc(call->size);
    if (!op->bounce)
        return -ENOMEM;
    if (call->verb != FILE_READ)
        memcpy(op->bounce, op->data, op->wanted);
    call->data = op->bounce;
    return 0;
}

static bool changes(const struct file_op *op)
{
    return op->call.verb != FILE_READ;
}

/** An abandoned change of this file is still under way: what comes after it
 *  could be overwritten by it. */
static bool is_stuck(const struct file_fd *file)
{
    if (file->store->nr_abandoned == 0)
        return false;
    LIST_FOR_EACH(link, next, &file->changes)
    {
        if (LIST_ENTRY(link, struct file_op, link)->io->abandoned)
            return true;
    }
    return false;
}

/** Hand it to the engine.  Small transfers use private memory, so that they can be
 *  abandoned; so does everything while the store is slow. */
static int submit(struct file_op *op)
{
    struct file_store *store = op->store;
    struct file_call *call = &op->call;
    bool slow = reactor_now_ns(store->base.reactor) < store->slow_until_ns;
    int rc = 0;

    if (call->data && !op->bounce) {
        op->lends = call->size > PRIVATE_BYTES && !slow;
        if (!op->lends)
            rc = call->direct ? use_bounce(op) : use_private(op);
    }
    if (rc < 0)
        return rc;
    op->io->nr_lent += op->lends;
    if (changes(op))
        list_push_back(&op->file->changes, &op->link);
    store->engine->submit(store->engine, call);
    return 0;
}

static void use_absent(struct file_op *op);

static void use(struct file_op *op, int rc)
{
    struct file_call *call = &op->call;
    struct file_store *store = op->store;
    struct file_fd *file = op->file;
    struct blk_io *io = op->io;

    if (rc == 0 && store->direct && call->verb != FILE_PUNCH &&
        (!aligned((uintptr_t)call->data) || !aligned(call->offset | call->size)) &&
        fills_with_zeros(io))
        rc = use_bounce(op);
    if (rc == 0 && (io->abandoned || (changes(op) && is_stuck(file))))
        rc = -ETIMEDOUT;
    if (rc == 0) {
        call->fd = file->fd;
        call->direct = store->direct && fills_with_zeros(io);
        if (file_try_inline(store, call)) {
            called(call);
            return;
        }
        rc = submit(op);
    }
    if (rc < 0) {
        file_op_put(op);
        file_join_end(store, io, rc);
    }
}

static void held(struct file_hold_wait *wait, int rc)
{
    use(LIST_ENTRY(wait, struct file_op, hold), rc);
}

/** Changes need the hold, all else the file that has the name now. */
static void use_extent(struct file_op *op)
{
    struct file_fd *file = op->file;
    uint32_t flags = op->io->flags;
    bool forced = op->call.verb == FILE_PUNCH && (flags & XSEG_F_FORCE) != 0;

    if (changes(op) && !forced) {
        if (file->held) {
            use(op, 0);
            return;
        }
        op->hold.done = held;
        file_hold_get(file, &op->hold);
        return;
    }
    if (file_is_current(file, !forced && (flags & XSEG_F_LIVE) != 0)) {
        use(op, 0);
        return;
    }
    op->file = NULL;
    file_fd_detach_one(file);
    uint64_t part = file->part;
    file_fd_put(file);
    file_fd_get(op->store, &op->io->object, part, &op->open);
}

static void opened(struct file_fd_wait *wait, struct file_fd *file, int rc)
{
    struct file_op *op = LIST_ENTRY(wait, struct file_op, open);

    op->file = file;
    if (rc == -ENOENT && op->io->object.kind == XSEG_OBJ_EXTENT)
        use_absent(op);
    else if (rc == 0 && op->io->object.kind == XSEG_OBJ_EXTENT)
        use_extent(op);
    else
        use(op, rc);
}

static int scan_part(void *arg, int dir_fd, const char *name)
{
    const struct xseg_object *object = arg;
    uint64_t epoch, part;
    (void)dir_fd;
    return file_parse_part(name, &epoch, &part) && epoch == blk_object_number(object);
}

static void use_absent_run(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    const struct xseg_object *extent = &op->io->object;
    char dir[FILE_PATH_MAX];

    if (changes(op)) {
        op->call.result = file_is_sealed(op->store, extent) ? -ESTALE : 0;
        return;
    }
    file_path(dir, extent, 0);
    file_path_parent(dir);
    int rc = file_scan(op->store, dir, scan_part, &op->io->object);
    op->call.result = rc == 1 ? 0 : rc < 0 ? rc : -ENOENT;
}

static void use_absent_done(struct reactor_job *job)
{
    struct file_op *op = LIST_ENTRY(job, struct file_op, job);
    struct file_store *store = op->store;
    struct blk_io *io = op->io;
    int rc = op->call.result;

    if (rc == 0 && !changes(op) && !io->abandoned)
        memset(op->data, 0, op->wanted);
    file_op_put(op);
    file_join_end(store, io, rc);
}

/** The extent has no file for that TiB.  To read: a hole if it has one for another.  To
 *  punch: nothing to do, but the caller must learn that an extent is sealed. */
static void use_absent(struct file_op *op)
{
    struct blk_io *io = op->io;

    if (changes(op) && (io->flags & XSEG_F_FORCE)) {
        file_op_put(op);
        file_join_end(file_store_of(io->backend), io, 0);
        return;
    }
    op->job.run = use_absent_run;
    op->job.done = use_absent_done;
    op->job.lane = REACTOR_LANE_MAP;
    reactor_offload(op->store->base.reactor, &op->job);
}

static void start_piece(struct file_store *store, struct blk_io *io,
                        enum file_verb verb, uint64_t part, uint64_t offset,
                        uint64_t size, uint8_t *data)
{
    struct file_op *op = file_op_get(store, io);

    file_join_of(io)->nr_pending++;
    if (!op) {
        file_join_end(store, io, -ENOMEM);
        return;
    }
    op->wanted = size;
    op->data = data;
    op->call = (struct file_call){
        .verb = verb, .offset = offset, .size = size, .data = data, .done = called};
    op->open.create = verb == FILE_WRITE || verb == FILE_WRITE_DSYNC;
    op->open.ready = opened;
    file_fd_get(store, &io->object, part, &op->open);
}

/** Cut the io at the borders of files and start its pieces. */
static void start_pieces(struct file_store *store, struct blk_io *io,
                         enum file_verb verb)
{
    uint64_t offset = io->offset, left = io->size;
    uint8_t *data = io->data;

    if (io->object.kind != XSEG_OBJ_EXTENT) {
        start_piece(store, io, verb, 0, offset, left, data);
        file_join_end(store, io, 0);
        return;
    }
    while (left > 0) {
        uint64_t room = FILE_PART_BYTES - offset % FILE_PART_BYTES;
        uint64_t size = left < room ? left : room;
        start_piece(store, io, verb, offset / FILE_PART_BYTES, offset % FILE_PART_BYTES,
                    size, data);
        offset += size;
        left -= size;
        if (data)
            data += size;
    }
    file_join_end(store, io, 0);
}

static void read_header_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);
    char path[FILE_PATH_MAX], dir[FILE_PATH_MAX];

    file_path(path, &io->object, 0);
    memcpy(dir, path, sizeof dir);
    file_path_parent(dir);
    struct file_call call = {
        .verb = FILE_READ, .offset = io->offset, .data = io->data, .size = io->size};
    call.fd = openat(store->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (call.fd < 0) {
        call.result = -errno;
    } else {
        file_call_run(&call);
        close(call.fd);
    }
    /* A process that named or removed it may have been killed before that was durable,
     * and our caller relies on the answer.  So each directory is synced once before its
     * headers count, and each time (FUA) for a caller that acts on what another node may
     * have done. */
    int rc = call.result == -ENOENT ? 0 : call.result;
    if (rc == 0)
        rc = file_dirs_note(store->dirs, dir, (io->flags & XSEG_F_FUA) != 0);
    if (rc == 0)
        rc = file_dirs_sync(store->dirs, dir);
    if (rc == 0)
        rc = call.result;
    io->result = rc < 0 ? rc : (int64_t)call.moved;
}

/** A lease or a presence: the record alone, not the file. */
static void read_record_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);
    union {
        struct xseg_lease lease;
        struct xseg_presence presence;
    } record;
    uint64_t record_bytes;
    int rc;

    if (io->object.kind == XSEG_OBJ_LEASE) {
        rc = file_lease_read(store, &io->object, &record.lease);
        record_bytes = sizeof record.lease;
    } else {
        rc = file_presence_read(store, &io->object, &record.presence);
        record_bytes = sizeof record.presence;
    }
    if (rc == 0 && io->offset < record_bytes) {
        uint64_t left = record_bytes - io->offset;
        uint64_t size = io->size < left ? io->size : left;
        memcpy(io->data, (uint8_t *)&record + io->offset, size);
        rc = (int)size;
    }
    io->result = rc;
}

void file_read(struct blk_backend *be, struct blk_io *io)
{
    struct file_store *store = file_store_of(be);

    /* A header is replaced by rename, so an open file of it would be yesterday's. */
    if (blk_object_is_versioned(&io->object)) {
        file_io_offload(store, io, REACTOR_LANE_MAP, read_header_run,
                        file_io_answer_job);
    } else if (io->object.kind == XSEG_OBJ_LEASE ||
               io->object.kind == XSEG_OBJ_PRESENCE) {
        file_io_offload(store, io, REACTOR_LANE_MAP, read_record_run,
                        file_io_answer_job);
    } else {
        file_join_begin(io, (int64_t)io->size);
        start_pieces(store, io, FILE_READ);
    }
}

void file_write(struct blk_backend *be, struct blk_io *io)
{
    struct file_store *store = file_store_of(be);
    enum file_verb verb = FILE_WRITE;

    file_join_begin(io, (int64_t)io->size);
    if (io->flags & XSEG_F_FUA) {
        /* A durable write needs durable names; the first one flushes the object. */
        if (file_proven(store, &io->object) == 1)
            verb = FILE_WRITE_DSYNC;
        else
            file_join_of(io)->flush_after = true;
    }
    start_pieces(store, io, verb);
}

void file_zero(struct blk_backend *be, struct blk_io *io)
{
    file_join_begin(io, 0);
    file_join_of(io)->flush_after = (io->flags & XSEG_F_FUA) != 0;
    start_pieces(file_store_of(be), io, FILE_PUNCH);
}
