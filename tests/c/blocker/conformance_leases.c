/* SPDX-License-Identifier: Apache-2.0 */
/* Journals grow and leases are granted, renewed, released and broken. */
#include <errno.h>

#include "blocker/conformance.h"

static void test_journal_grows_only_at_its_end(void)
{
    struct xseg_object j = journal_name(1, 1);
    struct xseg_object_info info;

    fill(page, 3000, 30);
    CHECK_EQ(do_append(s, &j, 10, 0, page, 10), -ESTALE);
    CHECK_EQ(do_info(s, &j, &info), -ENOENT);
    CHECK_EQ(do_append(s, &j, 0, 0, page, 1000), 0);
    CHECK_EQ(do_append(s, &j, 0, 0, page, 10), -ERANGE);
    CHECK_EQ(do_append(s, &j, 999, 0, page, 10), -ERANGE);
    CHECK_EQ(do_append(s, &j, 1001, 0, page, 10), -ERANGE);
    CHECK_EQ(do_append(s, &j, 1000, 0, page + 1000, 500), 0);
    restart();
    CHECK_EQ(do_append(s, &j, 1500, 0, page + 1500, 1500), 0);
    CHECK_EQ(do_read(s, &j, 0, got, 1 << 20), 3000);
    CHECK(memcmp(got, page, 3000) == 0);
    CHECK_EQ(do_info(s, &j, &info), 0);
    CHECK_EQ(info.size_bytes, 3000);
    CHECK_EQ(do_delete(s, &j), 0);
    CHECK_EQ(do_append(s, &j, 3000, 0, page, 10), -ESTALE);
    CHECK_EQ(do_read(s, &j, 0, got, 10), -ENOENT);
    CHECK_EQ(do_append(s, &j, 0, 0, page, 10), 0);
}

static void test_lease_is_granted_renewed_and_released(void)
{
    struct xseg_object l = lease_name(1), j = journal_name(1, 2);
    struct xseg_lease a = lease_of("a"), b = lease_of("b"), x;
    struct xseg_object_info info;

    x = a;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ENOENT);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(a.fence, 1);
    /* another is told whose it is */
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    CHECK(memcmp(x.owner, a.owner, sizeof x.owner) == 0);
    CHECK(x.fence == 1 && strcmp(x.host, "host-of-a") == 0);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
    /* its holder asks again, many times */
    for (uint64_t fence = 0; fence < 2; fence++) {
        x = lease_of("a");
        x.fence = fence;
        CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
        CHECK_EQ(x.fence, 1);
    }
    CHECK_EQ(do_append(s, &j, 0, 0, page, 10), -ESTALE);
    CHECK_EQ(do_info(s, &j, &info), -ENOENT);
    CHECK_EQ(do_append(s, &j, 0, 1, page, 10), 0);
    CHECK_EQ(do_append(s, &j, 10, 1, page, 10), 0);
    restart();
    CHECK_EQ(do_info(s, &l, &info), 0);
    CHECK_EQ(info.version, 1);
    CHECK_EQ(do_read(s, &l, 0, got, SECTOR), sizeof x);
    memcpy(&x, got, sizeof x);
    CHECK(memcmp(x.nonce, a.nonce, sizeof x.nonce) == 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &a, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &a, 0), -ESTALE);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &b, 0), 0);
    CHECK_EQ(b.fence, 2);
    /* the old fence cannot append any more, the new one can */
    CHECK_EQ(do_append(s, &j, 20, 1, page, 10), -ESTALE);
    CHECK_EQ(do_append(s, &j, 30, 1, page, 10), -ESTALE); /* that first */
    CHECK_EQ(do_append(s, &j, 30, 2, page, 10), -ERANGE);
    CHECK_EQ(do_append(s, &j, 20, 2, page, 10), 0);
    x = lease_of("a");
    x.fence = 1;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
}

/** Acquire for an owner; the fence from which on it has been that owner's alone. */
static uint64_t since_of(const char *owner, uint64_t fence)
{
    struct xseg_object l = lease_name(8);
    struct xseg_lease lease = lease_of(owner);

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0), 0);
    CHECK_EQ(lease.fence, fence);
    return lease.since;
}

static void test_a_lease_says_since_when_nobody_else_had_it(void)
{
    struct xseg_object l = lease_name(8);
    struct xseg_lease x;

    CHECK_EQ(since_of("a", 1), 1);
    CHECK_EQ(since_of("a", 1), 1);
    /* given back and taken again, also by another process */
    for (uint64_t fence = 2; fence < 5; fence++) {
        x = lease_of("a");
        CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
        restart();
        CHECK_EQ(since_of("a", fence), 1);
    }
    x = lease_of("a");
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    CHECK_EQ(since_of("b", 5), 5);
    x = lease_of("b");
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    CHECK_EQ(since_of("a", 6), 6);
    /* broken, by whomever */
    x = lease_of("a");
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(since_of("a", 8), 8);
    /* what the asker says of it does not count */
    x = lease_of("a");
    x.since = 1;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.since, 8);
}

static void test_append_of_nothing_compares_the_fence(void)
{
    struct xseg_object l = lease_name(7), j = journal_name(7, 1);
    struct xseg_lease a = lease_of("a"), b = lease_of("b"), x = b;
    struct xseg_object_info info;

    /* neither lease nor journal is needed by a holder that never had one, and none is made */
    CHECK_EQ(do_append(s, &j, 0, 0, page, 0), 0);
    CHECK_EQ(do_append(s, &j, 1 << 20, 0, page, 0), 0);
    CHECK_EQ(do_append(s, &j, 1 << 20, 7, page, 0), -ESTALE);
    CHECK_EQ(do_info(s, &j, &info), -ENOENT);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(do_append(s, &j, 0, 0, page, 0), -ESTALE);
        CHECK_EQ(do_append(s, &j, 5, a.fence, page, 0), 0);
        CHECK_EQ(do_append(s, &j, 5, a.fence + 1, page, 0), 0);
    }
    CHECK_EQ(do_info(s, &j, &info), -ENOENT);
    CHECK_EQ(do_append(s, &j, 0, a.fence, page, 10), 0);
    CHECK_EQ(do_append(s, &j, 0, a.fence, page, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 0), -ESTALE);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &b, 0), 0);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 0), -ESTALE);
    CHECK_EQ(do_append(s, &j, 10, b.fence, page, 0), 0);
    /* a lease that was deleted and made anew is another file */
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(do_append(s, &j, 10, 0, page, 0), 0);
    a = lease_of("a");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(do_append(s, &j, 10, 0, page, 0), -ESTALE);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 0), 0);
    CHECK_EQ(do_info(s, &j, &info), 0);
    CHECK_EQ(info.size_bytes, 10);
}

/** A volume is removed with its lease: who held it flushes nothing, and makes nothing. */
static void test_a_lease_that_is_gone_is_not_ours(void)
{
    struct xseg_object l = lease_name(9), j = journal_name(9, 1),
                       k = journal_name(9, 2);
    struct xseg_lease a = lease_of("a"), x = a;
    struct xseg_object_info info;

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, a.fence, page, 10), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(do_delete(s, &j), 0);
    CHECK_EQ(do_delete(s, &l), 0);
    for (int i = 0; i < 2; i++) { /* also by a process that never saw the lease */
        CHECK_EQ(do_append(s, &j, 10, a.fence, page, 0), -ESTALE);
        CHECK_EQ(do_append(s, &j, 0, a.fence, page, 10), -ESTALE);
        CHECK_EQ(do_append(s, &k, 0, a.fence, page, 10), -ESTALE);
        restart();
    }
    CHECK_EQ(do_info(s, &j, &info), -ENOENT);
    CHECK_EQ(do_info(s, &k, &info), -ENOENT);
    CHECK_EQ(do_info(s, &l, &info), -ENOENT);
}

static void test_lease_is_broken_by_force(void)
{
    struct xseg_object l = lease_name(2), j = journal_name(2, 1);
    struct xseg_lease a = lease_of("a"), b = lease_of("b"), x;

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, a.fence, page, 10), 0);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 10), -ESTALE);
    /* a renewal that was under way meanwhile does not take it back */
    x = lease_of("a");
    x.fence = a.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -ESTALE);
    CHECK_EQ(x.nonce[0], 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &b, 0), 0);
    CHECK(b.fence > a.fence + 1);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.fence, b.fence);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 10), -ESTALE);
    CHECK_EQ(do_append(s, &j, 10, b.fence, page, 10), 0);
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(do_delete(s, &l), -ENOENT);
}

static int64_t acquire(const struct xseg_object *l, const char *owner, uint32_t flags,
                       uint64_t *fence)
{
    struct xseg_lease x = lease_of(owner);
    x.flags = flags;
    int64_t rc = do_lease(s, XSEG_OP_ACQUIRE, l, &x, 0);
    *fence = x.fence;
    if (rc == 0)
        CHECK_EQ(x.flags, flags & XSEG_LEASE_LOCK);
    return rc;
}

/** A lease is as good as the presence of the run that has it. */
static void test_a_lease_ends_with_the_presence_of_its_holder(void)
{
    struct xseg_object l = lease_name(3), p = presence_of_owner("p1");
    struct xseg_presence there;
    struct xseg_lease x;
    uint64_t fence;

    /* never there */
    CHECK_EQ(acquire(&l, "p0", 0, &fence), 0);
    CHECK_EQ(acquire(&l, "p1", 0, &fence), 0);
    CHECK_EQ(fence, 2);
    /* there, then given back */
    appear(s, "p1");
    CHECK_EQ(acquire(&l, "p2", 0, &fence), -EBUSY);
    disappear(s, "p1");
    CHECK_EQ(acquire(&l, "p2", XSEG_LEASE_IF_FREE, &fence), -EBUSY);
    CHECK_EQ(acquire(&l, "p2", 0, &fence), 0);
    CHECK_EQ(fence, 3);
    /* its process is dead */
    appear(s, "p2");
    CHECK_EQ(acquire(&l, "p3", 0, &fence), -EBUSY);
    there = presence_of("p2", LONG_NS);
    there.process.start += 1; /* no process with this pid started then */
    struct xseg_object p2 = presence_of_owner("p2");
    CHECK_EQ(do_presence(s, XSEG_OP_ACQUIRE, &p2, &there), 0);
    CHECK_EQ(acquire(&l, "p3", 0, &fence), 0);
    CHECK_EQ(fence, 4);
    /* it has run out */
    there = presence_of("p3", 1);
    struct xseg_object p3 = presence_of_owner("p3");
    CHECK_EQ(do_presence(s, XSEG_OP_ACQUIRE, &p3, &there), 0);
    CHECK_EQ(acquire(&l, "p1", 0, &fence), 0);
    CHECK_EQ(fence, 5);
    /* another run of the same instance is there: with a fence of its own, so that what
     * the earlier run still writes is refused */
    there = presence_of("again", LONG_NS);
    CHECK_EQ(do_presence(s, XSEG_OP_ACQUIRE, &p, &there), 0);
    x = lease_of("p1");
    memcpy(x.nonce, there.nonce, sizeof x.nonce);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.fence, 6);
    CHECK_EQ(x.since, 5);
    CHECK_EQ(acquire(&l, "p1", 0, &fence), -EBUSY);
    x = lease_of("p1");
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
    CHECK_EQ(do_delete(s, &p), 0);
    /* of what is free the one that asks for a free one gets it */
    CHECK_EQ(acquire(&l, "p4", 0, &fence), 0);
    for (fence = 7; fence <= 8; fence++) {
        uint64_t got_fence;
        CHECK_EQ(acquire(&l, "p4", XSEG_LEASE_IF_FREE, &got_fence), 0);
        CHECK_EQ(got_fence, fence);
        x = lease_of("p4");
        CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    }
    CHECK_EQ(do_delete(s, &l), 0);
    /* malformed asks */
    CHECK_EQ(acquire(&l, "", 0, &fence), -EINVAL);
    x = lease_of("a");
    memset(x.nonce, 0, sizeof x.nonce);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    x = lease_of("a");
    memset(x.host, 'x', sizeof x.host);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
}

static void test_a_lock_ends_when_its_owner_says_so(void)
{
    struct xseg_object l = lease_name(5);
    struct xseg_lease a = lease_of("k1"), x;
    uint64_t fence;

    a.flags = XSEG_LEASE_LOCK; /* its owner is not there */
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    /* asking again leaves it, also by a later run of its owner */
    x = lease_of("k1");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.flags, XSEG_LEASE_LOCK);
    x = lease_of("k1");
    x.nonce[0] = 'n';
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.flags, XSEG_LEASE_LOCK);
    CHECK_EQ(x.fence, a.fence + 1);
    a = x;
    /* only its owner ends it, and only of the fence that it names */
    x = lease_of("k2");
    x.flags = XSEG_LEASE_UNLOCK;
    x.fence = a.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    x = a;
    x.flags = XSEG_LEASE_UNLOCK;
    x.fence = 0;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    x.fence = a.fence + 1;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -ESTALE);
    x = a;
    x.flags = XSEG_LEASE_UNLOCK | XSEG_LEASE_LOCK;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    CHECK_EQ(acquire(&l, "k2", 0, &fence), -EBUSY);
    /* the lease stays its own, and is one like any other: it ends with the presence */
    for (int i = 0; i < 2; i++) {
        x = a;
        x.flags = XSEG_LEASE_UNLOCK;
        CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
        CHECK_EQ(x.fence, a.fence);
        CHECK_EQ(x.flags, 0);
    }
    restart();
    CHECK_EQ(do_read(s, &l, 0, got, SECTOR), sizeof x);
    memcpy(&x, got, sizeof x);
    CHECK(memcmp(x.owner, a.owner, sizeof x.owner) == 0);
    CHECK_EQ(x.flags, 0);
    CHECK_EQ(acquire(&l, "k2", 0, &fence), 0);
    CHECK_EQ(fence, a.fence + 1);
    CHECK_EQ(do_delete(s, &l), 0);
    /* any run of its owner gives it back */
    CHECK_EQ(acquire(&l, "k3", XSEG_LEASE_LOCK, &fence), 0);
    x = lease_of("k3");
    x.nonce[0] = 'n';
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    CHECK_EQ(acquire(&l, "k4", 0, &fence), 0);
    CHECK_EQ(do_delete(s, &l), 0);
}

void test_leases(void)
{
    appear(s, "a");
    appear(s, "b");
    test_journal_grows_only_at_its_end();
    test_lease_is_granted_renewed_and_released();
    test_a_lease_says_since_when_nobody_else_had_it();
    test_append_of_nothing_compares_the_fence();
    test_a_lease_that_is_gone_is_not_ours();
    test_lease_is_broken_by_force();
    test_a_lease_ends_with_the_presence_of_its_holder();
    test_a_lock_ends_when_its_owner_says_so();
}
