/* SPDX-License-Identifier: Apache-2.0 */
/* The host of native peers: refuses bad options, serves, stops without leaving a trace.
 */
#include "peer/native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"
#include "xseg/xseg.h"

static char name[64];
static struct xseg_segment *seg;
static struct native *host;

static struct native_options good_options(uint32_t roles)
{
    return (struct native_options){
        .segment = name,
        .roles = roles,
        .backend = "mem",
        .engine = "threads",
        .attach_fd = -1,
        .marks_fd = -1,
    };
}

static void check_refused(const struct native_options *options, int error,
                          const char *part)
{
    struct native *n = NULL;
    const char *why = NULL;

    CHECK_EQ(native_create(options, &n, &why), error);
    CHECK(!n);
    CHECK(why);
    if (!strstr(why, part) || strchr(why, '\n')) {
        fprintf(stderr, "expected one line with '%s', got '%s'\n", part, why);
        exit(1);
    }
}

static void test_bad_options_are_named(void)
{
    struct native_options o;
    int not_a_socket = STDIN_FILENO;

    o = good_options(0);
    check_refused(&o, -EINVAL, "role");
    o = good_options(1u << 30);
    check_refused(&o, -EINVAL, "0x40000000");
    o = good_options(NATIVE_NBD);
    check_refused(&o, -EINVAL, "vlmcd");
    o = good_options(NATIVE_BLOCKERB);
    o.segment = NULL;
    check_refused(&o, -EINVAL, "segment");
    o.segment = "no-such-segment";
    check_refused(&o, -ENOENT, "no-such-segment");
    o = good_options(NATIVE_BLOCKERB);
    o.backend = "tape";
    check_refused(&o, -EINVAL, "tape");
    o.backend = NULL;
    check_refused(&o, -EINVAL, "backend");
    o = good_options(NATIVE_BLOCKERB);
    o.engine = "steam";
    check_refused(&o, -EINVAL, "steam");
    o = good_options(NATIVE_BLOCKERB);
    o.backend = "file";
    check_refused(&o, -EINVAL, "data_path");
    o = good_options(NATIVE_BLOCKERM);
    o.backend = "file";
    o.maps_path = "";
    check_refused(&o, -EINVAL, "maps_path");
    o = good_options(NATIVE_BLOCKERB);
    o.marks_fd = STDIN_FILENO;
    check_refused(&o, -EINVAL, "marks_fd");
    o = good_options(NATIVE_VLMCD);
    o.attach_fd = STDIN_FILENO;
    check_refused(&o, -EINVAL, "attach_fd");
    o = good_options(NATIVE_FUSE);
    check_refused(&o, -EINVAL, "vlmcd");
    o = good_options(NATIVE_VLMCD | NATIVE_FUSE);
    check_refused(&o, -EINVAL, "listening");
    o = good_options(NATIVE_BLOCKERB);
    o.log_level = 4;
    check_refused(&o, -EINVAL, "log level");
    o = good_options(NATIVE_BLOCKERB);
    o.listen_fds = &not_a_socket;
    o.nr_listen_fds = 1;
    check_refused(&o, -EINVAL, "nbd");
    o = good_options(NATIVE_VLMCD | NATIVE_NBD);
    check_refused(&o, -EINVAL, "listening socket");
    o.listen_fds = &not_a_socket;
    o.nr_listen_fds = 1;
    check_refused(&o, -EINVAL, "not a listening socket");
}

static void check_nothing_left(void)
{
    struct xseg_heap_usage usage;
    const struct xseg_header *header = xseg_segment_header(seg);

    for (uint32_t id = 1; id < header->nr_ports; id++)
        CHECK_EQ(xseg_segment_port(seg, id)->state, XSEG_PORT_FREE);
    for (uint32_t i = 0; i < header->nr_requests; i++)
        CHECK_EQ(xseg_segment_request(seg, i)->state, XSEG_RS_FREE);
    xseg_heap_usage(seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0);
}

static void *run(void *arg)
{
    (void)arg;
    CHECK_EQ(native_run(host), 0);
    return NULL;
}

static int64_t ping(struct xseg_port *port, uint32_t dst)
{
    struct xseg_request *rq;
    int64_t result;

    CHECK_EQ(xseg_request_alloc(port, &rq), 0);
    rq->op = XSEG_OP_PING;
    result = xseg_request_submit(port, rq, dst);
    if (result == 0) {
        while (!xseg_port_reap(port))
            xseg_port_wait(port, UINT64_MAX);
        result = rq->result;
    }
    xseg_request_free(port, rq);
    return result;
}

static int listen_somewhere(void)
{
    struct sockaddr_un any = {.sun_family = AF_UNIX}; /* an abstract name */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)), 0);
    CHECK_EQ(listen(fd, 16), 0);
    return fd;
}

static void test_all_roles_serve_and_stop(void)
{
    static const uint32_t ports[] = {XSEG_PORT_BLOCKERB, XSEG_PORT_BLOCKERM,
                                     XSEG_PORT_MAPPERD, XSEG_PORT_VLMCD};
    struct native_options o = good_options(NATIVE_BLOCKERB | NATIVE_BLOCKERM |
                                           NATIVE_MAPPERD | NATIVE_VLMCD | NATIVE_NBD);
    int fd = listen_somewhere();
    struct xseg_port *client;
    const char *why;
    pthread_t thread;

    o.listen_fds = &fd;
    o.nr_listen_fds = 1;
    CHECK_EQ(native_create(&o, &host, &why), 0);
    check_refused(&o, -EBUSY, "blockerb"); /* they run already */
    CHECK_EQ(pthread_create(&thread, NULL, run, NULL), 0);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_ANY, "client", &client), 0);
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        CHECK_EQ(ping(client, ports[i]), 0);
    native_stop(host);
    native_stop(host); /* again: harmless */
    CHECK_EQ(pthread_join(thread, NULL), 0);
    native_destroy(host);
    xseg_port_unbind(client);
    close(fd);
    check_nothing_left();
}

static void test_retiring_keeps_what_control_needs(void)
{
    struct native_options o = good_options(NATIVE_BLOCKERB | NATIVE_BLOCKERM |
                                           NATIVE_MAPPERD | NATIVE_VLMCD | NATIVE_NBD);
    int fd = listen_somewhere();
    struct xseg_port *client;
    const char *why;
    pthread_t thread;

    o.listen_fds = &fd;
    o.nr_listen_fds = 1;
    CHECK_EQ(native_create(&o, &host, &why), 0);
    CHECK_EQ(pthread_create(&thread, NULL, run, NULL), 0);
    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_ANY, "client", &client), 0);
    CHECK_EQ(ping(client, XSEG_PORT_VLMCD), 0); /* it runs */
    native_retire(host);
    native_retire(host); /* again: returns at once */
    CHECK(ping(client, XSEG_PORT_VLMCD) < 0);
    CHECK_EQ(ping(client, XSEG_PORT_MAPPERD), 0);
    CHECK_EQ(ping(client, XSEG_PORT_BLOCKERB), 0);
    CHECK_EQ(ping(client, XSEG_PORT_BLOCKERM), 0);
    native_stop(host);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    native_retire(host); /* too late: returns at once */
    native_destroy(host);
    xseg_port_unbind(client);
    close(fd);
    check_nothing_left();
}

static void test_stop_before_run_and_destroy_without_run(void)
{
    struct native_options o = good_options(NATIVE_BLOCKERB | NATIVE_BLOCKERM);
    const char *why;

    CHECK_EQ(native_create(&o, &host, &why), 0);
    native_stop(host);
    CHECK_EQ(native_run(host), 0);
    native_destroy(host);
    check_nothing_left();

    CHECK_EQ(native_create(&o, &host, &why), 0);
    native_destroy(host);
    check_nothing_left();
    native_destroy(NULL);
}

static void on_term(int signal)
{
    (void)signal;
    native_stop(host);
}

static void *ping_then_terminate(void *arg)
{
    struct xseg_port *client;

    CHECK_EQ(xseg_port_bind(seg, XSEG_PORT_ANY, "client", &client), 0);
    CHECK_EQ(ping(client, XSEG_PORT_BLOCKERB), 0);
    xseg_port_unbind(client);
    CHECK_EQ(pthread_kill(*(pthread_t *)arg, SIGPIPE), 0); /* blocked while it runs */
    CHECK_EQ(pthread_kill(*(pthread_t *)arg, SIGTERM), 0);
    return NULL;
}

static void test_a_signal_stops_it_and_sigpipe_does_not_kill(void)
{
    struct native_options o = good_options(NATIVE_BLOCKERB);
    struct sigaction action = {.sa_handler = on_term};
    pthread_t self = pthread_self(), thread;
    const char *why;

    sigemptyset(&action.sa_mask);
    CHECK_EQ(sigaction(SIGTERM, &action, NULL), 0);
    CHECK_EQ(native_create(&o, &host, &why), 0);
    CHECK_EQ(pthread_create(&thread, NULL, ping_then_terminate, &self), 0);
    CHECK_EQ(native_run(host), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    native_destroy(host);
    check_nothing_left();
}

int main(void)
{
    const struct xseg_segment_options sizes = {.heap_bytes = 16u << 20};

    snprintf(name, sizeof name, "test-native-%d", (int)getpid());
    xseg_segment_destroy(name);
    CHECK_EQ(xseg_segment_create(name, &sizes, &seg), 0);
    test_bad_options_are_named();
    check_nothing_left();
    test_stop_before_run_and_destroy_without_run();
    test_a_signal_stops_it_and_sigpipe_does_not_kill();
    test_all_roles_serve_and_stop();
    test_retiring_keeps_what_control_needs();
    CHECK(strcmp(native_default_engine(), "io_uring") == 0 ||
          strcmp(native_default_engine(), "threads") == 0);
    xseg_segment_detach(seg);
    CHECK_EQ(xseg_segment_destroy(name), 0);
    return 0;
}
