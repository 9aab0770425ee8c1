/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every backend must do, whatever it is made of:
 *
 *   test_blocker_conformance BACKEND [ENGINE [direct]]
 */
#include <errno.h>
#include <unistd.h>

#include "blocker/client.h"

static struct setup setup;
static struct server server, *s = &server;
static uint8_t page[XSEG_BUFFER_MAX_BYTES], got[XSEG_BUFFER_MAX_BYTES];

static void fill(uint8_t *data, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(check_next(&seed) >> 24);
}

static bool all(const uint8_t *data, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] != value)
            return false;
    return true;
}

static bool survives(void)
{
    return strcmp(setup.backend, "mem") != 0;
}

static void restart(void)
{
    if (!survives())
        return;
    server_stop(s);
    server_start(s, &setup);
}

/* ---- extents ------------------------------------------------------------ */

static void test_extent_is_absent_until_written(void)
{
    struct xseg_object e = extent_name(1, 1);
    struct xseg_object_info info;

    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
    CHECK_EQ(do_info(s, &e, &info), -ENOENT);
    CHECK_EQ(do_zero(s, &e, 0, SECTOR), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_delete(s, &e), -ENOENT);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
}

static void test_extent_reads_back_with_zeros_around(void)
{
    struct xseg_object e = extent_name(2, 7);
    struct xseg_object_info info;

    fill(page, 3 * SECTOR, 2);
    CHECK_EQ(do_write(s, &e, 5 * SECTOR, page, 3 * SECTOR, 0), 3 * SECTOR);
    CHECK_EQ(do_read(s, &e, 0, got, 16 * SECTOR), 16 * SECTOR);
    CHECK(all(got, 5 * SECTOR, 0));
    CHECK(memcmp(got + 5 * SECTOR, page, 3 * SECTOR) == 0);
    CHECK(all(got + 8 * SECTOR, 8 * SECTOR, 0));
    CHECK_EQ(do_read(s, &e, UINT64_C(1) << 30, got, SECTOR), SECTOR);
    CHECK(all(got, SECTOR, 0));
    CHECK_EQ(do_info(s, &e, &info), 0);
    CHECK_EQ(info.size_bytes, 8 * SECTOR);
    CHECK(info.allocated_bytes >= 3 * SECTOR);
    CHECK(info.modified_ns > 0);
    /* odd ranges of a read are served, aligned or not */
    CHECK_EQ(do_read(s, &e, 5 * SECTOR + 7, got, 100), 100);
    CHECK(memcmp(got, page + 7, 100) == 0);
    /* another epoch is another object */
    struct xseg_object other = extent_name(2, 8);
    CHECK_EQ(do_read(s, &other, 5 * SECTOR, got, SECTOR), -ENOENT);
    CHECK_EQ(do_flush(s, &e), 0);
    restart();
    CHECK_EQ(do_read(s, &e, 5 * SECTOR, got, 3 * SECTOR), 3 * SECTOR);
    CHECK(memcmp(got, page, 3 * SECTOR) == 0);
}

static void test_write_across_the_border_of_two_parts(void)
{
    struct xseg_object e = extent_name(3, 1);
    uint64_t border = UINT64_C(1) << 40;
    struct xseg_object_info info;

    fill(page, 4 * SECTOR, 3);
    CHECK_EQ(do_write(s, &e, border - SECTOR, page, 4 * SECTOR, XSEG_F_FUA),
             4 * SECTOR);
    CHECK_EQ(do_read(s, &e, border - 2 * SECTOR, got, 6 * SECTOR), 6 * SECTOR);
    CHECK(all(got, SECTOR, 0));
    CHECK(memcmp(got + SECTOR, page, 4 * SECTOR) == 0);
    CHECK(all(got + 5 * SECTOR, SECTOR, 0));
    CHECK_EQ(do_info(s, &e, &info), 0);
    CHECK_EQ(info.size_bytes, border + 3 * SECTOR);
    /* a part that is not there reads zeros, for the extent is */
    CHECK_EQ(do_read(s, &e, 5 * border, got, SECTOR), SECTOR);
    CHECK(all(got, SECTOR, 0));
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_read(s, &e, border, got, SECTOR), -ENOENT);
    CHECK_EQ(do_delete(s, &e), -ENOENT);
}

static void test_zero_gives_space_back(void)
{
    struct xseg_object e = extent_name(4, 1);
    struct xseg_object_info before, after;
    uint64_t size = 1u << 20;

    memset(page, 0xa5, size);
    CHECK_EQ(do_write(s, &e, 0, page, size, 0), size);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_info(s, &e, &before), 0);
    CHECK_EQ(do_zero(s, &e, 256 << 10, 512 << 10), 0);
    CHECK_EQ(do_zero(s, &e, size * 8, size), 0); /* past the end: nothing */
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_info(s, &e, &after), 0);
    CHECK_EQ(after.size_bytes, size);
    CHECK(after.allocated_bytes + (400 << 10) <= before.allocated_bytes);
    CHECK_EQ(do_read(s, &e, 0, got, size), size);
    CHECK(all(got, 256 << 10, 0xa5));
    CHECK(all(got + (256 << 10), 512 << 10, 0));
    CHECK(all(got + (768 << 10), 256 << 10, 0xa5));
    /* edges inside sectors */
    CHECK_EQ(do_zero(s, &e, 100, 50), 0);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), SECTOR);
    CHECK(all(got, 100, 0xa5) && all(got + 100, 50, 0) && all(got + 150, 1000, 0xa5));
}

static void test_flush_and_fua(void)
{
    struct xseg_object e = extent_name(5, 1), layer = layer_name(5);

    fill(page, SECTOR, 5);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, XSEG_F_FUA), SECTOR);
    CHECK_EQ(do_write(s, &e, SECTOR, page, SECTOR, XSEG_F_FUA), SECTOR);
    CHECK_EQ(do_write(s, &e, 2 * SECTOR, page, SECTOR, 0), SECTOR);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_write(s, &layer, 100, page, 1000, 0), 1000);
    CHECK_EQ(do_flush(s, &layer), 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    struct xseg_request *rq = ask(s, XSEG_OP_FLUSH, &whole_store);
    CHECK_EQ(xseg_request_submit(s->port, rq, XSEG_PORT_BLOCKERM), 0);
    while (!xseg_port_reap(s->port))
        (void)xseg_port_wait(s->port, UINT64_MAX);
    CHECK_EQ(rq->result, 0);
    xseg_request_free(s->port, rq);
    struct xseg_object c = content_name(5);
    CHECK_EQ(do_flush(s, &c), -EINVAL);
}

/* ---- content, headers, layers ------------------------------------------- */

static void test_content_is_put_once(void)
{
    struct xseg_object c = content_name(1), d = content_name(2);
    struct xseg_object_info info;

    fill(page, 5000, 10);
    CHECK_EQ(do_read(s, &c, 0, got, 1), -ENOENT);
    CHECK_EQ(do_create(s, &c, page, 5000, 0), 0);
    memset(got, 1, 5000);
    CHECK_EQ(do_create(s, &c, got, 5000, 0), -EEXIST);
    CHECK_EQ(do_create(s, &c, got, 5000, XSEG_F_NOSYNC), -EEXIST);
    CHECK_EQ(do_create(s, &d, page, 123, XSEG_F_NOSYNC), 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    restart();
    CHECK_EQ(do_info(s, &c, &info), 0);
    CHECK_EQ(info.size_bytes, 5000);
    /* stored without its trailing zeros: they come back */
    CHECK_EQ(do_read(s, &c, 0, got, 3 * SECTOR), 3 * SECTOR);
    CHECK(memcmp(got, page, 5000) == 0 && all(got + 5000, 3 * SECTOR - 5000, 0));
    CHECK_EQ(do_read(s, &c, 4990, got, 20), 20);
    CHECK(memcmp(got, page + 4990, 10) == 0 && all(got + 10, 10, 0));
    CHECK_EQ(do_read(s, &c, 1 << 20, got, 20), 20);
    CHECK(all(got, 20, 0));
    CHECK_EQ(do_read(s, &d, 0, got, 200), 200);
    CHECK(memcmp(got, page, 123) == 0);
    CHECK_EQ(do_write(s, &c, 0, page, SECTOR, 0), -EINVAL);
    CHECK_EQ(do_delete(s, &c), 0);
    CHECK_EQ(do_delete(s, &c), -ENOENT);
    CHECK_EQ(do_read(s, &c, 0, got, 1), -ENOENT);
    CHECK_EQ(do_create(s, &c, page, 5000, 0), 0);
}

static void test_header_is_replaced_by_version_and_fence(void)
{
    struct xseg_object h = header_name(1);
    struct xseg_object_info info;
    uint8_t a[200], b[5000];

    fill_header(a, sizeof a, 1, 5, 'a');
    fill_header(b, sizeof b, 2, 5, 'b');
    CHECK_EQ(do_update(s, &h, 1, b, sizeof b), -ENOENT);
    CHECK_EQ(do_create(s, &h, a, sizeof a, 0), 0);
    CHECK_EQ(do_create(s, &h, b, sizeof b, 0), -EEXIST);
    CHECK_EQ(do_info(s, &h, &info), 0);
    CHECK_EQ(info.version, 1);
    CHECK_EQ(do_update(s, &h, 1, b, sizeof b), 0);
    CHECK_EQ(do_info(s, &h, &info), 0);
    CHECK_EQ(info.version, 2);
    CHECK_EQ(info.size_bytes, sizeof b);
    /* somebody was faster */
    fill_header(a, sizeof a, 2, 6, 'c');
    CHECK_EQ(do_update(s, &h, 1, a, sizeof a), -ESTALE);
    /* an older fence */
    fill_header(a, sizeof a, 3, 4, 'c');
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a), -ESTALE);
    /* not the successor of what it names, a wrong length, no prefix at all */
    fill_header(a, sizeof a, 4, 5, 'c');
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a), -EINVAL);
    fill_header(a, sizeof a, 3, 5, 'c');
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a - 1), -EINVAL);
    CHECK_EQ(do_update(s, &h, 2, a, 8), -EINVAL);
    CHECK_EQ(do_create(s, &h, a, 8, 0), -EINVAL);
    restart();
    /* READ ends at the end */
    CHECK_EQ(do_read(s, &h, 0, got, 1 << 20), sizeof b);
    CHECK(memcmp(got, b, sizeof b) == 0);
    CHECK_EQ(do_read(s, &h, 4000, got, 4000), 1000);
    CHECK_EQ(do_read(s, &h, 6000, got, 10), 0);
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a), 0);
    CHECK_EQ(do_read(s, &h, 0, got, 1 << 20), sizeof a);
    /* whoever removes it says which one */
    CHECK_EQ(do_delete_version(s, &h, 2), -ESTALE);
    CHECK_EQ(do_delete_version(s, &h, 3), 0);
    CHECK_EQ(do_delete_version(s, &h, 3), -ENOENT);
    CHECK_EQ(do_create(s, &h, a, sizeof a, 0), 0);
    CHECK_EQ(do_delete(s, &h), 0);
    CHECK_EQ(do_delete(s, &h), -ENOENT);
    CHECK_EQ(do_info(s, &h, &info), -ENOENT);
    CHECK_EQ(do_update(s, &h, 3, a, sizeof a), -ENOENT);
}

static void test_layer_is_written_then_flushed(void)
{
    struct xseg_object l = layer_name(1), m = layer_name(2);
    struct xseg_object_info info;

    fill(page, 10000, 20);
    CHECK_EQ(do_read(s, &l, 0, got, 10), -ENOENT);
    CHECK_EQ(do_write(s, &l, 0, page, 5000, 0), 5000);
    CHECK_EQ(do_write(s, &l, 5000, page + 5000, 5000, 0), 5000);
    CHECK_EQ(do_flush(s, &l), 0);
    restart();
    CHECK_EQ(do_read(s, &l, 0, got, 20000), 10000);
    CHECK(memcmp(got, page, 10000) == 0);
    CHECK_EQ(do_read(s, &l, 10000, got, 1), 0);
    CHECK_EQ(do_create(s, &m, page, 777, 0), 0);
    CHECK_EQ(do_create(s, &m, page, 777, 0), -EEXIST);
    CHECK_EQ(do_info(s, &m, &info), 0);
    CHECK_EQ(info.size_bytes, 777);
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(do_delete(s, &l), -ENOENT);
    CHECK_EQ(do_read(s, &l, 0, got, 10), -ENOENT);
    CHECK_EQ(do_write(s, &l, 0, page, 10, 0), 10);
    CHECK_EQ(do_read(s, &l, 0, got, 100), 10);
}

/* ---- journals and leases ------------------------------------------------ */

static void test_journal_grows_only_at_its_end(void)
{
    struct xseg_object j = journal_name(1, 1);
    struct xseg_object_info info;

    fill(page, 3000, 30);
    CHECK_EQ(do_append(s, &j, 10, 1, page, 10), -ESTALE);
    CHECK_EQ(do_info(s, &j, &info), -ENOENT);
    CHECK_EQ(do_append(s, &j, 0, 1, page, 1000), 0);
    CHECK_EQ(do_append(s, &j, 0, 1, page, 10), -ESTALE);
    CHECK_EQ(do_append(s, &j, 999, 1, page, 10), -ESTALE);
    CHECK_EQ(do_append(s, &j, 1000, 1, page + 1000, 500), 0);
    restart();
    CHECK_EQ(do_append(s, &j, 1500, 1, page + 1500, 1500), 0);
    CHECK_EQ(do_read(s, &j, 0, got, 1 << 20), 3000);
    CHECK(memcmp(got, page, 3000) == 0);
    CHECK_EQ(do_info(s, &j, &info), 0);
    CHECK_EQ(info.size_bytes, 3000);
    CHECK_EQ(do_delete(s, &j), 0);
    CHECK_EQ(do_append(s, &j, 3000, 1, page, 10), -ESTALE);
    CHECK_EQ(do_read(s, &j, 0, got, 10), -ENOENT);
    CHECK_EQ(do_append(s, &j, 0, 1, page, 10), 0);
}

static const uint64_t long_ns = UINT64_C(3600) * 1000000000;

static void test_lease_is_granted_renewed_and_released(void)
{
    struct xseg_object l = lease_name(1), j = journal_name(1, 2);
    struct xseg_lease a = lease_of("a", long_ns), b = lease_of("b", long_ns), x;
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
    CHECK(x.fence == 1 && x.ttl_ns > 0 && x.ttl_ns <= long_ns);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
    /* its holder renews, many times */
    for (int i = 0; i < 5; i++) {
        x = lease_of("a", long_ns);
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
    CHECK_EQ(do_append(s, &j, 20, 2, page, 10), 0);
    x = lease_of("a", long_ns);
    x.fence = 1;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), -ESTALE);
}

static void test_append_of_nothing_compares_the_fence(void)
{
    struct xseg_object l = lease_name(7), j = journal_name(7, 1);
    struct xseg_lease a = lease_of("a", long_ns), b = lease_of("b", long_ns), x = b;
    struct xseg_object_info info;

    /* neither lease nor journal is needed, and none is made */
    CHECK_EQ(do_append(s, &j, 0, 0, page, 0), 0);
    CHECK_EQ(do_append(s, &j, 1 << 20, 7, page, 0), 0);
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
    a = lease_of("a", long_ns);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(do_append(s, &j, 10, 0, page, 0), -ESTALE);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 0), 0);
    CHECK_EQ(do_info(s, &j, &info), 0);
    CHECK_EQ(info.size_bytes, 10);
}

static void test_lease_is_broken_by_force(void)
{
    struct xseg_object l = lease_name(2), j = journal_name(2, 1);
    struct xseg_lease a = lease_of("a", long_ns), b = lease_of("b", long_ns), x;

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &a, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, a.fence, page, 10), 0);
    x = b;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    CHECK_EQ(do_append(s, &j, 10, a.fence, page, 10), -ESTALE);
    /* a renewal that was under way meanwhile does not take it back */
    x = lease_of("a", long_ns);
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
    struct xseg_lease dead = lease_of("dead", long_ns), x;

    dead.pid_start += 1; /* nobody with this pid started then */
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &dead, 0), 0);
    x = lease_of("b", 1); /* expired as soon as it is granted */
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.fence, 2);
    x = lease_of("c", long_ns);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    CHECK_EQ(x.fence, 3);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, 0), 0);
    /* on another boot a pid says nothing */
    x = lease_of("d", long_ns);
    x.pid_start += 1;
    x.boot_id[0] = x.boot_id[0] == '0' ? '1' : '0';
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    x = lease_of("e", long_ns);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &x, XSEG_F_FORCE), 0);
    /* a lock outlives the process that took it, and time */
    x = lease_of("f", 1);
    x.pid_start += 1;
    x.flags = XSEG_LEASE_LOCK;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), 0);
    x = lease_of("g", long_ns);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EBUSY);
    /* malformed asks */
    x = lease_of("", long_ns);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    x = lease_of("a", 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
    memset(x.owner, 'x', sizeof x.owner);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &x, 0), -EINVAL);
}

/* ---- listing ------------------------------------------------------------ */

static uint64_t list_all(uint32_t kind, uint64_t per_page, struct xseg_list_entry *out)
{
    uint64_t cursor = 0, nr = 0;
    do {
        int64_t n = do_list(s, kind, &cursor, out + nr, per_page);
        CHECK(n >= 0 && (uint64_t)n <= per_page);
        nr += (uint64_t)n;
    } while (cursor != 0);
    return nr;
}

static bool listed(const struct xseg_list_entry *entries, uint64_t nr,
                   const struct xseg_object *name, uint64_t size)
{
    unsigned found = 0;
    for (uint64_t i = 0; i < nr; i++)
        if (blk_object_equal(&entries[i].object, name)) {
            found++;
            CHECK_EQ(entries[i].size_bytes, size);
        }
    CHECK(found <= 1);
    return found == 1;
}

static void test_list_finds_everything_once(void)
{
    static struct xseg_list_entry entries[1000];
    const uint64_t pages[] = {1, 7, 900};
    uint64_t nr;

    memset(page, 7, SECTOR);
    for (uint64_t i = 0; i < 40; i++) {
        struct xseg_object c = content_name(100 + i), h = header_name(100 + i);
        struct xseg_object l = layer_name(100 + i), j = journal_name(100 + i / 4, i);
        struct xseg_object e = extent_name(100 + i / 8, i);
        CHECK_EQ(do_create(s, &c, page, i + 1, XSEG_F_NOSYNC), 0);
        fill_header(got, 100 + i, 1, 1, 'h');
        CHECK_EQ(do_create(s, &h, got, 100 + i, 0), 0);
        CHECK_EQ(do_write(s, &l, 0, page, i + 1, 0), i + 1);
        CHECK_EQ(do_append(s, &j, 0, 1, page, i + 1), 0);
        CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
        if (i == 5) /* a second file of the same extent is not a second extent */
            CHECK_EQ(do_write(s, &e, UINT64_C(1) << 40, page, SECTOR, 0), SECTOR);
    }
    for (size_t p = 0; p < sizeof pages / sizeof pages[0]; p++) {
        for (uint32_t kind = XSEG_OBJ_CONTENT; kind < XSEG_OBJ_LEASE; kind++) {
            nr = list_all(kind, pages[p], entries);
            CHECK(nr >= 40);
            for (uint64_t i = 0; i < 40; i++) {
                struct xseg_object names[XSEG_NR_OBJECT_KINDS] = {
                    [XSEG_OBJ_CONTENT] = content_name(100 + i),
                    [XSEG_OBJ_HEADER] = header_name(100 + i),
                    [XSEG_OBJ_LAYER] = layer_name(100 + i),
                    [XSEG_OBJ_JOURNAL] = journal_name(100 + i / 4, i),
                    [XSEG_OBJ_EXTENT] = extent_name(100 + i / 8, i),
                };
                uint64_t size = kind == XSEG_OBJ_HEADER ? 100 + i : i + 1;
                if (kind == XSEG_OBJ_EXTENT)
                    size = i == 5 ? (UINT64_C(1) << 40) + SECTOR : SECTOR;
                CHECK(listed(entries, nr, &names[kind], size));
            }
        }
    }
    nr = list_all(XSEG_OBJ_LEASE, 3, entries);
    struct xseg_object lease = lease_name(3);
    for (uint64_t i = 0; i < nr; i++)
        CHECK_EQ(entries[i].object.kind, XSEG_OBJ_LEASE);
    CHECK(nr > 0);
    (void)lease;
    /* what stays while others go is on exactly one page */
    uint64_t cursor = 0;
    nr = 0;
    for (uint64_t i = 0;; i++) {
        int64_t n = do_list(s, XSEG_OBJ_CONTENT, &cursor, entries + nr, 5);
        CHECK(n >= 0);
        nr += (uint64_t)n;
        if (cursor == 0)
            break;
        struct xseg_object odd = content_name(101 + 2 * i);
        if (i < 20)
            CHECK_EQ(do_delete(s, &odd), 0);
    }
    for (uint64_t i = 0; i < 40; i += 2) {
        struct xseg_object even = content_name(100 + i);
        CHECK(listed(entries, nr, &even, i + 1));
    }
    cursor = UINT64_MAX;
    CHECK(do_list(s, XSEG_OBJ_CONTENT, &cursor, entries, 5) >= 0);
    CHECK_EQ(cursor, 0);
    cursor = 0;
    CHECK_EQ(do_list(s, XSEG_OBJ_CONTENT, &cursor, entries, 0), -EINVAL);
}

/* ---- bad requests ------------------------------------------------------- */

static int64_t send_raw(uint32_t port, const struct xseg_request *like)
{
    struct xseg_request *rq = ask(s, like->op, &like->object);
    rq->offset = like->offset;
    rq->size = like->size;
    rq->flags = like->flags;
    if (like->data_len) {
        rq->data_off = like->data_off;
        rq->data_len = like->data_len;
    }
    memcpy(rq->arg, like->arg, sizeof rq->arg);
    CHECK_EQ(xseg_request_submit(s->port, rq, port), 0);
    while (!xseg_port_reap(s->port))
        (void)xseg_port_wait(s->port, UINT64_MAX);
    int64_t result = rq->result;
    xseg_request_free(s->port, rq);
    return result;
}

static void test_malformed_requests_are_refused(void)
{
    const uint32_t b = XSEG_PORT_BLOCKERB, m = XSEG_PORT_BLOCKERM;
    struct xseg_request rq = {.op = XSEG_OP_PING};

    CHECK_EQ(send_raw(b, &rq), 0);
    CHECK_EQ(send_raw(m, &rq), 0);
    rq.op = XSEG_NR_OPS;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.op = UINT32_MAX;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    const uint32_t foreign[] = {XSEG_OP_MAPR,     XSEG_OP_OPEN, XSEG_OP_SNAPSHOT,
                                XSEG_OP_TRUNCATE, XSEG_OP_HASH, XSEG_OP_NOTIFY};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        rq.op = foreign[i];
        CHECK_EQ(send_raw(b, &rq), -EOPNOTSUPP);
    }
    /* kinds on the wrong port, unknown kinds, dirty names */
    rq = (struct xseg_request){.op = XSEG_OP_READ, .size = SECTOR};
    rq.object = extent_name(2, 7);
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.object = layer_name(1);
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.object.kind = XSEG_NR_OBJECT_KINDS;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.object.kind = XSEG_OBJ_NONE;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.object = extent_name(2, 7);
    rq.object.id[31] = 1;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.object = extent_name(2, 7);
    rq.object.reserved = 1;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.object = layer_name(1);
    rq.object.id[16] = 1;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    /* ranges */
    const uint64_t bad[][2] = {{0, 0},
                               {UINT64_MAX, SECTOR},
                               {UINT64_MAX - SECTOR + 1, SECTOR},
                               {(UINT64_C(1) << 63) - SECTOR, 2 * SECTOR},
                               {UINT64_C(1) << 63, SECTOR}};
    const uint32_t ops[] = {XSEG_OP_READ, XSEG_OP_WRITE, XSEG_OP_ZERO, XSEG_OP_DISCARD};
    rq = (struct xseg_request){.object = extent_name(2, 7)};
    for (size_t o = 0; o < 4; o++)
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            rq.op = ops[o];
            rq.offset = bad[i][0];
            rq.size = bad[i][1];
            CHECK_EQ(send_raw(b, &rq), -EINVAL);
        }
    /* data outside the heap, or shorter than the size */
    rq = (struct xseg_request){
        .op = XSEG_OP_READ, .object = extent_name(2, 7), .size = SECTOR};
    rq.data_off = 64;
    rq.data_len = SECTOR;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.data_off = UINT64_MAX - 100;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.data_off = s->buf;
    rq.data_len = SECTOR - 1;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.data_len = UINT64_MAX;
    rq.size = UINT64_C(1) << 40;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    /* ops on kinds they do not have */
    rq =
        (struct xseg_request){.op = XSEG_OP_APPEND, .object = layer_name(1), .size = 1};
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_UPDATE;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_ACQUIRE;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_WRITE;
    rq.object = journal_name(1, 1);
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_CREATE;
    rq.object = lease_name(1);
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_CREATE;
    rq.object = content_name(77);
    rq.size = 0;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.op = XSEG_OP_DELETE;
    rq.object = whole_store;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    /* O_DIRECT: the contract lets a backend ask for alignment */
    rq = (struct xseg_request){
        .op = XSEG_OP_WRITE, .object = extent_name(9, 9), .offset = 1, .size = SECTOR};
    CHECK_EQ(send_raw(b, &rq), setup.direct ? -EINVAL : (int64_t)SECTOR);
}

static void test_store_tells_about_itself(void)
{
    struct xseg_object_info info;

    CHECK_EQ(do_info(s, &whole_store, &info), 0);
    CHECK(info.size_bytes >= info.allocated_bytes && info.allocated_bytes > 0);
    CHECK(strcmp(info.backend, setup.backend) == 0);
    if (survives())
        CHECK(strcmp(info.engine, setup.engine) == 0);
    CHECK_EQ(info.direct, setup.direct);
}

/* ---- many at once, against a byte array --------------------------------- */

#define MODEL_BYTES (2u << 20)
#define NR_SLOTS    64u
#define NR_ROUNDS   6000u
#define SLOT_BYTES  (8u * SECTOR)

struct inflight {
    struct xseg_request *rq;
    uint64_t buf, off, size;
    uint8_t fill;
    bool checked; /* READ whose range nobody writes meanwhile */
};

static uint8_t model[MODEL_BYTES];

static bool overlaps(const struct inflight *slots, uint64_t off, uint64_t size)
{
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        if (slots[i].rq && off < slots[i].off + slots[i].size &&
            slots[i].off < off + size)
            return true;
    return false;
}

static void start_random(struct inflight *slots, struct inflight *slot,
                         const struct xseg_object *e, uint64_t *seed)
{
    uint64_t unit = setup.direct ? SECTOR : 512, dice = check_next(seed) % 100;
    uint64_t off, size;

    do {
        off = check_next(seed) % (MODEL_BYTES / unit) * unit;
        size = (check_next(seed) % 8 + 1) * unit;
    } while (off + size > MODEL_BYTES || overlaps(slots, off, size));
    uint32_t op = dice < 45   ? XSEG_OP_WRITE
                  : dice < 85 ? XSEG_OP_READ
                  : dice < 95 ? XSEG_OP_ZERO
                              : XSEG_OP_FLUSH;
    struct xseg_request *rq = ask(s, op, e);
    slot->rq = rq;
    slot->off = off;
    slot->size = size;
    slot->fill = (uint8_t)check_next(seed);
    rq->data_off = slot->buf;
    rq->data_len = SLOT_BYTES;
    rq->offset = off;
    rq->size = size;
    uint8_t *data = xseg_heap_ptr(s->seg, slot->buf, rq->data_len);
    if (op == XSEG_OP_WRITE) {
        memset(data, slot->fill, size);
        rq->flags = dice < 2 ? XSEG_F_FUA : 0;
    } else if (op == XSEG_OP_READ) {
        memset(data, 0xee, size);
    } else if (op == XSEG_OP_FLUSH) {
        slot->size = 0;
    }
    CHECK_EQ(xseg_request_submit(s->port, rq, XSEG_PORT_BLOCKERB), 0);
}

static void finish_random(struct inflight *slot)
{
    struct xseg_request *rq = slot->rq;
    uint8_t *data = xseg_heap_ptr(s->seg, slot->buf, SLOT_BYTES);

    if (rq->op == XSEG_OP_READ) {
        CHECK_EQ(rq->result, slot->size);
        CHECK(memcmp(data, model + slot->off, slot->size) == 0);
    } else if (rq->op == XSEG_OP_WRITE) {
        CHECK_EQ(rq->result, slot->size);
        memset(model + slot->off, slot->fill, slot->size);
    } else {
        CHECK_EQ(rq->result, 0);
        if (rq->op == XSEG_OP_ZERO)
            memset(model + slot->off, 0, slot->size);
    }
    xseg_request_free(s->port, rq);
    slot->rq = NULL;
}

static void test_sixty_four_at_once_match_a_model(void)
{
    struct inflight slots[NR_SLOTS] = {0};
    struct xseg_object e = extent_name(50, 3);
    uint64_t seed = check_seed();
    uint32_t started = 0, busy = 0;

    memset(model, 0, sizeof model);
    memset(page, 0, SECTOR);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        CHECK(xseg_buffer_alloc(s->seg, SLOT_BYTES, &slots[i].buf) > 0);
    while (started < NR_ROUNDS || busy > 0) {
        for (uint32_t i = 0; i < NR_SLOTS && started < NR_ROUNDS; i++)
            if (!slots[i].rq) {
                start_random(slots, &slots[i], &e, &seed);
                started++;
                busy++;
            }
        struct xseg_request *rq = xseg_port_reap(s->port);
        if (!rq) {
            (void)xseg_port_wait(s->port, UINT64_MAX);
            continue;
        }
        for (uint32_t i = 0; i < NR_SLOTS; i++)
            if (slots[i].rq == rq)
                finish_random(&slots[i]);
        busy--;
    }
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        CHECK_EQ(xseg_buffer_free(s->seg, slots[i].buf), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    restart();
    if (survives())
        for (uint64_t off = 0; off < MODEL_BYTES; off += 1u << 20) {
            CHECK_EQ(do_read(s, &e, off, got, 1u << 20), 1u << 20);
            CHECK(memcmp(got, model + off, 1u << 20) == 0);
        }
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    setup.backend = argv[1];
    setup.engine = argc > 2 ? engine_or_skip(argv[2]) : "auto";
    setup.direct = argc > 3;
    make_root(setup.path);
    server_start(s, &setup);
    test_extent_is_absent_until_written();
    test_extent_reads_back_with_zeros_around();
    test_write_across_the_border_of_two_parts();
    test_zero_gives_space_back();
    test_flush_and_fua();
    test_content_is_put_once();
    test_header_is_replaced_by_version_and_fence();
    test_layer_is_written_then_flushed();
    test_journal_grows_only_at_its_end();
    test_lease_is_granted_renewed_and_released();
    test_append_of_nothing_compares_the_fence();
    test_lease_is_broken_by_force();
    test_lease_of_the_dead_and_the_late_is_taken_over();
    test_list_finds_everything_once();
    test_malformed_requests_are_refused();
    test_store_tells_about_itself();
    test_sixty_four_at_once_match_a_model();
    server_stop(s);
    remove_root(setup.path);
    return 0;
}
