/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping: what is in flight is answered, what comes later is not taken, all is closed.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"

static uint8_t data[1 << 20];

static void an_idle_server_stops(void)
{
    static struct server s;

    server_start(&s, NULL);
    server_stop(&s);
}

static void idle_clients_are_disconnected(void)
{
    static struct server s;
    int transmitting, negotiating, silent;

    server_start(&s, NULL);
    transmitting = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    negotiating = client_greet(&s, NBD_FLAG_C_FIXED_NEWSTYLE);
    client_expect(negotiating, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NBD_REP_ACK);
    silent = client_connect(&s);
    client_recv(silent, data, NBD_GREETING_BYTES);
    server_begin_stop(&s);
    client_expect_eof(transmitting);
    client_expect_eof(negotiating);
    client_expect_eof(silent);
    server_stop(&s);
}

static void requests_in_flight_are_answered_and_new_ones_not_taken(void)
{
    static struct server s;
    uint64_t cookie;
    int fd;

    server_start(&s, NULL);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    atomic_store(&s.fake.hold, true);
    client_request(fd, NBD_CMD_READ, 0, 1, 0, sizeof(data));
    wait_until(&s.fake.nr_held_now, 1);
    server_begin_stop(&s);
    client_request(fd, NBD_CMD_READ, 0, 2, 0, 4096);
    client_request(fd, NBD_CMD_FLUSH, 0, 3, 0, 0);
    server_release(&s);
    CHECK_EQ(client_simple(fd, &cookie), NBD_OK);
    CHECK_EQ(cookie, 1);
    client_recv(fd, data, sizeof(data));
    client_expect_eof(fd);
    server_stop(&s);
}

static void a_client_that_asks_on_does_not_keep_it(void)
{
    static struct server s;
    uint64_t cookie, nr = 0;
    int fd;

    server_start(&s, NULL);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    for (; nr < 64; nr++)
        client_request(fd, NBD_CMD_READ, 0, nr, 0, 512);
    server_begin_stop(&s);
    /* In order, each whole, as many as it took: then the end. */
    for (uint64_t i = 0; recv(fd, data, 1, MSG_PEEK) == 1; i++) {
        CHECK_EQ(client_simple(fd, &cookie), NBD_OK);
        CHECK_EQ(cookie, i);
        client_recv(fd, data, 512);
    }
    server_stop(&s);
    close(fd);
}

static void a_write_that_is_half_there_gets_no_reply(void)
{
    static struct server s;
    int fd;

    server_start(&s, NULL);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    atomic_store(&s.fake.hold, true);
    client_request(fd, NBD_CMD_WRITE, 0, 1, 0, 2 * sizeof(data));
    client_send(fd, data, sizeof(data));
    wait_until(&s.fake.nr_held_now, 1); /* its first piece is on its way */
    server_begin_stop(&s);
    server_release(&s);
    client_expect_eof(fd);
    server_stop(&s);
}

static void clients_that_do_not_read_hold_nobody_up_for_ever(void)
{
    static struct server s;
    int fd;

    server_start(&s, NULL);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    for (uint32_t i = 0; i < 30; i++)
        client_request(fd, NBD_CMD_READ, 0, i, 0, sizeof(data));
    server_stop(&s);
    close(fd);
}

static void a_write_whose_data_never_comes_does_not_count(void)
{
    static struct server s;
    int fd;

    server_start(&s, NULL);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_request(fd, NBD_CMD_WRITE, 0, 1, 0, sizeof(data));
    client_send(fd, data, 1000);
    server_begin_stop(&s);
    client_expect_eof(fd);
    CHECK_EQ(atomic_load(&s.fake.nr_writes), 0);
    server_stop(&s);
}

int main(void)
{
    an_idle_server_stops();
    idle_clients_are_disconnected();
    requests_in_flight_are_answered_and_new_ones_not_taken();
    a_client_that_asks_on_does_not_keep_it();
    a_write_that_is_half_there_gets_no_reply();
    clients_that_do_not_read_hold_nobody_up_for_ever();
    a_write_whose_data_never_comes_does_not_count();
    return 0;
}
