/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blocker in a thread of its own and a client that asks it through the segment: what
 * every test of a backend stands on.
 */
#ifndef TESTS_BLOCKER_CLIENT_H
#define TESTS_BLOCKER_CLIENT_H

#include <pthread.h>
#include <stdbool.h>

#include "blocker/blocker.h"
#include "blocker/object.h"
#include "check.h"

#define SECTOR 4096u

/** A running blockerb or blockerm over its own segment. */
struct server {
    struct xseg_segment *seg;
    struct reactor *reactor;
    struct peer *peers[2];  /* blockerb, blockerm */
    struct xseg_port *port; /* the client's */
    pthread_t thread;
    struct reactor_task stop_task;
    int nr_stopping;
    uint64_t buf; /* one 4 MiB heap buffer */
    uint8_t *data;
    struct xseg_request *early[64]; /* replies that came while another was awaited */
    uint32_t nr_early;
    struct xseg_request *notify; /* NOTIFY that waits; server_stop sees it cancelled */
};

struct setup {
    const char *backend;
    const char *engine;
    bool direct;
    uint64_t timeout_ns; /* 0: the default */
    char path[256];      /* root of both stores: data/ and maps/ below */
};

/** Start both blockers; aborts the test if that fails. */
void server_start(struct server *s, const struct setup *setup);
/** Orderly end: drain, flush, close. */
void server_stop(struct server *s);

/** A request in the making, zeroed; its data is the server's buffer. */
struct xseg_request *ask(struct server *s, uint32_t op,
                         const struct xseg_object *object);
/** Send it, wait, return its result; *reply is the caller's to free if not NULL. */
int64_t answer_of(struct server *s, struct xseg_request *rq,
                  struct xseg_request *reply);

/** Send it, without waiting. */
void send_only(struct server *s, struct xseg_request *rq);
/** Wait for the reply; the request is the caller's again, to read and free. */
int64_t await(struct server *s, struct xseg_request *rq);

/* The ops, as calls. `data` is copied to and from the server's buffer. */
int64_t do_read(struct server *s, const struct xseg_object *o, uint64_t off, void *data,
                uint64_t size);
int64_t do_write(struct server *s, const struct xseg_object *o, uint64_t off,
                 const void *data, uint64_t size, uint32_t flags);
int64_t do_zero(struct server *s, const struct xseg_object *o, uint64_t off,
                uint64_t size);
int64_t do_release(struct server *s, const struct xseg_object *o, uint32_t flags);
/** A READ with flags. */
int64_t do_read_as(struct server *s, const struct xseg_object *o, uint64_t off,
                   void *data, uint64_t size, uint32_t flags);
/** Send a NOTIFY; s->notify waits. */
void start_notify(struct server *s);
/** Wait until s->notify is answered. */
int64_t await_notify(struct server *s, struct xseg_object *which,
                     struct xseg_lease *lease);
int64_t do_flush(struct server *s, const struct xseg_object *o);
int64_t do_create(struct server *s, const struct xseg_object *o, const void *data,
                  uint64_t size, uint32_t flags);
/** A CREATE and a DELETE with a generation. */
int64_t do_create_in(struct server *s, const struct xseg_object *o, const void *data,
                     uint64_t size, uint64_t generation);
int64_t do_delete_in(struct server *s, const struct xseg_object *o,
                     uint64_t generation);
/** CHANGES: the stamps of all headers. */
int64_t do_changes(struct server *s, uint64_t out[XSEG_NR_STAMPS]);
int64_t do_update(struct server *s, const struct xseg_object *o, uint64_t version,
                  const void *data, uint64_t size);
int64_t do_append(struct server *s, const struct xseg_object *o, uint64_t off,
                  uint64_t fence, const void *data, uint64_t size);
int64_t do_info(struct server *s, const struct xseg_object *o,
                struct xseg_object_info *info);
int64_t do_delete(struct server *s, const struct xseg_object *o);
int64_t do_delete_version(struct server *s, const struct xseg_object *o,
                          uint64_t version);
int64_t do_list(struct server *s, uint32_t kind, struct xseg_opaque *cursor,
                struct xseg_list_entry *out, uint64_t nr);
int64_t do_lease(struct server *s, uint32_t op, const struct xseg_object *o,
                 struct xseg_lease *lease, uint32_t flags);

int64_t do_presence(struct server *s, uint32_t op, const struct xseg_object *o,
                    struct xseg_presence *presence);

/* Names. */
struct xseg_object content_name(uint64_t n);
struct xseg_object header_name(uint64_t n);
struct xseg_object extent_name(uint64_t n, uint64_t epoch);
struct xseg_object layer_name(uint64_t n);
struct xseg_object journal_name(uint64_t n, uint64_t number);
struct xseg_object lease_name(uint64_t n);
struct xseg_object presence_name(uint64_t n);
extern const struct xseg_object whole_store;

/** A header body of `size` bytes with a proper prefix. */
void fill_header(void *out, uint64_t size, uint64_t version, uint64_t fence,
                 uint8_t fill);
/** A lease of instance `owner`, asked for by its run that has the same nonce. */
struct xseg_lease lease_of(const char *owner);
/** The presence of the instance `owner` that way. */
struct xseg_object presence_of_owner(const char *owner);
/** That run is there for an hour: its leases are held.  Its process is this one. */
void appear(struct server *s, const char *owner);
/** It is not there any more. */
void disappear(struct server *s, const char *owner);

/** The presence of an incarnation with that nonce, whose process is this one. */
struct xseg_presence presence_of(const char *nonce, uint64_t ttl_ns);

/** The engine of that name, or the end of the test as skipped. */
const char *engine_or_skip(const char *name);

/** A fresh directory for a store, below the working directory. */
void make_root(char out[256]);
void remove_root(const char *path);

#endif
