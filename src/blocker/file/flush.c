/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FLUSH of an object, of all headers, or of the whole store.
 *
 * Open files with acknowledged writes are synced, each by itself; one job does what
 * blocks: directories, and a proof (proven.c) where one is needed.  Proofs of one
 * object go one at a time, and a journal's behind the append under way.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blocker/file/file.h"
#include "blocker/object.h"

static void synced(struct file_sync_wait *wait, int rc)
{
    struct file_op *op = LIST_ENTRY(wait, struct file_op, sync);
    struct file_store *store = op->store;
    struct blk_io *io = op->io;
    io->lost |= rc < 0;
    file_op_put(op);
    file_join_end(store, io, rc);
}

static void sync_file(struct file_store *store, struct blk_io *io, struct file_fd *file)
{
    struct file_op *op = file_op_get(store, io);
    file_join_of(io)->nr_pending++;
    if (!op) {
        file_join_end(store, io, -ENOMEM);
        return;
    }
    op->sync.done = synced;
    file_sync(file, &op->sync);
}

static int note_header_dir(void *arg, int dir_fd, const char *name)
{
    struct file_store *store = arg;
    char dir[FILE_PATH_MAX];
    uint8_t byte;

    (void)dir_fd;
    if (strlen(name) != 2 || !blk_parse_hex(name, &byte, 1))
        return 0;
    snprintf(dir, sizeof dir, "%s/%s", file_kind_dir(XSEG_OBJ_HEADER), name);
    return file_dirs_note(store->dirs, dir, true);
}

/** Sync the directories of headers, those too that this process has synced: another one
 *  may have been killed since, between a rename or an unlink and its sync. */
static int sync_headers(struct file_store *store)
{
    const char *above = file_kind_dir(XSEG_OBJ_HEADER);
    int rc = file_dirs_note(store->dirs, above, true);
    if (rc == 0)
        rc = file_scan(store, above, note_header_dir, store);
    return rc < 0 ? rc : file_dirs_sync_all(store->dirs);
}

/** The flush's own job: whatever blocks, that is directories and first flushes. */
static void flush_run(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);
    char dir[FILE_PATH_MAX];

    file_join_of(io)->lost = false;
    if (io->object.kind == XSEG_OBJ_NONE) {
        io->result = 0;
        if (!file_join_of(io)->proven && syncfs(store->root_fd) < 0) {
            io->result = -errno;
            file_join_of(io)->lost = true;
        }
        if (io->result == 0)
            io->result = file_dirs_sync_all(store->dirs);
        return;
    }
    if (io->object.kind == XSEG_OBJ_HEADER) {
        io->result = sync_headers(store);
        return;
    }
    file_path(dir, &io->object, 0);
    file_path_parent(dir);
    io->result = 0;
    if (!file_join_of(io)->proven)
        io->result = file_prove_blocking(store, &io->object, &file_join_of(io)->lost);
    if (io->result == 0)
        io->result = file_dirs_sync(store->dirs, dir);
}

static struct blk_io *io_of_link(struct list *link)
{
    struct file_join *join = LIST_ENTRY(link, struct file_join, link);
    return LIST_ENTRY(join, struct blk_io, scratch);
}

/** Let all flushes on a list go on. */
static void go_on(struct file_store *store, struct list *waiters)
{
    struct list *link;
    while ((link = list_pop_front(waiters)) != NULL)
        file_flush_joined(store, io_of_link(link));
}

/** A proof has ended: those behind it learn how. */
static void end_proof(struct file_store *store, struct blk_io *io)
{
    struct list waiters;

    list_remove(&file_join_of(io)->link);
    list_init(&waiters);
    LIST_FOR_EACH(link, next, &store->waiting_proofs)
    {
        if (!blk_object_equal(&io_of_link(link)->object, &io->object))
            continue;
        list_remove(link);
        list_push_back(&waiters, link);
    }
    go_on(store, &waiters);
}

/** True if a proof of the same object is under way: the flush is tried again after it.
 *  Two at a time would share one report of what was lost. */
static bool wait_for_proof(struct file_store *store, struct blk_io *io)
{
    LIST_FOR_EACH(link, next, &store->proofs)
    {
        if (!blk_object_equal(&io_of_link(link)->object, &io->object))
            continue;
        list_push_back(&store->waiting_proofs, &file_join_of(io)->link);
        return true;
    }
    return false;
}

static void flush_job_done(struct reactor_job *job)
{
    struct blk_io *io = file_io_of(job);
    struct file_store *store = file_store_of(io->backend);

    bool lost = file_join_of(io)->lost;
    char dir[FILE_PATH_MAX];

    file_path(dir, &io->object, 0);
    file_path_parent(dir);
    io->lost |= lost || (io->result < 0 && file_dirs_failed(store->dirs, dir));
    if (io->object.kind == XSEG_OBJ_NONE && io->result == 0)
        store->all_proven = true;
    else if (io->object.kind == XSEG_OBJ_NONE && lost)
        store->sync_error = (int)io->result;
    else if (io->object.kind != XSEG_OBJ_HEADER && (io->result == 0 || lost))
        file_prove(store, &io->object, (int)io->result);
    if (!file_join_of(io)->proven)
        end_proof(store, io);
    file_join_end(store, io, (int)io->result);
}

/** A flush of everything may take long; that of a journal is part of opening a volume. */
static enum reactor_lane flush_lane(const struct blk_io *io)
{
    switch (io->object.kind) {
    case XSEG_OBJ_JOURNAL:
        return REACTOR_LANE_MAP;
    case XSEG_OBJ_EXTENT:
    case XSEG_OBJ_LAYER:
        return REACTOR_LANE_SYNC;
    default:
        return REACTOR_LANE_BULK;
    }
}

static void start_flush_job(struct file_store *store, struct blk_io *io, bool proven)
{
    file_join_of(io)->nr_pending++;
    file_join_of(io)->proven = proven;
    if (!proven)
        list_push_back(&store->proofs, &file_join_of(io)->link);
    file_io_offload(store, io, flush_lane(io), flush_run, flush_job_done);
}

void file_flush_go_on(struct file_fd *file)
{
    struct list *link, waiters;

    list_init(&waiters);
    while ((link = list_pop_front(&file->flush_waiters)) != NULL)
        list_push_back(&waiters, link);
    go_on(file->store, &waiters);
}

/** True if an append to the journal is under way: the flush is tried again after it.  If
 *  it fails it is cut off again, and that is no failure of the flush. */
static bool wait_for_append(struct file_store *store, struct blk_io *io)
{
    struct file_fd *file = file_fd_find(store, &io->object, 0);
    if (!file || !file->appending)
        return false;
    list_push_back(&file->flush_waiters, &file_join_of(io)->link);
    return true;
}

static void flush_object(struct file_store *store, struct blk_io *io)
{
    char dir[FILE_PATH_MAX];

    file_path(dir, &io->object, 0);
    file_path_parent(dir);
    bool journal = io->object.kind == XSEG_OBJ_JOURNAL;
    int proven = file_proven(store, &io->object);
    if (journal && proven > 0)
        proven = 0;
    /* What was flushed before has its writes in open files: those know its failures. */
    if (proven == 0 && store->sync_error)
        proven = store->sync_error;
    if (proven < 0) {
        io->lost = true;
        file_join_end(store, io, proven);
        return;
    }
    if (journal && wait_for_append(store, io))
        return;
    if (!proven && wait_for_proof(store, io))
        return;
    if (!proven || file_dirs_pending(store->dirs, dir))
        start_flush_job(store, io, proven);
    struct hashtab_node *node = hashtab_find(&store->fds, blk_object_hash(&io->object));
    while (node) {
        struct file_fd *file = HASHTAB_ENTRY(node, struct file_fd, node);
        node = hashtab_next(node);
        if (blk_object_equal(&file->object, &io->object) && file_sync_needed(file))
            sync_file(store, io, file);
    }
    file_join_end(store, io, 0);
}

static void flush_store(struct file_store *store, struct blk_io *io)
{
    if (store->sync_error) {
        io->lost = true;
        file_join_end(store, io, store->sync_error);
        return;
    }
    if (!store->all_proven && wait_for_proof(store, io))
        return;
    if (!store->all_proven || file_dirs_any_pending(store->dirs))
        start_flush_job(store, io, store->all_proven);
    LIST_FOR_EACH(link, next, &store->dirty_fds)
    sync_file(store, io, LIST_ENTRY(link, struct file_fd, link));
    LIST_FOR_EACH(link, next, &store->failed_fds)
    sync_file(store, io, LIST_ENTRY(link, struct file_fd, link));
    file_join_end(store, io, 0);
}

static void flush_headers(struct file_store *store, struct blk_io *io)
{
    start_flush_job(store, io, true);
    file_join_end(store, io, 0);
}

void file_flush_joined(struct file_store *store, struct blk_io *io)
{
    if (io->object.kind == XSEG_OBJ_NONE)
        flush_store(store, io);
    else if (io->object.kind == XSEG_OBJ_HEADER)
        flush_headers(store, io);
    else
        flush_object(store, io);
}

void file_flush(struct blk_backend *be, struct blk_io *io)
{
    file_join_begin(io, 0);
    file_flush_joined(file_store_of(be), io);
}
