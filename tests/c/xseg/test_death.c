/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the dead held comes back, wherever they died.
 *
 * Each test runs a child that attaches, gets as far as the test wants, and dies without
 * a word; then a survivor reaps, and everything is in order.
 */
#include "fixture.h"
#include "xseg/internal.h"

static struct xseg_segment *seg;
static struct xseg_reap_result reaped;

/** Run `last_deeds` in a child that is then killed. */
static void dies_after(void (*last_deeds)(struct xseg_segment *own))
{
    child_bury(child_start(last_deeds, CHILD_DIES));
}

/* Whatever a death leaves, the segment is sound: before the reap, and after it. */
static void say_what_is_wrong(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "check: %s\n", text);
}

static void reap(void)
{
    CHECK_EQ(xseg_check(seg, say_what_is_wrong, NULL), 0);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    CHECK_EQ(xseg_check(seg, say_what_is_wrong, NULL), 0);
}

/* Two that live on: a peer and its client. */
static struct xseg_port *server, *client;

static void survivors_begin(void)
{
    server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    client = port_new(seg, XSEG_PORT_ANY, "client");
}

static void survivors_end(void)
{
    xseg_port_unbind(server);
    xseg_port_unbind(client);
    segment_check_idle(seg);
}

static void the_living_lose_nothing(void)
{
    struct xseg_port *port = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    struct xseg_request *rq = request_new(port);
    uint64_t off;
    CHECK(xseg_buffer_alloc(seg, 1, &off) > 0);
    reap();
    CHECK_EQ(reaped.ports + reaped.requests + reaped.buffers, 0);
    CHECK_EQ(rq->state, XSEG_RS_ALLOCATED);
    CHECK_EQ(xseg_buffer_free(seg, off), 0);
    xseg_request_free(port, rq);
    xseg_port_unbind(port);
    CHECK(
        xseg_process_alive((uint32_t)getpid(), xseg_process_start((uint32_t)getpid())));
    CHECK(!xseg_process_alive((uint32_t)getpid(), 1));
    CHECK(!xseg_process_alive(0, 0));
    CHECK_EQ(xseg_process_start(0), 0);
    CHECK_EQ(xseg_process_start(UINT32_MAX), 0);
}

static void nothing(struct xseg_segment *own)
{
    (void)own;
}

static void a_zombie_is_dead(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(0);
    siginfo_t info;
    uint64_t start = xseg_process_start((uint32_t)child);
    CHECK_EQ(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    CHECK_EQ(xseg_process_start((uint32_t)child), 0);
    CHECK(!xseg_process_alive((uint32_t)child, start ? start : 1));
    CHECK_EQ(waitpid(child, NULL, 0), child);
    dies_after(nothing);
    reap();
    CHECK_EQ(reaped.ports, 0);
}

static void bind_and_hold_much(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_BLOCKERM, "blockerm");
    CHECK_EQ(xseg_port_reserve(port, 16), 0);
    port_new(own, XSEG_PORT_ANY, "client");
    for (int i = 0; i < 5; i++) {
        uint64_t off;
        request_new(port);
        CHECK(xseg_buffer_alloc(own, 65536, &off) > 0);
    }
    /* Two on the way to itself, one of them accepted, and one answered. */
    for (int i = 0; i < 3; i++)
        CHECK_EQ(xseg_request_submit(port, request_new(port), XSEG_PORT_BLOCKERM), 0);
    CHECK_EQ(xseg_request_complete(port, xseg_port_accept(port), 0), 0);
    CHECK(xseg_port_accept(port));
}

static void all_that_it_held_comes_back(void)
{
    dies_after(bind_and_hold_much);
    reap();
    CHECK_EQ(reaped.ports, 2);
    CHECK_EQ(reaped.buffers, 5);
    CHECK_EQ(reaped.requests, 16); /* 8 in the reserve, 8 taken from it */
    segment_check_idle(seg);
    reap();
    CHECK_EQ(reaped.ports + reaped.requests + reaped.buffers, 0);
}

static void serve_two_and_answer_none(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_VLMCD, "vlmcd");
    for (int i = 0; i < 2; i++)
        request_awaited(port);
    /* A third may be waiting. */
}

/* Send three requests to a server that takes two and dies. */
static void ask_the_dying(struct xseg_request *sent[3])
{
    pid_t child = child_start(serve_two_and_answer_none, CHILD_DIES);
    client = port_new(seg, XSEG_PORT_ANY, "client");
    for (int i = 0; i < 3; i++) {
        sent[i] = request_new(client);
        uint64_t off;
        CHECK_EQ(xseg_buffer_alloc(seg, 4096, &off), 4096);
        sent[i]->data_off = off;
        sent[i]->data_len = 4096;
        request_send(client, sent[i], XSEG_PORT_VLMCD);
    }
    child_bury(child);
}

static void check_owner_dead(void)
{
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(xseg_port_wait(client, UINT64_MAX), 0);
        struct xseg_request *rq = xseg_port_reap(client);
        CHECK(rq);
        CHECK_EQ(rq->result, -EOWNERDEAD);
        CHECK_EQ(xseg_buffer_free(seg, rq->data_off), 0);
        xseg_request_free(client, rq);
    }
    CHECK(!xseg_port_reap(client));
}

static void requests_to_a_dead_server_fail(void)
{
    struct xseg_request *sent[3];
    ask_the_dying(sent);
    CHECK(!xseg_port_reap(client));
    reap();
    CHECK_EQ(reaped.ports, 1);
    CHECK_EQ(reaped.requests, 3);
    CHECK_EQ(reaped.buffers, 0); /* they are the living client's */
    check_owner_dead();
    struct xseg_request *rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_VLMCD), -EPIPE);
    xseg_port_unbind(client);
    segment_check_idle(seg);
}

static void a_new_server_gets_the_port_after_a_reap(void)
{
    struct xseg_request *sent[3];
    ask_the_dying(sent);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_VLMCD, "vlmcd", &server), -EBUSY);
    reap();
    server = port_new(seg, XSEG_PORT_VLMCD, "vlmcd");
    check_owner_dead();
    CHECK(!xseg_port_accept(server));
    struct xseg_request *rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_VLMCD), 0);
    CHECK(xseg_port_accept(server) == rq);
    CHECK_EQ(xseg_request_complete(server, rq, 0), 0);
    CHECK(xseg_port_reap(client) == rq);
    survivors_end();
}

static void ask_two(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_ANY, "client");
    for (int i = 0; i < 2; i++) {
        struct xseg_request *rq = request_new(port);
        CHECK_EQ(xseg_buffer_alloc(own, 8192, &rq->data_off), 8192);
        /* Lent is the second half of the buffer. */
        rq->data_off += 4096;
        rq->data_len = 4096;
        CHECK_EQ(xseg_request_submit(port, rq, XSEG_PORT_BLOCKERB), 0);
    }
}

static void a_dead_client_keeps_the_buffer_that_is_being_served(void)
{
    server = port_new(seg, XSEG_PORT_BLOCKERB, "blockerb");
    dies_after(ask_two);
    struct xseg_request *rq = xseg_port_accept(server);
    CHECK(rq);
    reap();
    CHECK_EQ(reaped.ports, 1);
    CHECK_EQ(reaped.requests, 1); /* the one that waited */
    CHECK_EQ(reaped.buffers, 1);  /* its buffer; the other is in use */
    CHECK(!xseg_port_accept(server));
    memset(xseg_heap_ptr(seg, rq->data_off, rq->data_len), 1, rq->data_len);
    CHECK_EQ(xseg_request_complete(server, rq, 0), -EPIPE);
    reap();
    CHECK_EQ(reaped.buffers, 1);
    xseg_port_unbind(server);
    segment_check_idle(seg);
}

/* Take a request, pass its data on to another peer, and die. */
static void pass_on(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_VLMCD, "vlmcd");
    struct xseg_request *rq = request_awaited(port);
    struct xseg_request *piece = request_new(port);
    piece->data_off = rq->data_off + 512;
    piece->data_len = 512;
    CHECK_EQ(xseg_request_submit(port, piece, XSEG_PORT_BLOCKERB), 0);
    while (load32_acquire(&piece->state) != XSEG_RS_SERVING)
        sched_yield();
}

static void no_answer_while_a_third_peer_works_on_the_data(void)
{
    survivors_begin();
    pid_t child = child_start(pass_on, CHILD_DIES);
    struct xseg_request *rq = request_new(client);
    CHECK_EQ(xseg_buffer_alloc(seg, 4096, &rq->data_off), 4096);
    rq->data_len = 4096;
    request_send(client, rq, XSEG_PORT_VLMCD);
    struct xseg_request *piece = request_awaited(server);
    child_bury(child);
    reap();
    CHECK_EQ(reaped.ports, 1);
    CHECK(!xseg_port_reap(client));
    /* Not even when somebody else has become vlmcd. */
    struct xseg_port *vlmcd = port_new(seg, XSEG_PORT_VLMCD, "vlmcd");
    reap();
    CHECK(!xseg_port_reap(client));
    CHECK(!xseg_port_accept(vlmcd));
    /* The blocker is done: at once, with no further reap. */
    CHECK_EQ(xseg_request_complete(server, piece, 512), -EPIPE);
    CHECK_EQ(xseg_port_wait(client, UINT64_MAX), 0);
    CHECK(xseg_port_reap(client) == rq);
    CHECK_EQ(rq->result, -EOWNERDEAD);
    CHECK_EQ(xseg_buffer_free(seg, rq->data_off), 0);
    xseg_port_unbind(vlmcd);
    survivors_end();
}

static void hold_the_lock(struct xseg_segment *own)
{
    CHECK(segment_trylock(own));
    /* In the middle of a bind. */
    own->ports[XSEG_PORT_MAPPERD].owner = own->self;
    own->ports[XSEG_PORT_MAPPERD].state = XSEG_PORT_BINDING;
}

static void the_lock_of_the_dead_is_taken_over(void)
{
    dies_after(hold_the_lock);
    CHECK_EQ(seg->ports[XSEG_PORT_MAPPERD].state, XSEG_PORT_BINDING);
    reap();
    struct xseg_port *port = port_new(seg, XSEG_PORT_MAPPERD, "mapperd");
    CHECK_EQ(seg->header->lock_owner, 0);
    xseg_port_unbind(port);
    dies_after(hold_the_lock);
    reap();
    segment_check_idle(seg);
}

static void reserve_a_cell(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_ANY, "client");
    struct xseg_request *rq = request_new(port);
    /* As xseg_request_submit does, up to the reservation. */
    rq->dst_port = XSEG_PORT_BLOCKERB;
    rq->state = XSEG_RS_SUBMITTED;
    struct ring ring = segment_ring(own, XSEG_PORT_BLOCKERB, false);
    port->slot->push_intent =
        ring_intent_id(XSEG_PORT_BLOCKERB, false) | ring.shared->head;
    ring.shared->head++;
}

static void a_producer_that_died_in_a_push_stalls_nobody(void)
{
    survivors_begin();
    for (int round = 0; round < 3; round++) {
        dies_after(reserve_a_cell);
        struct xseg_request *rq = request_new(client);
        CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
        CHECK(!xseg_port_accept(server));
        reap();
        CHECK_EQ(reaped.ports, 1);
        CHECK(xseg_port_accept(server) == rq);
        CHECK_EQ(xseg_request_complete(server, rq, 0), 0);
        CHECK(xseg_port_reap(client) == rq);
        xseg_request_free(client, rq);
        CHECK(!xseg_port_accept(server)); /* nor twice, looking at the whole table */
    }
    survivors_end();
}

/* A living producer that lost the race for the same cell must not be mistaken for it.
 */
static void a_hole_is_filled_once(void)
{
    survivors_begin();
    dies_after(reserve_a_cell);
    dies_after(reserve_a_cell);
    reap();
    CHECK_EQ(reaped.ports, 2);
    struct xseg_request *rq = request_new(client);
    CHECK_EQ(xseg_request_submit(client, rq, XSEG_PORT_BLOCKERB), 0);
    CHECK(xseg_port_accept(server) == rq);
    /* The living one's intent: the reaper gives it time, then puts the port off. */
    dies_after(reserve_a_cell);
    struct ring ring = segment_ring(seg, XSEG_PORT_BLOCKERB, false);
    client->slot->push_intent =
        ring_intent_id(XSEG_PORT_BLOCKERB, false) | (ring.shared->head - 1);
    reap();
    CHECK_EQ(reaped.ports, 0);
    client->slot->push_intent = 0;
    reap();
    CHECK_EQ(reaped.ports, 1);
    survivors_end();
}

static void answer_without_a_word(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_VLMCD, "vlmcd");
    struct xseg_request *rq = request_awaited(port);
    rq->result = 42;
    store32_seq(&rq->state, XSEG_RS_DONE);
}

static void an_answer_that_was_not_queued_is_found(void)
{
    pid_t child = child_start(answer_without_a_word, CHILD_DIES);
    client = port_new(seg, XSEG_PORT_ANY, "client");
    struct xseg_request *rq = request_new(client);
    request_send(client, rq, XSEG_PORT_VLMCD);
    child_bury(child);
    CHECK(!xseg_port_reap(client));
    reap();
    CHECK_EQ(xseg_port_wait(client, UINT64_MAX), 0);
    CHECK(xseg_port_reap(client) == rq);
    CHECK_EQ(rq->result, 42);
    xseg_port_unbind(client);
    segment_check_idle(seg);
}

static void claim_unsigned(struct xseg_segment *own)
{
    struct xseg_port *port = port_new(own, XSEG_PORT_ANY, "client");
    struct xseg_request *rq = &own->requests[77];
    rq->op = REQUEST_CLAIM_MARK | port->id;
    rq->state = XSEG_RS_ALLOCATED;
    /* And one that was freed, but not said to be. */
    rq = request_new(port);
    rq->state = XSEG_RS_FREE;
}

static void a_claim_that_was_not_signed_comes_back(void)
{
    dies_after(claim_unsigned);
    reap();
    CHECK_EQ(reaped.requests, 1);
    segment_check_idle(seg);
    struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "client");
    for (uint32_t i = 0; i < small_segment.nr_requests; i++)
        request_new(port);
    xseg_port_unbind(port);
}

static void take_all_ports(struct xseg_segment *own)
{
    struct xseg_port *port;
    while (xseg_port_bind(own, XSEG_PORT_ANY, "client", &port) == 0)
        ;
}

static void dynamic_ports_of_the_dead_come_back(void)
{
    struct xseg_port *none;
    dies_after(take_all_ports);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_ANY, "client", &none), -ENOBUFS);
    reap();
    struct xseg_port *port = port_new(seg, XSEG_PORT_ANY, "client");
    xseg_port_unbind(port);
    segment_check_idle(seg);
}

int main(void)
{
    seg = segment_new(&small_segment);
    the_living_lose_nothing();
    a_zombie_is_dead();
    all_that_it_held_comes_back();
    requests_to_a_dead_server_fail();
    a_new_server_gets_the_port_after_a_reap();
    a_dead_client_keeps_the_buffer_that_is_being_served();
    no_answer_while_a_third_peer_works_on_the_data();
    the_lock_of_the_dead_is_taken_over();
    a_producer_that_died_in_a_push_stalls_nobody();
    a_hole_is_filled_once();
    an_answer_that_was_not_queued_is_found();
    a_claim_that_was_not_signed_comes_back();
    dynamic_ports_of_the_dead_come_back();
    segment_end(seg);
    return 0;
}
