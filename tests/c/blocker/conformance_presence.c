/* SPDX-License-Identifier: Apache-2.0 */
/* Presences begin, are renewed, are given back, and keep a second incarnation out. */
#include <errno.h>

#include "blocker/conformance.h"

static int64_t begin(const struct xseg_object *o, struct xseg_presence *p)
{
    return do_presence(s, XSEG_OP_ACQUIRE, o, p);
}

static void test_a_presence_begins_is_renewed_and_given_back(void)
{
    struct xseg_object o = presence_name(1);
    struct xseg_presence a = presence_of("a", LONG_NS), x = a;

    CHECK_EQ(do_presence(s, XSEG_OP_RELEASE, &o, &x), -ENOENT);
    CHECK_EQ(begin(&o, &a), 0);
    CHECK(a.expires_ns > a.since_ns && a.since_ns > 0);
    for (uint64_t generation = 1; generation < 4; generation++) {
        x = presence_of("a", LONG_NS);
        x.generation = generation;
        CHECK_EQ(begin(&o, &x), 0);
        CHECK_EQ(x.generation, generation);
        CHECK_EQ(x.since_ns, a.since_ns);
        CHECK(x.expires_ns >= a.expires_ns);
    }
    restart();
    CHECK_EQ(do_read(s, &o, 0, got, SECTOR), sizeof x);
    memcpy(&x, got, sizeof x);
    CHECK(memcmp(x.nonce, a.nonce, sizeof x.nonce) == 0);
    CHECK(strcmp(x.host, "host-of-a") == 0);
    CHECK_EQ(x.generation, 3);
    CHECK_EQ(x.process.pid, a.process.pid);
    /* another incarnation is told which one is there, and ends nothing */
    struct xseg_presence b = presence_of("b", LONG_NS);
    x = b;
    CHECK_EQ(do_presence(s, XSEG_OP_RELEASE, &o, &x), -ESTALE);
    x = b;
    CHECK_EQ(begin(&o, &x), -EBUSY);
    CHECK(memcmp(x.nonce, a.nonce, sizeof x.nonce) == 0);
    CHECK(x.ttl_ns > 0 && x.ttl_ns <= LONG_NS);
    /* given back, durably, once */
    CHECK_EQ(do_presence(s, XSEG_OP_RELEASE, &o, &a), 0);
    restart();
    CHECK_EQ(do_read(s, &o, 0, got, SECTOR), sizeof x);
    memcpy(&x, got, sizeof x);
    CHECK_EQ(x.expires_ns, 0);
    x = presence_of("a", LONG_NS);
    CHECK_EQ(do_presence(s, XSEG_OP_RELEASE, &o, &x), -ESTALE);
    CHECK_EQ(begin(&o, &b), 0);
    x = presence_of("a", LONG_NS);
    CHECK_EQ(begin(&o, &x), -EBUSY);
    CHECK_EQ(do_delete(s, &o), 0);
    CHECK_EQ(do_delete(s, &o), -ENOENT);
}

/** Only proof and time end a presence that was not given back. */
static void test_a_presence_ends_with_its_time_or_its_process(void)
{
    struct xseg_object o = presence_name(2);
    struct xseg_presence dead = presence_of("dead", LONG_NS), x;

    dead.process.start += 1; /* no process with this pid started then */
    x = dead;
    CHECK_EQ(begin(&o, &x), 0);
    x = presence_of("b", 1); /* over as soon as it is granted */
    CHECK_EQ(begin(&o, &x), 0);
    /* in another pid namespace the pid is another process's: unknown, so it lives */
    x = dead;
    x.nonce[0] = 'n';
    x.process.pid_namespace += 1;
    CHECK_EQ(begin(&o, &x), 0);
    x = presence_of("c", LONG_NS);
    CHECK_EQ(begin(&o, &x), -EBUSY);
    x = dead; /* the instance itself goes on */
    x.nonce[0] = 'n';
    x.ttl_ns = 1;
    CHECK_EQ(begin(&o, &x), 0);
    /* another boot may be another machine: unknown */
    x = dead;
    x.nonce[0] = 'm';
    x.process.boot_id[0] ^= 1;
    CHECK_EQ(begin(&o, &x), 0);
    x = presence_of("c", LONG_NS);
    CHECK_EQ(begin(&o, &x), -EBUSY);
    CHECK_EQ(do_delete(s, &o), 0);
    CHECK_EQ(begin(&o, &x), 0);
    CHECK_EQ(do_delete(s, &o), 0);
}

static void test_malformed_presences_are_refused(void)
{
    struct xseg_object o = presence_name(3);
    struct xseg_presence x = presence_of("", LONG_NS);

    CHECK_EQ(begin(&o, &x), -EINVAL);
    x = presence_of("a", 0);
    CHECK_EQ(begin(&o, &x), -EINVAL);
    x = presence_of("a", LONG_NS);
    memset(x.host, 'x', sizeof x.host);
    CHECK_EQ(begin(&o, &x), -EINVAL);
    x = presence_of("a", LONG_NS);
    x.process.reserved = 1;
    CHECK_EQ(begin(&o, &x), -EINVAL);
    CHECK_EQ(do_read(s, &o, 0, got, SECTOR), -ENOENT);
}

static void test_presences_are_listed(void)
{
    struct xseg_list_entry entries[8];
    struct xseg_opaque cursor = {.length = 0};
    uint64_t found = 0;
    struct xseg_presence x;

    for (uint64_t i = 10; i < 15; i++) {
        struct xseg_object o = presence_name(i);
        x = presence_of("a", LONG_NS);
        CHECK_EQ(begin(&o, &x), 0);
    }
    do {
        int64_t n = do_list(s, XSEG_OBJ_PRESENCE, &cursor, entries, 2);
        CHECK(n >= 0);
        for (int64_t k = 0; k < n; k++)
            CHECK_EQ(entries[k].object.kind, XSEG_OBJ_PRESENCE);
        found += (uint64_t)n;
    } while (cursor.length != 0);
    CHECK(found >= 5); /* other tests have left some */
}

void test_presences(void)
{
    test_a_presence_begins_is_renewed_and_given_back();
    test_a_presence_ends_with_its_time_or_its_process();
    test_malformed_presences_are_refused();
    test_presences_are_listed();
}
