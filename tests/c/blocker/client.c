/* SPDX-License-Identifier: Apache-2.0 */
/* See client.h. */
#include "blocker/client.h"

#include <errno.h>
#include <ftw.h>
#include <stddef.h>
#include <unistd.h>

const struct xseg_object whole_store = {.kind = XSEG_OBJ_NONE};

const char *engine_or_skip(const char *name)
{
    if (strcmp(name, "io_uring") == 0 && strcmp(blk_default_engine(), name) != 0)
        CHECK_SKIP("no io_uring here");
    return name;
}

static void *serve(void *arg)
{
    struct server *s = arg;
    CHECK_EQ(reactor_run(s->reactor), 0);
    return NULL;
}

void server_start(struct server *s, const struct setup *setup)
{
    const struct xseg_segment_options segment = {.heap_bytes = 32u << 20};
    char name[64], path[300];
    const char *why;

    memset(s, 0, sizeof *s);
    snprintf(name, sizeof name, "test-blocker-%d", (int)getpid());
    xseg_segment_destroy(name);
    CHECK_EQ(xseg_segment_create(name, &segment, &s->seg), 0);
    CHECK_EQ(xseg_segment_destroy(name), 0);
    CHECK_EQ(reactor_create(s->seg, NULL, &s->reactor), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", setup->path, i ? "maps" : "data");
        struct blocker_options options = {
            .port = i ? XSEG_PORT_BLOCKERM : XSEG_PORT_BLOCKERB,
            .backend = setup->backend,
            .store = {.path = path,
                      .engine = setup->engine,
                      .direct = setup->direct,
                      .timeout_ns = setup->timeout_ns,
                      .queue_depth = 32},
        };
        int rc = blocker_create(s->reactor, &options, &s->peers[i], &why);
        if (rc < 0)
            fprintf(stderr, "%s\n", why);
        CHECK_EQ(rc, 0);
    }
    CHECK_EQ(xseg_port_bind(s->seg, XSEG_PORT_ANY, "client", &s->port), 0);
    CHECK(xseg_buffer_alloc(s->seg, XSEG_BUFFER_MAX_BYTES, &s->buf) >=
          XSEG_BUFFER_MAX_BYTES);
    s->data = xseg_heap_ptr(s->seg, s->buf, XSEG_BUFFER_MAX_BYTES);
    CHECK_EQ(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stopped(void *arg)
{
    struct server *s = arg;
    if (--s->nr_stopping == 0)
        reactor_stop(s->reactor);
}

static void stop_all(struct reactor_task *task)
{
    struct server *s =
        (struct server *)(void *)((char *)task - offsetof(struct server, stop_task));
    s->nr_stopping = 2;
    for (int i = 0; i < 2; i++)
        s->peers[i]->stop(s->peers[i], stopped, s);
}

void server_stop(struct server *s)
{
    reactor_stop(s->reactor);
    CHECK_EQ(pthread_join(s->thread, NULL), 0);
    s->stop_task.fn = stop_all;
    reactor_defer(s->reactor, &s->stop_task);
    CHECK_EQ(reactor_run(s->reactor), 0);
    if (s->notify) {
        CHECK_EQ(await(s, s->notify), -ECANCELED);
        xseg_request_free(s->port, s->notify);
    }
    for (int i = 0; i < 2; i++)
        s->peers[i]->destroy(s->peers[i]);
    reactor_destroy(s->reactor);
    CHECK_EQ(xseg_buffer_free(s->seg, s->buf), 0);
    xseg_port_unbind(s->port);
    struct xseg_heap_usage usage;
    xseg_heap_usage(s->seg, &usage);
    CHECK_EQ(usage.nr_used_buffers, 0);
    xseg_segment_detach(s->seg);
}

struct xseg_request *ask(struct server *s, uint32_t op,
                         const struct xseg_object *object)
{
    struct xseg_request *rq;
    CHECK_EQ(xseg_request_alloc(s->port, &rq), 0);
    rq->op = op;
    rq->object = *object;
    rq->data_off = s->buf;
    rq->data_len = XSEG_BUFFER_MAX_BYTES;
    return rq;
}

static uint32_t port_of(const struct xseg_object *o, uint32_t kind)
{
    kind = kind ? kind : o->kind;
    bool maps = kind >= XSEG_OBJ_LAYER && kind < XSEG_NR_OBJECT_KINDS;
    return maps ? XSEG_PORT_BLOCKERM : XSEG_PORT_BLOCKERB;
}

void send_only(struct server *s, struct xseg_request *rq)
{
    CHECK_EQ(xseg_request_submit(s->port, rq, port_of(&rq->object, 0)), 0);
}

int64_t await(struct server *s, struct xseg_request *rq)
{
    struct xseg_request *back;

    for (uint32_t i = 0; i < s->nr_early; i++)
        if (s->early[i] == rq) {
            s->early[i] = s->early[--s->nr_early];
            return rq->result;
        }
    for (;;) {
        while ((back = xseg_port_reap(s->port)) == NULL)
            (void)xseg_port_wait(s->port, UINT64_MAX);
        if (back == rq)
            return rq->result;
        CHECK(s->nr_early < sizeof s->early / sizeof s->early[0]);
        s->early[s->nr_early++] = back;
    }
}

int64_t answer_of(struct server *s, struct xseg_request *rq, struct xseg_request *reply)
{
    send_only(s, rq);
    int64_t result = await(s, rq);
    if (reply)
        *reply = *rq;
    xseg_request_free(s->port, rq);
    return result;
}

int64_t do_read(struct server *s, const struct xseg_object *o, uint64_t off, void *data,
                uint64_t size)
{
    struct xseg_request *rq = ask(s, XSEG_OP_READ, o);
    rq->offset = off;
    rq->size = size;
    memset(s->data, 0xee, size);
    int64_t result = answer_of(s, rq, NULL);
    if (result > 0)
        memcpy(data, s->data, (size_t)result);
    return result;
}

int64_t do_read_as(struct server *s, const struct xseg_object *o, uint64_t off,
                   void *data, uint64_t size, uint32_t flags)
{
    struct xseg_request *rq = ask(s, XSEG_OP_READ, o);
    rq->offset = off;
    rq->size = size;
    rq->flags = flags;
    int64_t result = answer_of(s, rq, NULL);
    if (result > 0)
        memcpy(data, s->data, (size_t)result);
    return result;
}

int64_t do_release(struct server *s, const struct xseg_object *o, uint32_t flags)
{
    struct xseg_request *rq = ask(s, XSEG_OP_RELEASE, o);
    rq->flags = flags;
    return answer_of(s, rq, NULL);
}

void start_notify(struct server *s)
{
    struct xseg_object any = {.kind = XSEG_OBJ_LEASE};
    s->notify = ask(s, XSEG_OP_NOTIFY, &any);
    send_only(s, s->notify);
}

int64_t await_notify(struct server *s, struct xseg_object *which,
                     struct xseg_lease *lease)
{
    int64_t result = await(s, s->notify);
    *which = s->notify->object;
    memcpy(lease, s->notify->inline_data, sizeof *lease);
    xseg_request_free(s->port, s->notify);
    s->notify = NULL;
    return result;
}

int64_t do_write(struct server *s, const struct xseg_object *o, uint64_t off,
                 const void *data, uint64_t size, uint32_t flags)
{
    struct xseg_request *rq = ask(s, XSEG_OP_WRITE, o);
    rq->offset = off;
    rq->size = size;
    rq->flags = flags;
    memcpy(s->data, data, size);
    return answer_of(s, rq, NULL);
}

int64_t do_zero(struct server *s, const struct xseg_object *o, uint64_t off,
                uint64_t size)
{
    struct xseg_request *rq = ask(s, off % 2 ? XSEG_OP_ZERO : XSEG_OP_DISCARD, o);
    rq->offset = off;
    rq->size = size;
    return answer_of(s, rq, NULL);
}

int64_t do_flush(struct server *s, const struct xseg_object *o)
{
    return answer_of(s, ask(s, XSEG_OP_FLUSH, o), NULL);
}

int64_t do_create(struct server *s, const struct xseg_object *o, const void *data,
                  uint64_t size, uint32_t flags)
{
    struct xseg_request *rq = ask(s, XSEG_OP_CREATE, o);
    rq->size = size;
    rq->flags = flags;
    memcpy(s->data, data, size);
    return answer_of(s, rq, NULL);
}

int64_t do_create_in(struct server *s, const struct xseg_object *o, const void *data,
                     uint64_t size, uint64_t generation)
{
    struct xseg_request *rq = ask(s, XSEG_OP_CREATE, o);
    rq->size = size;
    rq->arg[0] = generation;
    memcpy(s->data, data, size);
    return answer_of(s, rq, NULL);
}

int64_t do_delete_in(struct server *s, const struct xseg_object *o, uint64_t generation)
{
    return do_delete_version(s, o, generation);
}

int64_t do_changes(struct server *s, uint64_t out[XSEG_NR_STAMPS])
{
    const struct xseg_object headers = {.kind = XSEG_OBJ_HEADER};
    int64_t result = answer_of(s, ask(s, XSEG_OP_CHANGES, &headers), NULL);
    memcpy(out, s->data, XSEG_NR_STAMPS * sizeof *out);
    return result;
}

int64_t do_update(struct server *s, const struct xseg_object *o, uint64_t version,
                  const void *data, uint64_t size)
{
    struct xseg_request *rq = ask(s, XSEG_OP_UPDATE, o);
    rq->size = size;
    rq->arg[0] = version;
    memcpy(s->data, data, size);
    return answer_of(s, rq, NULL);
}

int64_t do_append(struct server *s, const struct xseg_object *o, uint64_t off,
                  uint64_t fence, const void *data, uint64_t size)
{
    struct xseg_request *rq = ask(s, XSEG_OP_APPEND, o);
    rq->offset = off;
    rq->size = size;
    rq->arg[0] = fence;
    memcpy(s->data, data, size);
    return answer_of(s, rq, NULL);
}

int64_t do_info(struct server *s, const struct xseg_object *o,
                struct xseg_object_info *info)
{
    struct xseg_request reply;
    int64_t result = answer_of(s, ask(s, XSEG_OP_INFO, o), &reply);
    memcpy(info, reply.inline_data, sizeof *info);
    return result;
}

int64_t do_delete(struct server *s, const struct xseg_object *o)
{
    return do_delete_version(s, o, 0);
}

int64_t do_delete_version(struct server *s, const struct xseg_object *o,
                          uint64_t version)
{
    struct xseg_request *rq = ask(s, XSEG_OP_DELETE, o);
    rq->arg[0] = version;
    return answer_of(s, rq, NULL);
}

int64_t do_list(struct server *s, uint32_t kind, struct xseg_opaque *cursor,
                struct xseg_list_entry *out, uint64_t nr)
{
    struct xseg_object object = {.kind = kind};
    struct xseg_request reply, *rq = ask(s, XSEG_OP_LIST, &object);
    memcpy(rq->inline_data, cursor, sizeof *cursor);
    rq->data_len = nr * sizeof *out;
    int64_t result = answer_of(s, rq, &reply);
    if (result > 0)
        memcpy(out, s->data, (size_t)result * sizeof *out);
    memcpy(cursor, reply.inline_data, sizeof *cursor);
    return result;
}

int64_t do_lease(struct server *s, uint32_t op, const struct xseg_object *o,
                 struct xseg_lease *lease, uint32_t flags)
{
    struct xseg_request reply, *rq = ask(s, op, o);
    rq->flags = flags;
    memcpy(rq->inline_data, lease, sizeof *lease);
    int64_t result = answer_of(s, rq, &reply);
    memcpy(lease, reply.inline_data, sizeof *lease);
    return result;
}

int64_t do_presence(struct server *s, uint32_t op, const struct xseg_object *o,
                    struct xseg_presence *presence)
{
    struct xseg_request reply, *rq = ask(s, op, o);
    memcpy(rq->inline_data, presence, sizeof *presence);
    int64_t result = answer_of(s, rq, &reply);
    memcpy(presence, reply.inline_data, sizeof *presence);
    return result;
}

/* ---- names -------------------------------------------------------------- */

static struct xseg_object scattered(uint32_t kind, uint64_t n, size_t nr)
{
    struct xseg_object object = {.kind = kind};
    uint64_t state = n * 2 + 1;
    for (size_t i = 0; i < nr; i++)
        object.id[i] = (uint8_t)(check_next(&state) >> 32);
    return object;
}

static void put_number(struct xseg_object *object, uint64_t number)
{
    for (int i = 0; i < 8; i++)
        object->id[16 + i] = (uint8_t)(number >> (8 * i));
}

struct xseg_object content_name(uint64_t n)
{
    return scattered(XSEG_OBJ_CONTENT, n, 32);
}

struct xseg_object header_name(uint64_t n)
{
    return scattered(XSEG_OBJ_HEADER, n, 32);
}

struct xseg_object extent_name(uint64_t n, uint64_t epoch)
{
    struct xseg_object object = scattered(XSEG_OBJ_EXTENT, n, 16);
    put_number(&object, epoch);
    return object;
}

struct xseg_object layer_name(uint64_t n)
{
    return scattered(XSEG_OBJ_LAYER, n, 16);
}

struct xseg_object journal_name(uint64_t n, uint64_t number)
{
    struct xseg_object object = scattered(XSEG_OBJ_JOURNAL, n, 16);
    put_number(&object, number);
    return object;
}

struct xseg_object lease_name(uint64_t n)
{
    return scattered(XSEG_OBJ_LEASE, n, 16);
}

void fill_header(void *out, uint64_t size, uint64_t version, uint64_t fence,
                 uint8_t fill)
{
    struct xseg_versioned prefix = {.magic = 0x1122334455667788,
                                    .version = version,
                                    .fence = fence,
                                    .length = size};
    memset(out, fill, size);
    memcpy(out, &prefix, sizeof prefix);
}

struct xseg_object presence_name(uint64_t n)
{
    return scattered(XSEG_OBJ_PRESENCE, n, 16);
}

struct xseg_presence presence_of(const char *nonce, uint64_t ttl_ns)
{
    struct xseg_presence presence = {.ttl_ns = ttl_ns};

    xseg_process_self(&presence.process);
    memcpy(presence.nonce, nonce, strnlen(nonce, sizeof presence.nonce));
    snprintf(presence.host, sizeof presence.host, "host-of-%s", nonce);
    return presence;
}

struct xseg_lease lease_of(const char *owner)
{
    struct xseg_lease lease = {.pid = (uint32_t)getpid()};

    memcpy(lease.owner, owner, strnlen(owner, sizeof lease.owner));
    memcpy(lease.nonce, owner, strnlen(owner, sizeof lease.nonce));
    snprintf(lease.host, sizeof lease.host, "host-of-%s", owner);
    return lease;
}

struct xseg_object presence_of_owner(const char *owner)
{
    struct xseg_object object = {.kind = XSEG_OBJ_PRESENCE};
    memcpy(object.id, owner, strnlen(owner, 16));
    return object;
}

void appear(struct server *s, const char *owner)
{
    struct xseg_object object = presence_of_owner(owner);
    struct xseg_presence presence = presence_of(owner, UINT64_C(3600) * 1000000000);
    CHECK_EQ(do_presence(s, XSEG_OP_ACQUIRE, &object, &presence), 0);
}

void disappear(struct server *s, const char *owner)
{
    struct xseg_object object = presence_of_owner(owner);
    struct xseg_presence presence = presence_of(owner, 1);
    CHECK_EQ(do_presence(s, XSEG_OP_RELEASE, &object, &presence), 0);
}

/* ---- directories -------------------------------------------------------- */

void make_root(char out[256])
{
    snprintf(out, 256, "store-XXXXXX");
    CHECK(mkdtemp(out) != NULL);
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void remove_root(const char *path)
{
    CHECK_EQ(nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS), 0);
}
