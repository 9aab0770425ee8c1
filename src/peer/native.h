/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native peers of one process: which roles run here, on which reactor.
 */
#ifndef PEER_NATIVE_H
#define PEER_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

struct native;

/** Roles, as bits.  `together` passes all of them to one process. */
enum native_role {
    NATIVE_BLOCKERB = 1u << 0,
    NATIVE_BLOCKERM = 1u << 1,
    NATIVE_MAPPERD = 1u << 2,
    NATIVE_VLMCD = 1u << 3,
    NATIVE_NBD = 1u << 4,  /* with VLMCD */
    NATIVE_FUSE = 1u << 5, /* with VLMCD */
};

struct native_options {
    const char *segment;   /* name of an existing segment */
    uint32_t roles;        /* enum native_role */
    const char *backend;   /* "file" or "mem" */
    const char *data_path; /* root of blockerb */
    const char *maps_path; /* root of blockerm */
    const char *engine;    /* "auto", "io_uring", "threads" */
    bool direct;           /* O_DIRECT */
    double io_timeout;     /* [s] until an io of a store fails; 0: the default */
    const int *listen_fds; /* NBD */
    uint32_t nr_listen_fds;
    int attach_fd;      /* FUSE: listening socket for mounts; -1 without the role */
    int marks_fd;       /* MAPPERD: memfd of the mark log, needed only during the call;
                           -1: none, marks that are not flushed end with this process */
    uint32_t log_level; /* 0 error, 1 warning, 2 info, 3 debug; to stderr */
};

/**
 * Join the segment, make the reactor and its peers, in the order of enum native_role.
 *
 * @param options  needed only during the call; the listening sockets stay the caller's,
 *                 open until native_destroy.
 * @param out      the host, to be freed with native_destroy; NULL on failure.
 * @param why      out: NULL, or on failure one line that says what is wrong; valid
 *                 until the thread's next call.
 * Returns 0, -EINVAL for an option (named in *why), or the error of what could not
 * be made; nothing is left over then.
 * Thread-safety: one host belongs to one thread, but for native_stop.
 */
int native_create(const struct native_options *options, struct native **out,
                  const char **why);

/**
 * Serve until native_stop, then stop the peers, last first, each after it has drained.
 * Returns 0, or -errno if the loop itself failed.  Blocks; calls no Python.
 */
int native_run(struct native *n);

/** Ask native_run to end.  Any thread; safe in a signal handler. */
void native_stop(struct native *n);

/**
 * Stop the endpoint and the composer, in good order, and keep the others serving: their
 * volumes are closed through the control half, which afterwards still needs mapper and
 * blockers.  Returns when they have stopped.  Any thread but that of native_run; not in
 * a signal handler.  Blocks.
 */
void native_retire(struct native *n);

/** Free a host that does not run. */
void native_destroy(struct native *n);

/** "io_uring" or "threads": what an engine of "auto" comes to on this machine. */
const char *native_default_engine(void);

#endif
