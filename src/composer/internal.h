/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the composer's files share: the peer itself, open volumes, and operations in
 * flight.  All of it belongs to the reactor's thread; nothing here is locked.
 *
 *   composer.c  the peer: requests in, checked and handed to their noun; stop
 *   volume.c    the table of open volumes; freeze and drain
 *   open.c      OPEN and CLOSE: users, holders, dead clients
 *   reader.c    a range of a volume into a buffer
 *   mutate.c    WRITE, ZERO, DISCARD: edges, data, marks, overlap
 *   barrier.c   FLUSH and FUA: generations
 *   relief.c    the mapper's mark log is full: flush, then mark
 *   again.c     what a dying peer did not serve is sent again
 *   revive.c    a volume whose map died gets it back
 *   lease.c     deadlines of leases; lost volumes
 *   missing.c   stored data that cannot be read, told in the log
 *   removal.c   DELETE of a volume in use
 *   change.c    SNAPSHOT, TRUNCATE, RENAME, DELETE: drained, then forwarded
 */
#ifndef COMPOSER_INTERNAL_H
#define COMPOSER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "composer/composer.h"
#include "reactor/reactor.h"
#include "xseg/xseg.h"

#define SECTOR XSEG_SECTOR_BYTES

/** Round to whole sectors. */
static inline uint64_t sector_floor(uint64_t bytes)
{
    return bytes & ~(uint64_t)(SECTOR - 1);
}

static inline uint64_t sector_ceil(uint64_t bytes)
{
    return sector_floor(bytes + SECTOR - 1);
}

/** Make `to` the list of all that is in `from`, which is empty afterwards. */
static inline void list_take_all(struct list *to, struct list *from)
{
    list_init(to);
    if (list_empty(from))
        return;
    *to = *from;
    to->next->prev = to->prev->next = to;
    list_init(from);
}

struct volume;

/** Something that waits for a descriptor or an edge buffer. */
struct waiter {
    struct list link;
    void (*resume)(struct waiter *self);
};

struct composer {
    struct peer peer;
    struct reactor *reactor;
    struct xseg_segment *seg;
    struct xseg_port *port;
    uint64_t deadline_ns;  /* of all leases, CLOCK_BOOTTIME; 0: none was told */
    struct list volumes;   /* struct volume, all states */
    struct volume **slots; /* handle -> volume */
    uint32_t nr_slots;
    uint32_t generation;  /* of the next volume's handle */
    struct list free_ops; /* struct mutation, preallocated */
    struct mutation *ops;
    struct list op_waiters;   /* struct queued, requests that wait for an op */
    struct list starved;      /* struct waiter: no descriptor was free */
    struct list edge_waiters; /* struct waiter: no edge buffer was free */
    uint32_t renaming;        /* RENAMEs of open volumes, not settled */
    uint32_t renaming_closed; /* RENAMEs of names that are not open, at CONTROL */
    struct list renames;      /* struct waiter: until `renaming_closed` is 0 */
    struct list unnamed;      /* struct queued: they wait until `renaming` is 0 */
    uint64_t edges[64];       /* free edge buffers, two sectors each */
    uint32_t nr_edges;
    struct reactor_timer watch_timer;

    /* what waits to be tried again */
    struct list again;         /* struct again: children */
    struct list again_waiters; /* struct waiter: resumed after a pause */
    struct reactor_timer again_timer;
    uint64_t again_pause_ns; /* 0: nothing waits */
    uint64_t patience_ns, stop_patience_ns;
    struct xseg_request *spare; /* for a revival when all others wait for it */
    struct list refused;        /* struct waiter: marks that had no room in the log */
    uint32_t relieving;         /* flushes under way to make room */
    bool relief_due;            /* they begin soon */
    uint64_t nr_opens;          /* numbers them */
    struct reactor_timer removal_timer;
    struct waiter relief_waiter;

    bool stopping;
    uint64_t stop_ns; /* since when the process is ending; 0 if it is not */
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/**
 * The life of an open volume; volume.c has the table of what may follow what.  A lease that
 * is lost (`lost`) is no state of its own: it may happen in each of them, and the volume
 * then still has to be closed.
 */
enum volume_state {
    VOLUME_OPENING, /* CONTROL is asked; requests wait in `pending_opens` */
    VOLUME_OPEN,
    VOLUME_UPGRADING, /* open to be read, and frozen: CONTROL is asked for the lease */
    VOLUME_CLOSING,   /* flushing, then CONTROL is told; opens wait */
    VOLUME_NR_STATES,
};

/** What CONTROL is asked about a volume just now: one thing at a time. */
enum volume_question {
    VOLUME_ASK_NOTHING,
    VOLUME_ASK_OPEN,   /* open.c */
    VOLUME_ASK_CLOSE,  /* open.c */
    VOLUME_ASK_AGAIN,  /* revive.c: to open the one that was open here */
    VOLUME_ASK_DISOWN, /* revive.c: to close it, because it is lost */
    VOLUME_ASK_CHANGE, /* change.c */
};

/** A request that waits in a list; lives outside the segment, so links are safe. */
struct queued {
    struct list link;
    struct xseg_request *rq;
    struct volume *v; /* it counts as active on, or NULL */
};

/** Called once when a volume has nothing in flight. */
struct drain {
    struct list link;
    void (*drained)(struct drain *self);
};

/** Called once when everything answered before is durable. */
struct flush_wait {
    struct list link;
    void (*flushed)(struct flush_wait *self, int64_t result);
};

/** One open volume. */
struct volume {
    struct list link;
    struct composer *c;
    enum volume_state state;
    uint32_t slot;
    uint64_t handle;
    struct xseg_volume_info info;
    struct list opens;         /* struct open_ref: who has it open */
    struct list pending_opens; /* struct open_op, while OPENING or CLOSING */
    struct list closers;       /* struct queued: answered when it is closed */
    struct list after;         /* struct queued: served again when the state changes */
    struct list removals;      /* struct queued: DELETE, until it is closed */
    uint64_t removal_since;    /* when the first of them came */
    struct drain close_drain;
    struct flush_wait close_flush;
    struct waiter ask_waiter; /* OPEN or CLOSE waits for a descriptor, or its turn */
    enum volume_question question;
    uint64_t ask_since;   /* when it first failed, 0: it did not */
    int64_t close_result; /* of the last flush */
    int64_t close_failed; /* -errno of CONTROL's part in it, or 0 */
    uint32_t users;       /* opens, internal ones too */
    bool held;            /* by the administrator */
    bool asked_writable;  /* what CONTROL was asked last */

    /* lease and map */
    uint64_t since;      /* fence: nobody else has had the lease from then on */
    uint32_t control;    /* life of CONTROL (generation of its port) that opened it */
    uint32_t asked;      /* the one that was asked last */
    struct list overdue; /* struct queued: taken up after the deadline */
    uint8_t missing_id[32]; /* object that was said to be missing last */
    bool lost;              /* the lease is gone: everything is answered -ESTALE */
    bool new_epoch;      /* a change was under way: it may come back in another epoch */
    uint32_t revivals;   /* that succeeded */
    struct list revived; /* struct waiter: resumed when a revival is over */
    struct waiter revive_waiter;

    /* in flight */
    uint32_t nr_active;        /* requests being served */
    uint32_t freezers;         /* > 0: new requests wait in `frozen` */
    struct list frozen;        /* struct queued */
    struct list drain_waiters; /* struct drain: called when nr_active is 0 */
    struct list mutations;     /* struct mutation, in order of arrival */

    /* flush: marks of generation g are counted in marks[g & 1] until answered */
    uint64_t generation;
    uint32_t marks[2];
    bool flushing;
    struct list flush_next; /* struct flush_wait: served by the next flush */
    struct list flush_now;  /* served by the one that runs */
    uint64_t flush_generation;
    uint64_t flush_since;    /* when a child of it first failed, 0: none did */
    uint32_t flush_revivals; /* when its data began to be flushed */
    struct waiter flush_waiter;
    struct flush_wait relief;
    int64_t relief_result;
};

/** True if it was opened without the lease, or never needs one. */
static inline bool volume_read_only(const struct volume *v)
{
    return v->info.flags & (XSEG_VOL_READONLY | XSEG_VOL_RDONLY_OPEN);
}

/** CONTROL is asked for a new map, or told of the loss. */
static inline bool volume_reviving(const struct volume *v)
{
    return v->question == VOLUME_ASK_AGAIN || v->question == VOLUME_ASK_DISOWN;
}

/* ---- composer.c ---------------------------------------------------------------- */

/** A child request from the composer's port, or NULL: then wait with composer_starve.
 */
struct xseg_request *composer_request(struct composer *c, uint32_t op);
/** Send a child; `done(arg, rq)` gets it back and ends with composer_release. */
void composer_send(struct composer *c, struct xseg_request *rq, uint32_t dst,
                   reactor_reply_fn *done, void *arg);
/** Free a child and let the next starved waiter try. */
void composer_release(struct composer *c, struct xseg_request *rq);
void composer_starve(struct composer *c, struct waiter *w);
/** Which life of its owner a port is in: each bind is another one; 0: not bound. */
uint32_t composer_port_life(struct composer *c, uint32_t port);
/** An edge buffer (two sectors) or 0: then wait in edge_waiters. */
uint64_t composer_edge_get(struct composer *c);
void composer_edge_put(struct composer *c, uint64_t off);
/** Answer a client's request. */
void composer_reply(struct composer *c, struct xseg_request *rq, int64_t result);
/** Serve a request now (also called for those that waited). */
void composer_serve(struct composer *c, struct xseg_request *rq);
/** Called whenever a volume is gone or closed: ends a stop that waits for it. */
void composer_check_stopped(struct composer *c);
/** Put a request aside; `v` is the volume it already counts on, or NULL.  Without
 *  memory it is answered -ENOMEM at once and false is returned. */
bool composer_queue(struct composer *c, struct list *where, struct xseg_request *rq,
                    struct volume *v);
/** Serve all that waits in a list; what it queues anew waits for the next time. */
void composer_serve_again(struct composer *c, struct list *where);
/** Take the first request of a list; NULL when it is empty. */
struct xseg_request *composer_dequeue(struct list *where, struct volume **v);

/* ---- volume.c ------------------------------------------------------------------ */

int volume_table_init(struct composer *c);
void volume_table_fini(struct composer *c);
/** A new volume in state OPENING under that name, or NULL (no memory, table full). */
struct volume *volume_new(struct composer *c, const uint8_t *name, uint8_t name_len);
void volume_free(struct volume *v);
/** Go on to a state that may follow. */
void volume_go(struct volume *v, enum volume_state state);
/** True if that is its name, as far as CONTROL has said. */
bool volume_has_name(const struct volume *v, const uint8_t *name, uint8_t len);
/** The volume of that name that is not lost. */
struct volume *volume_by_name(struct composer *c, const uint8_t *name, uint8_t len);
/** A lost one of that name of which CONTROL is just being told, or NULL. */
struct volume *volume_leaving(struct composer *c, const uint8_t *name, uint8_t len);
/** The open volume of a handle, or NULL if it is stale.  *read_only: opened so. */
struct volume *volume_by_handle(struct composer *c, uint64_t handle, bool *read_only);
/** Count a request in; false if the volume is frozen: then it was queued. */
bool volume_enter(struct volume *v, struct xseg_request *rq);
void volume_leave(struct volume *v);
/** Hold new requests back; call `d->drained` when those in flight have ended. */
void volume_freeze(struct volume *v, struct drain *d);
void volume_unfreeze(struct volume *v);
/** What CONTROL said of a volume; false if the record is not there or makes no sense. */
bool volume_record(const struct xseg_request *reply, struct xseg_volume_info *out);

/* ---- open.c -------------------------------------------------------------------- */

void vol_serve_open(struct composer *c, struct xseg_request *rq);
void vol_serve_close(struct composer *c, struct xseg_request *rq);
/**
 * Open the volume that `rq` names for the composer itself (a change of a volume).
 * `opened(arg, v, result)`: v is NULL on failure, and why CONTROL refused is inline in
 * `rq`; balanced by open_put.
 */
void open_get(struct composer *c, struct xseg_request *rq,
              void (*opened)(void *arg, struct volume *v, int64_t result), void *arg);
void open_put(struct volume *v);
/** Close it if nobody has it open any more. */
void open_check_unused(struct volume *v);
/** Take the volume from all that have it open. */
void open_cut_off(struct volume *v);
/** True if all that have it open have said that they are leaving. */
bool open_is_leaving(const struct volume *v);
/** What uses the volume; returns how many fit into `room` records. */
int64_t open_users(const struct volume *v, struct xseg_volume_user *out, uint64_t room);
/** Drop the opens of clients whose port is gone. */
void open_reap(struct composer *c);
/** Close every volume (stop). */
void open_close_all(struct composer *c);

/** Write what v->question asks CONTROL into a descriptor. */
void ask_fill(struct volume *v, struct xseg_request *rq);

/* ---- reader.c ------------------------------------------------------------------ */

/** One range being read.  Embedded in its user; no allocation. */
struct reader {
    struct waiter waiter;
    struct volume *v;
    uint64_t pos, end; /* [bytes] still to be asked for */
    uint64_t base;     /* volume offset of the first byte */
    uint64_t data_off; /* segment offset where byte `base` goes */
    uint32_t pending;  /* children in flight */
    uint64_t since;    /* when one first failed, 0: none did */
    int64_t error;
    bool mapping;      /* a MAPR is in flight */
    uint64_t runs_off; /* buffer for many runs, or 0 */
    uint64_t runs_bytes;
    void (*done)(struct reader *self);
};
/** Read [offset, offset + size) of `v` into the segment at `data_off`, then call
 *  r->done with r->error.  The range lies within the last sector of the volume. */
void reader_start(struct reader *r, struct volume *v, uint64_t offset, uint64_t size,
                  uint64_t data_off, void (*done)(struct reader *self));
void vol_serve_read(struct composer *c, struct volume *v, struct xseg_request *rq);
void vol_serve_mapr(struct composer *c, struct volume *v, struct xseg_request *rq);

/* ---- missing.c ----------------------------------------------------------------- */

/** A READ of stored data ended: say so if its object is missing or damaged.
 *  `offset`: where in the volume it was for [bytes]. */
void missing_tell(struct volume *v, const struct xseg_request *rq, uint64_t offset);

/* ---- mutate.c ------------------------------------------------------------------ */

/** Part of a mutation: whole sectors with one kind of new contents. */
struct piece {
    uint64_t offset, size;
    uint64_t data_off; /* 0: becomes ZERO */
};

/** A WRITE, ZERO or DISCARD in flight. */
struct mutation {
    struct waiter waiter;
    struct list link; /* volume's mutations, or free_ops */
    struct composer *c;
    struct volume *v;
    struct xseg_request *rq; /* client's; NULL for the composer's own */
    uint64_t offset, size;
    uint64_t data_off;   /* 0 for ZERO and DISCARD */
    bool durable;        /* FUA */
    uint64_t first, end; /* [bytes] whole sectors touched: the range it owns */
    uint32_t blockers;   /* earlier mutations that overlap */
    uint64_t edge_off;   /* two sectors, or 0 */
    struct piece pieces[3];
    uint32_t nr_pieces;
    uint32_t next; /* piece to send next in this phase */
    uint32_t pending;
    bool marking;   /* phase: data, then marks */
    bool refused;   /* the mapper had no room for a mark */
    uint64_t since; /* when a child first failed, 0: none did */
    int64_t error;
    uint64_t mark_generation;
    struct reader reader;
    struct flush_wait flush;
    void (*done)(struct mutation *self, int64_t result);
};
void vol_serve_mutate(struct composer *c, struct volume *v, struct xseg_request *rq);
/** Zero what lies in the last sector behind the end of a volume, durably.  Works on a
 *  frozen volume. */
void mutate_zero_tail(struct volume *v, void (*done)(void *arg, int64_t result),
                      void *arg);
/** Serve requests that waited for a free mutation. */
void mutate_resume_waiters(struct composer *c);

/* ---- barrier.c ----------------------------------------------------------------- */

void barrier_init(struct volume *v);
/** Make everything answered so far durable, then call w->flushed. */
void barrier_flush(struct volume *v, struct flush_wait *w);
/** Count a MAPW in and out of the generation it belongs to. */
uint64_t barrier_mark_begin(struct volume *v);
void barrier_mark_end(struct volume *v, uint64_t generation);
void vol_serve_flush(struct composer *c, struct volume *v, struct xseg_request *rq);

/* ---- relief.c ------------------------------------------------------------------ */

void relief_init(struct composer *c);
/** Flush what can be flushed, then resume `w`: there may be room for its marks. */
void relief_wait(struct composer *c, struct waiter *w);
/** A volume's `relief` has been flushed. */
void relief_flushed(struct flush_wait *w, int64_t result);

/* ---- again.c ------------------------------------------------------------------- */

void again_init(struct composer *c);
void again_fini(struct composer *c);
/** True if that result says that the peer died, stopped, or is not there. */
bool again_away(int64_t result);
/**
 * May what ended with *result be tried again?  If not because it took too long or the
 * volume is lost, *result becomes what to answer.  `since`: when it first failed.
 */
bool again_may(struct volume *v, int64_t *result, uint32_t dst, uint64_t *since);
/**
 * Keep a child that was answered and not served, and send it again.  False if there is no
 * reason to, or no time left: then rq->result is what to answer.
 */
bool again(struct volume *v, struct xseg_request *rq, uint32_t dst,
           reactor_reply_fn *done, void *arg, uint64_t *since);
/** Resume `w` after a pause. */
void again_wait(struct composer *c, struct waiter *w);
/** Something changed for those who wait: look at once. */
void again_soon(struct composer *c);

/* ---- revive.c ------------------------------------------------------------------ */

/** Ask CONTROL for the volume's map, unless that is under way. */
void revive(struct volume *v);
/** Revive each volume that was opened by an earlier CONTROL than the present one. */
void revive_all(struct composer *c);
/** The volume is lost: tell CONTROL. */
void revive_give_up(struct volume *v);
/** Resume `w` when what CONTROL is being asked by these two is over. */
void revive_wait(struct volume *v, struct waiter *w);

/* ---- lease.c ------------------------------------------------------------------- */

/** True if the volume's lease may not be counted on any more. */
bool lease_overdue(const struct volume *v);
/** An answer to OPEN says until when leases may be counted on; 0: the volume needs none. */
void lease_extend(struct composer *c, uint64_t deadline_ns);
/** The lease is gone: answer -ESTALE from now on.  Frees nothing. */
void volume_lost(struct volume *v, const char *why);
/** ACQUIRE and RELEASE of a lease, from CONTROL. */
void lease_serve(struct composer *c, struct xseg_request *rq);

/* ---- removal.c ----------------------------------------------------------------- */

void removal_init(struct composer *c);
/** DELETE of a volume that is open: wait for its users, or cut them off. */
void removal_serve(struct composer *c, struct volume *v, struct xseg_request *rq);

/* ---- change.c ------------------------------------------------------------------ */

/**
 * Keep a request whose name is no open volume's, while CONTROL gives an open volume a new
 * name: it may be that one.  Then it is served again when the name is known.  False: serve
 * it now.
 */
bool change_may_name(struct composer *c, struct xseg_request *rq);
/** Have CONTROL remove `v`, or say why not. */
void change_remove(struct composer *c, struct volume *v, struct xseg_request *rq);

void vol_serve_change(struct composer *c, struct xseg_request *rq);

/** Name of a request: checked length, or -EINVAL. */
int request_name(const struct xseg_request *rq, uint8_t *len);
/** The child carries the client's name, arguments and data. */
void request_lend(struct xseg_request *child, const struct xseg_request *rq);
/** The client gets the child's inline record and answer. */
void request_answer(struct xseg_request *rq, const struct xseg_request *child);

#endif
