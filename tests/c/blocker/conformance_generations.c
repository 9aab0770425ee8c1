/* SPDX-License-Identifier: Apache-2.0 */
/* Generations, the store's own, candidates, and what tells that headers changed. */
#include <errno.h>

#include "blocker/conformance.h"

static uint64_t version_of(const struct xseg_object *object)
{
    struct xseg_object_info info;
    CHECK_EQ(do_info(s, object, &info), 0);
    return info.version;
}

/** What LIST says of the version of an object. */
static uint64_t listed_version(const struct xseg_object *object)
{
    static struct xseg_list_entry entries[2000];
    struct xseg_opaque cursor = {.length = 0};

    do {
        int64_t nr = do_list(s, object->kind, &cursor, entries, 2000);
        CHECK(nr >= 0);
        for (int64_t i = 0; i < nr; i++)
            if (blk_object_equal(&entries[i].object, object))
                return entries[i].version;
    } while (cursor.length != 0);
    CHECK(false);
    return 0;
}

/** Issue 9, fault 5: a block that a writer meets is not removed under its hands. */
static void test_a_block_that_is_met_again_is_raised(void)
{
    struct xseg_object block = content_name(7001);

    CHECK_EQ(do_create_in(s, &block, "block", 5, 3), 0);
    CHECK_EQ(version_of(&block), 3);
    CHECK_EQ(listed_version(&block), 3);
    CHECK_EQ(do_create_in(s, &block, "block", 5, 5), -EEXIST);
    CHECK_EQ(version_of(&block), 5);
    /* an older change does not lower it, and a CREATE without one leaves it */
    CHECK_EQ(do_create_in(s, &block, "block", 5, 4), -EEXIST);
    CHECK_EQ(do_create(s, &block, "block", 5, 0), -EEXIST);
    CHECK_EQ(do_create(s, &block, "block", 5, XSEG_F_NOSYNC), -EEXIST);
    CHECK_EQ(version_of(&block), 5);
    restart();
    CHECK_EQ(survives() ? version_of(&block) : 5, 5);
    CHECK_EQ(do_delete_in(s, &block, 4), -ESTALE);
    CHECK_EQ(do_read(s, &block, 0, got, 5), 5);
    CHECK_EQ(do_delete_in(s, &block, 5), 0);
    CHECK_EQ(do_delete_in(s, &block, 5), -ENOENT);
    CHECK_EQ(do_create_in(s, &block, "block", 5, 9), 0);
    CHECK_EQ(do_delete(s, &block), 0); /* any */
}

static void test_a_layer_has_a_generation(void)
{
    struct xseg_object layer = layer_name(7002);

    CHECK_EQ(do_create_in(s, &layer, "layer", 5, 2), 0);
    CHECK_EQ(do_delete_in(s, &layer, 1), -ESTALE);
    CHECK_EQ(do_delete_in(s, &layer, 2), 0);
}

static void test_the_generation_is_replaced_by_its_version(void)
{
    const struct xseg_object generation = {.kind = XSEG_OBJ_GENERATION};
    struct xseg_versioned record;

    CHECK_EQ(do_read(s, &generation, 0, &record, sizeof record), -ENOENT);
    fill_header(page, sizeof record, 1, 0, 0);
    CHECK_EQ(do_create(s, &generation, page, sizeof record, 0), 0);
    CHECK_EQ(do_create(s, &generation, page, sizeof record, 0), -EEXIST);
    fill_header(page, sizeof record, 2, 0, 0);
    CHECK_EQ(do_update(s, &generation, 1, page, sizeof record), 0);
    CHECK_EQ(do_update(s, &generation, 1, page, sizeof record), -ESTALE);
    restart();
    if (survives())
        CHECK_EQ(do_read(s, &generation, 0, &record, sizeof record), sizeof record);
    CHECK_EQ(version_of(&generation), 2);
    CHECK_EQ(do_delete(s, &generation), -EINVAL); /* there is always one */
}

static void test_candidates_are_written_listed_and_removed(void)
{
    struct xseg_object batch = journal_name(7003, 12);
    struct xseg_list_entry entry;
    struct xseg_opaque cursor = {.length = 0};

    batch.kind = XSEG_OBJ_CANDIDATES;
    CHECK_EQ(do_write(s, &batch, 0, "first", 5, XSEG_F_FUA), 5);
    CHECK_EQ(do_write(s, &batch, 5, "second", 6, XSEG_F_FUA), 6);
    restart();
    if (!survives())
        return;
    CHECK_EQ(do_list(s, XSEG_OBJ_CANDIDATES, &cursor, &entry, 1), 1);
    CHECK(blk_object_equal(&entry.object, &batch));
    CHECK_EQ(entry.size_bytes, 11);
    CHECK_EQ(do_read(s, &batch, 0, got, 100), 11);
    CHECK(memcmp(got, "firstsecond", 11) == 0);
    CHECK_EQ(do_delete(s, &batch), 0);
    CHECK_EQ(do_list(s, XSEG_OBJ_CANDIDATES, &cursor, &entry, 1), 0);
}

/** Issue 9, fault 19: LIST tells which headers changed; reading them all does not scale. */
static void test_a_listing_tells_versions_of_headers(void)
{
    const uint64_t first = UINT64_C(1764558000123456789);
    struct xseg_object header = header_name(7004);

    fill_header(page, 100, first, 1, 'h');
    CHECK_EQ(do_create(s, &header, page, 100, 0), 0);
    CHECK_EQ(listed_version(&header), first);
    fill_header(page, 100, first + 1, 1, 'h');
    CHECK_EQ(do_update(s, &header, first, page, 100), 0);
    CHECK_EQ(listed_version(&header), first + 1);
    restart();
    if (survives())
        CHECK_EQ(listed_version(&header), first + 1);
}

static void test_no_change_of_a_header_is_without_another_stamp(void)
{
    struct xseg_object header = header_name(7005);
    uint64_t before[XSEG_NR_STAMPS], after[XSEG_NR_STAMPS];
    unsigned shard = header.id[0];

    fill_header(page, 100, 1, 1, 'h');
    CHECK_EQ(do_changes(s, before), XSEG_NR_STAMPS);
    CHECK_EQ(do_create(s, &header, page, 100, 0), 0);
    CHECK_EQ(do_changes(s, after), XSEG_NR_STAMPS);
    CHECK(after[shard] == 0 || after[shard] != before[shard]);
    memcpy(before, after, sizeof after);
    fill_header(page, 100, 2, 1, 'h');
    CHECK_EQ(do_update(s, &header, 1, page, 100), 0);
    CHECK_EQ(do_changes(s, after), XSEG_NR_STAMPS);
    CHECK(after[shard] == 0 || after[shard] != before[shard]);
    memcpy(before, after, sizeof after);
    CHECK_EQ(do_delete(s, &header), 0);
    CHECK_EQ(do_changes(s, after), XSEG_NR_STAMPS);
    CHECK(after[shard] == 0 || after[shard] != before[shard]);
}

void test_generations(void)
{
    test_a_block_that_is_met_again_is_raised();
    test_a_layer_has_a_generation();
    test_the_generation_is_replaced_by_its_version();
    test_candidates_are_written_listed_and_removed();
    test_a_listing_tells_versions_of_headers();
    test_no_change_of_a_header_is_without_another_stamp();
}
