/* SPDX-License-Identifier: Apache-2.0 */
/* Layers: golden bytes, random trees, damage, what a writer refuses. */
#include <errno.h>

#include "check.h"
#include "golden.h"
#include "mapper/bits.h"
#include "tables.h"

#define BLOCK XSEG_BLOCK_MIN_BYTES

static const uint8_t uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const struct map_entry layer_entry = {.type = MAP_ENTRY_LAYER,
                                             .limit_bytes = MAP_NO_LIMIT};

static struct layer_writer *writer_new(struct blob *blob, uint32_t block_bytes)
{
    struct layer_writer *w;
    CHECK_EQ(layer_writer_create(uuid, block_bytes, blob_write, blob, &w), 0);
    return w;
}

/** One record of each shape and kind. */
static void example(struct blob *blob)
{
    struct layer_writer *w = writer_new(blob, 1u << 20);
    struct map_ref zero = map_ref_zero(), extent = map_ref_extent(uuid, 77), content;
    uint64_t few[4] = {0xf0}, many[4] = {0x5555555555555555, 0x5555555555555555, 1, 2};
    uint8_t digest[32];
    memset(digest, 0xd1, sizeof digest);
    content = map_ref_content(digest);
    CHECK_EQ(layer_writer_run(w, 0, 10, &zero), 0);
    CHECK_EQ(layer_writer_run(w, 10, 5, &extent), 0);
    CHECK_EQ(layer_writer_run(w, 15, 5, &extent), 0); /* joins the run before */
    CHECK_EQ(layer_writer_run(w, 30, 1, &content), 0);
    CHECK_EQ(layer_writer_part(w, 40, few, &extent), 0);
    CHECK_EQ(layer_writer_part(w, 40, many, &zero), 0);
    CHECK_EQ(layer_writer_run(w, 40, 1, &content), 0);
    CHECK_EQ(layer_writer_part(w, 41, many, &content), 0);
    CHECK_EQ(layer_writer_finish(w), blob->size);
    layer_writer_destroy(w);
}

static void test_golden(void)
{
    struct blob blob = {0};
    struct table_source t;
    struct map_source s;
    example(&blob);
    golden_check("layer-v1.bin", blob.bytes, blob.size);
    CHECK_EQ(table_source_init(&t, &layer_entry, &blob, 1u << 20, &s), 0);
    CHECK_EQ(t.layer.nr_records, 7);
    CHECK_EQ(t.layer.nr_extents, 1);
    CHECK_EQ(t.layer.first_block, 0);
    CHECK_EQ(t.layer.end_block, 42);
    static const uint64_t blocks[] = {0, 10, 30, 40, 40, 40, 41};
    int rc = layer_cursor_seek(&s.cursor, 0);
    for (size_t i = 0; i < 7; i++, rc = layer_cursor_next(&s.cursor)) {
        CHECK_EQ(rc, 1);
        CHECK_EQ(s.cursor.record->block, blocks[i]);
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(layer_cursor_seek(&s.cursor, 14), 1);
    CHECK_EQ(s.cursor.record->block, 10);
    CHECK_EQ(s.cursor.record->count, 10);
    CHECK_EQ(layer_cursor_seek(&s.cursor, 20), 1);
    CHECK_EQ(s.cursor.record->block, 30);
    CHECK_EQ(layer_cursor_seek(&s.cursor, 42), 0);
    table_source_fini(&t);
    blob_fini(&blob);
}

/** Open a layer and walk all of it. */
static int walk(struct blob *blob)
{
    struct table_source t;
    struct map_source s;
    int rc = table_source_init(&t, &layer_entry, blob, BLOCK, &s);
    if (rc == 0) {
        rc = layer_cursor_seek(&s.cursor, 0);
        while (rc > 0)
            rc = layer_cursor_next(&s.cursor);
    }
    table_source_fini(&t);
    return rc;
}

static void test_every_flipped_bit_is_refused(void)
{
    struct blob blob = {0};
    example(&blob);
    CHECK_EQ(walk(&blob), 0);
    for (size_t bit = 0; bit < blob.size * 8; bit++) {
        blob.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(walk(&blob), -EBADMSG);
        blob.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    blob_fini(&blob);
}

static void test_pages_are_not_exchanged(void)
{
    struct blob a = {0}, b = {0};
    struct layer_writer *w;
    struct map_ref zero = map_ref_zero();
    uint8_t other[16] = {9};
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(
            layer_writer_create(i ? other : uuid, BLOCK, blob_write, i ? &b : &a, &w),
            0);
        for (uint64_t block = 0; block < 2000; block += 2)
            CHECK_EQ(layer_writer_run(w, block, 1, &zero), 0);
        CHECK(layer_writer_finish(w) > 0);
        layer_writer_destroy(w);
    }
    memcpy(a.bytes + LAYER_PAGE_BYTES, b.bytes + LAYER_PAGE_BYTES, LAYER_PAGE_BYTES);
    CHECK_EQ(walk(&a), -EBADMSG); /* of another layer */
    memcpy(b.bytes + LAYER_PAGE_BYTES, b.bytes + 2 * LAYER_PAGE_BYTES,
           LAYER_PAGE_BYTES);
    CHECK_EQ(walk(&b), -EBADMSG); /* of another place */
    blob_fini(&a);
    blob_fini(&b);
}

/** Pages that are whole but lie: their fields are checked too. */
static void test_fields_are_checked(uint64_t *seed)
{
    struct blob blob = {0};
    example(&blob);
    uint32_t refused = 0;
    for (int round = 0; round < 20000; round++) {
        uint8_t before[LAYER_PAGE_BYTES];
        size_t number = check_next(seed) % (blob.size / LAYER_PAGE_BYTES);
        uint8_t *at = blob.bytes + number * LAYER_PAGE_BYTES;
        struct layer_page page;
        memcpy(before, at, sizeof before);
        memcpy(&page, at, sizeof page);
        size_t byte = 8 + check_next(seed) % 600;
        ((uint8_t *)&page)[byte] = (uint8_t)check_next(seed);
        layer_page_seal(&page);
        memcpy(at, &page, sizeof page);
        int rc = walk(&blob);
        CHECK(rc == 0 || rc == -EBADMSG || rc == -EPROTONOSUPPORT);
        refused += rc != 0;
        memcpy(at, before, sizeof before);
    }
    CHECK(refused > 1000);
    blob_fini(&blob);
}

static void test_empty(void)
{
    struct blob blob = {0};
    struct layer_writer *w = writer_new(&blob, BLOCK);
    CHECK_EQ(layer_writer_finish(w), LAYER_PAGE_BYTES);
    CHECK_EQ(layer_writer_finish(w), -EINVAL);
    layer_writer_destroy(w);
    CHECK_EQ(walk(&blob), 0);
    blob_fini(&blob);
}

static void test_order_is_enforced(void)
{
    struct blob blob = {0};
    struct layer_writer *w = writer_new(&blob, BLOCK);
    struct map_ref zero = map_ref_zero();
    struct map_ref content = map_ref_content((const uint8_t[32]){1});
    uint64_t bits = 1, none = 0;
    CHECK_EQ(layer_writer_run(w, 5, 2, &zero), 0);
    CHECK_EQ(layer_writer_run(w, 6, 1, &zero), -EINVAL);
    CHECK_EQ(layer_writer_part(w, 6, &bits, &zero), -EINVAL);
    CHECK_EQ(layer_writer_part(w, 7, &none, &zero), -EINVAL);
    CHECK_EQ(layer_writer_run(w, 7, 2, &content), -EINVAL);
    CHECK_EQ(layer_writer_run(w, 7, 0, &zero), -EINVAL);
    CHECK_EQ(layer_writer_run(w, UINT64_MAX, 1, &zero), -EINVAL);
    CHECK_EQ(layer_writer_run(w, 7, UINT64_MAX, &zero), -EINVAL);
    CHECK_EQ(layer_writer_part(w, 7, &bits, &zero), 0);
    CHECK_EQ(layer_writer_run(w, 7, 1, &zero), 0);
    CHECK_EQ(layer_writer_part(w, 7, &bits, &zero), -EINVAL);
    layer_writer_destroy(w);
    blob_fini(&blob);
    CHECK_EQ(layer_writer_create(uuid, 12345, blob_write, &blob, &w), -EINVAL);
}

static int full(void *ctx, uint64_t offset, const void *data, size_t len)
{
    (void)ctx, (void)offset, (void)data, (void)len;
    return -ENOSPC;
}

static void test_a_failed_write_sticks(void)
{
    struct layer_writer *w;
    struct map_ref zero = map_ref_zero();
    CHECK_EQ(layer_writer_create(uuid, BLOCK, full, NULL, &w), 0);
    CHECK_EQ(layer_writer_run(w, 0, 1, &zero), 0);
    CHECK_EQ(layer_writer_finish(w), -ENOSPC);
    CHECK_EQ(layer_writer_run(w, 9, 1, &zero), -ENOSPC);
    CHECK_EQ(layer_writer_finish(w), -ENOSPC);
    layer_writer_destroy(w);
}

/** Three levels: every block is found, in few pages. */
static void test_a_tall_tree(void)
{
    struct blob blob = {0};
    struct layer_writer *w = writer_new(&blob, BLOCK);
    struct table_source t;
    struct map_source s;
    uint32_t nr = 100000;
    uint8_t digest[32] = {0};
    for (uint32_t i = 0; i < nr; i++) {
        memcpy(digest, &i, sizeof i);
        struct map_ref ref = map_ref_content(digest);
        CHECK_EQ(layer_writer_run(w, i * UINT64_C(3), 1, &ref), 0);
    }
    CHECK_EQ(layer_writer_finish(w), blob.size);
    layer_writer_destroy(w);
    CHECK_EQ(table_source_init(&t, &layer_entry, &blob, BLOCK, &s), 0);
    CHECK_EQ(t.layer.height, 3);
    for (uint64_t block = 0; block < nr * UINT64_C(3); block += 7) {
        uint32_t gets = t.nr_gets;
        uint64_t want = (block + 2) / 3;
        int rc = layer_cursor_seek(&s.cursor, block);
        CHECK_EQ(rc, want < nr);
        CHECK(t.nr_gets - gets <= 5); /* a path, and at times its right neighbour */
        if (rc) {
            CHECK_EQ(s.cursor.record->block, want * 3);
            CHECK(memcmp(s.cursor.record + 1, &want, 4) == 0);
        }
    }
    table_source_fini(&t);
    blob_fini(&blob);
}

static void test_random_layers(uint64_t *seed)
{
    static struct says says[200 * 256], got[200 * 256];
    uint32_t block_bytes = XSEG_BLOCK_MIN_BYTES << check_next(seed) % 5;
    uint32_t sectors = block_bytes / XSEG_SECTOR_BYTES,
             nr_blocks = 1 + below(seed, 200);
    struct blob blob = {0};
    struct table_source t;
    struct map_source s;
    uint64_t provided = 0;
    random_layer(seed, uuid, block_bytes, nr_blocks, &blob, says);
    memset(got, 0, sizeof got);
    CHECK_EQ(table_source_init(&t, &layer_entry, &blob, block_bytes, &s), 0);
    for (int rc = layer_cursor_seek(&s.cursor, 0); rc;
         rc = layer_cursor_next(&s.cursor)) {
        CHECK_EQ(rc, 1);
        uint64_t bits[MAP_BLOCK_WORDS_MAX] = {0};
        const struct layer_record *r = s.cursor.record;
        layer_record_bits(&t.layer, r, bits);
        for (uint64_t b = r->block; b < layer_record_end(r); b++)
            for (uint32_t i = 0; i < sectors; i++)
                if (bits[i / 64] >> (i % 64) & 1 && !got[b * sectors + i].set)
                    got[b * sectors + i] = (struct says){
                        .set = true, .ref = layer_record_ref(&t.layer, r)};
    }
    for (uint32_t i = 0; i < nr_blocks * sectors; i++) {
        CHECK_EQ(got[i].set, says[i].set);
        CHECK(!got[i].set || map_ref_equal(&got[i].ref, &says[i].ref));
        provided += got[i].set;
    }
    CHECK(provided <=
          t.layer.zero_sectors + t.layer.extent_sectors + t.layer.content_sectors);
    table_source_fini(&t);
    blob_fini(&blob);
}

static void test_many_extents(void)
{
    struct blob blob = {0};
    struct layer_writer *w = writer_new(&blob, BLOCK);
    struct table_source t;
    struct map_source s;
    uint32_t nr = 1000;
    for (uint32_t i = 0; i < nr; i++) {
        struct map_ref ref = map_ref_extent(uuid, i * 3 % nr);
        CHECK_EQ(layer_writer_run(w, i, 1, &ref), 0);
    }
    CHECK_EQ(layer_writer_finish(w), blob.size);
    layer_writer_destroy(w);
    CHECK_EQ(table_source_init(&t, &layer_entry, &blob, BLOCK, &s), 0);
    CHECK_EQ(t.layer.nr_extents, nr);
    for (uint32_t i = 0; i < nr; i++) {
        struct map_ref want = map_ref_extent(uuid, i * 3 % nr);
        CHECK_EQ(layer_cursor_seek(&s.cursor, i), 1);
        struct map_ref got = layer_record_ref(&t.layer, s.cursor.record);
        CHECK(map_ref_equal(&got, &want));
    }
    table_source_fini(&t);
    blob_fini(&blob);
}

int main(void)
{
    uint64_t seed = check_seed();
    test_golden();
    test_every_flipped_bit_is_refused();
    test_pages_are_not_exchanged();
    test_fields_are_checked(&seed);
    test_empty();
    test_order_is_enforced();
    test_a_failed_write_sticks();
    test_a_tall_tree();
    test_many_extents();
    for (int i = 0; i < 60; i++)
        test_random_layers(&seed);
    return 0;
}
