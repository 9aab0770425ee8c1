/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports come and go under load, in threads: bind, unbind, submit, complete and reap
 * race.
 *
 * Clients unbind with requests on their way, servers with requests accepted.  Every
 * call must give one of its documented answers, every request of a client that stays
 * must be answered, and in the end nothing is leaked.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "fixture.h"
#include "xseg/atomics.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define NR_BINDS 300u
#else
#define NR_BINDS 3000u
#endif
#define NR_SERVERS 2
#define NR_CLIENTS 3

static struct xseg_segment *seg;
static uint32_t stop;
static const uint32_t servers[NR_SERVERS] = {XSEG_PORT_BLOCKERB, XSEG_PORT_VLMCD};

static void *serve(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    while (!load32_acquire(&stop)) {
        struct xseg_port *port = port_new(seg, servers[seed % 2], "server");
        struct xseg_request *held[3];
        int nr_held = 0;
        for (uint64_t turns = check_next(&seed) % 200; turns > 0; turns--) {
            if (nr_held < 3 && (held[nr_held] = xseg_port_accept(port)))
                nr_held++;
            if (nr_held > 0 && check_next(&seed) % 3 == 0) {
                struct xseg_request *rq = held[--nr_held];
                int rc = xseg_request_complete(port, rq, (int64_t)rq->offset);
                CHECK(rc == 0 || rc == -EPIPE);
            }
            if (turns % 16 == 0)
                sched_yield();
        }
        xseg_port_unbind(port); /* what it holds is answered with -EPIPE */
        seed = (seed & ~UINT64_C(1)) | ((uint64_t)(uintptr_t)arg & 1);
    }
    return NULL;
}

static void check_answer(struct xseg_port *port, struct xseg_request *rq)
{
    CHECK(rq->result == (int64_t)rq->offset || rq->result == -EPIPE);
    CHECK_EQ(rq->src_port, xseg_port_id(port));
    xseg_request_free(port, rq);
}

static void *ask(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    for (uint32_t bind = 0; bind < NR_BINDS; bind++) {
        struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "client");
        struct xseg_request *rq;
        uint32_t nr_sent = 0;
        for (uint64_t turns = check_next(&seed) % 50; turns > 0; turns--) {
            if (xseg_request_alloc(port, &rq) == 0) {
                rq->offset = check_next(&seed) >> 1;
                int rc = xseg_request_submit(port, rq, servers[seed % 2]);
                CHECK(rc == 0 || rc == -EPIPE);
                if (rc == 0)
                    nr_sent++;
                else
                    xseg_request_free(port, rq);
            }
            while ((rq = xseg_port_reap(port))) {
                check_answer(port, rq);
                nr_sent--;
            }
        }
        /* One in two stays until all is answered; a lost answer would hang here. */
        while (bind % 2 && nr_sent > 0) {
            CHECK_EQ(xseg_port_wait(port, UINT64_MAX), 0);
            while ((rq = xseg_port_reap(port))) {
                check_answer(port, rq);
                nr_sent--;
            }
        }
        xseg_port_unbind(port);
    }
    return NULL;
}

static void *reap(void *arg)
{
    struct xseg_reap_result reaped;
    (void)arg;
    while (!load32_acquire(&stop)) {
        CHECK_EQ(xseg_reap(seg, &reaped), 0);
        CHECK_EQ(reaped.ports + reaped.requests + reaped.buffers, 0);
        sched_yield();
    }
    return NULL;
}

int main(void)
{
    uint64_t seed = check_seed();
    pthread_t threads[NR_SERVERS], clients[NR_CLIENTS], reaper;
    seg = segment_new(&small_segment);
    for (uint64_t i = 0; i < NR_SERVERS; i++) {
        uint64_t own = (check_next(&seed) & ~UINT64_C(1)) | i;
        CHECK_EQ(pthread_create(&threads[i], NULL, serve, (void *)(uintptr_t)own), 0);
    }
    for (int i = 0; i < NR_CLIENTS; i++) {
        uint64_t own = check_next(&seed);
        CHECK_EQ(pthread_create(&clients[i], NULL, ask, (void *)(uintptr_t)own), 0);
    }
    CHECK_EQ(pthread_create(&reaper, NULL, reap, NULL), 0);
    for (int i = 0; i < NR_CLIENTS; i++)
        CHECK_EQ(pthread_join(clients[i], NULL), 0);
    store32_release(&stop, 1);
    for (int i = 0; i < NR_SERVERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(pthread_join(reaper, NULL), 0);
    segment_end(seg);
    return 0;
}
