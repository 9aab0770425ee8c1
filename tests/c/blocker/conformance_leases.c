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
    struct xseg_lease a = lease_of("a", LONG_NS), b = lease_of("b", LONG_NS), x;
    struct xseg_object_info info;

    x = a;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ENOENT);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(a.fence, 1);
    CHECK(a.expires_ns > 0);
    /* another is told whose it is */
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    CHECK(strcmp(x.owner, "a") == 0 && strcmp(x.host, "host-of-a") == 0);
    CHECK(x.fence == 1 && x.ttl_ns > 0 && x.ttl_ns <= LONG_NS);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
    /* its holder renews, many times */
    for (int i = 0; i < 5; i++) {
        x = lease_of("a", LONG_NS);
        CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
        CHECK_EQ(x.fence, 1);
        CHECK(x.expires_ns >= a.expires_ns);
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
    CHECK(strcmp(x.owner, "a") == 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &a, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &a, 0), -ESTALE);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &b, 0), 0);
    CHECK_EQ(b.fence, 2);
    /* the old fence cannot append any more, the new one can */
    CHECK_EQ(do_append(s, &j, 20, 1, page, 10), -ESTALE);
    CHECK_EQ(do_append(s, &j, 30, 1, page, 10), -ESTALE); /* that first */
    CHECK_EQ(do_append(s, &j, 30, 2, page, 10), -ERANGE);
    CHECK_EQ(do_append(s, &j, 20, 2, page, 10), 0);
    x = lease_of("a", LONG_NS);
    x.fence = 1;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
}

/** Acquire for an owner; the fence from which on it has been his alone. */
static uint64_t since_of(const char *owner, uint64_t fence)
{
    struct xseg_object l = lease_name(8);
    struct xseg_lease lease = lease_of(owner, LONG_NS);

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
        x = lease_of("a", LONG_NS);
        CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
        restart();
        CHECK_EQ(since_of("a", fence), 1);
    }
    x = lease_of("a", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    CHECK_EQ(since_of("b", 5), 5);
    x = lease_of("b", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    CHECK_EQ(since_of("a", 6), 6);
    /* broken, by whomever */
    x = lease_of("a", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(since_of("a", 8), 8);
    /* what the asker says of it does not count */
    x = lease_of("a", LONG_NS);
    x.since = 1;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.since, 8);
}

static void test_append_of_nothing_compares_the_fence(void)
{
    struct xseg_object l = lease_name(7), j = journal_name(7, 1);
    struct xseg_lease a = lease_of("a", LONG_NS), b = lease_of("b", LONG_NS), x = b;
    struct xseg_object_info info;

    /* neither lease nor journal is needed by who never had one, and none is made */
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
    a = lease_of("a", LONG_NS);
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
    struct xseg_lease a = lease_of("a", LONG_NS), x = a;
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
    struct xseg_lease a = lease_of("a", LONG_NS), b = lease_of("b", LONG_NS), x;

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, a.fence, page, 10), 0);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 10), -ESTALE);
    /* a renewal that was under way meanwhile does not take it back */
    x = lease_of("a", LONG_NS);
    x.fence = a.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -ESTALE);
    CHECK_EQ(x.expires_ns, 0);
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

static void test_lease_of_the_dead_and_the_late_is_taken_over(void)
{
    struct xseg_object l = lease_name(3);
    struct xseg_lease dead = lease_of("dead", LONG_NS), x;

    dead.pid_start += 1; /* nobody with this pid started then */
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &dead, 0), 0);
    x = lease_of("b", 1); /* expired as soon as it is granted */
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.fence, 2);
    /* who asks for a free one gets neither; its holder does, and what is free is */
    x = lease_of("c", LONG_NS);
    x.flags = XSEG_LEASE_IF_FREE;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    CHECK_EQ(x.fence, 2);
    x = lease_of("c", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.fence, 3);
    for (uint64_t fence = 3; fence <= 4; fence++) { /* its own, then a free one */
        x = lease_of("c", LONG_NS);
        x.flags = XSEG_LEASE_IF_FREE;
        CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
        CHECK_EQ(x.fence, fence);
        CHECK_EQ(x.flags, 0);
        CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    }
    /* on another boot a pid says nothing */
    x = lease_of("d", LONG_NS);
    x.pid_start += 1;
    x.boot_id[0] = x.boot_id[0] == '0' ? '1' : '0';
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    x = lease_of("e", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    /* a lock outlives the process that took it, and time */
    x = lease_of("f", 1);
    x.pid_start += 1;
    x.flags = XSEG_LEASE_LOCK;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    x = lease_of("g", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    /* malformed asks */
    x = lease_of("", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    x = lease_of("a", 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    memset(x.owner, 'x', sizeof x.owner);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
}

static void test_a_lock_ends_when_its_owner_says_so(void)
{
    struct xseg_object l = lease_name(5);
    struct xseg_lease a = lease_of("a", LONG_NS), b, x;

    a.pid_start += 1; /* dead, but for the lock */
    a.flags = XSEG_LEASE_LOCK;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(a.expires_ns, UINT64_MAX);
    /* a renewal leaves it */
    x = lease_of("a", LONG_NS);
    x.fence = a.fence;
    x.pid_start = a.pid_start;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.flags, XSEG_LEASE_LOCK);
    CHECK_EQ(x.expires_ns, UINT64_MAX);
    /* only its owner ends it, and only of the fence that he names */
    x = lease_of("b", LONG_NS);
    x.flags = XSEG_LEASE_UNLOCK;
    x.fence = a.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    x = lease_of("a", LONG_NS);
    x.flags = XSEG_LEASE_UNLOCK;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    x.fence = a.fence + 1;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -ESTALE);
    x.fence = a.fence;
    x.flags = XSEG_LEASE_UNLOCK | XSEG_LEASE_LOCK;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    b = lease_of("b", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &b, 0), -EBUSY);
    /* the lease stays his, and is one like any other: it ends with its process */
    x = lease_of("a", LONG_NS);
    x.fence = a.fence;
    x.pid_start = a.pid_start;
    for (int i = 0; i < 2; i++) {
        x.flags = XSEG_LEASE_UNLOCK;
        CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
        CHECK_EQ(x.fence, a.fence);
        CHECK_EQ(x.flags, 0);
        CHECK(x.expires_ns != UINT64_MAX);
    }
    restart();
    CHECK_EQ(do_read(s, &l, 0, got, SECTOR), sizeof x);
    memcpy(&x, got, sizeof x);
    CHECK(strcmp(x.owner, "a") == 0);
    CHECK_EQ(x.flags, 0);
    b = lease_of("b", LONG_NS);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &b, 0), 0);
    CHECK_EQ(b.fence, a.fence + 1);
    CHECK_EQ(do_delete(s, &l), 0);
}

void test_leases(void)
{
    test_journal_grows_only_at_its_end();
    test_lease_is_granted_renewed_and_released();
    test_a_lease_says_since_when_nobody_else_had_it();
    test_append_of_nothing_compares_the_fence();
    test_a_lease_that_is_gone_is_not_ours();
    test_lease_is_broken_by_force();
    test_lease_of_the_dead_and_the_late_is_taken_over();
    test_a_lock_ends_when_its_owner_says_so();
}
