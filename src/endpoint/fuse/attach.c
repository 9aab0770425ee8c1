/* SPDX-License-Identifier: Apache-2.0 */
/* Taking mounted connections over (see attach.h). */
#include "endpoint/fuse/attach.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "endpoint/fuse/conn.h"

#define NR_FDS          2
#define RECEIVE_SECONDS 1

/** Receive one message with its descriptors.  0 or -errno; none is kept on failure. */
static int attach_receive(int fd, struct fuse_attach *message, int fds[NR_FDS])
{
    union {
        char bytes[CMSG_SPACE(NR_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {message, sizeof(*message)};
    struct msghdr head = {.msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof(control.bytes)};
    ssize_t got = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
    struct cmsghdr *cmsg;
    size_t count = 0;

    if (got < 0)
        return -errno;
    cmsg = CMSG_FIRSTHDR(&head);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(cmsg), count * sizeof(int));
    }
    if (count == NR_FDS && got == (ssize_t)sizeof(*message) &&
        message->magic == FUSE_ATTACH_MAGIC && message->version == 1 &&
        memchr(message->path, 0, sizeof(message->path)))
        return 0;
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    return -EPROTO;
}

static void attach_ready(struct reactor_fd *self, uint32_t events)
{
    struct fuse_peer *peer = LIST_ENTRY(self, struct fuse_peer, attach);
    /* The sender is the supervisor; one that says nothing must not stop us. */
    const struct timeval patience = {.tv_sec = RECEIVE_SECONDS};
    struct fuse_attach message;
    int fds[NR_FDS];
    int32_t answer;
    int fd;

    (void)events;
    fd = accept4(self->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    answer = attach_receive(fd, &message, fds);
    if (answer == 0)
        answer = fuse_conn_create(peer, fds[0], fds[1], &message);
    if (answer < 0)
        log_line(LOG_ERROR, "fuse", "a mount is not taken over: %s", strerror(-answer));
    if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
        log_line(LOG_WARNING, "fuse", "a mount was handed over and no answer awaited");
    close(fd);
}

int fuse_attach_start(struct fuse_peer *peer, int listen_fd)
{
    peer->attach = (struct reactor_fd){
        .fd = listen_fd, .events = EPOLLIN, .on_ready = attach_ready};
    return reactor_add_fd(peer->reactor, &peer->attach);
}

void fuse_attach_stop(struct fuse_peer *peer)
{
    if (peer->attach.fd < 0)
        return;
    reactor_del_fd(peer->reactor, &peer->attach);
    peer->attach.fd = -1;
}
