/* SPDX-License-Identifier: Apache-2.0 */
/* What is stored in extents, contents, headers and layers. */
#include <errno.h>

#include "blocker/conformance.h"
#include "common/digest.h"

/* ---- extents --------------------------------------------------------------- */

static void test_extent_is_absent_until_written(void)
{
    struct xseg_object e = extent_name(1, 1);
    struct xseg_object_info info;

    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
    CHECK_EQ(do_info(s, &e, &info), -ENOENT);
    CHECK_EQ(do_zero(s, &e, 0, SECTOR), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_delete(s, &e), -ENOENT);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
}

static void test_extent_reads_back_with_zeros_around(void)
{
    struct xseg_object e = extent_name(2, 7);
    struct xseg_object_info info;

    fill(page, 3 * SECTOR, 2);
    CHECK_EQ(do_write(s, &e, 5 * SECTOR, page, 3 * SECTOR, 0), 3 * SECTOR);
    CHECK_EQ(do_read(s, &e, 0, got, 16 * SECTOR), 16 * SECTOR);
    CHECK(all(got, 5 * SECTOR, 0));
    CHECK(memcmp(got + 5 * SECTOR, page, 3 * SECTOR) == 0);
    CHECK(all(got + 8 * SECTOR, 8 * SECTOR, 0));
    CHECK_EQ(do_read(s, &e, UINT64_C(1) << 30, got, SECTOR), SECTOR);
    CHECK(all(got, SECTOR, 0));
    CHECK_EQ(do_info(s, &e, &info), 0);
    CHECK_EQ(info.size_bytes, 8 * SECTOR);
    CHECK(info.allocated_bytes >= 3 * SECTOR);
    CHECK(info.modified_ns > 0);
    /* odd ranges of a read are served, aligned or not */
    CHECK_EQ(do_read(s, &e, 5 * SECTOR + 7, got, 100), 100);
    CHECK(memcmp(got, page + 7, 100) == 0);
    /* another epoch is another object */
    struct xseg_object other = extent_name(2, 8);
    CHECK_EQ(do_read(s, &other, 5 * SECTOR, got, SECTOR), -ENOENT);
    CHECK_EQ(do_flush(s, &e), 0);
    restart();
    CHECK_EQ(do_read(s, &e, 5 * SECTOR, got, 3 * SECTOR), 3 * SECTOR);
    CHECK(memcmp(got, page, 3 * SECTOR) == 0);
}

static void test_write_across_the_border_of_two_parts(void)
{
    struct xseg_object e = extent_name(3, 1);
    uint64_t border = UINT64_C(1) << 40;
    struct xseg_object_info info;

    fill(page, 4 * SECTOR, 3);
    CHECK_EQ(do_write(s, &e, border - SECTOR, page, 4 * SECTOR, XSEG_F_FUA),
             4 * SECTOR);
    CHECK_EQ(do_read(s, &e, border - 2 * SECTOR, got, 6 * SECTOR), 6 * SECTOR);
    CHECK(all(got, SECTOR, 0));
    CHECK(memcmp(got + SECTOR, page, 4 * SECTOR) == 0);
    CHECK(all(got + 5 * SECTOR, SECTOR, 0));
    CHECK_EQ(do_info(s, &e, &info), 0);
    CHECK_EQ(info.size_bytes, border + 3 * SECTOR);
    /* a part that is not there reads zeros, for the extent is */
    CHECK_EQ(do_read(s, &e, 5 * border, got, SECTOR), SECTOR);
    CHECK(all(got, SECTOR, 0));
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_read(s, &e, border, got, SECTOR), -ENOENT);
    CHECK_EQ(do_delete(s, &e), -ENOENT);
}

static void test_zero_gives_space_back(void)
{
    struct xseg_object e = extent_name(4, 1);
    struct xseg_object_info before, after;
    uint64_t size = 1u << 20;

    memset(page, 0xa5, size);
    CHECK_EQ(do_write(s, &e, 0, page, size, 0), size);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_info(s, &e, &before), 0);
    CHECK_EQ(do_zero(s, &e, 256 << 10, 512 << 10), 0);
    CHECK_EQ(do_zero(s, &e, size * 8, size), 0); /* past the end: nothing */
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_info(s, &e, &after), 0);
    CHECK_EQ(after.size_bytes, size);
    CHECK(after.allocated_bytes + (400 << 10) <= before.allocated_bytes);
    CHECK_EQ(do_read(s, &e, 0, got, size), size);
    CHECK(all(got, 256 << 10, 0xa5));
    CHECK(all(got + (256 << 10), 512 << 10, 0));
    CHECK(all(got + (768 << 10), 256 << 10, 0xa5));
    /* edges inside sectors */
    CHECK_EQ(do_zero(s, &e, 100, 50), 0);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), SECTOR);
    CHECK(all(got, 100, 0xa5) && all(got + 100, 50, 0) && all(got + 150, 1000, 0xa5));
}

static void test_flush_and_fua(void)
{
    struct xseg_object e = extent_name(5, 1), layer = layer_name(5);

    fill(page, SECTOR, 5);
    CHECK_EQ(do_write(s, &e, 0, page, SECTOR, XSEG_F_FUA), SECTOR);
    CHECK_EQ(do_write(s, &e, SECTOR, page, SECTOR, XSEG_F_FUA), SECTOR);
    CHECK_EQ(do_write(s, &e, 2 * SECTOR, page, SECTOR, 0), SECTOR);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_write(s, &layer, 100, page, 1000, 0), 1000);
    CHECK_EQ(do_flush(s, &layer), 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    struct xseg_request *rq = ask(s, XSEG_OP_FLUSH, &whole_store);
    CHECK_EQ(xseg_request_submit(s->port, rq, XSEG_PORT_BLOCKERM), 0);
    while (!xseg_port_reap(s->port))
        (void)xseg_port_wait(s->port, UINT64_MAX);
    CHECK_EQ(rq->result, 0);
    xseg_request_free(s->port, rq);
    struct xseg_object j = journal_name(5, 1), c = content_name(5);
    CHECK_EQ(do_flush(s, &j), 0); /* not there, and there */
    CHECK_EQ(do_append(s, &j, 0, 0, page, 100), 0);
    CHECK_EQ(do_flush(s, &j), 0);
    CHECK_EQ(do_flush(s, &j), 0);
    CHECK_EQ(do_delete(s, &j), 0);
    CHECK_EQ(do_flush(s, &c), -EINVAL);
}

/* ---- content, headers, layers ---------------------------------------------- */

static void test_content_is_put_once(void)
{
    struct xseg_object c = content_name(1), d = content_name(2);
    struct xseg_object_info info;

    fill(page, 5000, 10);
    CHECK_EQ(do_read(s, &c, 0, got, 1), -ENOENT);
    CHECK_EQ(do_create(s, &c, page, 5000, 0), 0);
    memset(got, 1, 5000);
    CHECK_EQ(do_create(s, &c, got, 5000, 0), -EEXIST);
    CHECK_EQ(do_create(s, &c, got, 5000, XSEG_F_NOSYNC), -EEXIST);
    CHECK_EQ(do_create(s, &d, page, 123, XSEG_F_NOSYNC), 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    restart();
    CHECK_EQ(do_info(s, &c, &info), 0);
    CHECK_EQ(info.size_bytes, 5000);
    /* stored without its trailing zeros: they come back */
    CHECK_EQ(do_read(s, &c, 0, got, 3 * SECTOR), 3 * SECTOR);
    CHECK(memcmp(got, page, 5000) == 0 && all(got + 5000, 3 * SECTOR - 5000, 0));
    CHECK_EQ(do_read(s, &c, 4990, got, 20), 20);
    CHECK(memcmp(got, page + 4990, 10) == 0 && all(got + 10, 10, 0));
    CHECK_EQ(do_read(s, &c, 1 << 20, got, 20), 20);
    CHECK(all(got, 20, 0));
    CHECK_EQ(do_read(s, &d, 0, got, 200), 200);
    CHECK(memcmp(got, page, 123) == 0);
    CHECK_EQ(do_write(s, &c, 0, page, SECTOR, 0), -EINVAL);
    CHECK_EQ(do_delete(s, &c), 0);
    CHECK_EQ(do_delete(s, &c), -ENOENT);
    CHECK_EQ(do_read(s, &c, 0, got, 1), -ENOENT);
    CHECK_EQ(do_create(s, &c, page, 5000, 0), 0);
}

static void test_header_is_replaced_by_version_and_fence(void)
{
    struct xseg_object h = header_name(1);
    struct xseg_object_info info;
    uint8_t a[200], b[5000];

    fill_header(a, sizeof a, 1, 5, 'a');
    fill_header(b, sizeof b, 2, 5, 'b');
    CHECK_EQ(do_update(s, &h, 1, b, sizeof b), -ENOENT);
    CHECK_EQ(do_create(s, &h, a, sizeof a, 0), 0);
    CHECK_EQ(do_create(s, &h, b, sizeof b, 0), -EEXIST);
    CHECK_EQ(do_info(s, &h, &info), 0);
    CHECK_EQ(info.version, 1);
    CHECK_EQ(do_update(s, &h, 1, b, sizeof b), 0);
    CHECK_EQ(do_info(s, &h, &info), 0);
    CHECK_EQ(info.version, 2);
    CHECK_EQ(info.size_bytes, sizeof b);
    /* somebody was faster */
    fill_header(a, sizeof a, 2, 6, 'c');
    CHECK_EQ(do_update(s, &h, 1, a, sizeof a), -ESTALE);
    /* an older fence */
    fill_header(a, sizeof a, 3, 4, 'c');
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a), -ESTALE);
    /* not the successor of what it names, a wrong length, no prefix at all */
    fill_header(a, sizeof a, 4, 5, 'c');
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a), -EINVAL);
    fill_header(a, sizeof a, 3, 5, 'c');
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a - 1), -EINVAL);
    CHECK_EQ(do_update(s, &h, 2, a, 8), -EINVAL);
    CHECK_EQ(do_create(s, &h, a, 8, 0), -EINVAL);
    restart();
    /* READ ends at the end */
    CHECK_EQ(do_read(s, &h, 0, got, 1 << 20), sizeof b);
    CHECK(memcmp(got, b, sizeof b) == 0);
    CHECK_EQ(do_read(s, &h, 4000, got, 4000), 1000);
    CHECK_EQ(do_read(s, &h, 6000, got, 10), 0);
    CHECK_EQ(do_update(s, &h, 2, a, sizeof a), 0);
    CHECK_EQ(do_read(s, &h, 0, got, 1 << 20), sizeof a);
    /* whoever removes it says which one */
    CHECK_EQ(do_delete_version(s, &h, 2), -ESTALE);
    CHECK_EQ(do_delete_version(s, &h, 3), 0);
    CHECK_EQ(do_delete_version(s, &h, 3), -ENOENT);
    CHECK_EQ(do_create(s, &h, a, sizeof a, 0), 0);
    CHECK_EQ(do_delete(s, &h), 0);
    CHECK_EQ(do_delete(s, &h), -ENOENT);
    CHECK_EQ(do_info(s, &h, &info), -ENOENT);
    CHECK_EQ(do_update(s, &h, 3, a, sizeof a), -ENOENT);
}

static void test_layer_is_written_then_flushed(void)
{
    struct xseg_object l = layer_name(1), m = layer_name(2);
    struct xseg_object_info info;

    fill(page, 10000, 20);
    CHECK_EQ(do_read(s, &l, 0, got, 10), -ENOENT);
    CHECK_EQ(do_write(s, &l, 0, page, 5000, 0), 5000);
    CHECK_EQ(do_write(s, &l, 5000, page + 5000, 5000, 0), 5000);
    CHECK_EQ(do_flush(s, &l), 0);
    restart();
    CHECK_EQ(do_read(s, &l, 0, got, 20000), 10000);
    CHECK(memcmp(got, page, 10000) == 0);
    CHECK_EQ(do_read(s, &l, 10000, got, 1), 0);
    CHECK_EQ(do_create(s, &m, page, 777, 0), 0);
    CHECK_EQ(do_create(s, &m, page, 777, 0), -EEXIST);
    CHECK_EQ(do_info(s, &m, &info), 0);
    CHECK_EQ(info.size_bytes, 777);
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(do_delete(s, &l), -ENOENT);
    CHECK_EQ(do_read(s, &l, 0, got, 10), -ENOENT);
    CHECK_EQ(do_write(s, &l, 0, page, 10, 0), 10);
    CHECK_EQ(do_read(s, &l, 0, got, 100), 10);
}

static int64_t copy_content(const struct xseg_object *content,
                            const struct xseg_object *extent, uint64_t offset,
                            uint64_t size)
{
    struct xseg_request *rq = ask(s, XSEG_OP_COPY, content);
    rq->offset = offset;
    rq->size = size;
    rq->arg[0] = 3;
    memcpy(rq->inline_data, extent, sizeof *extent);
    return answer_of(s, rq, NULL);
}

static void test_content_is_made_from_an_extent_if_the_digest_is_right(void)
{
    struct xseg_object e = extent_name(950, 1), none = extent_name(951, 1);
    struct xseg_object c = {.kind = XSEG_OBJ_CONTENT}, other = content_name(950);
    const uint64_t at = UINT64_C(3) << 40, size = 5 * SECTOR - 17;
    struct xseg_object_info info;

    for (uint64_t i = 0; i < 8 * SECTOR; i++)
        page[i] = (uint8_t)(i % 251 + 1);
    CHECK_EQ(digest_block_id(page, size, c.id), 0);
    CHECK_EQ(do_write(s, &e, at, page, 8 * SECTOR, 0), 8 * SECTOR);
    CHECK_EQ(copy_content(&other, &e, at, size), -EBADMSG);
    CHECK_EQ(copy_content(&c, &e, at + SECTOR, size), -EBADMSG);
    CHECK_EQ(copy_content(&c, &none, at, size), -ENOENT);
    CHECK_EQ(copy_content(&c, &c, at, size), -EINVAL);
    CHECK_EQ(copy_content(&c, &e, at, (UINT64_C(4) << 20) + 1), -EINVAL);
    CHECK_EQ(do_read(s, &c, 0, got, SECTOR), -ENOENT);
    CHECK_EQ(copy_content(&c, &e, at, size), 0);
    CHECK_EQ(copy_content(&c, &e, at, size), -EEXIST);
    CHECK_EQ(do_info(s, &c, &info), 0);
    CHECK_EQ(info.version, 3); /* the generation of the change */
    /* it is a copy: the extent goes on changing */
    memset(got, 0, SECTOR);
    CHECK_EQ(do_write(s, &e, at, got, SECTOR, 0), SECTOR);
    CHECK_EQ(do_read(s, &c, 0, got, 6 * SECTOR), 6 * SECTOR);
    CHECK(memcmp(got, page, size) == 0);
    CHECK_EQ(got[size], 0);
    CHECK_EQ(do_delete(s, &c), 0);
    CHECK_EQ(do_delete(s, &e), 0);
}

void test_data(void)
{
    test_extent_is_absent_until_written();
    test_extent_reads_back_with_zeros_around();
    test_write_across_the_border_of_two_parts();
    test_zero_gives_space_back();
    test_flush_and_fua();
    test_content_is_put_once();
    test_header_is_replaced_by_version_and_fence();
    test_layer_is_written_then_flushed();
    test_content_is_made_from_an_extent_if_the_digest_is_right();
}
