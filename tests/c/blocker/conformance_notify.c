/* SPDX-License-Identifier: Apache-2.0 */
/* NOTIFY: who lost a lease that was granted through this port is told. */
#include <errno.h>

#include "blocker/conformance.h"

static uint64_t acquire(uint64_t n, const char *owner)
{
    struct xseg_object l = lease_name(n);
    struct xseg_lease lease = lease_of(owner);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0), 0);
    return lease.fence;
}

/** Grant it to `owner`, which has no presence, and then to another. */
static void lose(uint64_t n, const char *owner)
{
    uint64_t fence = acquire(n, owner);
    CHECK_EQ(acquire(n, "taker"), fence + 1);
}

static void check_told(uint64_t n)
{
    struct xseg_object l = lease_name(n), which;
    struct xseg_lease lease;

    CHECK_EQ(await_notify(s, &which, &lease), 0);
    CHECK(memcmp(lease.owner, "taker", 6) == 0);
    CHECK(blk_object_equal(&which, &l));
    CHECK_EQ(lease.fence, 2);
}

static void test_a_loss_is_told_to_who_waits_and_to_who_comes(void)
{
    start_notify(s);
    lose(70, "n");
    check_told(70);
    lose(71, "n");
    start_notify(s);
    check_told(71);
    /* each loss once, none is forgotten */
    lose(72, "n");
    lose(73, "n");
    struct xseg_object which[2], l2 = lease_name(72), l3 = lease_name(73);
    struct xseg_lease lease;
    for (int i = 0; i < 2; i++) {
        start_notify(s);
        CHECK_EQ(await_notify(s, &which[i], &lease), 0);
    }
    CHECK(blk_object_equal(&which[0], &l2)
              ? blk_object_equal(&which[1], &l3)
              : blk_object_equal(&which[0], &l3) && blk_object_equal(&which[1], &l2));
}

static void test_what_one_did_oneself_is_not_told(void)
{
    struct xseg_object l = lease_name(75), m = lease_name(76), n = lease_name(77);
    struct xseg_lease lease = lease_of("n");

    start_notify(s);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0), 0); /* renewed */
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &lease, 0), 0);
    acquire(76, "n");
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &m, &lease, XSEG_F_FORCE), 0);
    acquire(77, "n");
    CHECK_EQ(do_delete(s, &n), 0);
    /* that one still waits for the first real loss */
    lose(78, "n");
    check_told(78);
    /* lost and regained before anybody asked */
    acquire(79, "n");
    acquire(79, "m");
    CHECK_EQ(acquire(79, "n"), 3);
    start_notify(s);
    struct xseg_object o = lease_name(79), which;
    CHECK_EQ(await_notify(s, &which, &lease), 0);
    CHECK(blk_object_equal(&which, &o)); /* b's */
    CHECK(memcmp(lease.owner, "n", 2) == 0);
}

static void test_one_waits_and_the_second_ends_the_first(void)
{
    struct xseg_request *first;

    start_notify(s);
    first = s->notify;
    start_notify(s);
    CHECK_EQ(await(s, first), -ECANCELED);
    xseg_request_free(s->port, first);
    lose(80, "n");
    check_told(80);
    /* the one that waits when the blocker stops is told so */
    if (survives()) {
        start_notify(s);
        restart();
    }
}

void test_notify(void)
{
    test_a_loss_is_told_to_who_waits_and_to_who_comes();
    test_what_one_did_oneself_is_not_told();
    test_one_waits_and_the_second_ends_the_first();
}
