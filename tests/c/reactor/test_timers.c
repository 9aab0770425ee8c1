/* SPDX-License-Identifier: Apache-2.0 */
/* Timers fire in the order of their deadlines, once, and never within the same turn. */
#include "fixture.h"

#define NR_TIMERS 64

static struct reactor *loop;

struct tick {
    struct reactor_timer timer;
    unsigned nr_fired;
};

static struct tick *fired[NR_TIMERS];
static unsigned nr_fired, nr_expected;

static void on_tick(struct reactor_timer *timer)
{
    struct tick *tick = (struct tick *)(void *)timer;

    tick->nr_fired++;
    CHECK(!timer->armed);
    CHECK(reactor_now_ns(loop) >= timer->deadline_ns);
    fired[nr_fired++] = tick;
    if (nr_fired == nr_expected)
        reactor_stop(loop);
}

static void test_random_delays_fire_in_order(uint64_t *seed)
{
    struct tick ticks[NR_TIMERS] = {0};
    unsigned nr_disarmed = 0;

    nr_fired = 0;
    for (unsigned i = 0; i < NR_TIMERS; i++) {
        ticks[i].timer.on_fire = on_tick;
        reactor_arm_timer(loop, &ticks[i].timer, check_next(seed) % 3000000);
    }
    for (unsigned i = 0; i < NR_TIMERS; i++) {
        switch (check_next(seed) % 4) {
        case 0: /* moved */
            reactor_arm_timer(loop, &ticks[i].timer, check_next(seed) % 3000000);
            break;
        case 1: /* twice is harmless */
            reactor_disarm_timer(loop, &ticks[i].timer);
            reactor_disarm_timer(loop, &ticks[i].timer);
            nr_disarmed++;
            break;
        default:
            break;
        }
    }
    nr_expected = NR_TIMERS - nr_disarmed;
    if (nr_expected == 0)
        return;
    CHECK_EQ(reactor_run(loop), 0);
    CHECK_EQ(nr_fired, nr_expected);
    for (unsigned i = 0; i < nr_fired; i++) {
        CHECK_EQ(fired[i]->nr_fired, 1);
        CHECK(i == 0 || fired[i - 1]->timer.deadline_ns <= fired[i]->timer.deadline_ns);
    }
}

static struct reactor_timer again;
static unsigned nr_again;
static uint64_t last_turn;

static void on_again(struct reactor_timer *timer)
{
    struct reactor_statistics stats;

    reactor_statistics(loop, &stats);
    CHECK(stats.turns > last_turn);
    last_turn = stats.turns;
    if (++nr_again < 100)
        reactor_arm_timer(loop, timer, 0);
    else
        reactor_stop(loop);
}

static void test_rearming_with_no_delay_waits_for_the_next_turn(void)
{
    again.on_fire = on_again;
    reactor_arm_timer(loop, &again, 0);
    CHECK_EQ(reactor_run(loop), 0);
    CHECK_EQ(nr_again, 100);
}

static struct reactor_timer first, second;

static void on_first(struct reactor_timer *timer)
{
    (void)timer;
    reactor_disarm_timer(loop, &second); /* due in this turn too */
    reactor_stop(loop);
}

static void on_second(struct reactor_timer *timer)
{
    (void)timer;
    CHECK(!"a disarmed timer fired");
}

static void test_a_callback_disarms_a_due_timer(void)
{
    first.on_fire = on_first;
    second.on_fire = on_second;
    reactor_arm_timer(loop, &first, 1);
    reactor_arm_timer(loop, &second, 1);
    CHECK_EQ(reactor_run(loop), 0);
    CHECK(!second.armed);
}

static void test_a_far_deadline_does_not_overflow(void)
{
    struct reactor_timer far = {.on_fire = on_second};

    reactor_arm_timer(loop, &far, UINT64_MAX);
    CHECK_EQ(far.deadline_ns, UINT64_MAX);
    nr_again = 0;
    last_turn = 0;
    test_rearming_with_no_delay_waits_for_the_next_turn();
    reactor_disarm_timer(loop, &far);
}

int main(void)
{
    uint64_t seed = check_seed();
    struct xseg_segment *seg = fixture_segment();

    loop = fixture_reactor(seg);
    for (unsigned round = 0; round < 20; round++)
        test_random_delays_fire_in_order(&seed);
    test_rearming_with_no_delay_waits_for_the_next_turn();
    test_a_callback_disarms_a_due_timer();
    test_a_far_deadline_does_not_overflow();
    reactor_destroy(loop);
    xseg_segment_detach(seg);
    return 0;
}
