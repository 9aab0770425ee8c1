/* SPDX-License-Identifier: Apache-2.0 */
/* The mapper over a fake blockerm (see rig.h). */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

void rig_start(struct rig *rig, uint64_t seed, const struct mapper_options *options)
{
    const struct xseg_segment_options sizes = {
        .nr_ports = 16, .nr_requests = 4096, .heap_bytes = 32u << 20};
    char name[64];
    const char *why;
    memset(rig, 0, sizeof *rig);
    snprintf(name, sizeof name, "test-mapper-%d", (int)getpid());
    xseg_segment_destroy(name);
    CHECK_EQ(xseg_segment_create(name, &sizes, &rig->seg), 0);
    CHECK_EQ(xseg_segment_destroy(name), 0); /* the memory goes with this process */
    CHECK_EQ(reactor_create(rig->seg, NULL, &rig->reactor), 0);
    fake_blocker_start(&rig->fake, rig->reactor, seed);
    CHECK_EQ(mapper_create(rig->reactor, options, &rig->mapper, &why), 0);
    CHECK_EQ(xseg_port_bind(rig->seg, XSEG_PORT_ANY, "client", &rig->client), 0);
    CHECK_EQ(reactor_add_port(rig->reactor, rig->client, NULL, NULL), 0);
}

static void on_stopped(void *arg)
{
    struct rig *rig = arg;
    rig->stopped = true;
    reactor_stop(rig->reactor);
}

static void stop_mapper(struct rig *rig)
{
    rig->stopped = false;
    rig->mapper->stop(rig->mapper, on_stopped, rig);
    while (!rig->stopped || rig->nr_calls)
        rig_run(rig, 1);
    rig->mapper->destroy(rig->mapper);
}

void rig_restart_mapper(struct rig *rig, const struct mapper_options *options)
{
    const char *why;
    stop_mapper(rig);
    CHECK_EQ(mapper_create(rig->reactor, options, &rig->mapper, &why), 0);
}

int rig_memfd(uint64_t bytes)
{
    int fd = memfd_create("marks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    return fd;
}

int rig_copy_memory(const struct mapper_options *options)
{
    struct stat st;
    CHECK_EQ(fstat(options->marks_fd, &st), 0);
    size_t size = (size_t)st.st_size;
    int fd = rig_memfd(size);
    void *bytes = malloc(size);
    CHECK(bytes);
    CHECK_EQ(pread(options->marks_fd, bytes, size, 0), st.st_size);
    CHECK_EQ(pwrite(fd, bytes, size, 0), st.st_size);
    free(bytes);
    return fd;
}

void rig_kill_mapper(struct rig *rig, struct mapper_options *options)
{
    const char *why;
    int fd = rig_copy_memory(options);
    stop_mapper(rig);
    close(options->marks_fd);
    options->marks_fd = fd;
    CHECK_EQ(mapper_create(rig->reactor, options, &rig->mapper, &why), 0);
}

/** Nothing may be left in the segment: no descriptor, no buffer. */
static void check_idle(struct rig *rig)
{
    struct xseg_heap_usage usage;
    xseg_heap_usage(rig->seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0);
    for (uint32_t i = 0; i < xseg_segment_header(rig->seg)->nr_requests; i++)
        CHECK_EQ(xseg_segment_request(rig->seg, i)->state, XSEG_RS_FREE);
}

void rig_end(struct rig *rig)
{
    fake_blocker_resume(&rig->fake);
    stop_mapper(rig);
    fake_blocker_end(&rig->fake);
    rig_run(rig, 4);
    reactor_remove_port(rig->reactor, rig->client);
    xseg_port_unbind(rig->client);
    check_idle(rig);
    reactor_destroy(rig->reactor);
    xseg_segment_detach(rig->seg);
}

static void on_reply(void *arg, struct xseg_request *rq)
{
    struct call *call = arg;
    struct rig *rig = call->rig;
    call->done = true;
    call->result = rq->result;
    call->handle = rq->handle;
    memcpy(call->answer, rq->inline_data, sizeof call->answer);
    if (call->data_off) {
        call->bytes = malloc(call->room ? call->room : 1);
        CHECK(call->bytes);
        memcpy(call->bytes, xseg_heap_ptr(rig->seg, call->data_off, call->room),
               call->room);
        xseg_buffer_free(rig->seg, call->data_off);
    }
    xseg_request_free(rig->client, rq);
    rig->nr_calls--;
    reactor_stop(rig->reactor);
}

void rig_submit(struct rig *rig, struct call *call)
{
    struct xseg_request *rq;
    uint64_t buffer = call->data ? call->size : call->room;
    call->rig = rig;
    call->done = false;
    call->bytes = NULL;
    call->data_off = 0;
    CHECK_EQ(xseg_request_alloc(rig->client, &rq), 0);
    rq->op = call->op;
    rq->flags = call->flags;
    rq->handle = call->handle;
    rq->offset = call->offset;
    rq->size = call->size;
    rq->arg[0] = call->generation;
    rq->object = call->object;
    if (buffer) {
        CHECK(xseg_buffer_alloc(rig->seg, buffer, &call->data_off) > 0);
        rq->data_off = call->data_off;
        rq->data_len = buffer;
        if (call->data)
            memcpy(xseg_heap_ptr(rig->seg, call->data_off, buffer), call->data, buffer);
    }
    rig->nr_calls++;
    reactor_submit(rig->reactor, rig->client, rq, XSEG_PORT_MAPPERD, on_reply, call);
}

int64_t rig_wait(struct rig *rig, struct call *call)
{
    while (!call->done)
        CHECK_EQ(reactor_run(rig->reactor), 0);
    return call->result;
}

int64_t rig_call(struct rig *rig, struct call *call)
{
    rig_submit(rig, call);
    return rig_wait(rig, call);
}

struct ticker {
    struct reactor_task task;
    struct reactor *reactor;
    uint32_t left;
};

static void tick(struct reactor_task *task)
{
    struct ticker *t = LIST_ENTRY(task, struct ticker, task);
    if (t->left-- > 1)
        reactor_defer(t->reactor, task);
    else
        reactor_stop(t->reactor);
}

void rig_run(struct rig *rig, uint32_t turns)
{
    struct ticker t = {.task = {.fn = tick}, .reactor = rig->reactor, .left = turns};
    reactor_defer(rig->reactor, &t.task);
    do { /* an answer stops the reactor too */
        CHECK_EQ(reactor_run(rig->reactor), 0);
    } while (t.left);
}

void call_fini(struct call *call)
{
    free(call->bytes);
    call->bytes = NULL;
}

/* ---- short forms ---- */

static int64_t call_header(struct rig *rig, struct call *call,
                           const struct map_header *header)
{
    static uint8_t bytes[MAP_HEADER_MAX_BYTES];
    const char *why;
    int64_t len = map_header_pack(header, bytes, sizeof bytes, &why);
    CHECK(len > 0);
    call->data = bytes;
    call->size = (uint64_t)len;
    int64_t rc = rig_call(rig, call);
    call_fini(call);
    return rc;
}

int64_t rig_open(struct rig *rig, const struct map_header *header, uint32_t flags)
{
    struct call call = {.op = XSEG_OP_OPEN, .flags = flags};
    int64_t rc = call_header(rig, &call, header);
    return rc < 0 ? rc : (int64_t)call.handle;
}

int64_t rig_close(struct rig *rig, uint64_t handle)
{
    struct call call = {.op = XSEG_OP_CLOSE, .handle = handle};
    return rig_call(rig, &call);
}

int64_t rig_mark(struct rig *rig, uint64_t handle, uint64_t sector, uint64_t nr,
                 uint32_t flags, uint64_t generation)
{
    struct call call = {.op = XSEG_OP_MAPW,
                        .flags = flags,
                        .handle = handle,
                        .offset = sector * XSEG_SECTOR_BYTES,
                        .size = nr * XSEG_SECTOR_BYTES,
                        .generation = generation};
    return rig_call(rig, &call);
}

int64_t rig_flush(struct rig *rig, uint64_t handle, uint64_t generation)
{
    struct call call = {
        .op = XSEG_OP_FLUSH, .handle = handle, .generation = generation};
    return rig_call(rig, &call);
}

int64_t rig_hold(struct rig *rig, uint64_t handle, struct xseg_journal_info *info)
{
    struct call call = {.op = XSEG_OP_UPDATE, .flags = XSEG_F_MORE, .handle = handle};
    int64_t rc = rig_call(rig, &call);
    memcpy(info, call.answer, sizeof *info);
    return rc;
}

int64_t rig_update(struct rig *rig, uint64_t handle, const struct map_header *header)
{
    struct call call = {.op = XSEG_OP_UPDATE, .handle = handle};
    return call_header(rig, &call, header);
}

struct xseg_map_info rig_info(struct rig *rig, uint64_t handle)
{
    struct call call = {.op = XSEG_OP_INFO, .handle = handle};
    struct xseg_map_info info;
    CHECK_EQ(rig_call(rig, &call), 0);
    memcpy(&info, call.answer, sizeof info);
    return info;
}

int64_t rig_runs(struct rig *rig, uint64_t handle, uint64_t sector, uint64_t nr,
                 uint32_t runs_per_call, struct xseg_run **out)
{
    uint64_t at = sector * XSEG_SECTOR_BYTES, end = (sector + nr) * XSEG_SECTOR_BYTES;
    size_t nr_runs = 0;
    *out = NULL;
    while (at < end) {
        struct call call = {.op = XSEG_OP_MAPR,
                            .handle = handle,
                            .offset = at,
                            .size = end - at,
                            .room = runs_per_call * sizeof(struct xseg_run)};
        int64_t rc = rig_call(rig, &call);
        if (rc <= 0) {
            call_fini(&call);
            free(*out);
            *out = NULL;
            return rc;
        }
        const struct xseg_run *runs =
            call.bytes ? call.bytes : (const void *)call.answer;
        CHECK(rc <= (runs_per_call ? runs_per_call : (int64_t)XSEG_INLINE_RUNS));
        *out = realloc(*out, (nr_runs + (size_t)rc) * sizeof **out);
        CHECK(*out);
        for (int64_t i = 0; i < rc; i++) {
            CHECK_EQ(runs[i].offset, at);
            CHECK(runs[i].size && runs[i].size <= end - at);
            at += runs[i].size;
            (*out)[nr_runs++] = runs[i];
        }
        call_fini(&call);
    }
    return (int64_t)nr_runs;
}

void header_init(struct map_header *h, uint8_t uuid, uint64_t size)
{
    memset(h, 0, sizeof *h);
    memset(h->uuid, uuid, sizeof h->uuid);
    h->version = 1;
    h->fence = 1;
    h->size_bytes = size;
    h->epoch = 1;
    h->journal = 1;
    h->block_bytes = XSEG_BLOCK_MIN_BYTES;
    h->name.len = 1;
    h->name.bytes[0] = 'v';
}

struct map_entry *header_push(struct map_header *h, uint32_t type)
{
    h->entries = realloc(h->entries, (h->nr_entries + 1) * sizeof *h->entries);
    CHECK(h->entries);
    memmove(h->entries + 1, h->entries, h->nr_entries * sizeof *h->entries);
    h->nr_entries++;
    memset(h->entries, 0, sizeof *h->entries);
    h->entries[0].type = type;
    h->entries[0].limit_bytes = MAP_NO_LIMIT;
    return h->entries;
}
