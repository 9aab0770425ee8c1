/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and replies through a reactor: on one, between threads, between processes.
 */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "fixture.h"

#define SERVER 1u
#define CLIENT 2u

static void test_two_ports_of_one_reactor_need_no_doorbell(void)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *server = fixture_port(r, SERVER, fixture_answer, &server);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct pinger p = {.r = r, .port = client, .dst = SERVER, .stop_at_end = true};
    struct reactor_statistics before, after;
    uint32_t bells = xseg_segment_port(seg, SERVER)->bell_word +
                     xseg_segment_port(seg, CLIENT)->bell_word;

    reactor_statistics(r, &before);
    pinger_start(&p, 100000, 1);
    CHECK_EQ(reactor_run(r), 0);
    reactor_statistics(r, &after);

    CHECK_EQ(p.left, 0);
    CHECK_EQ(xseg_segment_port(seg, SERVER)->bell_word +
                 xseg_segment_port(seg, CLIENT)->bell_word,
             bells);
    CHECK_EQ(after.sleeps, before.sleeps);
    CHECK_EQ(after.unknown_replies, 0);
    CHECK(after.turns >= 100000);
    fixture_drop_port(r, client);
    fixture_drop_port(r, server);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

static void test_the_bell_moves_when_its_port_goes(void)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *first = fixture_port(r, 3, NULL, NULL);
    struct xseg_port *server = fixture_port(r, SERVER, fixture_answer, &server);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct pinger p = {.r = r, .port = client, .dst = SERVER, .stop_at_end = true};

    CHECK_EQ(xseg_segment_port(seg, CLIENT)->bell_port, 3);
    fixture_drop_port(r, first);
    CHECK_EQ(xseg_segment_port(seg, CLIENT)->bell_port, SERVER);
    CHECK_EQ(xseg_segment_port(seg, SERVER)->bell_port, SERVER);
    pinger_start(&p, 1000, 8);
    CHECK_EQ(reactor_run(r), 0);
    CHECK_EQ(p.left, 0);
    fixture_drop_port(r, client);
    fixture_drop_port(r, server);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

struct failed {
    struct reactor *r;
    int64_t result;
    bool called;
};

static void on_failed(void *arg, struct xseg_request *rq)
{
    struct failed *f = arg;

    f->called = true;
    f->result = rq->result;
    reactor_stop(f->r);
}

static void check_refused(uint32_t dst, int error)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct failed f = {.r = r};
    struct xseg_request *rq;

    CHECK_EQ(xseg_request_alloc(client, &rq), 0);
    rq->op = XSEG_OP_PING;
    reactor_submit(r, client, rq, dst, on_failed, &f);
    CHECK(!f.called); /* on the next turn, never from inside the call */
    CHECK_EQ(reactor_run(r), 0);
    CHECK(f.called);
    CHECK_EQ(f.result, error);
    xseg_request_free(client, rq);
    fixture_drop_port(r, client);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

static void test_a_port_that_only_sends_refuses_requests(void)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *deaf = fixture_port(r, SERVER, NULL, NULL);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct failed f = {.r = r};
    struct xseg_request *rq;

    CHECK_EQ(xseg_request_alloc(client, &rq), 0);
    reactor_submit(r, client, rq, SERVER, on_failed, &f);
    CHECK_EQ(reactor_run(r), 0);
    CHECK_EQ(f.result, -EOPNOTSUPP);
    xseg_request_free(client, rq);
    fixture_drop_port(r, client);
    fixture_drop_port(r, deaf);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

static void test_a_removed_port_forgets_its_callbacks(void)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *first = fixture_port(r, CLIENT, NULL, NULL);
    struct xseg_port *second = fixture_port(r, 3, NULL, NULL);
    struct failed forgotten = {.r = r}, kept = {.r = r};
    struct xseg_request *a, *b;

    CHECK_EQ(xseg_request_alloc(first, &a), 0);
    CHECK_EQ(xseg_request_alloc(second, &b), 0);
    reactor_submit(r, first, a, SERVER, on_failed, &forgotten);
    reactor_submit(r, second, b, SERVER, on_failed, &kept);
    reactor_remove_port(r, first);
    xseg_request_free(first, a);
    xseg_port_unbind(first);
    CHECK_EQ(reactor_run(r), 0);
    CHECK(!forgotten.called);
    CHECK(kept.called);
    xseg_request_free(second, b);
    fixture_drop_port(r, second);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

/* A reply to a request that was not sent through the reactor. */
static void test_an_unknown_reply_is_dropped_and_counted(void)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *server = fixture_port(r, SERVER, fixture_answer, &server);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct pinger p = {.r = r, .port = client, .dst = SERVER, .stop_at_end = true};
    struct reactor_statistics stats;
    struct xseg_request *rq;

    CHECK_EQ(xseg_request_alloc(client, &rq), 0);
    rq->op = XSEG_OP_PING;
    CHECK_EQ(xseg_request_submit(client, rq, SERVER), 0);
    pinger_start(&p, 10, 1);
    CHECK_EQ(reactor_run(r), 0);
    reactor_statistics(r, &stats);
    CHECK_EQ(stats.unknown_replies, 1);
    xseg_request_free(client, rq);
    fixture_drop_port(r, client);
    fixture_drop_port(r, server);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

struct server {
    struct xseg_segment *seg;
    struct reactor *r;
    struct xseg_port *port;
};

static void *serve(void *arg)
{
    struct server *s = arg;

    CHECK_EQ(reactor_run(s->r), 0);
    return NULL;
}

static void test_two_reactors_in_two_threads(void)
{
    struct xseg_segment *seg = fixture_segment();
    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct pinger p = {.r = r, .port = client, .dst = SERVER, .stop_at_end = true};
    struct server s = {.seg = seg, .r = fixture_reactor(seg)};
    pthread_t thread;

    s.port = fixture_port(s.r, SERVER, fixture_answer, &s.port);
    CHECK_EQ(pthread_create(&thread, NULL, serve, &s), 0);
    pinger_start(&p, 3000, 1);
    CHECK_EQ(reactor_run(r), 0);
    CHECK_EQ(p.left, 0);
    pinger_start(&p, 20000, 32);
    CHECK_EQ(reactor_run(r), 0);
    CHECK_EQ(p.left, 0);
    reactor_stop(s.r);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    fixture_drop_port(s.r, s.port);
    reactor_destroy(s.r);
    fixture_drop_port(r, client);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

/** The other process: says that it is ready and serves until its parent hangs up. */
static struct server *hangup_server;

static void on_hangup(struct reactor_fd *self, uint32_t events)
{
    (void)events;
    reactor_del_fd(hangup_server->r, self);
    reactor_stop(hangup_server->r);
}

static void serve_in_child(const char *name, int ready_fd, int hangup_fd)
{
    struct server s = {0};
    struct reactor_fd hangup = {hangup_fd, EPOLLIN, on_hangup};

    CHECK_EQ(xseg_segment_attach(name, &s.seg), 0);
    s.r = fixture_reactor(s.seg);
    s.port = fixture_port(s.r, SERVER, fixture_answer, &s.port);
    hangup_server = &s;
    CHECK_EQ(reactor_add_fd(s.r, &hangup), 0);
    CHECK_EQ(write(ready_fd, "r", 1), 1);
    CHECK_EQ(reactor_run(s.r), 0);
    fixture_drop_port(s.r, s.port);
    reactor_destroy(s.r);
    xseg_segment_detach(s.seg);
    _exit(0);
}

static void test_two_processes(void)
{
    char name[64], byte;
    struct xseg_segment *seg = fixture_segment_named(name, sizeof name);
    int ready[2], hangup[2], status;
    pid_t child;

    CHECK_EQ(pipe(ready), 0);
    CHECK_EQ(pipe(hangup), 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(ready[0]);
        close(hangup[1]);
        serve_in_child(name, ready[1], hangup[0]);
    }
    close(ready[1]);
    close(hangup[0]);
    CHECK_EQ(read(ready[0], &byte, 1), 1);

    struct reactor *r = fixture_reactor(seg);
    struct xseg_port *client = fixture_port(r, CLIENT, NULL, NULL);
    struct pinger p = {.r = r, .port = client, .dst = SERVER, .stop_at_end = true};

    pinger_start(&p, 2000, 1);
    CHECK_EQ(reactor_run(r), 0);
    CHECK_EQ(p.left, 0);
    pinger_start(&p, 20000, 64);
    CHECK_EQ(reactor_run(r), 0);
    CHECK_EQ(p.left, 0);
    fixture_drop_port(r, client);
    reactor_destroy(r);
    xseg_segment_detach(seg);

    close(hangup[1]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    close(ready[0]);
    CHECK_EQ(xseg_segment_destroy(name), 0);
}

int main(void)
{
    test_two_processes(); /* first: forks before there are threads */
    test_two_ports_of_one_reactor_need_no_doorbell();
    test_the_bell_moves_when_its_port_goes();
    check_refused(SERVER, -EPIPE);
    check_refused(UINT32_MAX - 1, -EINVAL);
    test_a_port_that_only_sends_refuses_requests();
    test_a_removed_port_forgets_its_callbacks();
    test_an_unknown_reply_is_dropped_and_counted();
    test_two_reactors_in_two_threads();
    return 0;
}
