/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the file backend: the store, and what its nouns offer one another.
 *
 *   file.c         open, close, capabilities, the table of calls
 *   path.c    object -> path
 *   dirs.c    which directories hold names that are not durable yet
 *   tmp.c     files written aside, then named at once
 *   fd.c      cache of open files
 *   sync.c    making one open file durable, for all that wait for it
 *   proven.c  which objects this process has flushed
 *   op.c      pieces of ios
 *   inline.c  small transfers at once
 *   io.c      READ, WRITE, ZERO
 *   flush.c   FLUSH
 *   hold.c    the right to write to an extent
 *   seal.c    RELEASE of an extent
 *   content.c content made from an extent
 *   copy.c    copying a file
 *   append.c  APPEND
 *   fence.c   comparing the fence of an APPEND
 *   meta.c    CREATE, UPDATE, INFO, DELETE
 *   version.c versions and generations as the times of files
 *   list.c    LIST
 *   lease.c   ACQUIRE, RELEASE
 *   presence.[ch]  the same of presences
 *   slot.[ch] a record in a file that never moves
 *   retry.c   ios that wait for a lock
 *   watch.c   changes of leases by others
 *   engine.h  io_uring or threads
 *
 * Threads: the reactor's thread owns everything but what a job's run() touches: the
 * constants of the store, the directory table (its own lock) and the job's own io.
 *
 * docs/format/store.md describes the directory tree.
 */
#ifndef BLOCKER_FILE_H
#define BLOCKER_FILE_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "blocker/backend.h"
#include "blocker/file/engine.h"
#include "common/hashtab.h"
#include "common/list.h"

#define FILE_STORE_VERSION 1u
/** One file of an extent covers this much of the volume's address space. */
#define FILE_PART_BYTES (UINT64_C(1) << 40)
/** O_DIRECT's unit of offset, size and memory [bytes]. */
#define FILE_DIRECT_ALIGN 4096u
/** Longest path relative to the root, with its NUL. */
#define FILE_PATH_MAX 160u

/* ---- path.c -------------------------------------------------------- */

/** Path of an object relative to the root; `part` is for extents, else 0. */
void file_path(char out[FILE_PATH_MAX], const struct xseg_object *object,
               uint64_t part);
/** Path of the mark that an extent is sealed. */
void file_path_seal(char out[FILE_PATH_MAX], const struct xseg_object *extent);
/** Cut a path to its directory ("." at the top). */
void file_path_parent(char path[FILE_PATH_MAX]);
/** Directory where all objects of a kind lie: "content". */
const char *file_kind_dir(uint32_t kind);
/** Parse up to 16 hex digits, lower case only.  False if there is anything else. */
bool file_parse_u64(const char *text, size_t digits, uint64_t *out);

/* ---- dirs.c -------------------------------------------------------- */

/**
 * Directories whose entries may not be durable.  One that this process has never synced
 * counts as such when its names are relied upon, because a process before it may
 * have died between a rename and the directory's sync.  Another node may do that at any
 * time: a caller that relies on such a name notes a change.
 */
struct file_dirs;

int file_dirs_create(int root_fd, struct file_dirs **out);
void file_dirs_destroy(struct file_dirs *dirs);
/** A name in `dir` was made (`changed`), or found and relied upon.  0 or -ENOMEM. */
int file_dirs_note(struct file_dirs *dirs, const char *dir, bool changed);
/** Neither names in `dir` nor its own are durable, whatever is known.  As above. */
int file_dirs_doubt(struct file_dirs *dirs, const char *dir);
/** Sync `dir` and the directories above it as far as needed.  Blocks.  0 or -errno. */
int file_dirs_sync(struct file_dirs *dirs, const char *dir);
/** Sync all that need it.  Blocks. */
int file_dirs_sync_all(struct file_dirs *dirs);
/** True if `dir` or one above it needs a sync. */
bool file_dirs_pending(struct file_dirs *dirs, const char *dir);
bool file_dirs_any_pending(struct file_dirs *dirs);
/** True if a sync of `dir` or of one above it has failed. */
bool file_dirs_failed(struct file_dirs *dirs, const char *dir);
/** The directory was removed. */
void file_dirs_forget(struct file_dirs *dirs, const char *dir);
/** mkdir -p below the root, noting what was made.  0 or -errno. */
int file_dirs_make(struct file_dirs *dirs, const char *dir, mode_t mode);
/** Open a file with O_CREAT, in a directory that is made too if need be.  The fd or
 *  -errno. */
int file_dirs_create_file(struct file_dirs *dirs, const char *path, int flags,
                          mode_t dir_mode, mode_t file_mode);

/* ---- the store ---------------------------------------------------------- */

struct file_store {
    struct blk_backend base;
    int root_fd;
    char *root;
    bool direct;
    mode_t file_mode;
    mode_t dir_mode;
    bool keeps_times; /* times of files are kept to the nanosecond */
    /* the names of temporary files tell their writer */
    char boot_id[40];
    uint32_t pid;
    uint64_t pid_start;
    atomic_uint_fast64_t next_temp;
    struct file_dirs *dirs;
    struct file_engine *engine;

    /* fd.c */
    struct hashtab fds;        /* struct file_fd by blk_object_hash of the object */
    struct list idle_fds;      /* unreferenced and clean, oldest first */
    uint32_t nr_fds, max_fds;  /* open or being opened; the budget */
    struct list dirty_fds;     /* with acknowledged writes that are not durable */
    struct list failed_fds;    /* whose sync failed: they stay open */
    struct list waiting_opens; /* until the syncs under way let files be closed */
    uint32_t nr_evicting;      /* dirty files that are synced in order to be closed */

    /* sync.c */
    struct list sync_queue, syncs; /* files whose sync waits; whose sync runs */
    uint32_t nr_syncs;
    uint64_t sync_progress_ns; /* when the last one ended, or the first began */
    bool sync_alone;           /* the one that runs is to run alone */
    bool enospc_keeps; /* this filesystem keeps pages that it found no room for */

    /* proven.c */
    struct list proofs;         /* first flushes and journals', under way */
    struct list waiting_proofs; /* each behind one of the same object */
    struct hashtab proven;
    bool all_proven;
    int sync_error; /* of the whole filesystem: sticks */

    struct list seals; /* seal.c, under way */

    uint32_t nr_abandoned;  /* ios that passed their deadline and are not done */
    uint64_t slow_until_ns; /* the store hung not long ago: lend no memory to it */

    /* io.c */
    struct list free_ops;
    struct file_op_slab *op_slabs;
    /* inline.c, CLOCK_MONOTONIC */
    uint64_t inline_off_until_ns;   /* writes go to the engine */
    uint64_t inline_watch_until_ns; /* slow writes are looked at closely */

    /* retry.c: ios that wait for a lock, by their scratch */
    struct list retry_waiting;
    struct reactor_timer retry_timer;

    /* watch.c */
    struct blk_lease_watch *watch;
    struct reactor_fd changes; /* inotify; used while there is a watch */
};

static inline struct file_store *file_store_of(struct blk_backend *be)
{
    return (struct file_store *)be;
}

/** Answer an io.  Reactor's thread. */
void file_answer(struct blk_io *io, int64_t result);

/** Run `run` on a worker of `lane` with the io, then `done`.  Its data becomes private
 *  memory until the answer, so that the io can be abandoned at any time. */
void file_io_offload(struct file_store *store, struct blk_io *io,
                     enum reactor_lane lane, void (*run)(struct reactor_job *job),
                     void (*done)(struct reactor_job *job));
static inline struct blk_io *file_io_of(struct reactor_job *job)
{
    return (struct blk_io *)(void *)((char *)job - offsetof(struct blk_io, job));
}
/** A job's done() for ios that need nothing more. */
void file_io_answer_job(struct reactor_job *job);

/* ---- retry.c ------------------------------------------------------- */

/** A job's done() for ios that meet locks: -EAGAIN runs the job again, soon.  Between the
 *  runs the first bytes of io->scratch, a struct list, are not the io's. */
void file_io_answer_or_retry(struct reactor_job *job);

/* ---- reserve.c ----------------------------------------------------- */

/** Fill the reserve if the disk has plenty of room. */
void file_reserve_fill(struct file_store *store);
/** Give some of it back to the disk; false if there is none left. */
bool file_reserve_give(struct file_store *store);

/* ---- tmp.c --------------------------------------------------------- */

struct file_temp {
    int fd;
    char path[FILE_PATH_MAX]; /* relative to the root */
};

/** Make an empty file in tmp/.  0 or -errno. */
int file_temp_create(struct file_store *store, struct file_temp *out);
/** Write everything and make it durable (data and size).  0 or -errno. */
int file_temp_fill(struct file_temp *temp, const void *data, uint64_t size);
/** Both, for what a full disk must not stop: room comes from the reserve then. */
int file_temp_make(struct file_store *store, struct file_temp *out, const void *data,
                   uint64_t size);
/** Give it its final name if that is free: 0, -EEXIST, -errno.  Always ends the temp.
 */
int file_temp_link(struct file_store *store, struct file_temp *temp, const char *path);
/** Give it its final name, replacing what is there.  Always ends the temp. */
int file_temp_replace(struct file_store *store, struct file_temp *temp,
                      const char *path);
/** Remove it. */
void file_temp_discard(struct file_store *store, struct file_temp *temp);
/** Remove what dead processes left in tmp/.  0 or -errno. */
int file_temp_clean(struct file_store *store);

/* ---- fd.c ---------------------------------------------------------- */

struct file_fd;

struct file_fd_wait {
    struct list link;
    bool create;
    /** file is referenced on success, NULL on failure. */
    void (*ready)(struct file_fd_wait *wait, struct file_fd *file, int rc);
};

struct file_sync_wait {
    struct list link;
    void (*done)(struct file_sync_wait *wait, int rc);
};

struct file_hold_wait {
    struct list link;
    void (*done)(struct file_hold_wait *wait, int rc);
};

/** A caller that waits until all open files of an object are out of use. */
struct file_drop {
    uint32_t nr_pending;
    void (*done)(struct file_drop *drop);
    struct list closing; /* the files, for file_fd_close_detached */
    bool dirty;          /* some had writes that are not durable */
    int sync_error;      /* of one of them */
};

/** One open file of an object, shared by all that use it.  Reactor's thread only. */
struct file_fd {
    struct hashtab_node node;
    struct list link; /* idle_fds while idle, dirty_fds while dirty, else nowhere */
    struct xseg_object object;
    uint64_t part;
    int fd;
    uint32_t refs;
    bool opening;
    bool admitted;       /* counted in the store's nr_fds */
    bool evicting;       /* being synced in order to be closed */
    bool recheck;        /* deleted or sealed while it was opened */
    bool detached;       /* no longer in store->fds: closed with the last reference */
    bool created;        /* by this process: sync its inode too */
    struct list waiters; /* struct file_fd_wait, while opening */
    struct file_store *store;
    struct file_drop *drop; /* told when it is out of use */
    struct reactor_job job; /* open, then hold */
    bool open_create;
    int job_result;

    /* hold.c */
    bool held;        /* we may write to it */
    bool known_final; /* it had its name when no sealer could replace it any more */
    struct file_fd *first; /* another file's: the extent's first, referenced */
    struct list hold_waiters;
    struct file_fd_wait first_open;
    struct file_hold_wait first_hold;

    /* sync.c */
    uint64_t nr_writes;  /* acknowledged */
    uint64_t nr_durable; /* of them, known durable */
    uint64_t nr_syncing; /* of them, covered by the sync that runs */
    int sync_error;      /* first failed sync: sticks, for the kernel forgets it */
    enum file_sync_state {
        FILE_SYNC_NONE,
        FILE_SYNC_QUEUED,
        FILE_SYNC_RUNNING
    } syncing;
    struct list sync_link;    /* in the store's sync_queue or syncs */
    bool sync_writes_back;    /* it only starts the write-back */
    bool sync_alone;          /* the next one runs alone */
    uint32_t sync_tries;      /* failed for want of space, with space free */
    uint64_t sync_free_bytes; /* of the filesystem when it started */
    uint64_t nr_unwritten;    /* [bytes] since the last write-back, sync or look */
    uint64_t space_bytes;     /* on disk when the last write-back or sync began */
    struct file_call sync_call;
    struct file_sync_wait evict_wait;
    struct list sync_waiters;      /* of the sync that runs */
    struct list next_sync_waiters; /* of the next one */

    struct list changes; /* io.c: struct file_op, writes and punches under way */

    /* append.c */
    bool appending;
    bool appended;             /* first append done: inode and name are durable */
    struct list append_queue;  /* struct file_op */
    struct list flush_waiters; /* struct file_join, behind the append under way */
};

int file_fds_init(struct file_store *store);
/** Close all.  Nothing is referenced. */
void file_fds_fini(struct file_store *store);
/** Get the open file of an object's part; `wait` lives until ready(), maybe at once. */
void file_fd_get(struct file_store *store, const struct xseg_object *object,
                 uint64_t part, struct file_fd_wait *wait);
void file_fd_put(struct file_fd *file);
/** Find without opening; not referenced. */
struct file_fd *file_fd_find(struct file_store *store, const struct xseg_object *object,
                             uint64_t part);
/** Forget all files of an object, because it is deleted.  Those that are out of use are
 * put on `closing` if that is not NULL: to close the last of a deleted file may take
 * long. */
void file_fd_detach(struct file_store *store, const struct xseg_object *object,
                    struct list *closing);
/** Forget one file: the next call for it opens it anew. */
void file_fd_detach_one(struct file_fd *file);
/** Forget all files of an object.  drop->done() when none is in use any more, maybe at
 *  once; they are on drop->closing then. */
void file_fd_drop(struct file_store *store, const struct xseg_object *object,
                  struct file_drop *drop);
/** Close them.  Any thread. */
void file_fd_close_detached(struct list *closing);
/** To be called when what keeps a file out of the idle list may have changed. */
void file_fd_settle(struct file_fd *file);

/* ---- hold.c -------------------------------------------------------- */

/** Get the right to write to an extent's open file, which stays referenced until done(),
 *  maybe at once: 0; -ESTALE if the extent is sealed; -errno. */
void file_hold_get(struct file_fd *file, struct file_hold_wait *wait);
/** False if the file lost its name to a copy: the caller opens the extent's anew.
 *  @param live  its epoch is current, so it may lose it at any time. */
bool file_is_current(struct file_fd *file, bool live);
/** Blocks, hardly. */
bool file_is_sealed(struct file_store *store, const struct xseg_object *extent);

/* ---- identity.c ---------------------------------------------------- */

/** Note in a file that was made which extent it belongs to.  Other kinds have none. */
void file_identity_set(int fd, const struct xseg_object *object, uint64_t part);
/** 0, or -EBADMSG (logged) if the file says that it is another extent's. */
int file_identity_check(int fd, const struct xseg_object *object, uint64_t part);

/* ---- content.c ----------------------------------------------------- */

/** Fill an empty temporary file with the range of io->source that the io names; not yet
 *  durable.  Blocks.  0; -ENOENT; -EBADMSG: those bytes have another digest; -errno. */
int file_content_fill(struct file_store *store, struct file_temp *temp,
                      const struct blk_io *io);

/* ---- copy.c -------------------------------------------------------- */

/** Copy everything of one open file to another, empty one.  Blocks.  0 or -errno. */
int file_copy(int from, int to);

/* ---- sync.c -------------------------------------------------------- */

void file_syncs_init(struct file_store *store);
/** So many bytes were written to the page cache: maybe the write-back should start. */
void file_sync_wrote(struct file_fd *file, uint64_t bytes);
/** A write to this file is about to be acknowledged. */
void file_sync_dirty(struct file_fd *file);
/** A durable write failed: what else was dirty may be lost. */
void file_sync_fail(struct file_fd *file, int error);
/** Make what was acknowledged durable; wait->done() maybe at once. */
void file_sync(struct file_fd *file, struct file_sync_wait *wait);
static inline bool file_sync_needed(const struct file_fd *file)
{
    return file->sync_error != 0 || file->nr_durable < file->nr_writes;
}

/* ---- proven.c ------------------------------------------------------ */

/** Has this process flushed the object, and so what a process before it wrote?
 *  1 yes, 0 no, -errno: that failed, and so does every flush of it from now on. */
int file_proven(struct file_store *store, const struct xseg_object *object);
/** It was flushed, or with an error: writes of it are lost. */
void file_prove(struct file_store *store, const struct xseg_object *object, int error);
void file_unprove(struct file_store *store, const struct xseg_object *object);
/** What of it is dirty is not known any more; a failed flush stays known. */
void file_doubt(struct file_store *store, const struct xseg_object *object);
int file_proven_init(struct file_store *store);
void file_proven_fini(struct file_store *store);
/** Sync all files of an object and the directories that name them; a journal's directory
 *  even if this process has, since others append as well.  Blocks; any thread, one at a
 *  time for each object.  0 also if there are none; *lost if a sync of a file failed. */
int file_prove_blocking(struct file_store *store, const struct xseg_object *object,
                        bool *lost);

/* ---- op.c ---------------------------------------------------------- */

/** A piece of an io on one file. */
struct file_op {
    struct list link;
    struct file_store *store;
    struct blk_io *io;
    struct file_fd *file;
    struct file_fd_wait open;
    struct file_sync_wait sync;
    struct file_hold_wait hold;
    struct file_release *release; /* seal.c */
    struct file_call call;
    struct reactor_job job;
    bool lends;           /* its call uses the io's data itself */
    void *bounce;         /* private copy of the data */
    uint64_t bounce_skip; /* [bytes] of it before the wanted range */
    uint64_t old_length;  /* APPEND: of the journal */
    uint64_t newest_fence;
    void (*compared)(struct file_op *op, int rc); /* fence.c */
    uint64_t wanted; /* [bytes] the io wants of this piece */
    uint8_t *data;   /* where they go to or come from */
};

struct file_op *file_op_get(struct file_store *store, struct blk_io *io);
void file_op_put(struct file_op *op);
void file_ops_init(struct file_store *store);
void file_ops_fini(struct file_store *store);

/** What an io made of several pieces waits for; lies in io->scratch. */
struct file_join {
    struct list link; /* FLUSH: behind an append or another's proof, or of its own */
    uint32_t nr_pending;
    int error; /* first one */
    int64_t success;
    bool flush_after; /* FUA that has to flush the object too */
    bool proven;      /* FLUSH: nothing of another process's is left to sync */
    bool lost;        /* FLUSH: its job met a failed sync */
};

static inline struct file_join *file_join_of(struct blk_io *io)
{
    static_assert(sizeof(struct file_join) <= sizeof io->scratch, "join fits");
    return (struct file_join *)(void *)io->scratch;
}

/* ---- io.c ---------------------------------------------------------- */

/** An io starts to wait for its pieces; with success this is its answer. */
void file_join_begin(struct blk_io *io, int64_t success);
/** One piece (or the opening bracket of begin) has ended. */
void file_join_end(struct file_store *store, struct blk_io *io, int rc);

/** The io's deadline has passed (backend.h). */
bool file_abandon(struct blk_backend *be, struct blk_io *io);

/* ---- flush.c ------------------------------------------------------- */

/** Flush what the io names.  Its join has been begun, and ends the bracket of that. */
void file_flush_joined(struct file_store *store, struct blk_io *io);
/** An append to this journal has ended: flushes that waited for it go on. */
void file_flush_go_on(struct file_fd *file);

/* ---- inline.c ------------------------------------------------------ */

/** Do a small transfer at once if it is unlikely to block.  True if it is finished. */
bool file_try_inline(struct file_store *store, struct file_call *call);

/* ---- the calls ---------------------------------------------------------- */

void file_read(struct blk_backend *be, struct blk_io *io);
void file_write(struct blk_backend *be, struct blk_io *io);
void file_zero(struct blk_backend *be, struct blk_io *io);
void file_flush(struct blk_backend *be, struct blk_io *io);
void file_put_if_absent(struct blk_backend *be, struct blk_io *io);
void file_replace_if(struct blk_backend *be, struct blk_io *io);
void file_append_if(struct blk_backend *be, struct blk_io *io);
void file_stat(struct blk_backend *be, struct blk_io *io);
void file_list(struct blk_backend *be, struct blk_io *io);
void file_changes(struct blk_backend *be, struct blk_io *io);
void file_remove(struct blk_backend *be, struct blk_io *io);
void file_lease_acquire(struct blk_backend *be, struct blk_io *io);
void file_lease_release(struct blk_backend *be, struct blk_io *io);
void file_extent_release(struct blk_backend *be, struct blk_io *io);

/* ---- lease.c: for INFO, READ, DELETE and APPEND -------------------- */

/** Stored lease; -ENOENT if there is none.  Takes no lock.  Blocks. */
int file_lease_read(struct file_store *store, const struct xseg_object *object,
                    struct xseg_lease *out);
/** The record behind an open lease file.  -ESTALE if it was deleted. */
int file_lease_load_fd(int fd, struct xseg_lease *out);

/* ---- watch.c ------------------------------------------------------- */

/** Tell `watch` of changed leases, NULL: no more.  0 or -errno. */
int file_watch_leases(struct blk_backend *be, struct blk_lease_watch *watch);

/* ---- fence.c ------------------------------------------------------- */

/** Look at the lease of the journal that op's io appends to: op->compared(op, rc), maybe
 *  at once, with 0, -ESTALE if it has a newer fence, or -errno. */
void file_fence_compare(struct file_op *op);

/* ---- version.c ----------------------------------------------------- */

static inline uint64_t file_ns(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * UINT64_C(1000000000) + (uint64_t)time->tv_nsec;
}
/** Does this filesystem keep the times that version.c sets, to the nanosecond? */
bool file_keeps_times(int fd);
/** Write everything that io brings, or its range of io->source, with the time that tells
 *  what it is, and make it durable (data and size).  0 or -errno. */
int file_version_fill(struct file_store *store, struct file_temp *temp,
                      const struct blk_io *io);
/** What the time of a file tells: see struct xseg_list_entry. */
uint64_t file_version_get(const struct file_store *store,
                          const struct xseg_object *object, const struct stat *st);
/** Raise the generation of what is there.  0; -ENOENT; -EAGAIN if it is locked. */
int file_generation_raise(struct file_store *store, const char *path,
                          const struct blk_io *io);
/** Lock an object against being raised; close the fd to unlock.  The fd; -ENOENT; -EAGAIN;
 *  -ESTALE if its generation is newer than io's. */
int file_generation_hold(struct file_store *store, const char *path,
                         const struct blk_io *io);

/* ---- meta.c -------------------------------------------------------- */

/** Sum up the files of entry->object, and say what a file's time tells of its version.
 *  Blocks.  0, -ENOENT, -errno. */
int file_object_usage(struct file_store *store, struct xseg_list_entry *entry);

/**
 * Call fn for each name of a directory (relative path); stops at its first
 * non-zero return and gives that back.  -ENOENT if there is no such directory.
 */
int file_scan(struct file_store *store, const char *dir,
              int (*fn)(void *arg, int dir_fd, const char *name), void *arg);
/** If `name` is a file of this extent's epoch, its part. */
bool file_parse_part(const char *name, uint64_t *epoch, uint64_t *part);

#endif
