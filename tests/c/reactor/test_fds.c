/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors added, changed and removed from inside callbacks. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "fixture.h"

#define NR_PAIRS 32

static struct reactor *loop;

struct end {
    struct reactor_fd fd; /* first: callbacks cast */
    int peer;
    unsigned nr_ready;
};

static struct end *ends[NR_PAIRS];
static unsigned nr_left;

static struct end *open_end(uint32_t events,
                            void (*on_ready)(struct reactor_fd *, uint32_t))
{
    struct end *end = calloc(1, sizeof *end);
    int pair[2];

    CHECK(end);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
             0);
    end->fd = (struct reactor_fd){pair[0], events, on_ready};
    end->peer = pair[1];
    CHECK_EQ(reactor_add_fd(loop, &end->fd), 0);
    return end;
}

static void close_end(struct end *end)
{
    reactor_del_fd(loop, &end->fd);
    close(end->fd.fd);
    close(end->peer);
    free(end); /* a stale event would now be a use after free */
}

/** The first of a batch removes and frees all others: their events must not arrive. */
static void on_ready_remove_all(struct reactor_fd *self, uint32_t events)
{
    CHECK(events & EPOLLIN);
    for (unsigned i = 0; i < NR_PAIRS; i++) {
        if (ends[i] && &ends[i]->fd != self) {
            close_end(ends[i]);
            ends[i] = NULL;
            nr_left--;
        }
    }
    reactor_stop(loop);
}

static void test_removing_others_drops_their_events(void)
{
    nr_left = NR_PAIRS;
    for (unsigned i = 0; i < NR_PAIRS; i++) {
        ends[i] = open_end(EPOLLIN, on_ready_remove_all);
        CHECK_EQ(write(ends[i]->peer, "x", 1), 1);
    }
    CHECK_EQ(reactor_run(loop), 0);
    CHECK_EQ(nr_left, 1);
    for (unsigned i = 0; i < NR_PAIRS; i++) {
        if (ends[i])
            close_end(ends[i]);
        ends[i] = NULL;
    }
}

static void on_ready_quiet_others(struct reactor_fd *self, uint32_t events)
{
    char byte;

    CHECK(events & EPOLLIN);
    CHECK_EQ(read(self->fd, &byte, 1), 1);
    ((struct end *)(void *)self)->nr_ready++;
    for (unsigned i = 0; i < NR_PAIRS; i++)
        if (&ends[i]->fd != self)
            CHECK_EQ(reactor_mod_fd(loop, &ends[i]->fd, 0), 0);
    reactor_stop(loop);
}

static void test_an_event_no_longer_asked_for_is_dropped(void)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < NR_PAIRS; i++) {
        ends[i] = open_end(EPOLLIN, on_ready_quiet_others);
        CHECK_EQ(write(ends[i]->peer, "x", 1), 1);
    }
    CHECK_EQ(reactor_run(loop), 0);
    for (unsigned i = 0; i < NR_PAIRS; i++) {
        nr += ends[i]->nr_ready;
        close_end(ends[i]);
        ends[i] = NULL;
    }
    CHECK_EQ(nr, 1);
}

/** Reads a byte, then wants to write; writes it, removes itself, adds the next. */
static void on_ready_chain(struct reactor_fd *self, uint32_t events)
{
    struct end *end = (struct end *)(void *)self;
    char byte;

    if (events & EPOLLIN) {
        CHECK_EQ(read(self->fd, &byte, 1), 1);
        CHECK_EQ(reactor_mod_fd(loop, self, EPOLLOUT), 0);
        return;
    }
    CHECK(events & EPOLLOUT);
    CHECK_EQ(write(self->fd, "y", 1), 1);
    CHECK_EQ(read(end->peer, &byte, 1), 1);
    close_end(end);
    if (--nr_left == 0) {
        reactor_stop(loop);
        return;
    }
    end = open_end(EPOLLIN, on_ready_chain);
    CHECK_EQ(write(end->peer, "x", 1), 1);
}

static void test_a_callback_adds_changes_and_removes(void)
{
    struct end *end = open_end(EPOLLIN, on_ready_chain);

    nr_left = 1000;
    CHECK_EQ(write(end->peer, "x", 1), 1);
    CHECK_EQ(reactor_run(loop), 0);
    CHECK_EQ(nr_left, 0);
}

/** Is called between turns that always make progress. */
static void on_ready_stop(struct reactor_fd *self, uint32_t events)
{
    (void)self;
    CHECK(events & EPOLLIN);
    reactor_stop(loop);
}

static void defer_again(struct reactor_task *task)
{
    reactor_defer(loop, task);
}

static void test_a_busy_loop_still_looks_at_descriptors(void)
{
    struct end *end = open_end(EPOLLIN, on_ready_stop);
    struct reactor_task busy = {.fn = defer_again};

    reactor_defer(loop, &busy);
    CHECK_EQ(write(end->peer, "x", 1), 1);
    CHECK_EQ(reactor_run(loop), 0);
    close_end(end);
}

#define NR_ECHOES 2000u

static void on_ready_echo(struct reactor_fd *self, uint32_t events)
{
    struct end *end = (struct end *)(void *)self;
    char byte;

    CHECK(events & EPOLLIN);
    CHECK_EQ(read(self->fd, &byte, 1), 1);
    CHECK_EQ(write(self->fd, &byte, 1), 1);
    if (++end->nr_ready == NR_ECHOES)
        reactor_stop(loop);
}

static void *ask_echoes(void *arg)
{
    int fd = *(int *)arg;
    char byte = 'e';

    for (unsigned i = 0; i < NR_ECHOES; i++) {
        CHECK_EQ(write(fd, &byte, 1), 1);
        CHECK_EQ(read(fd, &byte, 1), 1);
    }
    return NULL;
}

static void test_a_request_over_a_socket_costs_at_most_one_wait(void)
{
    struct end *end = open_end(EPOLLIN, on_ready_echo);
    struct reactor_statistics before, after;
    pthread_t thread;

    CHECK_EQ(fcntl(end->peer, F_SETFL, 0), 0);
    CHECK_EQ(pthread_create(&thread, NULL, ask_echoes, &end->peer), 0);
    reactor_statistics(loop, &before);
    CHECK_EQ(reactor_run(loop), 0);
    reactor_statistics(loop, &after);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(after.sleeps - before.sleeps <= NR_ECHOES);
    CHECK(after.turns - before.turns <= 2 * NR_ECHOES + 16);
    close_end(end);
}

static void test_errors_of_add_are_reported(void)
{
    struct reactor_fd bad = {.fd = -1, .events = EPOLLIN, .on_ready = on_ready_stop};

    CHECK_EQ(reactor_add_fd(loop, &bad), -EBADF);
}

int main(void)
{
    struct xseg_segment *seg = fixture_segment();

    loop = fixture_reactor(seg);
    test_removing_others_drops_their_events();
    test_an_event_no_longer_asked_for_is_dropped();
    test_a_callback_adds_changes_and_removes();
    test_a_request_over_a_socket_costs_at_most_one_wait();
    test_errors_of_add_are_reported();
    test_a_busy_loop_still_looks_at_descriptors();
    reactor_destroy(loop);
    xseg_segment_detach(seg);
    return 0;
}
