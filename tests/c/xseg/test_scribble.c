/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random words are written into a live segment: requests fail or wait, no process
 * crashes or hangs, and the check of the segment ends (issue 9, fault 30).
 *
 * SCRIBBLE_SECONDS sets how long (default 2); TEST_SEED repeats a run.
 */
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "fixture.h"
#include "xseg/internal.h"

#define NR_CLIENTS 3
#define WAIT_NS    20000000 /* at most so long for one answer */

static struct xseg_segment *seg;
static volatile sig_atomic_t stopped;
static int attached[2]; /* a pipe: one byte from each child that has attached */

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

/* Touch the data that a request names, as a peer does: only if it lies in the heap. */
static void use_data(struct xseg_segment *own, const struct xseg_request *rq)
{
    uint64_t off = rq->data_off, len = rq->data_len;
    unsigned char *data = len ? xseg_heap_ptr(own, off, len) : NULL;
    if (data)
        data[len - 1]++;
}

static void serve(struct xseg_segment *own)
{
    struct xseg_port *port = NULL;
    signal(SIGTERM, stop);
    CHECK_EQ(write(attached[1], "!", 1), 1);
    while (!stopped && !port) {
        if (xseg_port_bind(own, XSEG_PORT_VLMCD, "echo", &port) < 0)
            sched_yield();
    }
    while (port && !stopped) {
        struct xseg_request *rq;
        while (!stopped && (rq = xseg_port_accept(port))) {
            use_data(own, rq);
            xseg_request_complete(port, rq, (int64_t)rq->size);
        }
        xseg_port_wait(port, WAIT_NS);
    }
}

static void ask(struct xseg_segment *own)
{
    struct xseg_port *port = NULL;
    signal(SIGTERM, stop);
    CHECK_EQ(write(attached[1], "!", 1), 1);
    while (!stopped && xseg_port_bind(own, XSEG_PORT_ANY, "client", &port) < 0)
        sched_yield();
    while (!stopped) {
        struct xseg_request *rq;
        uint64_t off;
        if (xseg_request_alloc(port, &rq) < 0) {
            sched_yield();
            continue;
        }
        if (xseg_buffer_alloc(own, 4096, &off) > 0) {
            rq->data_off = off;
            rq->data_len = 4096;
        }
        rq->op = XSEG_OP_PING;
        if (xseg_request_submit(port, rq, XSEG_PORT_VLMCD) == 0) {
            uint64_t end = now_ns() + WAIT_NS;
            while (!stopped && !xseg_port_reap(port) && now_ns() < end)
                xseg_port_wait(port, WAIT_NS);
        }
        xseg_request_free(port, rq); /* refused while another still has it */
        xseg_buffer_free(own, off);
    }
}

/* A random word anywhere but in the heap's bytes, where nothing is ever believed. */
static void scribble(void)
{
    uint64_t *words = (uint64_t *)(void *)seg->base;
    uint64_t nr = seg->geo.heap_off / sizeof(*words);
    uint64_t at = ((uint64_t)rand() << 20 ^ (uint64_t)rand()) % nr;
    uint64_t value = (uint64_t)rand() << 33 ^ (uint64_t)rand();
    store64_relaxed(&words[at], rand() % 2 ? value : value & 0xff);
}

int main(void)
{
    const char *seconds = getenv("SCRIBBLE_SECONDS"), *given = getenv("TEST_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    uint64_t end =
        now_ns() + (seconds ? strtoull(seconds, NULL, 10) : 2) * UINT64_C(1000000000);
    struct xseg_reap_result reaped;
    uint64_t nr_rounds = 0, nr_unsound = 0;
    printf("TEST_SEED=%u\n", seed);
    fflush(stdout);
    srand(seed);
    CHECK_EQ(pipe(attached), 0);
    while (now_ns() < end) {
        pid_t children[NR_CLIENTS + 1];
        seg = segment_new(&small_segment);
        CHECK_EQ(xseg_check(seg, NULL, NULL), 0);
        children[0] = child_start(serve, CHILD_EXITS);
        for (int i = 1; i <= NR_CLIENTS; i++)
            children[i] = child_start(ask, CHILD_EXITS);
        for (int i = 0; i <= NR_CLIENTS; i++) {
            char byte;
            CHECK_EQ(read(attached[0], &byte, 1), 1);
        }
        for (int i = 0; i < 300; i++) {
            scribble();
            if (i % 100 == 0)
                xseg_reap(seg, &reaped);
            sched_yield();
        }
        for (int i = 0; i <= NR_CLIENTS; i++)
            CHECK_EQ(kill(children[i], SIGTERM), 0);
        for (int i = 0; i <= NR_CLIENTS; i++)
            child_join(children[i]);
        xseg_reap(seg, &reaped);
        nr_unsound += xseg_check(seg, NULL, NULL) > 0;
        nr_rounds++;
        xseg_segment_detach(seg);
        CHECK_EQ(xseg_segment_destroy(segment_created), 0);
    }
    printf("%llu rounds, %llu segments unsound\n", (unsigned long long)nr_rounds,
           (unsigned long long)nr_unsound);
    CHECK(nr_unsound > 0);
    return 0;
}
