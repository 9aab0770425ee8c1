/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blockerm that keeps objects in memory, answers late and out of order, and fails on
 * request.  Lives on the reactor of the peer under test.
 */
#ifndef TESTS_MAPPER_FAKE_BLOCKER_H
#define TESTS_MAPPER_FAKE_BLOCKER_H

#include <stdbool.h>

#include "common/list.h"
#include "reactor/reactor.h"

struct fake_object {
    struct list link;
    struct xseg_object name;
    uint8_t *bytes;
    size_t size;
};

/** The next `op` after `skip` others of its kind goes wrong. */
struct fake_fault {
    bool armed;
    bool compare; /* an APPEND of nothing; otherwise those of something */
    uint32_t op;
    uint32_t skip;
    int result;     /* what it answers */
    uint64_t apply; /* bytes of an APPEND that are stored all the same */
};

struct fake_blocker {
    struct reactor *reactor;
    struct xseg_port *port;
    struct list objects;
    struct xseg_request *queue[4096]; /* accepted, not answered */
    uint32_t nr_queued;
    bool paused;     /* answers nothing */
    bool in_order;   /* answers at once, in order of arrival */
    bool task_armed; /* the task runs on the next turn */
    struct reactor_task task;
    uint64_t random;
    uint64_t fence; /* of the lease: older appends are stale */
    struct fake_fault fault;
    uint64_t nr_ops[XSEG_NR_OPS]; /* served */
    uint64_t nr_compares;         /* APPENDs of nothing, not counted as such */
};

void fake_blocker_start(struct fake_blocker *fake, struct reactor *r, uint64_t seed);
/** Unbind its port; what is queued gets `result`: it died, or was stopped. */
void fake_blocker_die(struct fake_blocker *fake, int result);
/** Bind its port again. */
void fake_blocker_revive(struct fake_blocker *fake);
void fake_blocker_end(struct fake_blocker *fake);
void fake_blocker_resume(struct fake_blocker *fake);

struct fake_object *fake_find(struct fake_blocker *fake,
                              const struct xseg_object *name);
/** Store bytes at an offset, making the object. */
void fake_put(struct fake_blocker *fake, const struct xseg_object *name,
              uint64_t offset, const void *data, size_t len);
void fake_delete(struct fake_blocker *fake, const struct xseg_object *name);

struct xseg_object fake_layer_name(const uint8_t uuid[16]);
struct xseg_object fake_journal_name(const uint8_t uuid[16], uint64_t number);

#endif
