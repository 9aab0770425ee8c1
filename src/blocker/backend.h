/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend contract: what a place to keep blocks must be able to do.
 *
 * A backend stores objects named by kind (struct xseg_object), never by path.  The
 * blocker peer checks every request and hands it over as one struct blk_io; the backend
 * answers by calling io->done(io) exactly once, on the reactor's thread, with io->result
 * set.  It may do so before submit returns.  Any number of ios may be in flight; those
 * that touch the same bytes of one object at once have no order between them.
 *
 * Semantics of each op are the blocker's table in xseg/payload.h.  Durable means: it
 * is there after a power cut, with its name.
 *
 * One conformance suite runs against every implementation (tests/c/blocker).
 */
#ifndef BLOCKER_BACKEND_H
#define BLOCKER_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reactor/reactor.h"
#include "xseg/payload.h"

#define BLK_API_VERSION 1u

/** How long a store may take for one io, if nothing else is set [ns]. */
#define BLK_TIMEOUT_NS UINT64_C(60000000000)

struct blk_backend;

/** One operation in flight.  Owned by the blocker until done; fields below the line by
 *  the backend while it is in flight. */
struct blk_io {
    struct xseg_object object;
    uint64_t offset;  /* [bytes] */
    uint64_t size;    /* [bytes] */
    void *data;       /* READ, LIST, CHANGES: to fill; WRITE, CREATE, UPDATE, APPEND: to
                         store */
    uint32_t flags;   /* XSEG_F_FUA, _NOSYNC, _FORCE, _LIVE */
    uint64_t version; /* UPDATE: version to replace; DELETE: to remove, 0: any */
    uint64_t fence;   /* APPEND */
    uint64_t generation; /* put_if_absent, put_content_from_extent: of the change;
                            remove: newest to go, 0: any */
    /* LIST of HEADER and CONTENT: only ids whose first byte is in [first, end) */
    uint32_t first_byte, end_byte;
    struct xseg_object source; /* put_content_from_extent: the extent; else NONE */
    struct xseg_opaque
        cursor;               /* LIST: in and out; up to XSEG_CURSOR_MAX, 0: the ends */
    struct xseg_opaque token; /* sealing: of the old holder, from its lease */
    union {                   /* ACQUIRE, RELEASE: in; out: granted, or the holder's */
        struct xseg_lease lease;
        struct xseg_presence presence;
    };
    struct xseg_object_info info; /* INFO: out */
    bool lost; /* FLUSH, out with an error: answered writes are lost, and stay so */
    int64_t result;
    void (*done)(struct blk_io *io);
    void *owner;
    uint32_t fill_unit; /* [bytes of data] to fill for each unit of result; 0: none */
    /* ---- backend private ---- */
    bool abandoned;   /* it was answered at its deadline: its data is not ours */
    uint32_t nr_lent; /* transfers under way that use data itself */
    void *lent;       /* the caller's data, while data is private memory */
    struct blk_backend *backend;
    struct reactor_job job;
    uint64_t scratch[8];
};

/** What a backend says of itself. */
struct blk_capabilities {
    uint32_t alignment; /* [bytes] of offset, size and memory it needs; 1 if any */
    bool shared;        /* several nodes may use one store */
    bool persistent;    /* survives its process */
};

struct blk_options {
    const char *path;     /* file: root directory of this blocker */
    const char *engine;   /* "auto", "io_uring", "threads" */
    bool direct;          /* file: O_DIRECT for extents and content */
    uint32_t queue_depth; /* ios in flight per engine; 0 means 256 */
    uint64_t timeout_ns;  /* until an io is answered -ETIMEDOUT; 0: BLK_TIMEOUT_NS */
    mode_t file_mode;     /* 0 means 0660 */
};

/** The receiver of changes of leases. */
struct blk_lease_watch {
    /** Called on the reactor's thread.  @param lease  the changed one; NULL: any may be.
     */
    void (*changed)(struct blk_lease_watch *self, const struct xseg_object *lease);
};

struct blk_backend_ops {
    size_t struct_size;   /* sizeof(struct blk_backend_ops); fields only get appended */
    uint32_t api_version; /* BLK_API_VERSION */
    const char *name;

    /** Open a store, making its directories if there are none. 0 or -errno; *why gets a
     *  one-line reason (static or owned by the backend module) on failure. */
    int (*open)(struct reactor *r, const struct blk_options *options,
                struct blk_backend **out, const char **why);
    /** Close it; no io is in flight. */
    void (*close)(struct blk_backend *be);
    void (*capabilities)(const struct blk_backend *be, struct blk_capabilities *out);

    /**
     * The io's deadline has passed: stop using its data.  True if nothing touches the
     * memory of io->data from now on; then the caller answers -ETIMEDOUT.  The io itself
     * stays the backend's until done(), which comes once, however late.  Changes to the
     * same bytes that come before that are refused with -ETIMEDOUT, so that a late one
     * overwrites none that was answered.  False: transfers use that memory; ask again.
     * NULL: no io ever takes long.
     */
    bool (*abandon)(struct blk_backend *be, struct blk_io *io);
    /** 0 while the store is there; -errno once it is gone for good.  Never blocks.  NULL:
     *  always. */
    int (*check)(struct blk_backend *be);

    void (*read)(struct blk_backend *be, struct blk_io *io);
    void (*write)(struct blk_backend *be, struct blk_io *io);
    void (*zero)(struct blk_backend *be, struct blk_io *io);
    void (*flush)(struct blk_backend *be, struct blk_io *io);
    /** Of a CONTENT or LAYER that is there, the generation is raised in the same step:
     *  no remove with an older generation can come between. */
    void (*put_if_absent)(struct blk_backend *be, struct blk_io *io);
    /** put_if_absent of content that lies in io->source at offset, size bytes.  Only if
     *  they have that digest: -EBADMSG. */
    void (*put_content_from_extent)(struct blk_backend *be, struct blk_io *io);
    void (*replace_if)(struct blk_backend *be, struct blk_io *io);
    void (*append_if)(struct blk_backend *be, struct blk_io *io);
    void (*stat)(struct blk_backend *be, struct blk_io *io);
    void (*list)(struct blk_backend *be, struct blk_io *io);
    void (*remove)(struct blk_backend *be, struct blk_io *io);
    /** Of a LEASE or a PRESENCE: take or renew; give back, and break a lease (FORCE). */
    void (*lease_acquire)(struct blk_backend *be, struct blk_io *io);
    void (*lease_release)(struct blk_backend *be, struct blk_io *io);
    void (*extent_release)(struct blk_backend *be, struct blk_io *io); /* FORCE: seal */
    /**
     * Tell `watch` from now on of leases that other processes may have changed; NULL
     * ends that.  One watch at a time.  A change may be told late, twice, or, where the
     * store cannot see what other machines do, not at all.
     * Returns 0, or -errno: nothing will be told.  The callback may be NULL: no other
     * process can change a lease of this backend.
     */
    int (*watch_leases)(struct blk_backend *be, struct blk_lease_watch *watch);
    /** CHANGES: stamps of the headers, by the first byte of their ids. */
    void (*changes)(struct blk_backend *be, struct blk_io *io);
};

/** A live backend: implementations embed it first. */
struct blk_backend {
    const struct blk_backend_ops *ops;
    struct reactor *reactor;
};

extern const struct blk_backend_ops blk_mem_ops;
extern const struct blk_backend_ops blk_file_ops;

/** The backend of that name ("mem", "file"), or NULL. */
const struct blk_backend_ops *blk_backend_find(const char *name);

/** What an engine of "auto" comes to on this machine: "io_uring" or "threads". */
const char *blk_default_engine(void);

#endif
