/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No amount of bulk work delays what keeps an instance alive (issue 9, fault 03).
 *
 * Every sync of bulk work stops at a gate: the linker sends fsync, fdatasync and syncfs
 * here.  Behind the closed gate there is more of it than there are workers.  Headers,
 * leases and journals, which do their syncs too, must be answered all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blocker/client.h"

int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_syncfs(int fd);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_syncfs(int fd);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool closed;
static unsigned nr_stopped;

/** Syncs in blockerb's store are bulk: content and extents; so is syncfs of any. */
static bool is_bulk(int fd)
{
    char link[64], path[512];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    CHECK(len > 0);
    path[len] = '\0';
    return strstr(path, "/data/") != NULL;
}

static void pass_gate(bool bulk)
{
    pthread_mutex_lock(&lock);
    if (bulk && closed) {
        nr_stopped++;
        pthread_cond_broadcast(&changed);
        while (closed)
            pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static void await_stopped(unsigned nr)
{
    pthread_mutex_lock(&lock);
    while (nr_stopped < nr)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void set_gate(bool to_closed)
{
    pthread_mutex_lock(&lock);
    closed = to_closed;
    nr_stopped = 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

int __wrap_fsync(int fd)
{
    pass_gate(is_bulk(fd));
    return __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    pass_gate(is_bulk(fd));
    return __real_fdatasync(fd);
}

int __wrap_syncfs(int fd)
{
    pass_gate(true);
    return __real_syncfs(fd);
}

#define NR_BULK  24u
#define BULK_OFF (1u << 20)

static struct setup setup = {.backend = "file"};
static struct server server, *s = &server;
static uint8_t data[4096];

static void test_slow_bulk_work_delays_no_heartbeat_and_no_append(void)
{
    struct xseg_object h = header_name(1), j = journal_name(1, 1), t = lease_name(1);
    struct xseg_object other = lease_name(2);
    struct xseg_request *bulk[NR_BULK], *flush;
    struct xseg_lease lease = lease_of("a");
    struct xseg_object_info info;

    memset(data, 7, sizeof data);
    memset(s->data + BULK_OFF, 7, 64);
    appear(s, "a");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, lease.fence, data, 64), 0);
    set_gate(true);
    for (unsigned i = 0; i < NR_BULK; i++) {
        struct xseg_object c = content_name(i), e = extent_name(i, 1);
        CHECK_EQ(do_write(s, &e, 0, data, sizeof data, 0), sizeof data);
        bulk[i] = ask(s, i % 2 ? XSEG_OP_CREATE : XSEG_OP_FLUSH, i % 2 ? &c : &e);
        bulk[i]->size = 64;
        bulk[i]->data_off += BULK_OFF; /* the calls in between use the start */
        bulk[i]->data_len = 64;
        send_only(s, bulk[i]);
    }
    flush = ask(s, XSEG_OP_FLUSH, &whole_store);
    send_only(s, flush);
    await_stopped(4);
    /* all of the bulk lane stands still; this is answered by others */
    for (int i = 0; i < 3; i++)
        appear(s, "a");
    CHECK_EQ(do_append(s, &j, 64, lease.fence, data, 64), 0);
    CHECK_EQ(do_append(s, &j, 128, lease.fence, data, 64), 0);
    CHECK_EQ(do_flush(s, &j), 0);
    fill_header(data, 64, 1, 1, 0);
    CHECK_EQ(do_create(s, &h, data, 64, 0), 0);
    fill_header(data, 64, 2, 1, 0);
    CHECK_EQ(do_update(s, &h, 1, data, 64), 0);
    CHECK_EQ(do_info(s, &h, &info), 0);
    lease = lease_of("a");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &other, &lease, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &other, &lease, 0), 0);
    CHECK_EQ(do_delete(s, &h), 0);
    set_gate(false);
    for (unsigned i = 0; i < NR_BULK; i++) {
        CHECK_EQ(await(s, bulk[i]), 0);
        xseg_request_free(s->port, bulk[i]);
    }
    CHECK_EQ(await(s, flush), 0);
    xseg_request_free(s->port, flush);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    setup.engine = engine_or_skip(argv[1]);
    make_root(setup.path);
    server_start(s, &setup);
    test_slow_bulk_work_delays_no_heartbeat_and_no_append();
    server_stop(s);
    remove_root(setup.path);
    return 0;
}
