/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers are killed at random instructions under load, again and again.
 *
 *   clients --> front (vlmcd) --> back (blockerb)
 *
 * The front passes the client's data on; the back writes it, slowly.  Every process but
 * this one is killed again and again.  What must hold: each request of ours is
 * answered, well or with an error; from its answer on nobody writes to our buffer; and
 * in the end nothing is leaked.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "fixture.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define NR_ROUNDS 40
#else
#define NR_ROUNDS 100
#endif
#define DEPTH    8
#define IO_BYTES 8192u

static struct xseg_segment *seg;

/* Bind, waiting for a predecessor, or for dead clients, that are about to be reaped. */
static struct xseg_port *bind_patiently(struct xseg_segment *own, uint32_t id,
                                        const char *role)
{
    struct xseg_port *port;
    int rc;
    do {
        sched_yield();
        rc = xseg_port_bind(own, id, role, &port);
    } while (rc == -EBUSY || rc == -ENOBUFS);
    CHECK_EQ(rc, 0);
    CHECK_EQ(xseg_port_reserve(port, DEPTH), 0);
    return port;
}

/* Writes what it is told, in steps, holding several requests at a time. */
static void run_back(struct xseg_segment *own)
{
    struct xseg_port *port = bind_patiently(own, XSEG_PORT_BLOCKERB, "blockerb");
    for (;;) {
        struct xseg_request *held[4];
        int nr = 0;
        while (nr < 4 && (held[nr] = xseg_port_accept(port)))
            nr++;
        for (int i = 0; i < nr; i++) {
            unsigned char *data =
                xseg_heap_ptr(own, held[i]->data_off, held[i]->data_len);
            CHECK(data);
            for (uint64_t at = 0; at < held[i]->data_len; at += 512) {
                memset(data + at, 0x5a, 512);
                if (at % 2048 == 0)
                    sched_yield();
            }
            xseg_request_complete(port, held[i], (int64_t)held[i]->data_len);
        }
        if (nr == 0)
            xseg_port_wait(port, UINT64_MAX);
    }
}

/* Passes each request on in two halves and answers when both are done. */
static void run_front(struct xseg_segment *own)
{
    struct xseg_port *port = bind_patiently(own, XSEG_PORT_VLMCD, "vlmcd");
    static struct {
        struct xseg_request *rq;
        uint32_t nr_left;
        int64_t result;
    } table[65536];
    for (;;) {
        struct xseg_request *rq;
        bool idle = true;
        while ((rq = xseg_port_accept(port))) {
            uint32_t index = rq->index;
            table[index].rq = rq;
            table[index].nr_left = 2;
            table[index].result = 0;
            idle = false;
            for (uint32_t half = 0; half < 2; half++) {
                struct xseg_request *piece;
                if (xseg_request_alloc(port, &piece) == 0) {
                    piece->op = XSEG_OP_WRITE;
                    piece->arg[0] = index;
                    piece->data_len = rq->data_len / 2;
                    piece->data_off = rq->data_off + half * piece->data_len;
                    if (xseg_request_submit(port, piece, XSEG_PORT_BLOCKERB) == 0)
                        continue;
                    xseg_request_free(port, piece);
                }
                table[index].result = -EIO;
                table[index].nr_left--;
            }
            if (table[index].nr_left == 0)
                xseg_request_complete(port, rq, -EIO);
        }
        while ((rq = xseg_port_reap(port))) {
            uint64_t index = rq->arg[0];
            idle = false;
            CHECK(index < 65536 && table[index].nr_left > 0);
            if (rq->result < 0)
                table[index].result = rq->result;
            xseg_request_free(port, rq);
            if (--table[index].nr_left == 0)
                xseg_request_complete(port, table[index].rq, table[index].result);
        }
        if (idle)
            xseg_port_wait(port, UINT64_MAX);
    }
}

struct client {
    struct xseg_segment *seg;
    struct xseg_port *port;
    struct xseg_request *sent[DEPTH];
    uint64_t nr_answers, nr_written;
};

/* Send what is not on its way, take the answers, and mind the buffers. */
static void client_turn(struct client *c)
{
    for (int i = 0; i < DEPTH; i++) {
        struct xseg_request *rq;
        if (c->sent[i] || xseg_request_alloc(c->port, &rq) < 0)
            continue;
        int64_t got = xseg_buffer_alloc(c->seg, IO_BYTES, &rq->data_off);
        if (got < 0) {
            xseg_request_free(c->port, rq);
            continue;
        }
        rq->op = XSEG_OP_WRITE;
        rq->arg[0] = (uint64_t)i;
        rq->data_len = IO_BYTES;
        memset(xseg_heap_ptr(c->seg, rq->data_off, IO_BYTES), 0x11, IO_BYTES);
        if (xseg_request_submit(c->port, rq, XSEG_PORT_VLMCD) == 0) {
            c->sent[i] = rq;
        } else {
            CHECK_EQ(xseg_buffer_free(c->seg, rq->data_off), 0);
            xseg_request_free(c->port, rq);
        }
    }
    struct xseg_request *rq;
    while ((rq = xseg_port_reap(c->port))) {
        unsigned char *data = xseg_heap_ptr(c->seg, rq->data_off, IO_BYTES);
        CHECK(rq->arg[0] < DEPTH && c->sent[rq->arg[0]] == rq);
        c->sent[rq->arg[0]] = NULL;
        c->nr_answers++;
        if (rq->result == 0) {
            c->nr_written++;
            for (uint32_t at = 0; at < IO_BYTES; at++)
                CHECK_EQ(data[at], 0x5a);
        }
        /* It is ours again, also after an error: nobody else may write to it. */
        memset(data, 0xee, IO_BYTES);
        sched_yield();
        for (uint32_t at = 0; at < IO_BYTES; at++)
            CHECK_EQ(data[at], 0xee);
        CHECK_EQ(xseg_buffer_free(c->seg, rq->data_off), 0);
        xseg_request_free(c->port, rq);
    }
}

static uint32_t client_in_flight(const struct client *c)
{
    uint32_t nr = 0;
    for (int i = 0; i < DEPTH; i++)
        nr += c->sent[i] != NULL;
    return nr;
}

static void run_client(struct xseg_segment *own)
{
    struct client c = {.seg = own,
                       .port = bind_patiently(own, XSEG_PORT_ANY, "client")};
    for (;;) {
        client_turn(&c);
        xseg_port_wait(c.port, 1000 * 1000);
    }
}

static void (*const programs[])(struct xseg_segment *) = {run_back, run_front,
                                                          run_client, run_client};
#define NR_CHILDREN (sizeof(programs) / sizeof(programs[0]))

static pid_t start(size_t which)
{
    return child_start(programs[which], CHILD_DETACHES);
}

static void end(pid_t child)
{
    CHECK_EQ(kill(child, SIGKILL), 0);
    child_bury(child);
}

int main(void)
{
    uint64_t seed = check_seed();
    struct xseg_reap_result reaped;
    pid_t children[NR_CHILDREN];
    struct xseg_segment_options options = small_segment;
    options.heap_bytes = 32u << 20;

    seg = segment_new(&options);
    struct client c = {.seg = seg, .port = port_new(seg, XSEG_PORT_ENDPOINT, "us")};
    CHECK_EQ(xseg_port_reserve(c.port, DEPTH), 0);
    for (size_t i = 0; i < NR_CHILDREN; i++)
        children[i] = start(i);
    const char *given = getenv("TEST_ROUNDS"); /* for a longer run by hand */
    int nr_rounds = given ? atoi(given) : NR_ROUNDS;
    for (int round = 0; round < nr_rounds; round++) {
        for (uint64_t turns = check_next(&seed) % 64; turns > 0; turns--) {
            client_turn(&c);
            sched_yield();
        }
        size_t victim = check_next(&seed) % NR_CHILDREN;
        end(children[victim]);
        /* Sometimes the dead are found by their successor, sometimes by us. */
        if (check_next(&seed) % 2)
            CHECK_EQ(xseg_reap(seg, &reaped), 0);
        children[victim] = start(victim);
    }
    /* One good answer with everybody alive, then nobody alive but us. */
    for (uint64_t before = c.nr_written; c.nr_written == before;) {
        CHECK_EQ(xseg_reap(seg, &reaped), 0);
        client_turn(&c);
        xseg_port_wait(c.port, 1000 * 1000);
    }
    for (size_t i = 0; i < NR_CHILDREN; i++)
        end(children[i]);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    while (client_in_flight(&c) > 0) {
        CHECK_EQ(xseg_port_wait(c.port, UINT64_MAX), 0);
        client_turn(&c); /* answers -EOWNERDEAD; nobody is there to send to */
    }
    printf("%d kills, %ju answers, %ju good\n", nr_rounds, (uintmax_t)c.nr_answers,
           (uintmax_t)c.nr_written);
    xseg_port_unbind(c.port);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    segment_end(seg);
    return 0;
}
