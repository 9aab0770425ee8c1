/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One northbound end as a client of vlmcd: its port, and the limits of what all its
 * volumes together have in flight.
 *
 * A client belongs to one reactor and is used on that reactor's thread only.  Its owner
 * (an endpoint) embeds it, and has one `struct client_volume` (volume.h) for each use of
 * a volume.
 *
 * Limits.  All volumes of a client together use at most half of the heap and a quarter
 * of the descriptors.  Each open volume has a fair share of that, at most an eighth of
 * the heap.  A volume that holds nothing may always take one small buffer and two
 * descriptors, so that each makes progress whatever the others hold.  What is refused
 * waits: client_wait.
 */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "reactor/reactor.h"
#include "xseg/xseg.h"

/** Largest piece of a transfer [bytes]: large enough to pipeline, small enough to share.
 */
#define CLIENT_PIECE_BYTES (1u << 20)
/** Most descriptors of one volume in flight. */
#define CLIENT_MAX_REQUESTS 256u

/** Waits for memory or descriptors.  Embedded in what waits. */
struct client_waiter {
    struct list link;
    void (*resume)(struct client_waiter *self);
};

struct client {
    struct reactor *reactor;
    struct xseg_segment *segment;
    struct xseg_port *port;

    /* limits */
    uint64_t budget_bytes; /* for all volumes */
    uint64_t max_share_bytes;
    uint64_t used_bytes;
    uint32_t min_piece_bytes; /* what each volume gets in any case */
    uint32_t max_requests;    /* descriptors for all volumes */
    uint32_t nr_requests;     /* in use */
    uint32_t nr_sharers;      /* open volumes */
    uint32_t nr_lists;        /* pages of lists under way */
    uint32_t nr_notices;      /* of volumes that are left, without an answer */
    uint64_t zero_off;        /* buffer of CLIENT_PIECE_BYTES zeros, 0 until needed */

    /* what waits for any of it, in order of arrival */
    struct list waiting;
    struct reactor_task turn;
    bool turn_armed;
    struct reactor_timer retry; /* looks for memory that other processes gave back */
};

/**
 * Bind a port and prepare the limits.
 *
 * @param port         number of the port to bind.
 * @param name         of the port, for people; static.
 * @param max_volumes  most volumes open at once: sizes the smallest share.
 * @param why          out: what failed, static text.
 * Returns 0; -EBUSY if the port is taken; -ENOBUFS, -ENOMEM.  Undone by client_fini.
 */
int client_init(struct client *client, struct reactor *r, uint32_t port,
                const char *name, uint32_t max_volumes, const char **why);

/** Every volume is closed, nothing waits, client_idle is true. */
void client_fini(struct client *client);

/** True if no callback of the client itself is due and no list is under way: it may be
 *  freed. */
bool client_idle(const struct client *client);

/** Resume `w` once, when memory or a descriptor may be there.  Twice is harmless. */
void client_wait(struct client *client, struct client_waiter *w);
static inline void client_wait_cancel(struct client_waiter *w)
{
    list_remove(&w->link);
}

/** Something was given back: what waits tries again on the next turn. */
void client_wake(struct client *client);

/** Segment offset of CLIENT_PIECE_BYTES zeros; 0 when memory is short.  They belong to
 *  the client and are only ever read. */
uint64_t client_zeros(struct client *client);

/**
 * True if vlmcd or control, or a peer that it needs, is ending or has died.  The same may
 * be asked again soon.
 */
static inline bool client_is_away(int64_t result)
{
    return result == -EPIPE || result == -EOWNERDEAD || result == -ECANCELED;
}

#endif
