/* SPDX-License-Identifier: Apache-2.0 */
/* When an instance is taken for gone, by clocks that agree and by clocks that do not. */
#include "blocker/lease.h"
#include "blocker/presence.h"

#include <errno.h>
#include <string.h>

#include "check.h"

#define SECOND UINT64_C(1000000000)
#define TTL    (10 * SECOND)
#define NOW    (1000000 * SECOND)
/* What a presence may have left by a clock that is as far behind as clocks may be. */
#define MOST (TTL + PRESENCE_MAX_SKEW_NS)

static struct xseg_presence ask_of(const char *nonce)
{
    struct xseg_presence ask = {.ttl_ns = TTL};

    memcpy(ask.nonce, nonce, strlen(nonce));
    return ask;
}

static struct xseg_presence begun_at(uint64_t now_ns)
{
    struct xseg_presence stored = {0}, ask = ask_of("a");
    enum presence_change change;

    CHECK_EQ(presence_acquire(&stored, &ask, now_ns, &change), 0);
    CHECK_EQ(change, PRESENCE_BEGUN);
    return stored;
}

static int taken_at(struct xseg_presence stored, uint64_t now_ns)
{
    struct xseg_presence ask = ask_of("b");
    enum presence_change change;
    return presence_acquire(&stored, &ask, now_ns, &change);
}

static void test_a_presence_lasts_its_life(void)
{
    struct xseg_presence there = begun_at(NOW);

    CHECK(!presence_is_over(&there, NOW));
    CHECK(!presence_is_over(&there, NOW + TTL - 1));
    CHECK(presence_is_over(&there, NOW + TTL));
}

static void test_a_clock_that_ran_ahead_holds_no_node_up(void)
{
    struct xseg_presence ask = ask_of("a");
    enum presence_change change;

    /* a clock is wrong, and not by much: the presence is respected */
    struct xseg_presence there = begun_at(NOW + PRESENCE_MAX_SKEW_NS);
    CHECK_EQ(there.expires_ns, NOW + MOST);
    CHECK(!presence_is_over(&there, NOW));
    CHECK_EQ(taken_at(there, NOW), -EBUSY);
    /* by a day: no node waits so long */
    there = begun_at(NOW + 86400 * SECOND);
    CHECK(presence_is_over(&there, NOW));
    CHECK_EQ(taken_at(there, NOW), 0);
    CHECK(presence_is_over(&there, NOW + 86400 * SECOND - PRESENCE_MAX_SKEW_NS - 1));
    CHECK(!presence_is_over(&there, NOW + 86400 * SECOND - PRESENCE_MAX_SKEW_NS));
    /* its own run still renews it */
    CHECK_EQ(presence_acquire(&there, &ask, NOW, &change), 0);
    CHECK_EQ(change, PRESENCE_RENEWED);
    CHECK_EQ(there.expires_ns, NOW + TTL);
}

static void test_only_what_is_known_ends_a_lease(void)
{
    struct xseg_presence there = begun_at(NOW);
    struct xseg_lease lease = {0};

    memcpy(lease.nonce, there.nonce, sizeof lease.nonce);
    CHECK(!lease_holder_over(&lease, 0, &there, NOW));
    CHECK(lease_holder_over(&lease, 0, &there, NOW + TTL));
    CHECK(lease_holder_over(&lease, -ENOENT, &there, NOW));
    CHECK(!lease_holder_over(&lease, -EBADMSG, &there, NOW));
    CHECK(!lease_holder_over(&lease, -EMFILE, &there, NOW));
    lease.nonce[0] ^= 1; /* another run is there now */
    CHECK(lease_holder_over(&lease, 0, &there, NOW));
}

static void test_a_damaged_lease_is_broken_with_a_fence_far_above(void)
{
    struct xseg_lease lease = lease_of_damaged(7), ask = {0};

    CHECK_EQ(lease_release(&lease, &ask, true), 0);
    CHECK_EQ(lease.fence, 8 + (UINT64_C(1) << 32));
    CHECK(lease_is_free(&lease));
    lease = lease_of_damaged(UINT64_MAX - 5);
    CHECK_EQ(lease_release(&lease, &ask, true), 0);
    CHECK_EQ(lease.fence, UINT64_MAX);
}

int main(void)
{
    test_a_presence_lasts_its_life();
    test_a_clock_that_ran_ahead_holds_no_node_up();
    test_only_what_is_known_ends_a_lease();
    test_a_damaged_lease_is_broken_with_a_fence_far_above();
    return 0;
}
