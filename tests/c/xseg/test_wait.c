/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping and waking: none lost, none for the awake, in threads, processes and loops.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "fixture.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define NR_PINGS 20000
#else
#define NR_PINGS 200000
#endif

static struct xseg_segment *seg;

static void wait_ends_with_its_time(void)
{
    struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "sleeper");
    CHECK_EQ(xseg_port_wait(port, 0), -ETIMEDOUT);
    CHECK_EQ(xseg_port_stats(port)->sleeps, 0);
    CHECK_EQ(xseg_port_wait(port, 1000 * 1000), -ETIMEDOUT);
    CHECK_EQ(xseg_port_stats(port)->sleeps, 1);
    CHECK_EQ(xseg_segment_port(seg, xseg_port_id(port))->bell_sleeping, 0);
    xseg_port_unbind(port);
}

static void on_alarm(int number)
{
    (void)number;
}

static void wait_ends_with_a_signal(void)
{
    struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "sleeper");
    struct sigaction action = {.sa_handler = on_alarm}, before;
    /* Again and again: the first may come before the sleep. */
    const struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    CHECK_EQ(sigaction(SIGALRM, &action, &before), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    CHECK_EQ(xseg_port_wait(port, UINT64_MAX), -EINTR);
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK_EQ(sigaction(SIGALRM, &before, NULL), 0);
    xseg_port_unbind(port);
}

static void an_awake_receiver_is_not_woken(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    const struct xseg_port_shared *in = xseg_segment_port(seg, XSEG_PORT_BLOCKERB);
    const struct xseg_port_shared *back = xseg_segment_port(seg, xseg_port_id(client));
    uint32_t in_word = in->bell_word, back_word = back->bell_word;
    struct xseg_request *rq = request_new(client);
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
        CHECK_EQ(xseg_port_wait(server, UINT64_MAX), 0);
        CHECK(xseg_port_accept(server) == rq);
        CHECK_EQ(xseg_request_complete(server, rq, 0), 0);
        CHECK_EQ(xseg_port_wait(client, UINT64_MAX), 0);
        CHECK(xseg_port_reap(client) == rq);
    }
    /* Every wake-up raises the word first: no change, no system call. */
    CHECK_EQ(in->bell_word, in_word);
    CHECK_EQ(back->bell_word, back_word);
    CHECK_EQ(in->stats.sleeps, 0);
    CHECK_EQ(back->stats.sleeps, 0);
    /* One that sleeps is rung for once, whoever sends how much. */
    xseg_bell_arm(server);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
    struct xseg_request *second = request_new(client);
    CHECK_EQ(xseg_request_submit(client, second, XSEG_PORT_BLOCKERB), 0);
    CHECK_EQ(in->bell_word, in_word + 1);
    CHECK_EQ(in->bell_sleeping, 0);
    xseg_bell_disarm(server);
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

static void a_shared_bell_wakes_the_thread_of_both(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *one = port_new(seg, XSEG_PORT_BLOCKERB, "one");
    struct xseg_port *two = port_new(seg, XSEG_PORT_BLOCKERM, "two");
    xseg_port_share_bell(two, one);
    const struct xseg_port_shared *bell = xseg_segment_port(seg, XSEG_PORT_BLOCKERB);
    const struct xseg_port_shared *own = xseg_segment_port(seg, XSEG_PORT_BLOCKERM);
    uint32_t word = bell->bell_word, own_word = own->bell_word;
    CHECK(!xseg_port_accept(one)); /* has looked for what a former owner left */
    xseg_bell_arm(one);
    CHECK_EQ(xseg_request_submit(client, request_new(client), XSEG_PORT_BLOCKERM), 0);
    CHECK_EQ(bell->bell_word, word + 1);
    CHECK_EQ(own->bell_word, own_word);
    CHECK(!xseg_port_pending(one));
    CHECK(xseg_port_pending(two));
    xseg_bell_disarm(one);
    xseg_port_unbind(two);
    xseg_port_unbind(one);
    xseg_port_unbind(client);
}

/* Answer `nr` requests with their offset, sleeping for each. */
static void serve(struct xseg_segment *where, uint32_t nr)
{
    struct xseg_port *port = port_new(where, XSEG_PORT_VLMCD, "vlmcd");
    while (nr > 0) {
        CHECK_EQ(xseg_port_wait(port, UINT64_MAX), 0);
        struct xseg_request *rq;
        while ((rq = xseg_port_accept(port))) {
            CHECK_EQ(xseg_request_complete(port, rq, (int64_t)rq->offset), 0);
            nr--;
        }
    }
    xseg_port_unbind(port);
}

/* Keep `depth` requests on their way until `nr` are answered. */
static void ask(struct xseg_segment *where, uint32_t nr, uint32_t depth)
{
    struct xseg_port *port = port_new(where, XSEG_PORT_ANY, "client");
    uint32_t sent = 0, done = 0;
    uint64_t sum = 0;
    while (done < nr) {
        while (sent < nr && sent - done < depth) {
            struct xseg_request *rq = request_new(port);
            rq->offset = sent;
            int rc;
            while ((rc = xseg_request_submit(port, rq, XSEG_PORT_VLMCD)) == -EPIPE)
                sched_yield(); /* the server is not there yet */
            CHECK_EQ(rc, 0);
            sent++;
        }
        CHECK_EQ(xseg_port_wait(port, UINT64_MAX), 0);
        struct xseg_request *rq;
        while ((rq = xseg_port_reap(port))) {
            CHECK_EQ(rq->result, rq->offset);
            sum += rq->offset;
            xseg_request_free(port, rq);
            done++;
        }
    }
    CHECK_EQ(sum, (uint64_t)nr * (nr - 1) / 2);
    xseg_port_unbind(port);
}

static void *serve_all(void *arg)
{
    serve(seg, *(const uint32_t *)arg);
    return NULL;
}

static void *ask_some(void *arg)
{
    ask(seg, *(const uint32_t *)arg, 7);
    return NULL;
}

static void threads_lose_no_wakeup(void)
{
    uint32_t nr = NR_PINGS;
    pthread_t server;
    CHECK_EQ(pthread_create(&server, NULL, serve_all, &nr), 0);
    ask(seg, nr, 1);
    CHECK_EQ(pthread_join(server, NULL), 0);
}

static void many_senders_lose_no_wakeup(void)
{
    uint32_t each = NR_PINGS / 8, all = 3 * each;
    pthread_t server, clients[3];
    CHECK_EQ(pthread_create(&server, NULL, serve_all, &all), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&clients[i], NULL, ask_some, &each), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(clients[i], NULL), 0);
    CHECK_EQ(pthread_join(server, NULL), 0);
}

static void serve_a_quarter(struct xseg_segment *own)
{
    serve(own, NR_PINGS / 4);
}

static void processes_lose_no_wakeup(void)
{
    pid_t child = child_start(serve_a_quarter, CHILD_DETACHES);
    ask(seg, NR_PINGS / 4, 1);
    child_join(child);
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, timeout_ms) == 1;
}

/* The loop of a reactor: look, arm, look once more, sleep on the eventfd, disarm. */
static void *serve_in_a_loop(void *arg)
{
    uint32_t nr = *(const uint32_t *)arg;
    struct xseg_port *port = port_new(seg, XSEG_PORT_VLMCD, "vlmcd");
    int fd = xseg_bell_fd(port);
    CHECK(fd >= 0);
    CHECK_EQ(xseg_bell_fd(port), fd);
    while (nr > 0) {
        struct xseg_request *rq;
        while ((rq = xseg_port_accept(port))) {
            CHECK_EQ(xseg_request_complete(port, rq, (int64_t)rq->offset), 0);
            nr--;
        }
        if (nr == 0)
            break;
        xseg_bell_arm(port);
        if (!xseg_port_pending(port))
            CHECK(readable(fd, -1));
        xseg_bell_disarm(port);
    }
    xseg_port_unbind(port);
    return NULL;
}

static void loops_lose_no_wakeup(void)
{
    uint32_t nr = NR_PINGS / 8;
    pthread_t server;
    CHECK_EQ(pthread_create(&server, NULL, serve_in_a_loop, &nr), 0);
    ask(seg, nr, 1);
    CHECK_EQ(pthread_join(server, NULL), 0);
}

static void a_bell_that_nobody_rang_is_silent(void)
{
    struct xseg_port *client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_port *server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    int fd = xseg_bell_fd(server);
    CHECK(fd >= 0);
    struct xseg_request *rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0); /* awake */
    CHECK(!readable(fd, 0));
    xseg_bell_arm(server);
    CHECK(xseg_port_pending(server));
    xseg_bell_disarm(server);
    CHECK(xseg_port_accept(server) == rq);
    CHECK(!readable(fd, 0));
    xseg_bell_arm(server);
    rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
    CHECK(readable(fd, -1));
    xseg_port_unbind(server);
    xseg_port_unbind(client);
}

int main(void)
{
    seg = segment_new(&small_segment);
    wait_ends_with_its_time();
    wait_ends_with_a_signal();
    an_awake_receiver_is_not_woken();
    a_shared_bell_wakes_the_thread_of_both();
    processes_lose_no_wakeup(); /* forks: before there are threads */
    threads_lose_no_wakeup();
    many_senders_lose_no_wakeup();
    loops_lose_no_wakeup();
    a_bell_that_nobody_rang_is_silent();
    segment_end(seg);
    return 0;
}
