/* SPDX-License-Identifier: Apache-2.0 */
/* When a lease may be taken over, by clocks that agree and by clocks that do not. */
#include "blocker/lease.h"

#include <errno.h>
#include <string.h>

#include "check.h"

#define SECOND UINT64_C(1000000000)
#define TTL    (10 * SECOND)
#define NOW    (1000000 * SECOND)
/* What a lease may have left by a clock that is as far behind as clocks may be. */
#define MOST (TTL + LEASE_MAX_SKEW_NS)

static struct xseg_lease ask_of(const char *owner)
{
    struct xseg_lease ask = {.ttl_ns = TTL};

    strcpy(ask.owner, owner);
    return ask;
}

static struct xseg_lease granted_at(uint64_t now_ns, uint32_t flags)
{
    struct xseg_lease stored = {0}, ask = ask_of("a");
    enum lease_change change;

    ask.flags = flags;
    CHECK_EQ(lease_acquire(&stored, &ask, now_ns, &change), 0);
    return stored;
}

static int taken_at(struct xseg_lease stored, uint64_t now_ns, uint64_t *fence)
{
    struct xseg_lease ask = ask_of("b");
    enum lease_change change;
    int rc = lease_acquire(&stored, &ask, now_ns, &change);

    *fence = stored.fence;
    return rc;
}

static void test_a_lease_lasts_its_life(void)
{
    struct xseg_lease lease = granted_at(NOW, 0);

    CHECK(lease_is_held(&lease, NOW));
    CHECK(lease_is_held(&lease, NOW + TTL - 1));
    CHECK(!lease_is_held(&lease, NOW + TTL));
}

static void test_a_clock_that_ran_ahead_holds_nobody_up(void)
{
    uint64_t fence;

    /* somebody's clock is wrong, and not by much: his lease is respected */
    struct xseg_lease lease = granted_at(NOW + LEASE_MAX_SKEW_NS, 0);
    CHECK_EQ(lease.expires_ns, NOW + MOST);
    CHECK(lease_is_held(&lease, NOW));
    CHECK_EQ(taken_at(lease, NOW, &fence), -EBUSY);
    /* by a day: nobody waits so long */
    lease = granted_at(NOW + 86400 * SECOND, 0);
    CHECK(!lease_is_held(&lease, NOW));
    CHECK_EQ(taken_at(lease, NOW, &fence), 0);
    CHECK_EQ(fence, lease.fence + 1);
    CHECK(!lease_is_held(&lease, NOW + 86400 * SECOND - LEASE_MAX_SKEW_NS - 1));
    CHECK(lease_is_held(&lease, NOW + 86400 * SECOND - LEASE_MAX_SKEW_NS));
    /* whose process is not known here, too: it is only a question of time */
    CHECK_EQ(lease.pid, 0);
    /* its owner still renews it */
    struct xseg_lease ask = ask_of("a");
    enum lease_change change;
    ask.fence = lease.fence;
    CHECK_EQ(lease_acquire(&lease, &ask, NOW, &change), 0);
    CHECK_EQ(lease.expires_ns, NOW + TTL);
}

static void test_a_lock_and_a_lease_for_ever_know_no_time(void)
{
    uint64_t fence;
    struct xseg_lease lease = granted_at(NOW + 86400 * SECOND, XSEG_LEASE_LOCK);

    CHECK_EQ(lease.expires_ns, UINT64_MAX);
    CHECK(lease_is_held(&lease, NOW));
    CHECK_EQ(taken_at(lease, NOW, &fence), -EBUSY);
    /* a life beyond the end of time */
    lease = granted_at(NOW, 0);
    lease.ttl_ns = lease.expires_ns = UINT64_MAX;
    CHECK(lease_is_held(&lease, 0));
    CHECK(lease_is_held(&lease, NOW));
    CHECK(lease_is_held(&lease, UINT64_MAX - 1));
}

int main(void)
{
    test_a_lease_lasts_its_life();
    test_a_clock_that_ran_ahead_holds_nobody_up();
    test_a_lock_and_a_lease_for_ever_know_no_time();
    return 0;
}
