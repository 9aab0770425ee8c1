/* SPDX-License-Identifier: Apache-2.0 */
/* Memory is short, clients are slow or many: each is served in the end. */
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server.h"

#define MIB (1u << 20)

static struct server s;
static uint8_t data[8 * MIB];

/** Fill a connection with requests for data nobody takes, until it blocks. */
static int slow_reader(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    uint8_t head[NBD_REQUEST_BYTES];

    nbd_put32(head, NBD_REQUEST_MAGIC);
    nbd_put32(head + 4, NBD_CMD_READ);
    nbd_put64(head + 8, 1);
    nbd_put64(head + 16, 0);
    nbd_put32(head + 24, 4 * MIB);
    for (int i = 0; i < 64; i++)
        client_send(fd, head, sizeof(head));
    return fd;
}

static void slow_readers_starve_nobody(void)
{
    enum { NR_SLOW = 24 };
    int slow[NR_SLOW];
    int fd;

    for (int i = 0; i < NR_SLOW; i++)
        slow[i] = slow_reader();
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    for (int i = 0; i < 50; i++) {
        client_request(fd, NBD_CMD_READ, 0, 1, (uint64_t)i * MIB, MIB);
        CHECK_EQ(client_simple(fd, NULL), NBD_OK);
        client_recv(fd, data, MIB);
        client_request(fd, NBD_CMD_WRITE, 0, 2, (uint64_t)i * MIB, MIB);
        client_send(fd, data, MIB);
        CHECK_EQ(client_simple(fd, NULL), NBD_OK);
    }
    client_disconnect(fd);
    /* a slow reader that wakes up gets all it asked for */
    for (int i = 0; i < 64; i++) {
        CHECK_EQ(client_simple(slow[0], NULL), NBD_OK);
        client_recv(slow[0], data, 4 * MIB);
    }
    client_disconnect(slow[0]);
    for (int i = 1; i < NR_SLOW; i++)
        close(slow[i]);
    wait_until(&s.fake.nr_opens, 0);
}

/** A client that takes no reply before its WRITE is sent: memory for it is found. */
static void a_write_gets_through_behind_unread_replies(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    client_request(fd, NBD_CMD_READ, 0, 1, 0, 2 * MIB);
    client_request(fd, NBD_CMD_WRITE, 0, 2, 0, 8 * MIB);
    client_send(fd, data, 8 * MIB);
    CHECK_EQ(client_simple(fd, NULL), NBD_OK);
    client_recv(fd, data, 2 * MIB);
    CHECK_EQ(client_simple(fd, NULL), NBD_OK);
    client_disconnect(fd);
}

static void many_small_requests_at_once(void)
{
    enum { NR = 2000 };
    static uint8_t heads[NR][NBD_REQUEST_BYTES];
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    static bool seen[NR];

    memset(seen, 0, sizeof(seen));
    for (uint32_t i = 0; i < NR; i++) {
        nbd_put32(heads[i], NBD_REQUEST_MAGIC);
        nbd_put32(heads[i] + 4, NBD_CMD_READ);
        nbd_put64(heads[i] + 8, i);
        nbd_put64(heads[i] + 16, (uint64_t)i * 512);
        nbd_put32(heads[i] + 24, 512);
    }
    client_send(fd, heads, sizeof(heads));
    for (uint32_t i = 0; i < NR; i++) {
        uint64_t cookie;
        CHECK_EQ(client_simple(fd, &cookie), NBD_OK);
        CHECK(cookie < NR && !seen[cookie]);
        seen[cookie] = true;
        client_recv(fd, data, 512);
    }
    client_disconnect(fd);
}

static void connections_beyond_the_limit_are_refused(void)
{
    int fds[64];

    wait_until(&s.fake.nr_opens, 0);
    for (int i = 0; i < 64; i++)
        fds[i] = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    client_expect_eof(client_connect(&s));
    for (int i = 0; i < 64; i++) {
        client_check_alive(fds[i], CLIENT_SIMPLE);
        client_disconnect(fds[i]);
    }
    wait_until(&s.fake.nr_opens, 0);
    client_disconnect(client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL));
}

/**
 * Issue 9, fault 21: clients that connect and say nothing keep no other client out.  The
 * oldest of them makes place.
 */
static void unfinished_handshakes_make_place(void)
{
    enum { NR_SILENT = 200 };
    struct endpoint_statistics stats;
    int silent[NR_SILENT];
    int served = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    for (int i = 0; i < NR_SILENT; i++) {
        uint8_t greeting[NBD_GREETING_BYTES];
        silent[i] = client_connect(&s);
        client_recv(silent[i], greeting, sizeof(greeting)); /* it got its place */
    }
    client_disconnect(client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL));
    client_check_alive(served, CLIENT_SIMPLE);
    client_expect_eof(silent[0]);
    stats = server_statistics(&s);
    CHECK(stats.overtaken >= NR_SILENT - 63);
    CHECK_EQ(stats.refused, 1); /* by the test before */
    CHECK_EQ(stats.max_clients, 64);
    for (int i = 1; i < NR_SILENT; i++)
        close(silent[i]);
    client_disconnect(served);
}

static void the_limit_follows_the_descriptors(void)
{
    struct endpoint_statistics stats;
    struct rlimit before, low;

    server_start(&s, NULL);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 200;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    stats = server_statistics(&s);
    CHECK_EQ(stats.max_clients, 100);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    server_stop(&s);
}

/** Others hold every descriptor and all large buffers: requests wait, none fails. */
static void waits_for_memory_of_others(void)
{
    static struct xseg_request *taken[4096];
    static uint64_t buffers[65536];
    struct xseg_port *port;
    uint32_t nr = 0, nr_buffers = 0;
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    CHECK_EQ(xseg_port_bind(s.seg, XSEG_PORT_ANY, "hog", &port), 0);
    while (nr < 4096 && xseg_request_alloc(port, &taken[nr]) == 0)
        nr++;
    for (uint64_t size = XSEG_BUFFER_MAX_BYTES; size >= XSEG_BUFFER_MIN_BYTES;
         size /= 2)
        while (nr_buffers < 65536 &&
               xseg_buffer_alloc(s.seg, size, &buffers[nr_buffers]) > 0)
            nr_buffers++;
    client_request(fd, NBD_CMD_READ, 0, 1, 0, MIB);
    client_request(fd, NBD_CMD_WRITE, 0, 2, 4 * MIB, 4096);
    client_send(fd, data, 4096);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0); /* no answer, no error, no end */
    while (nr_buffers)
        xseg_buffer_free(s.seg, buffers[--nr_buffers]);
    while (nr)
        xseg_request_free(port, taken[--nr]);
    for (int i = 0; i < 2; i++) {
        uint64_t cookie;
        CHECK_EQ(client_simple(fd, &cookie), NBD_OK);
        if (cookie == 1)
            client_recv(fd, data, MIB);
    }
    xseg_port_unbind(port);
    client_disconnect(fd);
}

int main(void)
{
    /* A small segment: 16 MiB for all, 256 descriptors. */
    server_start(&s, &(struct server_options){.heap_bytes = 16 * MIB,
                                              .nr_requests = 256,
                                              .max_clients = 64});
    slow_readers_starve_nobody();
    a_write_gets_through_behind_unread_replies();
    many_small_requests_at_once();
    connections_beyond_the_limit_are_refused();
    unfinished_handshakes_make_place();
    waits_for_memory_of_others();
    server_stop(&s);
    the_limit_follows_the_descriptors();
    return 0;
}
