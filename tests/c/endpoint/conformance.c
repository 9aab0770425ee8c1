/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance suite of endpoints (see conformance.h). */
#include "conformance.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "check.h"
#include "composer/composer.h"
#include "composer/fake_store.h"

/** Everything under test, and what tells its thread what to do. */
static struct bed {
    char segment[64];
    struct xseg_segment *seg;
    struct reactor *reactor;
    struct fake_store store;
    struct peer *composer;
    struct endpoint *endpoint;
    struct xseg_port *port; /* of the test's thread: asks vlmcd for snapshots */
    pthread_t thread;
    struct reactor_fd kick;
    int pipe[2];
    void (*job)(void *arg);
    void *job_arg;
    atomic_uint nr_jobs;
} bed;

static uint8_t model[FAKE_BYTES], got[FAKE_BYTES];
static uint64_t rng = 9;

/* ---- the bed ------------------------------------------------------------------------
 */

static void *bed_thread(void *arg)
{
    (void)arg;
    CHECK_EQ(reactor_run(bed.reactor), 0);
    return NULL;
}

static void bed_on_kick(struct reactor_fd *self, uint32_t events)
{
    char byte;

    (void)events;
    CHECK_EQ(read(self->fd, &byte, 1), 1);
    bed.job(bed.job_arg);
    atomic_fetch_add(&bed.nr_jobs, 1);
}

/** Run `job` on the reactor's thread, and wait until it has run. */
static void bed_do(void (*job)(void *arg), void *arg)
{
    unsigned before = atomic_load(&bed.nr_jobs);

    bed.job = job;
    bed.job_arg = arg;
    CHECK_EQ(write(bed.pipe[1], "j", 1), 1);
    while (atomic_load(&bed.nr_jobs) == before)
        sched_yield();
}

static void bed_start(uint32_t volume_flags)
{
    struct xseg_segment_options segment = {.heap_bytes = 32u << 20};
    struct endpoint_options options = {0};
    static unsigned counter;
    const char *why;

    memset(&bed, 0, sizeof(bed));
    snprintf(bed.segment, sizeof(bed.segment), "test-end-%d-%u", (int)getpid(),
             counter++);
    CHECK_EQ(xseg_segment_create(bed.segment, &segment, &bed.seg), 0);
    CHECK_EQ(reactor_create(bed.seg, NULL, &bed.reactor), 0);
    fake_store_start(&bed.store, bed.reactor, check_seed());
    bed.store.flags = volume_flags;
    fake_store_view(&bed.store, model, false);
    CHECK_EQ(composer_create(bed.reactor, NULL, &bed.composer, &why), 0);
    endpoint_driver.prepare(&options);
    CHECK_EQ(endpoint_kind(endpoint_driver.kind)
                 ->create(bed.reactor, &options, &bed.endpoint, &why),
             0);
    CHECK_EQ(xseg_port_bind(bed.seg, XSEG_PORT_ANY, "test", &bed.port), 0);
    CHECK_EQ(pipe(bed.pipe), 0);
    bed.kick = (struct reactor_fd){bed.pipe[0], EPOLLIN, bed_on_kick};
    CHECK_EQ(reactor_add_fd(bed.reactor, &bed.kick), 0);
    CHECK_EQ(pthread_create(&bed.thread, NULL, bed_thread, NULL), 0);
}

static void bed_composer_stopped(void *arg)
{
    (void)arg;
    reactor_stop(bed.reactor);
}

static void bed_endpoint_stopped(void *arg)
{
    (void)arg;
    bed.composer->stop(bed.composer, bed_composer_stopped, NULL);
}

static void bed_begin_stop(void *arg)
{
    (void)arg;
    bed.endpoint->peer.stop(&bed.endpoint->peer, bed_endpoint_stopped, NULL);
}

/** Stop in order; nothing may be left open, no buffer and no descriptor. */
static void bed_stop(void)
{
    struct xseg_heap_usage usage;

    bed_do(bed_begin_stop, NULL);
    CHECK_EQ(pthread_join(bed.thread, NULL), 0);
    reactor_del_fd(bed.reactor, &bed.kick);
    close(bed.pipe[0]);
    close(bed.pipe[1]);
    CHECK(!bed.store.mapped);
    bed.endpoint->peer.destroy(&bed.endpoint->peer);
    bed.composer->destroy(bed.composer);
    fake_store_stop(&bed.store);
    reactor_destroy(bed.reactor);
    xseg_port_unbind(bed.port);
    xseg_heap_usage(bed.seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0);
    for (uint32_t i = 0; i < xseg_segment_header(bed.seg)->nr_requests; i++)
        CHECK_EQ(xseg_segment_request(bed.seg, i)->state, XSEG_RS_FREE);
    xseg_segment_detach(bed.seg);
    CHECK_EQ(xseg_segment_destroy(bed.segment), 0);
    endpoint_driver.clean();
}

/* ---- helpers ------------------------------------------------------------------------
 */

static void *open_volume(void)
{
    uint64_t size;
    bool read_only;
    void *client = endpoint_driver.open(&size, &read_only);

    CHECK_EQ(size, FAKE_BYTES - 700);
    CHECK(!read_only);
    return client;
}

static void take_crash_view(void *arg)
{
    fake_store_view(&bed.store, arg, true);
}

/** What a crash now would leave, of a range. */
static void check_durable(uint64_t offset, uint32_t length)
{
    bed_do(take_crash_view, got);
    CHECK(memcmp(got + offset, model + offset, length) == 0);
}

static void check_read(void *client, uint64_t offset, uint32_t length)
{
    CHECK_EQ(endpoint_driver.read(client, offset, got, length), 0);
    CHECK(memcmp(got, model + offset, length) == 0);
}

/** A range inside the volume, as small and crooked as the endpoint allows. */
static uint64_t random_range(uint32_t *length)
{
    uint32_t align = endpoint_kind(endpoint_driver.kind)->can.align_bytes;
    uint64_t units = bed.store.size_bytes / align;
    uint64_t most = check_next(&rng) % 2 ? 3 * XSEG_SECTOR_BYTES / align + 1 : units;
    uint64_t first = check_next(&rng) % units;
    uint64_t nr = 1 + check_next(&rng) % most;

    if (nr > units - first)
        nr = units - first;
    *length = (uint32_t)(nr * align);
    return first * align;
}

static void random_change(void *client)
{
    static uint8_t data[FAKE_BYTES];
    uint32_t length;
    uint64_t offset = random_range(&length);

    switch (check_next(&rng) % 4) {
    case 0:
        CHECK_EQ(endpoint_driver.discard(client, offset, length), 0);
        memset(model + offset, 0, length);
        break;
    case 1:
        CHECK_EQ(endpoint_driver.zero(client, offset, length), 0);
        memset(model + offset, 0, length);
        break;
    default:
        for (uint32_t i = 0; i < length; i++)
            data[i] = (uint8_t)(check_next(&rng) >> 24);
        CHECK_EQ(endpoint_driver.write(client, offset, data, length, false), 0);
        memcpy(model + offset, data, length);
    }
}

/* ---- the suite ----------------------------------------------------------------------
 */

static void reads_agree_with_what_was_written(void)
{
    void *one = open_volume(), *two = open_volume();

    check_read(one, 0, FAKE_BYTES - 700);
    for (int i = 0; i < 300; i++) {
        uint32_t length;
        uint64_t offset = random_range(&length);
        random_change(i % 3 ? one : two);
        check_read(i % 2 ? one : two, offset, length);
    }
    check_read(two, 0, FAKE_BYTES - 700);
    endpoint_driver.close(one);
    endpoint_driver.close(two);
}

static void flush_makes_durable_what_any_client_wrote(void)
{
    void *one = open_volume(), *two = open_volume();

    for (int i = 0; i < 40; i++) {
        random_change(one);
        random_change(two);
        CHECK_EQ(endpoint_driver.flush(i % 2 ? one : two), 0);
        check_durable(0, FAKE_BYTES - 700);
    }
    endpoint_driver.close(one);
    endpoint_driver.close(two);
}

static void fua_makes_durable_what_it_carries(void)
{
    void *client = open_volume();
    static uint8_t data[5 * XSEG_SECTOR_BYTES];

    if (!endpoint_kind(endpoint_driver.kind)->can.fua)
        return;
    for (int i = 0; i < 40; i++) {
        uint64_t offset = (uint64_t)i * 4096 + 512;
        random_change(client);
        memset(data, i, sizeof(data));
        CHECK_EQ(endpoint_driver.write(client, offset, data, sizeof(data), true), 0);
        memcpy(model + offset, data, sizeof(data));
        check_durable(offset, sizeof(data));
    }
    endpoint_driver.close(client);
}

static void a_request_beyond_the_end_harms_nothing(void)
{
    void *client = open_volume();
    uint64_t end = bed.store.size_bytes;

    CHECK(endpoint_driver.read(client, end, got, 4096) < 0);
    CHECK(endpoint_driver.write(client, end - 1, got, 4096, false) < 0);
    CHECK(endpoint_driver.discard(client, end - 4096, 8192) < 0);
    CHECK(endpoint_driver.zero(client, UINT64_MAX - 4095, 4096) < 0);
    check_read(client, 0, FAKE_BYTES - 700);
    endpoint_driver.close(client);
}

/** Peers behind vlmcd die and come back: no client sees an error. */
static void set_deadly(void *arg)
{
    bed.store.deadly = arg != NULL;
}

static void deaths_of_peers_are_not_seen(void)
{
    void *client = open_volume();

    bed_do(set_deadly, &bed);
    for (int i = 0; i < 200; i++) {
        uint32_t length;
        uint64_t offset = random_range(&length);
        random_change(client);
        check_read(client, offset, length);
        if (i % 10 == 0)
            CHECK_EQ(endpoint_driver.flush(client), 0);
    }
    bed_do(set_deadly, NULL);
    CHECK_EQ(endpoint_driver.flush(client), 0);
    check_durable(0, FAKE_BYTES - 700);
    endpoint_driver.close(client);
}

static atomic_bool writer_stop;

static void *writer(void *client)
{
    while (!atomic_load(&writer_stop))
        random_change(client);
    return NULL;
}

static void snapshot(void)
{
    struct xseg_request *rq, *reply;

    CHECK_EQ(xseg_request_alloc(bed.port, &rq), 0);
    rq->op = XSEG_OP_SNAPSHOT;
    rq->arg[XSEG_ARG_NAME_LEN] = 1;
    rq->inline_data[0] = 'v';
    CHECK_EQ(xseg_request_submit(bed.port, rq, XSEG_PORT_VLMCD), 0);
    while (!(reply = xseg_port_reap(bed.port)))
        sched_yield();
    CHECK_EQ(reply->result, 0);
    xseg_request_free(bed.port, reply);
}

static void snapshots_of_a_volume_in_use_lose_nothing(void)
{
    void *client = open_volume();
    pthread_t thread;

    atomic_store(&writer_stop, false);
    CHECK_EQ(pthread_create(&thread, NULL, writer, client), 0);
    for (int i = 0; i < 30; i++)
        snapshot();
    atomic_store(&writer_stop, true);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    check_read(client, 0, FAKE_BYTES - 700);
    CHECK_EQ(endpoint_driver.flush(client), 0);
    check_durable(0, FAKE_BYTES - 700);
    endpoint_driver.close(client);
}

static void a_snapshot_is_read_only(void)
{
    uint64_t size;
    bool read_only;
    void *client = endpoint_driver.open(&size, &read_only);

    CHECK(read_only);
    check_read(client, 0, FAKE_BYTES - 700);
    CHECK_EQ(endpoint_driver.write(client, 0, got, 4096, false), -EROFS);
    CHECK_EQ(endpoint_driver.discard(client, 0, 4096), -EROFS);
    CHECK_EQ(endpoint_driver.zero(client, 0, 4096), -EROFS);
    CHECK_EQ(endpoint_driver.flush(client), 0);
    check_read(client, 0, FAKE_BYTES - 700);
    endpoint_driver.close(client);
}

/** stop() does not wait for a client that neither leaves nor asks. */
static void stop_ends_whatever_clients_do(void)
{
    void *client = open_volume();

    bed_stop();
    endpoint_driver.drop(client);
}

int main(void)
{
    rng = check_seed();
    bed_start(0);
    reads_agree_with_what_was_written();
    flush_makes_durable_what_any_client_wrote();
    fua_makes_durable_what_it_carries();
    a_request_beyond_the_end_harms_nothing();
    deaths_of_peers_are_not_seen();
    snapshots_of_a_volume_in_use_lose_nothing();
    bed_stop();
    bed_start(XSEG_VOL_READONLY);
    a_snapshot_is_read_only();
    bed_stop();
    bed_start(0);
    stop_ends_whatever_clients_do();
    return 0;
}
