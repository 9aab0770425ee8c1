/* SPDX-License-Identifier: Apache-2.0 */
/* One request to blockerm, and lists of those that wait for one. */
#ifndef MAPPER_IO_H
#define MAPPER_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "reactor/reactor.h"
#include "xseg/xseg.h"

struct mapper;

/** Something that waits for a page, a layer or a journal; rc < 0: it will not come. */
struct waiter {
    struct list link;
    void (*wake)(struct waiter *self, int rc);
};
/** Wake all that wait in a list.  They may wait anew, in it or elsewhere. */
void waiters_wake(struct list *waiters, int rc);

/** One request to blockerm, with a buffer of its own.  Embedded in who sends it. */
struct map_io {
    struct mapper *m;
    struct list link; /* in mapper.waiting: no descriptor, no buffer, or nobody there */
    uint32_t op;
    bool again; /* may be repeated: do so while the blocker is away */
    struct xseg_object object;
    uint64_t offset, size; /* READ, APPEND: a buffer of `size` is taken */
    uint64_t fence;        /* APPEND */
    void (*fill)(struct map_io *io, void *data); /* APPEND: writes the buffer */
    /* -EIO in io->result also means that blockerm stayed away for too long */
    void (*done)(struct map_io *io);
    uint64_t give_up_ns;
    uint64_t buffer_off;
    int64_t result;
    struct xseg_object_info info; /* INFO */
};

/** Send it.  `done` is called once, never before this returns. */
void map_io_start(struct mapper *m, struct map_io *io);
/** The bytes that a READ brought, io->result of them; until map_io_end. */
const void *map_io_data(const struct map_io *io);
/** Give the buffer back. */
void map_io_end(struct map_io *io);
/** True for results that say nothing about the object: its peer died or is not there.
 */
bool map_io_is_away(int64_t result);
/** Timer: try again what waits for a descriptor, a buffer or the blocker. */
void map_io_retry(struct reactor_timer *timer);

#endif
