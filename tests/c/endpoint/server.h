/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoint and its fake neighbours on a reactor in a thread, and a raw client.
 */
#ifndef TESTS_NBD_SERVER_H
#define TESTS_NBD_SERVER_H

#include <pthread.h>

#include "check.h"
#include "endpoint/nbd/nbd.h"
#include "endpoint/nbd/proto.h"
#include "fake_vlmcd.h"

struct server {
    char segment[64];
    char path[64]; /* of the socket */
    int listen_fd;
    struct xseg_segment *seg;
    struct reactor *reactor;
    struct endpoint *endpoint;
    struct fake_vlmcd fake;
    pthread_t thread;
    struct reactor_fd kick; /* bytes in the pipe are what the thread is told */
    int pipe[2];
    bool stop_asked;
    struct endpoint_statistics statistics;
    atomic_uint nr_told;  /* how often they were copied */
    atomic_uint stopping; /* 1 once the endpoint's stop has begun */
};

struct server_options {
    uint64_t heap_bytes;
    uint32_t nr_requests;
    uint32_t max_clients;
    uint32_t handshake_ms;
};

/** Start; NULL takes defaults.  Fails the test if it cannot. */
void server_start(struct server *s, const struct server_options *options);
/** Stop in order; checks that nothing is left open, no buffer and no descriptor. */
void server_stop(struct server *s);
/** Begin to stop, without waiting for the end. */
void server_begin_stop(struct server *s);
/** The endpoint's statistics, taken on its thread. */
struct endpoint_statistics server_statistics(struct server *s);
/** Let the fake answer what it held back, last first. */
void server_release(struct server *s);

/* ---- a raw client: every call fails the test if the server does not behave --------
 */

int client_connect(struct server *s);
void client_send(int fd, const void *data, size_t len);
void client_recv(int fd, void *data, size_t len);
/** The server has closed the connection: nothing more can be read. */
void client_expect_eof(int fd);

/** Read the greeting and send the client flags. */
int client_greet(struct server *s, uint32_t flags);
void client_option(int fd, uint32_t option, const void *data, uint32_t len);
/** Read one option reply into data (at most room); returns its type. */
uint32_t client_reply(int fd, uint32_t option, void *data, uint32_t room,
                      uint32_t *len);
/** Send an option and expect a final reply of that type; returns fd. */
int client_expect(int fd, uint32_t option, const void *data, uint32_t len,
                  uint32_t type);

enum client_mode { CLIENT_SIMPLE, CLIENT_STRUCTURED, CLIENT_ALLOCATION };

/** Connect and GO; out-parameters may be NULL. */
int client_go(struct server *s, const char *name, enum client_mode mode, uint64_t *size,
              uint16_t *flags);

void client_request(int fd, uint16_t type, uint16_t flags, uint64_t cookie,
                    uint64_t offset, uint32_t length);
/** Read a simple reply; returns its error. */
uint32_t client_simple(int fd, uint64_t *cookie);

struct client_chunk {
    uint16_t flags, type;
    uint64_t cookie;
    uint32_t length;
};
/** Read the head of a chunk. */
struct client_chunk client_chunk(int fd);
/** Read a final error chunk; returns its error. */
uint32_t client_error_chunk(int fd, uint64_t cookie);

/** Send DISC and read to the end. */
/** Ask for the end, of a server that may have ended it already. */
void client_request_disc(int fd);
void client_disconnect(int fd);

/** One whole request with a simple reply and no data; returns the error. */
uint32_t client_do(int fd, uint16_t type, uint16_t flags, uint64_t offset,
                   uint32_t length);
/** The connection still works: a READ of the first sector answers. */
void client_check_alive(int fd, enum client_mode mode);

/** Wait (by yielding) until a counter has this value. */
void wait_until(atomic_uint *counter, unsigned value);

#endif
