/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that hangs (issue 9, fault 28): every request is answered by its deadline, what
 * comes late is dropped without harm, and a store whose directory is gone ends its process.
 *
 * A sync that is held stands for a disk that hangs.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "blocker/calls.h"
#include "blocker/client.h"

#define TIMEOUT_NS UINT64_C(200000000)

/** On a busy machine what does not hang may be late too: it is asked again. */
#define IN_THE_END(call)                                                               \
    ({                                                                                 \
        int64_t result_;                                                               \
        do                                                                             \
            result_ = (call);                                                          \
        while (result_ == -ETIMEDOUT);                                                 \
        result_;                                                                       \
    })

static struct setup setup = {
    .backend = "file", .engine = "threads", .timeout_ns = TIMEOUT_NS};
static struct server server, *s = &server;
static uint8_t data[1u << 20], got[1u << 20];

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static struct xseg_request *send_write(const struct xseg_object *o, uint8_t fill,
                                       uint64_t size, uint32_t flags)
{
    struct xseg_request *rq = ask(s, XSEG_OP_WRITE, o);
    memset(s->data, fill, size);
    rq->size = size;
    rq->flags = flags;
    send_only(s, rq);
    return rq;
}

static int64_t end_of(struct xseg_request *rq)
{
    int64_t result = await(s, rq);
    xseg_request_free(s->port, rq);
    return result;
}

static void test_a_flush_that_hangs_fails_and_the_next_one_covers_all(void)
{
    struct xseg_object e = extent_name(1, 1);

    CHECK_EQ(IN_THE_END(do_write(s, &e, 0, data, 4096, 0)), 4096);
    calls_hold(0);
    CHECK_EQ(do_flush(s, &e), -ETIMEDOUT);
    calls_await_held();
    CHECK_EQ(IN_THE_END(do_write(s, &e, 4096, data, 4096, 0)), 4096);
    calls_let_go();
    CHECK_EQ(IN_THE_END(do_flush(s, &e)), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_a_late_write_overwrites_nothing_that_was_answered(void)
{
    struct xseg_object e = extent_name(2, 1), other = extent_name(3, 1);

    CHECK_EQ(IN_THE_END(do_write(s, &e, 0, data, 4096, XSEG_F_FUA)), 4096);
    CHECK_EQ(IN_THE_END(do_write(s, &other, 0, data, 4096, XSEG_F_FUA)), 4096);
    calls_hold(0);
    CHECK_EQ(end_of(send_write(&e, 1, 4096, XSEG_F_FUA)), -ETIMEDOUT);
    calls_await_held();
    memset(data, 2, 4096);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), -ETIMEDOUT);
    CHECK_EQ(do_zero(s, &e, 0, 4096), -ETIMEDOUT);
    CHECK_EQ(IN_THE_END(do_write(s, &other, 0, data, 4096, 0)), 4096);
    calls_let_go();
    /* behind the late one */
    CHECK_EQ(IN_THE_END(do_write(s, &e, 0, data, 4096, 0)), 4096);
    CHECK_EQ(IN_THE_END(do_read(s, &e, 0, got, 4096)), 4096);
    CHECK(memcmp(got, data, 4096) == 0);
}

/** The kernel may use that memory: it is the client's again only with the answer. */
static void test_lent_memory_is_given_back_only_when_nobody_uses_it(void)
{
    struct xseg_object e = extent_name(4, 1);
    struct xseg_request *rq;

    do { /* a store that was not slow of late */
        server_stop(s);
        server_start(s, &setup);
    } while (do_write(s, &e, 0, data, 4096, XSEG_F_FUA) == -ETIMEDOUT);
    calls_hold(0);
    rq = send_write(&e, 3, sizeof data, XSEG_F_FUA);
    calls_await_held();
    /* far behind its deadline, the blocker still answers others, and not this one */
    struct xseg_object_info info;
    for (uint64_t since = now_ns(); now_ns() - since < 3 * TIMEOUT_NS;)
        CHECK_EQ(IN_THE_END(do_info(s, &whole_store, &info)), 0);
    CHECK_EQ(s->nr_early, 0);
    calls_let_go();
    CHECK_EQ(end_of(rq), sizeof data);
}

static void test_content_that_comes_late_has_the_bytes_that_were_sent(void)
{
    struct xseg_object c = content_name(6);
    int64_t rc;

    memset(data, 4, 4096);
    calls_hold(0);
    CHECK_EQ(do_create(s, &c, data, 4096, 0), -ETIMEDOUT);
    calls_await_held();
    memset(s->data, 5, 4096); /* the client's again */
    calls_let_go();
    memset(data, 5, 4096);
    rc = IN_THE_END(do_create(s, &c, data, 4096, 0));
    CHECK(rc == -EEXIST || rc == 0);
    CHECK_EQ(IN_THE_END(do_read(s, &c, 0, got, 4096)), 4096);
    CHECK(got[0] == (rc == -EEXIST ? 4 : 5));
}

/** Issue 9, fault 21: an instance whose home was removed ends. */
static void test_a_store_whose_directory_is_removed_ends_the_loop(void)
{
    const struct xseg_segment_options options = {.heap_bytes = 32u << 20};
    struct blocker_options blocker = {.port = XSEG_PORT_BLOCKERB, .backend = "file"};
    struct xseg_segment *seg;
    struct reactor *r;
    struct peer *peer;
    const char *why;
    char name[64], root[256];

    make_root(root);
    blocker.store = (struct blk_options){.path = root, .engine = "threads"};
    snprintf(name, sizeof name, "test-gone-%d", (int)getpid());
    CHECK_EQ(xseg_segment_create(name, &options, &seg), 0);
    CHECK_EQ(xseg_segment_destroy(name), 0);
    CHECK_EQ(reactor_create(seg, NULL, &r), 0);
    CHECK_EQ(blocker_create(r, &blocker, &peer, &why), 0);
    remove_root(root);
    CHECK_EQ(reactor_run(r), -ESTALE);
    peer->destroy(peer);
    reactor_destroy(r);
    xseg_segment_detach(seg);
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    make_root(setup.path);
    server_start(s, &setup);
    test_a_flush_that_hangs_fails_and_the_next_one_covers_all();
    test_a_late_write_overwrites_nothing_that_was_answered();
    test_lent_memory_is_given_back_only_when_nobody_uses_it();
    test_content_that_comes_late_has_the_bytes_that_were_sent();
    server_stop(s);
    remove_root(setup.path);
    test_a_store_whose_directory_is_removed_ends_the_loop();
    return 0;
}
