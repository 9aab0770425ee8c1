/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients that send anything: sequences of almost valid messages, cut off anywhere.
 *
 * The server must live, serve a well-behaved client meanwhile, and leave nothing
 * behind.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"

#define NR_CLIENTS 1500

static struct server s;
static uint64_t state;

static uint64_t rnd(uint64_t n)
{
    return check_next(&state) % n;
}

/** Mostly a small number, sometimes one at a border, sometimes anything. */
static uint64_t any_number(void)
{
    static const uint64_t borders[] = {
        0,
        1,
        4095,
        4096,
        4097,
        1u << 20,
        32u << 20,
        (32u << 20) + 1,
        0x7fffffff,
        0xffffffff,
        INT64_MAX,
        UINT64_MAX,
        FAKE_DISK_BYTES,
        FAKE_DISK_BYTES - 1,
    };

    switch (rnd(8)) {
    case 0:
        return borders[rnd(sizeof(borders) / sizeof(borders[0]))];
    case 1:
        return check_next(&state);
    default:
        return rnd(8192);
    }
}

static uint8_t message[256 << 10];

static size_t put_option(uint8_t *at)
{
    uint32_t option = (uint32_t)rnd(14);
    size_t len = rnd(40);
    static const char *const names[] = {"disk", "snap", "huge", "busy", "nothing", ""};
    const char *name = names[rnd(6)];

    if (option == NBD_OPT_ABORT && rnd(4))
        option = NBD_OPT_GO;
    for (size_t i = 0; i < len; i++)
        at[16 + i] = (uint8_t)any_number();
    if (rnd(3)) {
        len = strlen(name);
        if (option == NBD_OPT_EXPORT_NAME) {
            memcpy(at + 16, name, len);
        } else {
            nbd_put32(at + 16, rnd(10) ? (uint32_t)len : (uint32_t)any_number());
            memcpy(at + 20, name, len);
            len += 4;
            nbd_put16(at + 16 + len, 0);
            len += 2;
        }
    }
    if (option == NBD_OPT_STRUCTURED_REPLY || option == NBD_OPT_LIST)
        len = 0;
    nbd_put64(at, rnd(50) ? NBD_OPTION_MAGIC : check_next(&state));
    nbd_put32(at + 8, option);
    nbd_put32(at + 12, rnd(30) ? (uint32_t)len : (uint32_t)any_number());
    return 16 + len;
}

static size_t put_request(uint8_t *at)
{
    uint16_t type = (uint16_t)(rnd(20) ? rnd(8) : any_number());
    uint32_t length = (uint32_t)any_number();
    size_t payload = 0;

    if (type == NBD_CMD_DISC && rnd(4))
        type = NBD_CMD_READ;
    if (type == NBD_CMD_WRITE)
        payload = length < 65536 ? length : rnd(65536);
    nbd_put32(at, rnd(100) ? NBD_REQUEST_MAGIC : (uint32_t)check_next(&state));
    nbd_put16(at + 4, (uint16_t)(rnd(3) ? 0 : rnd(40)));
    nbd_put16(at + 6, type);
    nbd_put64(at + 8, check_next(&state));
    nbd_put64(at + 16, any_number());
    nbd_put32(at + 24, length);
    memset(at + 28, 0x77, payload);
    return 28 + payload;
}

/** Send without ever waiting; false once the server has closed or takes no more. */
static bool try_send(int fd, size_t len)
{
    ssize_t n = send(fd, message, len, MSG_NOSIGNAL | MSG_DONTWAIT);

    return n == (ssize_t)len;
}

static void drain(int fd)
{
    static uint8_t sink[1 << 20];

    while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
        continue;
}

static void one_client(void)
{
    int fd = client_connect(&s);
    bool on;

    nbd_put32(message, rnd(20) ? 3 : (uint32_t)any_number());
    on = try_send(fd, 4);
    for (uint64_t n = rnd(6); on && n; n--)
        on = try_send(fd, put_option(message));
    if (on && rnd(4)) { /* usually come as far as to transmit */
        nbd_put64(message, NBD_OPTION_MAGIC);
        nbd_put32(message + 8, NBD_OPT_EXPORT_NAME);
        nbd_put32(message + 12, 4);
        memcpy(message + 16, rnd(3) ? "disk" : "snap", 4);
        on = try_send(fd, 20);
    }
    for (uint64_t n = rnd(30); on && n; n--) {
        size_t len = put_request(message);
        on = try_send(fd, rnd(20) ? len : rnd(len) + 1);
        if (rnd(2))
            drain(fd);
    }
    if (rnd(3) == 0)
        shutdown(fd, SHUT_WR);
    drain(fd);
    close(fd);
}

int main(void)
{
    int bystander;

    state = check_seed();
    server_start(&s, NULL);
    bystander = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);
    for (int i = 0; i < NR_CLIENTS; i++) {
        one_client();
        if (i % 16 == 0)
            client_check_alive(bystander, CLIENT_STRUCTURED);
    }
    client_disconnect(bystander);
    server_stop(&s);
    return 0;
}
