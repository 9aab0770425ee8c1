/* SPDX-License-Identifier: Apache-2.0 */
/* LIST finds everything once. */
#include <errno.h>

#include "blocker/conformance.h"

static uint64_t list_all(uint32_t kind, uint64_t per_page, struct xseg_list_entry *out)
{
    struct xseg_opaque cursor = {.length = 0};
    uint64_t nr = 0;
    do {
        int64_t n = do_list(s, kind, &cursor, out + nr, per_page);
        CHECK(n >= 0 && (uint64_t)n <= per_page);
        nr += (uint64_t)n;
    } while (cursor.length != 0);
    return nr;
}

static bool listed(const struct xseg_list_entry *entries, uint64_t nr,
                   const struct xseg_object *name, uint64_t size)
{
    unsigned found = 0;
    for (uint64_t i = 0; i < nr; i++)
        if (blk_object_equal(&entries[i].object, name)) {
            found++;
            CHECK_EQ(entries[i].size_bytes, size);
        }
    CHECK(found <= 1);
    return found == 1;
}

static void test_list_finds_everything_once(void)
{
    static struct xseg_list_entry entries[1000];
    const uint64_t pages[] = {1, 7, 900};
    uint64_t nr;

    memset(page, 7, SECTOR);
    for (uint64_t i = 0; i < 40; i++) {
        struct xseg_object c = content_name(100 + i), h = header_name(100 + i);
        struct xseg_object l = layer_name(100 + i), j = journal_name(100 + i / 4, i);
        struct xseg_object e = extent_name(100 + i / 8, i);
        CHECK_EQ(do_create(s, &c, page, i + 1, XSEG_F_NOSYNC), 0);
        fill_header(got, 100 + i, 1, 1, 'h');
        CHECK_EQ(do_create(s, &h, got, 100 + i, 0), 0);
        CHECK_EQ(do_write(s, &l, 0, page, i + 1, 0), i + 1);
        CHECK_EQ(do_append(s, &j, 0, 0, page, i + 1), 0);
        CHECK_EQ(do_write(s, &e, 0, page, SECTOR, 0), SECTOR);
        if (i == 5) /* a second file of the same extent is not a second extent */
            CHECK_EQ(do_write(s, &e, UINT64_C(1) << 40, page, SECTOR, 0), SECTOR);
    }
    for (size_t p = 0; p < sizeof pages / sizeof pages[0]; p++) {
        for (uint32_t kind = XSEG_OBJ_CONTENT; kind < XSEG_OBJ_LEASE; kind++) {
            nr = list_all(kind, pages[p], entries);
            CHECK(nr >= 40);
            for (uint64_t i = 0; i < 40; i++) {
                struct xseg_object names[XSEG_NR_OBJECT_KINDS] = {
                    [XSEG_OBJ_CONTENT] = content_name(100 + i),
                    [XSEG_OBJ_HEADER] = header_name(100 + i),
                    [XSEG_OBJ_LAYER] = layer_name(100 + i),
                    [XSEG_OBJ_JOURNAL] = journal_name(100 + i / 4, i),
                    [XSEG_OBJ_EXTENT] = extent_name(100 + i / 8, i),
                };
                uint64_t size = kind == XSEG_OBJ_HEADER ? 100 + i : i + 1;
                if (kind == XSEG_OBJ_EXTENT)
                    size = i == 5 ? (UINT64_C(1) << 40) + SECTOR : SECTOR;
                CHECK(listed(entries, nr, &names[kind], size));
            }
        }
    }
    nr = list_all(XSEG_OBJ_LEASE, 3, entries);
    struct xseg_object lease = lease_name(3);
    for (uint64_t i = 0; i < nr; i++)
        CHECK_EQ(entries[i].object.kind, XSEG_OBJ_LEASE);
    CHECK(nr > 0);
    (void)lease;
    /* what stays while others go is on exactly one page */
    struct xseg_opaque cursor = {.length = 0};
    nr = 0;
    for (uint64_t i = 0;; i++) {
        int64_t n = do_list(s, XSEG_OBJ_CONTENT, &cursor, entries + nr, 5);
        CHECK(n >= 0);
        nr += (uint64_t)n;
        if (cursor.length == 0)
            break;
        struct xseg_object odd = content_name(101 + 2 * i);
        if (i < 20)
            CHECK_EQ(do_delete(s, &odd), 0);
    }
    for (uint64_t i = 0; i < 40; i += 2) {
        struct xseg_object even = content_name(100 + i);
        CHECK(listed(entries, nr, &even, i + 1));
    }
    /* a cursor is the backend's own: what it never gave, it refuses */
    struct xseg_opaque forged[] = {
        {.length = 3}, {.length = XSEG_CURSOR_MAX + 1}, {.length = UINT32_MAX}};
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++)
        CHECK_EQ(do_list(s, XSEG_OBJ_CONTENT, &forged[i], entries, 5), -EINVAL);
    memset(&cursor, 0, sizeof cursor);
    CHECK_EQ(do_list(s, XSEG_OBJ_CONTENT, &cursor, entries, 0), -EINVAL);
}

static int64_t list_between(uint32_t kind, uint64_t first, uint64_t end,
                            struct xseg_opaque *cursor, struct xseg_list_entry *out,
                            uint64_t max)
{
    const struct xseg_object object = {.kind = kind};
    struct xseg_request reply, *rq = ask(s, XSEG_OP_LIST, &object);
    rq->data_len = max * sizeof *out;
    rq->arg[0] = first;
    rq->arg[1] = end;
    memcpy(rq->inline_data, cursor, sizeof *cursor);
    int64_t result = answer_of(s, rq, &reply);
    if (result > 0)
        memcpy(out, s->data, (size_t)result * sizeof *out);
    memcpy(cursor, reply.inline_data, sizeof *cursor);
    return result;
}

static void check_range(uint32_t kind, uint64_t first, uint64_t end)
{
    static struct xseg_list_entry all[2000], some[2000];
    struct xseg_opaque cursor = {.length = 0};
    uint64_t nr_all = list_all(kind, 900, all), wanted = 0, nr = 0;

    for (uint64_t i = 0; i < nr_all; i++)
        wanted += all[i].object.id[0] >= first && all[i].object.id[0] < end;
    do {
        int64_t n = list_between(kind, first, end, &cursor, some + nr, 3);
        CHECK(n >= 0);
        nr += (uint64_t)n;
    } while (cursor.length != 0);
    CHECK_EQ(nr, wanted);
    for (uint64_t i = 0; i < nr; i++) {
        CHECK(some[i].object.id[0] >= first && some[i].object.id[0] < end);
        CHECK(listed(some, nr, &some[i].object, some[i].size_bytes));
    }
}

static void test_list_keeps_to_the_first_bytes_that_are_asked_for(void)
{
    struct xseg_list_entry entry;
    struct xseg_opaque cursor = {.length = 0};

    for (uint32_t kind = XSEG_OBJ_CONTENT; kind <= XSEG_OBJ_HEADER;
         kind += XSEG_OBJ_HEADER - XSEG_OBJ_CONTENT) {
        check_range(kind, 0, 256);
        check_range(kind, 0, 1);
        check_range(kind, 0x40, 0xc0);
        check_range(kind, 255, 256);
        CHECK_EQ(list_between(kind, 5, 5, &cursor, &entry, 1), -EINVAL);
        CHECK_EQ(list_between(kind, 0, 257, &cursor, &entry, 1), -EINVAL);
        CHECK_EQ(list_between(kind, 256, 0, &cursor, &entry, 1), -EINVAL);
    }
    CHECK_EQ(list_between(XSEG_OBJ_LAYER, 0, 5, &cursor, &entry, 1), -EINVAL);
}

void test_listing(void)
{
    test_list_finds_everything_once();
    test_list_keeps_to_the_first_bytes_that_are_asked_for();
}
