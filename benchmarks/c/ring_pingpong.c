/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Question: what does one request cost to carry, from alloc to free, without any work?
 *
 *   same thread       the floor: queues, states, free map; as peers of one reactor
 *   two threads       waking one another (spin, then futex), one request on its way
 *   two threads, 32   the same with 32 on their way: wake-ups are shared
 *   two processes     as two threads, with two mappings
 *
 * Each row is repeated after one warm-up; median and slowest of the repeats are printed
 * in nanoseconds for each request.  Usage: ring_pingpong [REQUESTS] (default 200000).
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "xseg/xseg.h"

#define NR_REPEATS 7

static char name[64];
static uint32_t nr_requests = 200000;

static void die(const char *what, int rc)
{
    fprintf(stderr, "%s: error %d\n", what, -rc);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static struct xseg_port *bind_or_die(struct xseg_segment *seg, uint32_t id)
{
    struct xseg_port *port;
    int rc = xseg_port_bind(seg, id, "bench", &port);
    if (rc < 0)
        die("bind", rc);
    return port;
}

/* Send one request, waiting for the server to appear. */
static void send_one(struct xseg_port *port)
{
    struct xseg_request *rq;
    int rc = xseg_request_alloc(port, &rq);
    if (rc < 0)
        die("alloc", rc);
    rq->op = XSEG_OP_PING;
    while ((rc = xseg_request_submit(port, rq, XSEG_PORT_BLOCKERB)) < 0)
        sched_yield();
}

static uint32_t serve_ready(struct xseg_port *port)
{
    struct xseg_request *rq;
    uint32_t nr = 0;
    while ((rq = xseg_port_accept(port))) {
        int rc = xseg_request_complete(port, rq, 0);
        if (rc < 0)
            die("complete", rc);
        nr++;
    }
    return nr;
}

static uint32_t reap_ready(struct xseg_port *port)
{
    struct xseg_request *rq;
    uint32_t nr = 0;
    while ((rq = xseg_port_reap(port))) {
        xseg_request_free(port, rq);
        nr++;
    }
    return nr;
}

static void serve_all(struct xseg_segment *seg)
{
    struct xseg_port *port = bind_or_die(seg, XSEG_PORT_BLOCKERB);
    for (uint32_t served = 0; served < nr_requests; served += serve_ready(port))
        xseg_port_wait(port, UINT64_MAX);
    xseg_port_unbind(port);
}

static void *serve_thread(void *arg)
{
    serve_all(arg);
    return NULL;
}

static uint64_t ask_all(struct xseg_segment *seg, uint32_t depth)
{
    struct xseg_port *port = bind_or_die(seg, XSEG_PORT_ANY);
    uint64_t start = now_ns();
    for (uint32_t sent = 0, done = 0; done < nr_requests; done += reap_ready(port)) {
        for (; sent < nr_requests && sent - done < depth; sent++)
            send_one(port);
        xseg_port_wait(port, UINT64_MAX);
    }
    uint64_t spent = now_ns() - start;
    xseg_port_unbind(port);
    return spent;
}

static uint64_t same_thread(struct xseg_segment *seg)
{
    struct xseg_port *server = bind_or_die(seg, XSEG_PORT_BLOCKERB);
    struct xseg_port *client = bind_or_die(seg, XSEG_PORT_ANY);
    uint64_t start = now_ns();
    for (uint32_t i = 0; i < nr_requests; i++) {
        send_one(client);
        serve_ready(server);
        reap_ready(client);
    }
    uint64_t spent = now_ns() - start;
    xseg_port_unbind(client);
    xseg_port_unbind(server);
    return spent;
}

static uint64_t threads(struct xseg_segment *seg, uint32_t depth)
{
    pthread_t server;
    int rc = pthread_create(&server, NULL, serve_thread, seg);
    if (rc != 0)
        die("pthread_create", -rc);
    uint64_t spent = ask_all(seg, depth);
    pthread_join(server, NULL);
    return spent;
}

static uint64_t two_threads(struct xseg_segment *seg)
{
    return threads(seg, 1);
}

static uint64_t two_threads_deep(struct xseg_segment *seg)
{
    return threads(seg, 32);
}

static uint64_t two_processes(struct xseg_segment *seg)
{
    pid_t child = fork();
    if (child == 0) {
        struct xseg_segment *own;
        int rc = xseg_segment_attach(name, &own);
        if (rc < 0)
            die("attach", rc);
        serve_all(own);
        xseg_segment_detach(own);
        _exit(0);
    }
    uint64_t spent = ask_all(seg, 1);
    waitpid(child, NULL, 0);
    return spent;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint64_t (*run)(struct xseg_segment *seg);
    } rows[] = {{"same thread", same_thread},
                {"two threads", two_threads},
                {"two threads, 32", two_threads_deep},
                {"two processes", two_processes}};
    struct xseg_segment *seg;
    if (argc > 1)
        nr_requests = (uint32_t)strtoul(argv[1], NULL, 0);
    if (nr_requests == 0) {
        fprintf(stderr, "usage: %s [REQUESTS]\n", argv[0]);
        return 2;
    }
    snprintf(name, sizeof(name), "ring-pingpong-%d", (int)getpid());
    int rc = xseg_segment_create(name, NULL, &seg);
    if (rc < 0)
        die("create", rc);
    printf("%-18s %12s %12s\n", "ns/request", "median", "slowest");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t spent[NR_REPEATS];
        rows[i].run(seg); /* warm-up */
        for (int r = 0; r < NR_REPEATS; r++)
            spent[r] = rows[i].run(seg) / nr_requests;
        qsort(spent, NR_REPEATS, sizeof(spent[0]), compare);
        printf("%-18s %12ju %12ju\n", rows[i].name, (uintmax_t)spent[NR_REPEATS / 2],
               (uintmax_t)spent[NR_REPEATS - 1]);
    }
    xseg_segment_detach(seg);
    return xseg_segment_destroy(name) < 0;
}
