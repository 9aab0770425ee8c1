/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring: order, capacity, many producers, and what the dead leave in it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "fixture.h"
#include "xseg/ring.h"

#define CAPACITY 64u

static struct xseg_ring_shared shared;
static struct xseg_ring_cell cells[CAPACITY];
static const struct ring ring = {&shared, cells, CAPACITY - 1};

static void gives_back_in_order_and_refuses_when_full(void)
{
    uint32_t value;
    ring_init(&ring);
    CHECK(!ring_ready(&ring));
    CHECK(!ring_pop(&ring, &value));
    /* Odd fill levels, often enough to go round several times. */
    for (uint32_t lap = 0; lap < 100; lap++) {
        uint32_t n = lap % CAPACITY + 1;
        for (uint32_t i = 0; i < n; i++)
            CHECK_EQ(ring_push(&ring, lap * 1000 + i, NULL, 0), 0);
        CHECK(ring_ready(&ring));
        if (n == CAPACITY)
            CHECK_EQ(ring_push(&ring, 1, NULL, 0), -EAGAIN);
        for (uint32_t i = 0; i < n; i++) {
            CHECK(ring_pop(&ring, &value));
            CHECK_EQ(value, lap * 1000 + i);
        }
        CHECK(!ring_pop(&ring, &value));
    }
}

static void positions_wrap_at_two_to_the_32(void)
{
    uint32_t value, start = UINT32_MAX - 10;
    ring_init(&ring);
    shared.head = shared.tail = start;
    for (uint32_t i = 0; i < CAPACITY; i++)
        cells[(start + i) % CAPACITY].sequence = start + i;
    for (uint32_t i = 0; i < 3 * CAPACITY; i++) {
        CHECK_EQ(ring_push(&ring, i, NULL, 0), 0);
        CHECK(ring_pop(&ring, &value));
        CHECK_EQ(value, i);
    }
}

/* A producer that died after the reservation: head moved, nothing published. */
static void a_hole_lets_the_ring_go_on(void)
{
    uint32_t value;
    ring_init(&ring);
    CHECK_EQ(ring_push(&ring, 1, NULL, 0), 0);
    shared.head = 2;
    CHECK_EQ(ring_push(&ring, 3, NULL, 0), 0);
    CHECK(ring_pop(&ring, &value));
    CHECK_EQ(value, 1);
    CHECK(!ring_pop(&ring, &value));
    CHECK(!ring_reserved(&ring, 0));
    CHECK(ring_reserved(&ring, 1));
    CHECK(!ring_reserved(&ring, 2));
    CHECK(!ring_reserved(&ring, 3)); /* empty, but nobody has reserved it */
    ring_fill_hole(&ring, 1);
    CHECK(ring_pop(&ring, &value));
    CHECK_EQ(value, RING_HOLE);
    CHECK(ring_pop(&ring, &value));
    CHECK_EQ(value, 3);
}

/* A consumer that died between giving the cell back and moving the tail. */
static void a_new_consumer_moves_the_tail_on(void)
{
    uint32_t value;
    ring_init(&ring);
    CHECK_EQ(ring_push(&ring, 1, NULL, 0), 0);
    CHECK_EQ(ring_push(&ring, 2, NULL, 0), 0);
    cells[0].sequence = CAPACITY;
    CHECK(!ring_pop(&ring, &value));
    ring_repair_tail(&ring);
    CHECK(ring_pop(&ring, &value));
    CHECK_EQ(value, 2);
    ring_repair_tail(&ring); /* nothing to mend: nothing changes */
    CHECK_EQ(ring_push(&ring, 4, NULL, 0), 0);
    CHECK(ring_pop(&ring, &value));
    CHECK_EQ(value, 4);
}

static void scribbled_positions_end_in_an_error(void)
{
    uint64_t intent = 1;
    ring_init(&ring);
    cells[0].sequence = 77;
    CHECK_EQ(ring_push(&ring, 1, &intent, 0), -EAGAIN);
    CHECK_EQ(intent, 0);
    cells[0].sequence = UINT32_MAX;
    CHECK_EQ(ring_push(&ring, 1, &intent, 0), -EAGAIN);
}

#define NR_PRODUCERS 4u
#define NR_EACH      100000u

static void *produce(void *arg)
{
    uint32_t id = (uint32_t)(uintptr_t)arg;
    uint64_t intent = 0;
    for (uint32_t i = 0; i < NR_EACH; i++) {
        while (ring_push(&ring, id << 24 | i, &intent, ring_intent_id(id, true)) != 0)
            sched_yield();
    }
    return NULL;
}

static void many_producers_lose_and_double_nothing(void)
{
    pthread_t threads[NR_PRODUCERS];
    uint32_t next[NR_PRODUCERS] = {0};
    ring_init(&ring);
    for (uintptr_t i = 0; i < NR_PRODUCERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, produce, (void *)i), 0);
    for (uint32_t taken = 0; taken < NR_PRODUCERS * NR_EACH;) {
        uint32_t value;
        if (!ring_pop(&ring, &value)) {
            sched_yield();
            continue;
        }
        uint32_t id = value >> 24;
        CHECK(id < NR_PRODUCERS);
        CHECK_EQ(value & 0xffffff, next[id]); /* each producer's own order is kept */
        next[id]++;
        taken++;
    }
    for (uint32_t i = 0; i < NR_PRODUCERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK(!ring_ready(&ring));
}

int main(void)
{
    gives_back_in_order_and_refuses_when_full();
    positions_wrap_at_two_to_the_32();
    a_hole_lets_the_ring_go_on();
    a_new_consumer_moves_the_tail_on();
    scribbled_positions_end_in_an_error();
    many_producers_lose_and_double_nothing();
    return 0;
}
