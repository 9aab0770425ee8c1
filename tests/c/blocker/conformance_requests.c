/* SPDX-License-Identifier: Apache-2.0 */
/* Malformed requests are refused; what a store says of itself. */
#include <errno.h>

#include "blocker/conformance.h"

static int64_t send_raw(uint32_t port, const struct xseg_request *like)
{
    struct xseg_request *rq = ask(s, like->op, &like->object);
    rq->offset = like->offset;
    rq->size = like->size;
    rq->flags = like->flags;
    if (like->data_len) {
        rq->data_off = like->data_off;
        rq->data_len = like->data_len;
    }
    memcpy(rq->arg, like->arg, sizeof rq->arg);
    CHECK_EQ(xseg_request_submit(s->port, rq, port), 0);
    while (!xseg_port_reap(s->port))
        (void)xseg_port_wait(s->port, UINT64_MAX);
    int64_t result = rq->result;
    xseg_request_free(s->port, rq);
    return result;
}

static void test_malformed_requests_are_refused(void)
{
    const uint32_t b = XSEG_PORT_BLOCKERB, m = XSEG_PORT_BLOCKERM;
    struct xseg_request rq = {.op = XSEG_OP_PING};

    CHECK_EQ(send_raw(b, &rq), 0);
    CHECK_EQ(send_raw(m, &rq), 0);
    rq.op = XSEG_NR_OPS;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.op = UINT32_MAX;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    const uint32_t foreign[] = {XSEG_OP_MAPR, XSEG_OP_OPEN, XSEG_OP_SNAPSHOT,
                                XSEG_OP_TRUNCATE, XSEG_OP_HASH};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        rq.op = foreign[i];
        CHECK_EQ(send_raw(b, &rq), -EOPNOTSUPP);
    }
    /* kinds on the wrong port, unknown kinds, dirty names */
    rq = (struct xseg_request){.op = XSEG_OP_READ, .size = SECTOR};
    rq.object = extent_name(2, 7);
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.object = layer_name(1);
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.object.kind = XSEG_NR_OBJECT_KINDS;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.object.kind = XSEG_OBJ_NONE;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.object = extent_name(2, 7);
    rq.object.id[31] = 1;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.object = extent_name(2, 7);
    rq.object.reserved = 1;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.object = layer_name(1);
    rq.object.id[16] = 1;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    /* ranges */
    const uint64_t bad[][2] = {{0, 0},
                               {UINT64_MAX, SECTOR},
                               {UINT64_MAX - SECTOR + 1, SECTOR},
                               {(UINT64_C(1) << 63) - SECTOR, 2 * SECTOR},
                               {UINT64_C(1) << 63, SECTOR}};
    const uint32_t ops[] = {XSEG_OP_READ, XSEG_OP_WRITE, XSEG_OP_ZERO, XSEG_OP_DISCARD};
    rq = (struct xseg_request){.object = extent_name(2, 7)};
    for (size_t o = 0; o < 4; o++)
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            rq.op = ops[o];
            rq.offset = bad[i][0];
            rq.size = bad[i][1];
            CHECK_EQ(send_raw(b, &rq), -EINVAL);
        }
    /* data outside the heap, or shorter than the size */
    rq = (struct xseg_request){
        .op = XSEG_OP_READ, .object = extent_name(2, 7), .size = SECTOR};
    rq.data_off = 64;
    rq.data_len = SECTOR;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.data_off = UINT64_MAX - 100;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.data_off = s->buf;
    rq.data_len = SECTOR - 1;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.data_len = UINT64_MAX;
    rq.size = UINT64_C(1) << 40;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    /* ops on kinds they do not have */
    rq =
        (struct xseg_request){.op = XSEG_OP_APPEND, .object = layer_name(1), .size = 1};
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_UPDATE;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_ACQUIRE;
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_WRITE;
    rq.object = journal_name(1, 1);
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_CREATE;
    rq.object = lease_name(1);
    CHECK_EQ(send_raw(m, &rq), -EINVAL);
    rq.op = XSEG_OP_CREATE;
    rq.object = content_name(77);
    rq.size = 0;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    rq.op = XSEG_OP_DELETE;
    rq.object = whole_store;
    CHECK_EQ(send_raw(b, &rq), -EINVAL);
    /* O_DIRECT: the contract lets a backend ask for alignment */
    rq = (struct xseg_request){
        .op = XSEG_OP_WRITE, .object = extent_name(9, 9), .offset = 1, .size = SECTOR};
    CHECK_EQ(send_raw(b, &rq), setup.direct ? -EINVAL : (int64_t)SECTOR);
}

static void test_store_tells_about_itself(void)
{
    struct xseg_object_info info;

    CHECK_EQ(do_info(s, &whole_store, &info), 0);
    CHECK(info.size_bytes >= info.allocated_bytes && info.allocated_bytes > 0);
    CHECK(strcmp(info.backend, setup.backend) == 0);
    if (survives())
        CHECK(strcmp(info.engine, setup.engine) == 0);
    CHECK_EQ(info.direct, setup.direct);
    CHECK_EQ(info.store, survives() ? XSEG_STORE_SHARED | XSEG_STORE_PERSISTENT : 0);
}

void test_requests(void)
{
    test_malformed_requests_are_refused();
    test_store_tells_about_itself();
}
