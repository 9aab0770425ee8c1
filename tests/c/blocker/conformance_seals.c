/* SPDX-License-Identifier: Apache-2.0 */
/* RELEASE of extents, with one node: what a sealed extent refuses, and what it serves. */
#include <errno.h>

#include "blocker/conformance.h"

static int64_t punch(const struct xseg_object *e, uint64_t off, uint64_t size,
                     uint32_t flags)
{
    struct xseg_request *rq = ask(s, XSEG_OP_DISCARD, e);
    rq->offset = off;
    rq->size = size;
    rq->flags = flags;
    return answer_of(s, rq, NULL);
}

static void test_releasing_changes_nothing(void)
{
    struct xseg_object e = extent_name(60, 1);

    CHECK_EQ(do_release(s, &e, 0), 0); /* none is fine */
    fill(page, 2 * SECTOR, 60);
    CHECK_EQ(do_write(s, &e, 0, page, 2 * SECTOR, 0), 2 * SECTOR);
    CHECK_EQ(do_release(s, &e, 0), 0);
    CHECK_EQ(do_release(s, &e, 0), 0);
    CHECK_EQ(do_read(s, &e, 0, got, 2 * SECTOR), 2 * SECTOR);
    CHECK(memcmp(got, page, 2 * SECTOR) == 0);
    /* the hold is taken again */
    CHECK_EQ(do_write(s, &e, SECTOR, page, SECTOR, 0), SECTOR);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_release(s, &e, 0), 0);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
}

static void test_a_sealed_extent_is_only_read(void)
{
    struct xseg_object e = extent_name(61, 1), next = extent_name(61, 2);
    uint64_t far = UINT64_C(5) << 40;
    struct xseg_list_entry entries[8];
    struct xseg_object_info info;

    fill(page, 16 * SECTOR, 61);
    CHECK_EQ(do_write(s, &e, 0, page, 16 * SECTOR, 0), 16 * SECTOR);
    for (int i = 0; i < 2; i++) { /* and once more */
        CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
        CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), -ESTALE);
        CHECK_EQ(do_write(s, &e, 0, page, SECTOR, XSEG_F_FUA), -ESTALE);
        CHECK_EQ(do_write(s, &e, far, page, SECTOR, 0), -ESTALE);
        CHECK_EQ(punch(&e, 0, SECTOR, 0), -ESTALE);
        CHECK_EQ(punch(&e, far, SECTOR, 0), -ESTALE);
        CHECK_EQ(do_zero(s, &e, 1, SECTOR), -ESTALE);
        CHECK_EQ(do_read(s, &e, 0, got, 16 * SECTOR), 16 * SECTOR);
        CHECK(memcmp(got, page, 16 * SECTOR) == 0);
        CHECK_EQ(do_read_as(s, &e, SECTOR, got, SECTOR, XSEG_F_LIVE), SECTOR);
        CHECK(memcmp(got, page + SECTOR, SECTOR) == 0);
        CHECK_EQ(do_flush(s, &e), 0);
        restart();
    }
    /* space of a past epoch can be given back */
    CHECK_EQ(punch(&e, 0, 8 * SECTOR, XSEG_F_FORCE), 0);
    CHECK_EQ(punch(&e, far, SECTOR, XSEG_F_FORCE), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_read(s, &e, 0, got, 16 * SECTOR), 16 * SECTOR);
    CHECK(all(got, 8 * SECTOR, 0));
    CHECK(memcmp(got + 8 * SECTOR, page + 8 * SECTOR, 8 * SECTOR) == 0);
    /* nothing is left of it but the extent, and other epochs are not touched */
    CHECK_EQ(do_info(s, &e, &info), 0);
    CHECK_EQ(info.size_bytes, 16 * SECTOR);
    CHECK_EQ(do_write(s, &next, 0, page, SECTOR, 0), SECTOR);
    struct xseg_opaque cursor = {.length = 0};
    uint64_t nr = 0;
    do {
        int64_t n = do_list(s, XSEG_OBJ_EXTENT, &cursor, entries, 8);
        CHECK(n >= 0);
        for (int64_t i = 0; i < n; i++)
            nr += blk_object_equal(&entries[i].object, &e);
    } while (cursor.length != 0);
    CHECK_EQ(nr, 1);
    /* the seal goes with the extent */
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_delete(s, &e), -ENOENT);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_delete(s, &next), 0);
}

static void test_what_is_not_there_can_be_sealed(void)
{
    struct xseg_object e = extent_name(62, 1);
    struct xseg_object_info info;

    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), -ESTALE);
    CHECK_EQ(do_write(s, &e, UINT64_C(1) << 40, page, SECTOR, 0), -ESTALE);
    CHECK_EQ(punch(&e, 0, SECTOR, 0), -ESTALE);
    CHECK_EQ(punch(&e, 0, SECTOR, XSEG_F_FORCE), 0);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
    CHECK_EQ(do_info(s, &e, &info), -ENOENT);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_delete(s, &e), -ENOENT); /* and the seal is gone */
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
    CHECK_EQ(do_delete(s, &e), 0);
}

/** Writes and a sealing at the same time: each is done or refused, and then all are. */
static void test_sealing_in_the_middle_of_writing(void)
{
    struct xseg_object e = extent_name(63, 1);
    struct xseg_request *writes[6], *seals[2] = {NULL};
    bool done[6];

    fill(page, 6 * SECTOR, 63);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
    memcpy(s->data, page, 6 * SECTOR);
    for (uint64_t i = 0; i < 6; i++) {
        if (i == 3)
            for (int k = 0; k < 2; k++) {
                seals[k] = ask(s, XSEG_OP_RELEASE, &e);
                seals[k]->flags = XSEG_F_FORCE;
                send_only(s, seals[k]);
            }
        writes[i] = ask(s, XSEG_OP_WRITE, &e);
        writes[i]->offset = ((UINT64_C(1) << 40) * (i % 2)) + i * SECTOR;
        writes[i]->size = SECTOR;
        writes[i]->data_off += i * SECTOR;
        writes[i]->data_len -= i * SECTOR;
        send_only(s, writes[i]);
    }
    for (int k = 0; k < 2; k++) {
        CHECK_EQ(await(s, seals[k]), 0);
        xseg_request_free(s->port, seals[k]);
    }
    for (uint64_t i = 0; i < 6; i++) {
        int64_t rc = await(s, writes[i]);
        CHECK(rc == SECTOR || rc == -ESTALE);
        done[i] = rc == SECTOR;
        xseg_request_free(s->port, writes[i]);
    }
    for (uint64_t i = 0; i < 6; i++) {
        uint64_t off = ((UINT64_C(1) << 40) * (i % 2)) + i * SECTOR;
        CHECK_EQ(do_write(s, &e, off, page, SECTOR, 0), -ESTALE);
        CHECK_EQ(do_read(s, &e, off, got, SECTOR), SECTOR);
        if (done[i])
            CHECK(memcmp(got, page + i * SECTOR, SECTOR) == 0);
        else if (i > 0)
            CHECK(all(got, SECTOR, 0));
    }
    CHECK_EQ(do_delete(s, &e), 0);
}

/** What it means is the backend's affair; one that knows nodes by other means ignores it. */
static void test_sealing_takes_the_token_of_the_old_holder(void)
{
    struct xseg_object e = extent_name(69, 1);
    struct xseg_opaque token = {.length = 5, .bytes = "token"};

    for (uint32_t length = 0; length <= XSEG_OPAQUE_MAX + 1; length++) {
        struct xseg_request *rq = ask(s, XSEG_OP_RELEASE, &e);
        rq->flags = XSEG_F_FORCE;
        token.length = length;
        memcpy(rq->inline_data, &token, sizeof token);
        CHECK_EQ(answer_of(s, rq, NULL), length <= XSEG_OPAQUE_MAX ? 0 : -EINVAL);
    }
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), -ESTALE);
    do_delete(s, &e);
}

void test_seals(void)
{
    test_releasing_changes_nothing();
    test_a_sealed_extent_is_only_read();
    test_what_is_not_there_can_be_sealed();
    test_sealing_in_the_middle_of_writing();
    test_sealing_takes_the_token_of_the_old_holder();
}
