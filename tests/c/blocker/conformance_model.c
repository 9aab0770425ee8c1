/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests at once, against a byte array. */
#include <errno.h>

#include "blocker/conformance.h"

#define MODEL_BYTES (2u << 20)
#define NR_SLOTS    64u
#define NR_ROUNDS   6000u
#define SLOT_BYTES  (8u * SECTOR)

struct inflight {
    struct xseg_request *rq;
    uint64_t buf, off, size;
    uint8_t fill;
    bool checked; /* READ whose range nobody writes meanwhile */
};

static uint8_t model[MODEL_BYTES];

static bool overlaps(const struct inflight *slots, uint64_t off, uint64_t size)
{
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        if (slots[i].rq && off < slots[i].off + slots[i].size &&
            slots[i].off < off + size)
            return true;
    return false;
}

static void start_random(struct inflight *slots, struct inflight *slot,
                         const struct xseg_object *e, uint64_t *seed)
{
    uint64_t unit = setup.direct ? SECTOR : 512, dice = check_next(seed) % 100;
    uint64_t off, size;

    do {
        off = check_next(seed) % (MODEL_BYTES / unit) * unit;
        size = (check_next(seed) % 8 + 1) * unit;
    } while (off + size > MODEL_BYTES || overlaps(slots, off, size));
    uint32_t op = dice < 45   ? XSEG_OP_WRITE
                  : dice < 85 ? XSEG_OP_READ
                  : dice < 95 ? XSEG_OP_ZERO
                              : XSEG_OP_FLUSH;
    struct xseg_request *rq = ask(s, op, e);
    slot->rq = rq;
    slot->off = off;
    slot->size = size;
    slot->fill = (uint8_t)check_next(seed);
    rq->data_off = slot->buf;
    rq->data_len = SLOT_BYTES;
    rq->offset = off;
    rq->size = size;
    uint8_t *data = xseg_heap_ptr(s->seg, slot->buf, rq->data_len);
    if (op == XSEG_OP_WRITE) {
        memset(data, slot->fill, size);
        rq->flags = dice < 2 ? XSEG_F_FUA : 0;
    } else if (op == XSEG_OP_READ) {
        memset(data, 0xee, size);
    } else if (op == XSEG_OP_FLUSH) {
        slot->size = 0;
    }
    CHECK_EQ(xseg_request_submit(s->port, rq, XSEG_PORT_BLOCKERB), 0);
}

static void finish_random(struct inflight *slot)
{
    struct xseg_request *rq = slot->rq;
    uint8_t *data = xseg_heap_ptr(s->seg, slot->buf, SLOT_BYTES);

    if (rq->op == XSEG_OP_READ) {
        CHECK_EQ(rq->result, slot->size);
        CHECK(memcmp(data, model + slot->off, slot->size) == 0);
    } else if (rq->op == XSEG_OP_WRITE) {
        CHECK_EQ(rq->result, slot->size);
        memset(model + slot->off, slot->fill, slot->size);
    } else {
        CHECK_EQ(rq->result, 0);
        if (rq->op == XSEG_OP_ZERO)
            memset(model + slot->off, 0, slot->size);
    }
    xseg_request_free(s->port, rq);
    slot->rq = NULL;
}

static void test_sixty_four_at_once_match_a_model(void)
{
    struct inflight slots[NR_SLOTS] = {0};
    struct xseg_object e = extent_name(50, 3);
    uint64_t seed = check_seed();
    uint32_t started = 0, busy = 0;

    memset(model, 0, sizeof model);
    memset(page, 0, SECTOR);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        CHECK(xseg_buffer_alloc(s->seg, SLOT_BYTES, &slots[i].buf) > 0);
    while (started < NR_ROUNDS || busy > 0) {
        for (uint32_t i = 0; i < NR_SLOTS && started < NR_ROUNDS; i++)
            if (!slots[i].rq) {
                start_random(slots, &slots[i], &e, &seed);
                started++;
                busy++;
            }
        struct xseg_request *rq = xseg_port_reap(s->port);
        if (!rq) {
            (void)xseg_port_wait(s->port, UINT64_MAX);
            continue;
        }
        for (uint32_t i = 0; i < NR_SLOTS; i++)
            if (slots[i].rq == rq)
                finish_random(&slots[i]);
        busy--;
    }
    for (uint32_t i = 0; i < NR_SLOTS; i++)
        CHECK_EQ(xseg_buffer_free(s->seg, slots[i].buf), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    restart();
    if (survives())
        for (uint64_t off = 0; off < MODEL_BYTES; off += 1u << 20) {
            CHECK_EQ(do_read(s, &e, off, got, 1u << 20), 1u << 20);
            CHECK(memcmp(got, model + off, 1u << 20) == 0);
        }
}

void test_model(void)
{
    test_sixty_four_at_once_match_a_model();
}
