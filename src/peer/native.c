/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native peers of one process (see native.h).
 *
 * native_create and native_run belong to one thread, which is the reactor's; only
 * native_stop and native_retire may be called from elsewhere.  Invariants:
 * peers[0..nr_peers) are made and not yet destroyed, in the order of `roles`; the first
 * nr_serving of them are not yet stopped.  Peers are stopped last first, one after the
 * other, because each may still need those before it to finish; none is destroyed
 * before all are stopped.
 */
#include "peer/native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "blocker/blocker.h"
#include "common/log.h"
#include "composer/composer.h"
#include "endpoint/endpoint.h"
#include "mapper/mapper.h"
#include "peer/options.h"
#include "reactor/reactor.h"

struct native {
    struct xseg_segment *seg;
    struct reactor *reactor;
    struct peer *peers[NATIVE_NR_ROLES];
    uint32_t nr_peers;
    uint32_t nr_serving;
    uint32_t nr_southbound; /* the first peers: they outlive native_retire */
    uint32_t keep;          /* peers that the drain under way leaves serving */
    atomic_bool stop;       /* native_stop was called */
    pthread_mutex_t lock;   /* guards the three below */
    pthread_cond_t changed;
    bool running;
    bool retire;  /* native_retire was called */
    bool retired; /* northbound peers have stopped, or never will */
};

/* ---- making the peers ------------------------------------------------------------ */

static int create_blocker(struct reactor *r, const struct native_options *options,
                          uint32_t port, const char *path, struct peer **out,
                          const char **why)
{
    const struct blocker_options blocker = {
        .port = port,
        .backend = options->backend,
        .store = {.path = path,
                  .engine = options->engine,
                  .direct = options->direct,
                  .timeout_ns = (uint64_t)(options->io_timeout * 1e9)},
    };

    return blocker_create(r, &blocker, out, why);
}

static int create_blockerb(struct reactor *r, const struct native_options *options,
                           struct peer **out, const char **why)
{
    return create_blocker(r, options, XSEG_PORT_BLOCKERB, options->data_path, out, why);
}

static int create_blockerm(struct reactor *r, const struct native_options *options,
                           struct peer **out, const char **why)
{
    return create_blocker(r, options, XSEG_PORT_BLOCKERM, options->maps_path, out, why);
}

static int create_mapperd(struct reactor *r, const struct native_options *options,
                          struct peer **out, const char **why)
{
    const struct mapper_options mapper = {.marks_fd = options->marks_fd};

    return mapper_create(r, &mapper, out, why);
}

static int create_vlmcd(struct reactor *r, const struct native_options *options,
                        struct peer **out, const char **why)
{
    (void)options;
    return composer_create(r, &(struct composer_options){0}, out, why);
}

static int create_endpoint(struct reactor *r, const char *kind, const int *listen_fds,
                           uint32_t nr_listen_fds, struct peer **out, const char **why)
{
    const struct endpoint_options options = {.listen_fds = listen_fds,
                                             .nr_listen_fds = nr_listen_fds};
    struct endpoint *endpoint;
    int rc = endpoint_kind(kind)->create(r, &options, &endpoint, why);

    *out = rc ? NULL : &endpoint->peer;
    return rc;
}

static int create_nbd(struct reactor *r, const struct native_options *options,
                      struct peer **out, const char **why)
{
    return create_endpoint(r, "nbd", options->listen_fds, options->nr_listen_fds, out,
                           why);
}

static int create_fuse(struct reactor *r, const struct native_options *options,
                       struct peer **out, const char **why)
{
    return create_endpoint(r, "fuse", &options->attach_fd, 1, out, why);
}

/** In the order in which they start: each needs only those above it. */
static const struct {
    enum native_role bit;
    const char *name;
    int (*create)(struct reactor *r, const struct native_options *options,
                  struct peer **out, const char **why);
} roles[NATIVE_NR_ROLES] = {
    {NATIVE_BLOCKERB, "blockerb", create_blockerb},
    {NATIVE_BLOCKERM, "blockerm", create_blockerm},
    {NATIVE_MAPPERD, "mapperd", create_mapperd},
    {NATIVE_VLMCD, "vlmcd", create_vlmcd},
    {NATIVE_NBD, "nbd", create_nbd},
    {NATIVE_FUSE, "fuse", create_fuse},
};

static int create_peers(struct native *n, const struct native_options *options,
                        const char **why)
{
    for (size_t i = 0; i < NATIVE_NR_ROLES; i++) {
        const char *reason = NULL;
        struct peer *peer;
        int rc;

        if (!(options->roles & roles[i].bit))
            continue;
        rc = roles[i].create(n->reactor, options, &peer, &reason);
        if (rc) {
            *why = native_reason("cannot start %s: %s", roles[i].name,
                                 reason ? reason : strerror(-rc));
            return rc;
        }
        n->peers[n->nr_peers++] = peer;
        n->nr_serving = n->nr_peers;
        if (!(roles[i].bit & (NATIVE_VLMCD | NATIVE_NBD | NATIVE_FUSE)))
            n->nr_southbound = n->nr_peers;
        log_line(LOG_INFO, "native", "%s is ready", roles[i].name);
    }
    return 0;
}

/** Blockers keep a budget of open files: let it be as large as the system allows. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_line(LOG_WARNING, "native", "the limit of open files stays at %llu: %s",
                 (unsigned long long)before, strerror(errno));
}

int native_create(const struct native_options *options, struct native **out,
                  const char **why)
{
    struct native *n;
    int rc;

    *out = NULL;
    *why = NULL;
    rc = native_options_check(options, why);
    if (rc)
        return rc;
    log_set_level((enum log_level)options->log_level);
    raise_descriptor_limit();
    n = calloc(1, sizeof *n);
    if (!n) {
        *why = "not enough memory";
        return -ENOMEM;
    }
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->changed, NULL);
    rc = xseg_segment_attach(options->segment, &n->seg);
    if (rc) {
        *why = native_reason("cannot join segment '%s': %s", options->segment,
                             strerror(-rc));
        goto fail;
    }
    rc = reactor_create(n->seg, NULL, &n->reactor);
    if (rc) {
        *why = native_reason("cannot make a reactor: %s", strerror(-rc));
        goto fail;
    }
    rc = create_peers(n, options, why);
    if (rc)
        goto fail;
    *out = n;
    return 0;

fail:
    native_destroy(n);
    return rc;
}

/* ---- running and stopping ----------------------------------------------------------
 */

/** Stop the last peer that serves; as `stopped` callback: the one before it. */
static void stop_last(struct native *n);

static void on_peer_stopped(void *arg)
{
    struct native *n = arg;

    n->nr_serving--;
    stop_last(n);
}

static void stop_last(struct native *n)
{
    struct peer *peer;

    if (n->nr_serving <= n->keep) {
        reactor_stop(n->reactor);
        return;
    }
    peer = n->peers[n->nr_serving - 1];
    log_line(LOG_DEBUG, "native", "stopping %s", peer->role);
    peer->stop(peer, on_peer_stopped, n);
}

/** Stop all peers but the first `keep`.  A native_stop meanwhile does not cut it short.
 */
static int drain(struct native *n, uint32_t keep)
{
    int rc = 0;

    if (n->nr_serving <= keep)
        return 0;
    n->keep = keep;
    for (uint32_t i = keep; i < n->nr_serving; i++)
        if (n->peers[i]->hurry)
            n->peers[i]->hurry(n->peers[i]);
    stop_last(n);
    do
        rc = reactor_run(n->reactor);
    while (rc == 0 && n->nr_serving > keep);
    return rc;
}

static bool retire_asked(struct native *n)
{
    pthread_mutex_lock(&n->lock);
    bool asked = n->retire && !n->retired;
    pthread_mutex_unlock(&n->lock);
    return asked;
}

/** Tell those that wait in native_retire. */
static void set_retired(struct native *n, bool running)
{
    pthread_mutex_lock(&n->lock);
    n->retired = true;
    n->running = running;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
}

/**
 * Keep SIGPIPE from this thread: a client that hangs up is an error number, not the end
 * of the process.  `before` gets the mask to put back.
 */
static void block_sigpipe(sigset_t *before)
{
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, before);
}

static void restore_sigpipe(const sigset_t *before)
{
    const struct timespec at_once = {0};
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    if (!sigismember(before, SIGPIPE))
        while (sigtimedwait(&pipe, NULL, &at_once) == SIGPIPE)
            continue; /* those that came meanwhile were ours */
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/** Serve until native_stop; what native_retire asks for comes in between. */
static int serve(struct native *n)
{
    int rc;

    do {
        rc = reactor_run(n->reactor);
        if (rc == 0 && retire_asked(n)) {
            rc = drain(n, n->nr_southbound);
            set_retired(n, true);
        }
    } while (rc == 0 && !atomic_load(&n->stop));
    return rc;
}

int native_run(struct native *n)
{
    sigset_t before;
    int rc = 0;

    block_sigpipe(&before);
    pthread_mutex_lock(&n->lock);
    n->running = true;
    pthread_mutex_unlock(&n->lock);
    if (!atomic_load(&n->stop))
        rc = serve(n);
    if (rc == 0)
        rc = drain(n, 0);
    set_retired(n, false);
    restore_sigpipe(&before);
    if (rc)
        log_line(LOG_ERROR, "native", "the loop failed: %s", strerror(-rc));
    return rc;
}

void native_stop(struct native *n)
{
    atomic_store(&n->stop, true);
    reactor_stop(n->reactor);
}

void native_retire(struct native *n)
{
    pthread_mutex_lock(&n->lock);
    n->retire = true;
    reactor_stop(n->reactor);
    while (n->running && !n->retired)
        pthread_cond_wait(&n->changed, &n->lock);
    pthread_mutex_unlock(&n->lock);
}

void native_destroy(struct native *n)
{
    if (!n)
        return;
    if (n->nr_serving > 0) {
        /* made and never run: what they began on creation must end too */
        sigset_t before;

        block_sigpipe(&before);
        drain(n, 0);
        restore_sigpipe(&before);
    }
    while (n->nr_peers > 0) {
        struct peer *peer = n->peers[--n->nr_peers];
        peer->destroy(peer);
    }
    reactor_destroy(n->reactor);
    if (n->seg)
        xseg_segment_detach(n->seg);
    pthread_cond_destroy(&n->changed);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

const char *native_default_engine(void)
{
    return blk_default_engine();
}
