/* SPDX-License-Identifier: Apache-2.0 */
/* The server in a thread, and the raw client (see server.h). */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- server -------------------------------------------------------------------------
 */

static void *run(void *arg)
{
    struct server *s = arg;

    CHECK_EQ(reactor_run(s->reactor), 0);
    return NULL;
}

static void stopped(void *arg)
{
    struct server *s = arg;

    reactor_stop(s->reactor);
}

static void on_kick(struct reactor_fd *self, uint32_t events)
{
    struct server *s =
        (struct server *)(void *)((char *)self - offsetof(struct server, kick));
    char what;

    (void)events;
    CHECK_EQ(read(self->fd, &what, 1), 1);
    if (what == 't') {
        nbd_endpoint.statistics(s->endpoint, &s->statistics);
        atomic_fetch_add(&s->nr_told, 1);
    }
    if (what != 's')
        return; /* being awake is enough */
    s->endpoint->peer.stop(&s->endpoint->peer, stopped, s);
    atomic_store(&s->stopping, 1);
}

void server_start(struct server *s, const struct server_options *options)
{
    struct xseg_segment_options segment = {0};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct endpoint_options nbd = {.listen_fds = &s->listen_fd, .nr_listen_fds = 1};
    static unsigned counter;
    const char *why;

    memset(s, 0, sizeof(*s));
    snprintf(s->segment, sizeof(s->segment), "test-nbd-%d-%u", (int)getpid(), counter);
    snprintf(s->path, sizeof(s->path), "/tmp/test-nbd-%d-%u.sock", (int)getpid(),
             counter++);
    segment.heap_bytes =
        options && options->heap_bytes ? options->heap_bytes : 64u << 20;
    if (options) {
        segment.nr_requests = options->nr_requests;
        nbd.max_clients = options->max_clients;
        nbd.handshake_ms = options->handshake_ms;
    }
    CHECK_EQ(xseg_segment_create(s->segment, &segment, &s->seg), 0);
    CHECK_EQ(reactor_create(s->seg, NULL, &s->reactor), 0);
    CHECK_EQ(fake_vlmcd_start(&s->fake, s->reactor), 0);

    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(s->listen_fd >= 0);
    strcpy(addr.sun_path, s->path);
    unlink(s->path);
    CHECK_EQ(bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    CHECK_EQ(listen(s->listen_fd, 1024), 0);
    CHECK_EQ(nbd_endpoint.create(s->reactor, &nbd, &s->endpoint, &why), 0);
    CHECK_EQ(pipe(s->pipe), 0);
    s->kick = (struct reactor_fd){s->pipe[0], EPOLLIN, on_kick};
    CHECK_EQ(reactor_add_fd(s->reactor, &s->kick), 0);
    CHECK_EQ(pthread_create(&s->thread, NULL, run, s), 0);
}

void server_begin_stop(struct server *s)
{
    s->stop_asked = true;
    CHECK_EQ(write(s->pipe[1], "s", 1), 1);
    wait_until(&s->stopping, 1);
}

void server_release(struct server *s)
{
    atomic_store(&s->fake.hold, false);
    CHECK_EQ(write(s->pipe[1], "r", 1), 1);
}

struct endpoint_statistics server_statistics(struct server *s)
{
    unsigned before = atomic_load(&s->nr_told);

    CHECK_EQ(write(s->pipe[1], "t", 1), 1);
    wait_until(&s->nr_told, before + 1);
    return s->statistics;
}

void server_stop(struct server *s)
{
    struct xseg_heap_usage usage;

    if (!s->stop_asked)
        server_begin_stop(s);
    CHECK_EQ(pthread_join(s->thread, NULL), 0);
    reactor_del_fd(s->reactor, &s->kick);
    close(s->pipe[0]);
    close(s->pipe[1]);
    CHECK_EQ(atomic_load(&s->fake.nr_opens), 0);
    s->endpoint->peer.destroy(&s->endpoint->peer);
    fake_vlmcd_stop(&s->fake);
    reactor_destroy(s->reactor);
    xseg_heap_usage(s->seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0);
    for (uint32_t i = 0; i < xseg_segment_header(s->seg)->nr_requests; i++)
        CHECK_EQ(xseg_segment_request(s->seg, i)->state, XSEG_RS_FREE);
    xseg_segment_detach(s->seg);
    CHECK_EQ(xseg_segment_destroy(s->segment), 0);
    close(s->listen_fd);
    unlink(s->path);
}

void wait_until(atomic_uint *counter, unsigned value)
{
    while (atomic_load(counter) != value)
        sched_yield();
}

/* ---- client -------------------------------------------------------------------------
 */

int client_connect(struct server *s)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = 60};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    strcpy(addr.sun_path, s->path);
    CHECK_EQ(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    /* A server that forgets to answer fails the test instead of hanging it. */
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    return fd;
}

void client_send(int fd, const void *data, size_t len)
{
    const uint8_t *at = data;

    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        CHECK(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

void client_recv(int fd, void *data, size_t len)
{
    uint8_t *at = data;

    while (len) {
        ssize_t n = recv(fd, at, len, 0);
        CHECK(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

void client_expect_eof(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    CHECK(n == 0 || (n < 0 && errno == ECONNRESET));
    close(fd);
}

int client_greet(struct server *s, uint32_t flags)
{
    uint8_t greeting[NBD_GREETING_BYTES], answer[4];
    int fd = client_connect(s);

    client_recv(fd, greeting, sizeof(greeting));
    CHECK_EQ(nbd_get64(greeting), NBD_INIT_MAGIC);
    CHECK_EQ(nbd_get64(greeting + 8), NBD_OPTION_MAGIC);
    CHECK_EQ(nbd_get16(greeting + 16), NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    nbd_put32(answer, flags);
    client_send(fd, answer, sizeof(answer));
    return fd;
}

void client_option(int fd, uint32_t option, const void *data, uint32_t len)
{
    uint8_t head[NBD_OPTION_HEAD_BYTES];

    nbd_put64(head, NBD_OPTION_MAGIC);
    nbd_put32(head + 8, option);
    nbd_put32(head + 12, len);
    client_send(fd, head, sizeof(head));
    client_send(fd, data, len);
}

uint32_t client_reply(int fd, uint32_t option, void *data, uint32_t room, uint32_t *len)
{
    uint8_t head[NBD_OPTION_REPLY_HEAD_BYTES], drop[4096];
    uint32_t got;

    client_recv(fd, head, sizeof(head));
    CHECK_EQ(nbd_get64(head), NBD_OPTION_REPLY_MAGIC);
    CHECK_EQ(nbd_get32(head + 8), option);
    got = nbd_get32(head + 16);
    CHECK(got <= sizeof(drop));
    client_recv(fd, drop, got);
    if (data)
        memcpy(data, drop, got < room ? got : room);
    if (len)
        *len = got;
    return nbd_get32(head + 12);
}

int client_expect(int fd, uint32_t option, const void *data, uint32_t len,
                  uint32_t type)
{
    client_option(fd, option, data, len);
    CHECK_EQ(client_reply(fd, option, NULL, 0, NULL), type);
    return fd;
}

static uint32_t put_name(uint8_t *at, const char *name)
{
    nbd_put32(at, (uint32_t)strlen(name));
    memcpy(at + 4, name, strlen(name));
    return 4 + (uint32_t)strlen(name);
}

int client_go(struct server *s, const char *name, enum client_mode mode, uint64_t *size,
              uint16_t *flags)
{
    int fd = client_greet(s, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
    uint8_t data[512], reply[512];
    uint32_t len, type;

    if (mode >= CLIENT_STRUCTURED)
        client_expect(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NBD_REP_ACK);
    if (mode == CLIENT_ALLOCATION) {
        len = put_name(data, name);
        nbd_put32(data + len, 1);
        len += 4;
        len += put_name(data + len, "base:allocation");
        client_option(fd, NBD_OPT_SET_META_CONTEXT, data, len);
        CHECK_EQ(client_reply(fd, NBD_OPT_SET_META_CONTEXT, reply, sizeof(reply), &len),
                 NBD_REP_META_CONTEXT);
        CHECK_EQ(nbd_get32(reply), NBD_ALLOCATION_CONTEXT_ID);
        CHECK_EQ(client_reply(fd, NBD_OPT_SET_META_CONTEXT, NULL, 0, NULL),
                 NBD_REP_ACK);
    }
    len = put_name(data, name);
    nbd_put16(data + len, 0);
    client_option(fd, NBD_OPT_GO, data, len + 2);
    while ((type = client_reply(fd, NBD_OPT_GO, reply, sizeof(reply), &len)) ==
           NBD_REP_INFO) {
        if (nbd_get16(reply) != NBD_INFO_EXPORT)
            continue;
        CHECK_EQ(len, 12);
        if (size)
            *size = nbd_get64(reply + 2);
        if (flags)
            *flags = nbd_get16(reply + 10);
    }
    CHECK_EQ(type, NBD_REP_ACK);
    return fd;
}

static void pack_request(uint8_t head[NBD_REQUEST_BYTES], uint16_t type, uint16_t flags,
                         uint64_t cookie, uint64_t offset, uint32_t length)
{
    nbd_put32(head, NBD_REQUEST_MAGIC);
    nbd_put16(head + 4, flags);
    nbd_put16(head + 6, type);
    nbd_put64(head + 8, cookie);
    nbd_put64(head + 16, offset);
    nbd_put32(head + 24, length);
}

void client_request(int fd, uint16_t type, uint16_t flags, uint64_t cookie,
                    uint64_t offset, uint32_t length)
{
    uint8_t head[NBD_REQUEST_BYTES];

    pack_request(head, type, flags, cookie, offset, length);
    client_send(fd, head, sizeof(head));
}

void client_request_disc(int fd)
{
    uint8_t head[NBD_REQUEST_BYTES];

    pack_request(head, NBD_CMD_DISC, 0, 0, 0, 0);
    (void)send(fd, head, sizeof(head), MSG_NOSIGNAL);
}

uint32_t client_simple(int fd, uint64_t *cookie)
{
    uint8_t head[NBD_SIMPLE_REPLY_BYTES];

    client_recv(fd, head, sizeof(head));
    CHECK_EQ(nbd_get32(head), NBD_SIMPLE_REPLY_MAGIC);
    if (cookie)
        *cookie = nbd_get64(head + 8);
    return nbd_get32(head + 4);
}

struct client_chunk client_chunk(int fd)
{
    uint8_t head[NBD_CHUNK_HEAD_BYTES];

    client_recv(fd, head, sizeof(head));
    CHECK_EQ(nbd_get32(head), NBD_STRUCTURED_REPLY_MAGIC);
    return (struct client_chunk){
        .flags = nbd_get16(head + 4),
        .type = nbd_get16(head + 6),
        .cookie = nbd_get64(head + 8),
        .length = nbd_get32(head + 16),
    };
}

uint32_t client_error_chunk(int fd, uint64_t cookie)
{
    struct client_chunk chunk = client_chunk(fd);
    uint8_t payload[1024];

    CHECK_EQ(chunk.type, NBD_REPLY_TYPE_ERROR);
    CHECK_EQ(chunk.flags, NBD_REPLY_FLAG_DONE);
    CHECK_EQ(chunk.cookie, cookie);
    CHECK(chunk.length >= 6 && chunk.length <= sizeof(payload));
    client_recv(fd, payload, chunk.length);
    CHECK_EQ(nbd_get16(payload + 4), chunk.length - 6);
    return nbd_get32(payload);
}

void client_disconnect(int fd)
{
    client_request(fd, NBD_CMD_DISC, 0, 0, 0, 0);
    client_expect_eof(fd);
}

uint32_t client_do(int fd, uint16_t type, uint16_t flags, uint64_t offset,
                   uint32_t length)
{
    uint64_t cookie;
    uint32_t error;

    client_request(fd, type, flags, 0x1234567890abcdef, offset, length);
    error = client_simple(fd, &cookie);
    CHECK(cookie == 0x1234567890abcdef);
    return error;
}

void client_check_alive(int fd, enum client_mode mode)
{
    uint8_t data[XSEG_SECTOR_BYTES];

    client_request(fd, NBD_CMD_READ, 0, 77, 0, sizeof(data));
    if (mode == CLIENT_SIMPLE) {
        CHECK_EQ(client_simple(fd, NULL), NBD_OK);
        client_recv(fd, data, sizeof(data));
        return;
    }
    struct client_chunk chunk = client_chunk(fd);
    CHECK(chunk.type == NBD_REPLY_TYPE_OFFSET_DATA ||
          chunk.type == NBD_REPLY_TYPE_OFFSET_HOLE);
    CHECK_EQ(chunk.flags, NBD_REPLY_FLAG_DONE);
    CHECK(chunk.length <= sizeof(data) + 8);
    client_recv(fd, data, 8);
    client_recv(fd, data, chunk.length - 8);
}
