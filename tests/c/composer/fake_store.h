/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three peers a composer talks to, for one small volume, on the test's reactor.
 *
 * They answer late and out of order (by the seed), and watch the rules of
 * docs/design/0001-core.md: a mark arrives only for data that is written, and is
 * journaled only for data that is durable.  Breaking one ends the test.
 *
 * They can die: what they were asked is answered with a death, done or not, and their
 * ports are free for a while.  Marks outlive the mapper, as of generation 0, but its
 * handles do not: CONTROL opens the map under a new one.
 */
#ifndef TESTS_COMPOSER_FAKE_STORE_H
#define TESTS_COMPOSER_FAKE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "reactor/reactor.h"

#define FAKE_SECTORS 96u
#define FAKE_BYTES   (FAKE_SECTORS * XSEG_SECTOR_BYTES)

struct fake_store {
    struct reactor *reactor;
    uint64_t rng;
    struct xseg_port *blockerb, *mapperd, *control; /* NULL: dead */
    struct reactor_timer rebirth;
    bool stay_dead;                 /* nobody is started again */
    struct xseg_request *late[256]; /* accepted, not yet answered */
    uint32_t nr_late;
    struct reactor_task task;
    bool scheduled;

    char name; /* of the volume, one letter */
    uint64_t size_bytes;
    uint64_t epoch;
    uint64_t fence;
    uint64_t epochs_on;   /* how many epochs further than it is CONTROL says it is */
    uint64_t deadline_ns; /* as CONTROL says it with OPEN */
    uint64_t map_handle;
    bool mapped;                  /* the mapper knows the handle */
    uint32_t flags;               /* of the volume, enum xseg_volume_flag */
    uint8_t extent[FAKE_BYTES];   /* current extent, as written */
    uint8_t durable[FAKE_BYTES];  /* as of the last blockerb FLUSH */
    uint8_t flushing[FAKE_BYTES]; /* as of when the one that runs was asked for */
    bool safe_soon[FAKE_SECTORS], safe[FAKE_SECTORS]; /* written before those */
    uint8_t base[FAKE_BYTES];                         /* what lower layers provide */
    uint8_t mark[FAKE_SECTORS];                       /* 0 base, 1 extent, 2 zero */
    uint8_t journaled[FAKE_SECTORS];
    uint64_t mark_generation[FAKE_SECTORS];
    uint32_t writing[FAKE_SECTORS]; /* WRITEs or DISCARDs in flight */
    bool written[FAKE_SECTORS];     /* of this epoch's extent */

    /* faults and observations */
    int64_t fail_op[XSEG_NR_OPS]; /* -errno to answer that op with, once */
    uint32_t fail_dst;            /* only if it was sent to that port; 0: any */
    bool disowned;                /* CLOSE drops marks, as of a lease that is lost */
    bool deadly;                  /* peers die now and then */
    uint32_t mark_room;           /* marks that fit before a flush; 0: any number */
    uint32_t nr_deaths, nr_refused;
    uint32_t nr_ops[XSEG_NR_OPS];
    uint32_t nr_opens, nr_closes, nr_changes;
};

void fake_store_start(struct fake_store *f, struct reactor *r, uint64_t seed);
void fake_store_stop(struct fake_store *f);

/** True for the results by which the dead are known. */
static inline bool fake_store_away(int64_t result)
{
    return result == -EPIPE || result == -EOWNERDEAD || result == -ECANCELED;
}

/** Kill a peer (XSEG_PORT_MAPPERD: with control); it comes back soon. */
void fake_store_kill(struct fake_store *f, uint32_t port);
/** Start what is dead. */
void fake_store_rebirth(struct fake_store *f);

/** What a reader must see, and what a crash now would leave. */
void fake_store_view(const struct fake_store *f, uint8_t *out, bool after_crash);

#endif
