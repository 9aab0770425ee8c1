/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vlmcd dies under connections: requests wait and are sent again, to the volume that was
 * open and to no other.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define MIB (1u << 20)

static struct server s;
static uint8_t out[4 * MIB], in[4 * MIB];

static uint32_t write_at(int fd, uint64_t offset, const uint8_t *data, uint32_t length)
{
    client_request(fd, NBD_CMD_WRITE, 0, 7, offset, length);
    client_send(fd, data, length);
    return client_simple(fd, NULL);
}

static void expect_data(int fd, uint64_t offset, const uint8_t *data, uint32_t length)
{
    CHECK_EQ(client_do(fd, NBD_CMD_READ, 0, offset, length), NBD_OK);
    client_recv(fd, in, length);
    CHECK(memcmp(in, data, length) == 0);
}

/** So many data requests find a vlmcd that is away; then it is a new one. */
static void die_with(unsigned nr, int64_t result)
{
    atomic_store(&s.fake.unserved_result, result);
    atomic_store(&s.fake.nr_unserved, nr);
}

static void what_was_not_served_is_sent_again(void)
{
    static const int64_t gone[] = {-EPIPE, -EOWNERDEAD, -ECANCELED};
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        die_with(3, gone[i]);
        memset(out, (int)i + 1, sizeof(out));
        CHECK_EQ(write_at(fd, 5, out, sizeof(out)), NBD_OK);
        die_with(2, gone[i]);
        expect_data(fd, 5, out, sizeof(out));
        die_with(1, gone[i]);
        CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
        die_with(1, gone[i]);
        CHECK_EQ(client_do(fd, NBD_CMD_TRIM, 0, 0, 4096), NBD_OK);
    }
    client_disconnect(fd);
}

static void a_new_vlmcd_opens_the_volume_again(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    for (uint32_t i = 1; i <= 20; i++) {
        memset(out, (int)i, sizeof(out));
        fake_vlmcd_die(&s.fake);
        atomic_store(&s.fake.nr_gone_opens, i % 3);
        CHECK_EQ(write_at(fd, i, out, sizeof(out)), NBD_OK);
        fake_vlmcd_die(&s.fake);
        expect_data(fd, i, out, sizeof(out));
        CHECK_EQ(atomic_load(&s.fake.nr_opens), 1);
        CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
    }
    client_disconnect(fd);
}

static void a_connection_without_requests_ends_after_a_death(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    fake_vlmcd_die(&s.fake);
    client_disconnect(fd);
}

static void leaving_while_requests_wait_is_harmless(void)
{
    for (int i = 0; i < 20; i++) {
        int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
        fake_vlmcd_die(&s.fake);
        atomic_store(&s.fake.nr_gone_opens, 3);
        for (uint32_t n = 0; n < 8; n++)
            client_request(fd, NBD_CMD_READ, 0, n, 0, MIB);
        close(fd);
    }
    atomic_store(&s.fake.nr_gone_opens, 0);
    wait_until(&s.fake.nr_opens, 0);
}

/** Another node had the lease: what was not flushed may be gone, and is told once. */
static void a_flush_fails_once_if_another_node_had_the_volume(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    CHECK_EQ(write_at(fd, 0, out, 4096), NBD_OK);
    atomic_fetch_add(&s.fake.since, 1);
    fake_vlmcd_die(&s.fake);
    CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_EIO);
    CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
    /* everything is flushed: another owner in between took nothing away */
    atomic_fetch_add(&s.fake.since, 1);
    fake_vlmcd_die(&s.fake);
    CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
    client_disconnect(fd);
}

static void another_volume_under_the_name_is_not_touched(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    unsigned writes;

    memset(out, 0x11, sizeof(out));
    CHECK_EQ(write_at(fd, 0, out, 4096), NBD_OK);
    writes = atomic_load(&s.fake.nr_writes);
    atomic_store(&s.fake.uuid, 9);
    fake_vlmcd_die(&s.fake);
    memset(in, 0x22, 4096);
    CHECK_EQ(write_at(fd, 0, in, 4096), NBD_EIO);
    CHECK_EQ(write_at(fd, 0, in, 4096), NBD_EIO);
    CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_EIO);
    CHECK_EQ(client_do(fd, NBD_CMD_READ, 0, 0, 4096), NBD_EIO);
    CHECK_EQ(atomic_load(&s.fake.nr_writes), writes);
    client_disconnect(fd);
    wait_until(&s.fake.nr_opens, 0);
}

/** vlmcd knows the handle and calls the request stale: the lease is lost. */
static void a_lost_lease_is_an_error(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    die_with(1, -ESTALE);
    CHECK_EQ(client_do(fd, NBD_CMD_READ, 0, 0, 4096), NBD_EIO);
    CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_EIO);
    client_disconnect(fd);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);
}

int main(void)
{
    server_start(&s, NULL);
    what_was_not_served_is_sent_again();
    a_new_vlmcd_opens_the_volume_again();
    a_connection_without_requests_ends_after_a_death();
    leaving_while_requests_wait_is_harmless();
    a_flush_fails_once_if_another_node_had_the_volume();
    another_volume_under_the_name_is_not_touched();
    a_lost_lease_is_an_error();
    server_stop(&s);
    return 0;
}
