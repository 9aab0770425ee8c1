/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of a northbound end: what serves volumes to clients outside the segment.
 *
 * There are two kinds of endpoints.  One listens: its clients come with the name of a
 * volume (NBD).  The other attaches: it is told which volume to serve (a block device).
 * Both stand on src/client and follow the same rules, which tests/c/endpoint/conformance
 * shows for each of them:
 *
 *  - A request is answered when the next read sees it; FLUSH and FUA make it durable.
 *  - Any offset and length that the client's protocol allows are served.
 *  - A snapshot is served read-only, and a change of it is refused.
 *  - A client's bytes are checked before use; a bad request harms no other client.
 *  - A client that does not take its replies delays only itself.
 *  - When vlmcd dies, requests wait and are served by the next one (src/client/volume.h).
 *  - stop() ends in bounded time whatever clients do, and leaves nothing open.
 *
 * Everything here is called on the reactor's thread.
 */
#ifndef ENDPOINT_ENDPOINT_H
#define ENDPOINT_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "reactor/reactor.h"

/** What an endpoint offers to its clients.  False: clients get an error for it. */
struct endpoint_capabilities {
    bool listens; /* serves listening sockets */
    bool attaches;
    bool flush;
    bool fua;
    bool discard;
    bool zero;
    bool block_status;       /* tells holes from data */
    bool read_only;          /* can serve a volume without its lease */
    bool resize;             /* clients learn a new size without opening again */
    uint32_t align_bytes;    /* of offsets and lengths; 1: any */
    uint32_t max_read_bytes; /* of one READ or WRITE; 0: no limit */
};

struct endpoint_options {
    const int *listen_fds; /* listening, non-blocking; owned by the caller, kept open */
    uint32_t nr_listen_fds;
    uint32_t max_clients;  /* 0: as many as the limit of descriptors leaves room for */
    uint32_t handshake_ms; /* a handshake that takes longer ends; 0: the default */
};

/** Counted since the endpoint was made, but for the first two. */
struct endpoint_statistics {
    uint64_t clients;     /* connected now */
    uint64_t handshakes;  /* of them: not yet done with the handshake */
    uint64_t accepted;    /* clients that came */
    uint64_t refused;     /* turned away: no place or no descriptor was free */
    uint64_t overtaken;   /* handshakes closed to make place for a newer client */
    uint64_t timed_out;   /* handshakes that took too long */
    uint64_t max_clients; /* the limit in force */
};

struct endpoint;

/** Called once: 0 and the device's name (valid during the call), or -errno and a text. */
typedef void endpoint_attached_fn(void *arg, int64_t result, const char *text);

/** What one kind of endpoint is. */
struct endpoint_kind {
    const char *name; /* "nbd" */
    struct endpoint_capabilities can;

    /**
     * Make one, serving.
     *
     * @param options  needed only during the call, but for the sockets.
     * @param out      peer.stop and peer.destroy end it (reactor.h); NULL on failure.
     * @param why      out: on failure what is wrong, static text.
     * Returns 0, or -errno; nothing is left over then.
     */
    int (*create)(struct reactor *r, const struct endpoint_options *options,
                  struct endpoint **out, const char **why);

    void (*statistics)(const struct endpoint *self, struct endpoint_statistics *out);

    /** Serve a volume as a device; NULL unless can.attaches.  0, or -errno at once. */
    int (*attach)(struct endpoint *self, const void *name, uint8_t name_len,
                  bool read_only, endpoint_attached_fn *done, void *arg);
    /** Take the device away once what is under way has ended. */
    int (*detach)(struct endpoint *self, const void *name, uint8_t name_len,
                  endpoint_attached_fn *done, void *arg);
};

/** A running endpoint; embedded in the kind's own. */
struct endpoint {
    struct peer peer; /* first: handed out as this */
    const struct endpoint_kind *kind;
};

/** The kind of that name, or NULL. */
const struct endpoint_kind *endpoint_kind(const char *name);

#endif
