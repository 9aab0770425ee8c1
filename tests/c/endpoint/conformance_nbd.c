/* SPDX-License-Identifier: Apache-2.0 */
/* NBD's driver for the conformance suite: simple replies, one request at a time. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "conformance.h"
#include "server.h"

static struct server place; /* only its socket is used */

static int error_of(uint32_t error)
{
    switch (error) {
    case NBD_OK:
        return 0;
    case NBD_EPERM:
        return -EROFS;
    case NBD_ENOSPC: /* also: beyond the end */
    case NBD_EINVAL:
        return -EINVAL;
    default:
        return -EIO;
    }
}

static void nbd_prepare(struct endpoint_options *options)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    snprintf(place.path, sizeof(place.path), "/tmp/test-nbd-%d.sock", (int)getpid());
    strcpy(addr.sun_path, place.path);
    unlink(place.path);
    place.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(place.listen_fd >= 0);
    CHECK_EQ(bind(place.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    CHECK_EQ(listen(place.listen_fd, 64), 0);
    options->listen_fds = &place.listen_fd;
    options->nr_listen_fds = 1;
}

static void nbd_clean(void)
{
    close(place.listen_fd);
    unlink(place.path);
}

static void *nbd_open(uint64_t *size_bytes, bool *read_only)
{
    int *fd = malloc(sizeof(*fd));
    uint16_t flags;

    CHECK(fd);
    *fd = client_go(&place, "v", CLIENT_SIMPLE, size_bytes, &flags);
    *read_only = flags & NBD_FLAG_READ_ONLY;
    return fd;
}

static void nbd_close(void *client)
{
    client_disconnect(*(int *)client);
    free(client);
}

static void nbd_drop(void *client)
{
    close(*(int *)client);
    free(client);
}

static int nbd_read(void *client, uint64_t offset, void *data, uint32_t length)
{
    int fd = *(int *)client;
    uint32_t error = client_do(fd, NBD_CMD_READ, 0, offset, length);

    if (error == NBD_OK)
        client_recv(fd, data, length);
    return error_of(error);
}

static int nbd_write(void *client, uint64_t offset, const void *data, uint32_t length,
                     bool durable)
{
    int fd = *(int *)client;

    client_request(fd, NBD_CMD_WRITE, durable ? NBD_CMD_FLAG_FUA : 0, 1, offset,
                   length);
    client_send(fd, data, length);
    return error_of(client_simple(fd, NULL));
}

static int nbd_flush(void *client)
{
    return error_of(client_do(*(int *)client, NBD_CMD_FLUSH, 0, 0, 0));
}

static int nbd_discard(void *client, uint64_t offset, uint32_t length)
{
    return error_of(client_do(*(int *)client, NBD_CMD_TRIM, 0, offset, length));
}

static int nbd_zero(void *client, uint64_t offset, uint32_t length)
{
    return error_of(client_do(*(int *)client, NBD_CMD_WRITE_ZEROES, 0, offset, length));
}

const struct endpoint_driver endpoint_driver = {
    .kind = "nbd",
    .prepare = nbd_prepare,
    .clean = nbd_clean,
    .open = nbd_open,
    .close = nbd_close,
    .drop = nbd_drop,
    .read = nbd_read,
    .write = nbd_write,
    .flush = nbd_flush,
    .discard = nbd_discard,
    .zero = nbd_zero,
};
