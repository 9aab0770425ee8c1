/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One use of a volume: open, requests, close.  What every northbound end stands on.
 *
 * Everything here belongs to the reactor's thread.  Calls return at once; what they
 * began ends in a callback.
 *
 *   client_volume_init
 *   client_volume_open ----> opened(0) or opened(-errno)
 *     client_io_begin, client_io_buffer, client_io_submit ----> io->done(result)
 *     ... client_io_end
 *   client_volume_close ---> closed()
 *
 * When vlmcd dies, requests that were under way wait, the volume is opened again, and
 * the same requests are sent again: the same bytes at the same place.  Nothing that was
 * answered is lost by that.  The one exception is another node that had the volume
 * meanwhile: then writes that were not flushed are gone, and the next FLUSH fails once
 * with -EIO to say so.
 */
#ifndef CLIENT_VOLUME_H
#define CLIENT_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "client/client.h"

/** How a volume is opened. */
enum client_open_mode {
    CLIENT_OPEN_WRITE,         /* takes the lease; a snapshot is refused (-EROFS) */
    CLIENT_OPEN_WRITE_OR_READ, /* the same; a snapshot is opened to be read */
    CLIENT_OPEN_READ,          /* takes no lease */
};

/** The life of a use.  volume.c has the table of what follows what. */
enum client_volume_state {
    CLIENT_VOLUME_CLOSED,    /* vlmcd knows nothing of it */
    CLIENT_VOLUME_OPENING,   /* vlmcd was asked, or soon will be */
    CLIENT_VOLUME_OPEN,      /* requests go to vlmcd */
    CLIENT_VOLUME_CHECKING,  /* a request was not served: does vlmcd still know us? */
    CLIENT_VOLUME_REOPENING, /* it does not: opening again; requests wait */
    CLIENT_VOLUME_LOST,      /* requests fail with `error`, until it is closed */
    CLIENT_VOLUME_CLOSING,   /* the last requests end, then vlmcd is told */
    CLIENT_VOLUME_NR_STATES,
};

struct client_volume {
    /* set by the owner before client_volume_open */
    void (*opened)(struct client_volume *self, int64_t result);
    /** Called once for each client_volume_close; the record may be freed in it. */
    void (*closed)(struct client_volume *self);

    char user[64];     /* names the user for people; empty: the port's name */
    uint32_t user_pid; /* 0: this process */

    /* for the owner to read in `opened`, if it failed: why, for people; empty: unknown */
    char reason[XSEG_INLINE_BYTES];

    /* for the owner to read, once it is open */
    uint64_t size_bytes;
    uint32_t block_bytes;
    bool snapshot;
    bool read_only; /* opened to be read, or a snapshot */

    /* the library's own */
    struct client *client;
    enum client_volume_state state;
    enum client_volume_state asked; /* the state that has a request under way; CLOSED:
                                       none has */
    enum client_open_mode mode;
    uint64_t handle; /* vlmcd's; 0: there is nothing to close */
    uint64_t number; /* of this open at vlmcd */
    uint8_t uuid[16];
    uint64_t fence;
    uint8_t name_len;
    uint8_t name[XSEG_NAME_MAX];
    struct reactor_timer timer;  /* asks again after a pause */
    struct client_waiter waiter; /* asks when a descriptor is free */
    uint64_t away_ns;            /* since when vlmcd has not served us; 0: it does */
    uint64_t pause_ns;
    int64_t error;         /* of LOST, and the one that led to CHECKING */
    uint64_t nr_changes;   /* answered and not durable by themselves */
    uint64_t nr_flushed;   /* how many of them a FLUSH has covered */
    bool doubtful;         /* another node had it: the next FLUSH fails */
    struct list unserved;  /* struct client_io: sent again once it is open */
    uint32_t nr_submitted; /* client_io without an answer, `unserved` included */
    uint32_t nr_requests;  /* descriptors in use */
    uint64_t used_bytes;   /* segment buffers in use */
};

/** A closed volume; `client` outlives it. */
void client_volume_init(struct client_volume *v, struct client *client);

/**
 * Open a volume by its name; `opened` is called later, never from in here.
 *
 * @param name  UTF-8, 1 to XSEG_NAME_MAX bytes; copied.
 * Ends in opened(0), or in opened(-errno) with the volume closed again: -ENOENT, -EBUSY
 * (in use elsewhere), -EROFS, or what vlmcd said.  While vlmcd is away it is asked again
 * for 30 s, then the answer is one of client_is_away.
 */
void client_volume_open(struct client_volume *v, const void *name, size_t len,
                        enum client_open_mode mode);

/**
 * Close it.  Requests that wait for vlmcd end with -ECANCELED at once, those at vlmcd
 * with their answer.  `closed` is called when nothing is left; from in here if nothing
 * was open.  In any state but CLOSED and CLOSING.
 */
void client_volume_close(struct client_volume *v);

/** It will be closed as soon as its requests have ended: a removal may wait for that. */
void client_volume_leave(struct client_volume *v);

static inline bool client_volume_is_open(const struct client_volume *v)
{
    return v->state >= CLIENT_VOLUME_OPEN && v->state <= CLIENT_VOLUME_LOST;
}

/* ---- requests (io.c) ---------------------------------------------------------------
 */

/** One request to vlmcd, with its descriptor and buffer.  Embedded in its user. */
struct client_io {
    struct client_volume *volume;
    struct list link;        /* volume->unserved */
    struct xseg_request *rq; /* NULL: without a descriptor */
    uint64_t buffer_off;     /* segment offset; 0: none */
    uint8_t *buffer;
    uint32_t capacity; /* [bytes] of the buffer */
    uint32_t op;       /* enum xseg_op */
    uint32_t flags;    /* enum xseg_flag */
    uint64_t offset;   /* [bytes] in the volume */
    uint64_t length;   /* [bytes] */
    uint64_t data_off; /* segment offset of what is lent, 0: nothing */
    uint64_t data_len; /* [bytes] lent */
    uint64_t changes;  /* FLUSH: those it covers */
    uint64_t handle; /* that it was sent with; 0: only to be answered with the error */
    void (*done)(struct client_io *self, int64_t result);
};

/**
 * Take a descriptor for a request of this volume.
 *
 * @param urgent  the user cannot go on without it: only exhaustion refuses.
 * Returns false when it has to wait (client_wait).  Balanced by client_io_end.
 */
bool client_io_begin(struct client_io *io, struct client_volume *v, bool urgent);

/**
 * Give it a buffer of up to `want` bytes, less when memory is short.
 *
 * @param offset  in the volume [bytes]: a shorter buffer ends at a sector's border.
 * Returns the length to use [bytes], 0 when it has to wait.
 */
uint32_t client_io_buffer(struct client_io *io, uint64_t offset, uint32_t want,
                          bool urgent);

/**
 * Send it: READ, WRITE, ZERO, DISCARD, FLUSH or MAPR (payload.h).
 *
 * `io->offset`, `length`, `data_off` and `data_len` say what; the data stays as it is
 * until `done`.  `done(io, result)` is called once, never from in here: the length for
 * READ, WRITE, ZERO and DISCARD, a number of runs for MAPR, or -errno.  The descriptor
 * is given back before `done`, the buffer stays.
 */
void client_io_submit(struct client_io *io, uint32_t op, uint32_t flags);

/** A descriptor for a request that was answered; false when it has to wait. */
bool client_io_again(struct client_io *io, bool urgent);

/** Give back what it still holds. */
void client_io_end(struct client_io *io);

/* Of volume.c, for io.c: the volume is open, or is lost. */
void client_io_send_unserved(struct client_volume *v);
/* Of volume.c, for io.c: end what waits with an error; then client_volume_settle. */
void client_io_fail_unserved(struct client_volume *v, int64_t error);
/* Of io.c, for volume.c: vlmcd did not serve a request. */
void client_volume_unserved(struct client_volume *v, int64_t result);
/* Of io.c, for volume.c: the last request of a volume that closes has ended. */
void client_volume_settle(struct client_volume *v);

#endif
