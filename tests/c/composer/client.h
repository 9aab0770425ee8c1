/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a composer over a fake store, all on one reactor: requests one at a time,
 * and many at once against a model of what the volume must contain.
 */
#ifndef TESTS_COMPOSER_CLIENT_H
#define TESTS_COMPOSER_CLIENT_H

#include "check.h"
#include "composer/composer.h"
#include "fake_store.h"

#define S     XSEG_SECTOR_BYTES
#define DEPTH 24u

/** One client request in flight, and what it may do to the model. */
struct client_op {
    struct client *client;
    uint64_t buffer;
    uint32_t op;
    uint64_t offset, size;
    uint64_t started; /* clock */
    bool busy;
    int64_t result;
};

struct client {
    struct reactor *reactor;
    struct xseg_segment *seg;
    struct xseg_port *port;
    struct fake_store *store;
    struct peer *composer;
    uint64_t rng;
    uint64_t handle;
    struct client_op ops[DEPTH];
    uint32_t nr_busy, nr_sent, nr_ended;
    uint8_t model[FAKE_BYTES]; /* last acknowledged contents */
    uint64_t clock;            /* goes up with every request sent or ended */
    uint64_t
        mutated_at[FAKE_SECTORS]; /* when its last mutation ended; MAX: in flight */
    uint8_t view[FAKE_BYTES];
    uint32_t nr_ops; /* of one run of random work */
    bool stopped;
};

/** A segment, a store, a composer and a client; "v" is open. */
void client_start(struct client *c, struct fake_store *f,
                  const struct composer_options *options);
/** Ends all of them, and checks that nothing is left.  The composer is stopped before. */
void client_end(struct client *c);

/** Stop the composer, and run until it has. */
void client_stop_composer(struct client *c);
/** Begin to; c->stopped says when it has. */
void client_begin_stop(struct client *c);

struct xseg_request *new_request(struct client *c, uint32_t op);
/** Send and run the loop until the answer; the caller frees. */
int64_t call(struct client *c, struct xseg_request *rq);
int64_t call_simple(struct client *c, uint32_t op, uint64_t offset, uint64_t size,
                    uint32_t flags);
int64_t call_named(struct client *c, uint32_t op, uint32_t flags, uint64_t *handle);

/** Send without waiting, with the buffer of op `i`. */
void send_async(struct client *c, uint32_t i, uint32_t op, uint64_t offset,
                uint64_t size);
/** The same with a filled request. */
void submit_async(struct client *c, uint32_t i, struct xseg_request *rq);
/** Run until op `i` is answered. */
int64_t await(struct client *c, uint32_t i);
/** Run `turns` turns of the loop. */
void client_run(struct client *c, uint32_t turns);

/** Random requests at depth; all that is answered must agree with the model. */
void test_random_work_matches_the_model(struct client *c);

#endif
