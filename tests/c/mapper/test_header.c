/* SPDX-License-Identifier: Apache-2.0 */
/* The header codec: golden bytes, round trips, damage, contradictions. */
#include "mapper/header.h"

#include <errno.h>

#include "check.h"
#include "common/crc32c.h"
#include "golden.h"

static void set_name(struct map_name *n, const char *text)
{
    n->len = (uint16_t)strlen(text);
    memcpy(n->bytes, text, n->len + 1u);
}

/** The header of the golden file. */
static void example(struct map_header *h, struct map_entry entries[2])
{
    memset(h, 0, sizeof *h);
    memset(entries, 0, 2 * sizeof *entries);
    for (uint8_t i = 0; i < 16; i++)
        h->uuid[i] = (uint8_t)(0xa0 + i);
    h->version = 42;
    h->fence = 7;
    h->size_bytes = (UINT64_C(16) << 40) + 512;
    h->epoch = 3;
    h->created_ns = UINT64_C(1800000000123456789);
    h->journal = 9;
    h->journal_least_bytes = 480;
    h->block_bytes = 4u << 20;
    h->flags = XSEG_VOL_TAIL;
    set_name(&h->name, "volume");
    set_name(&h->parent, "golden-image");
    set_name(&h->moving_to, "n\xc3\xa4her");
    h->nr_entries = 2;
    h->entries = entries;
    entries[0] = (struct map_entry){.type = MAP_ENTRY_JOURNAL,
                                    .flags = MAP_ENTRY_OWNED,
                                    .number = 8,
                                    .length_bytes = 4800,
                                    .extent_epoch = 2,
                                    .limit_bytes = MAP_NO_LIMIT};
    memcpy(entries[0].id, h->uuid, 16);
    memcpy(entries[0].extent_uuid, h->uuid, 16);
    entries[1] = (struct map_entry){.type = MAP_ENTRY_LAYER,
                                    .length_bytes = 3 * LAYER_PAGE_BYTES,
                                    .limit_bytes = UINT64_C(10) << 30};
    memset(entries[1].id, 0x11, 16);
}

static size_t pack(const struct map_header *h, uint8_t *bytes, size_t room)
{
    const char *why;
    int64_t len = map_header_pack(h, bytes, room, &why);
    CHECK(len > 0);
    CHECK_EQ(len, map_header_bytes(h));
    return (size_t)len;
}

static bool same(const struct map_header *a, const struct map_header *b)
{
    return a->version == b->version && a->fence == b->fence &&
           memcmp(a->uuid, b->uuid, 16) == 0 && a->size_bytes == b->size_bytes &&
           a->epoch == b->epoch && a->created_ns == b->created_ns &&
           a->journal == b->journal &&
           a->journal_least_bytes == b->journal_least_bytes &&
           a->block_bytes == b->block_bytes && a->flags == b->flags &&
           a->nr_entries == b->nr_entries &&
           (a->nr_entries == 0 ||
            memcmp(a->entries, b->entries, a->nr_entries * sizeof *a->entries) == 0) &&
           strcmp(a->name.bytes, b->name.bytes) == 0 &&
           strcmp(a->parent.bytes, b->parent.bytes) == 0 &&
           strcmp(a->moving_to.bytes, b->moving_to.bytes) == 0 &&
           strcmp(a->moved_from.bytes, b->moved_from.bytes) == 0;
}

static void test_golden(void)
{
    struct map_header h, back;
    struct map_entry entries[2];
    uint8_t bytes[1024];
    const char *why;
    example(&h, entries);
    size_t len = pack(&h, bytes, sizeof bytes);
    golden_check("header-v2.bin", bytes, len);
    CHECK_EQ(map_header_unpack(bytes, len, &back, &why), 0);
    CHECK(same(&h, &back));
    map_header_fini(&back);
    CHECK_EQ(map_header_pack(&h, bytes, len - 1, &why), -EINVAL);
}

static void test_version_1_is_read(void)
{
    struct map_header h, back;
    struct map_entry entries[2];
    uint8_t bytes[1024];
    const char *why;
    example(&h, entries);
    h.journal_least_bytes = 0; /* which version 1 did not know */
    size_t len = golden_read("header-v1.bin", bytes, sizeof bytes);
    CHECK_EQ(map_header_unpack(bytes, len, &back, &why), 0);
    CHECK(same(&h, &back));
    map_header_fini(&back);
}

static void test_every_flipped_bit_is_refused(void)
{
    struct map_header h, back;
    struct map_entry entries[2];
    uint8_t bytes[1024];
    const char *why;
    example(&h, entries);
    size_t len = pack(&h, bytes, sizeof bytes);
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(map_header_unpack(bytes, len, &back, &why), -EBADMSG);
        CHECK(why && back.entries == NULL);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++)
        CHECK_EQ(map_header_unpack(bytes, cut, &back, &why), -EBADMSG);
    CHECK_EQ(map_header_unpack(bytes, len + 1, &back, &why), -EBADMSG);
}

/** Change bytes and mend the checksum: only the check of the field itself is left. */
static int unpack_with(size_t at, const void *value, size_t value_len)
{
    struct map_header h, back;
    struct map_entry entries[2];
    uint8_t bytes[1024];
    const char *why;
    uint32_t crc = 0;
    example(&h, entries);
    size_t len = pack(&h, bytes, sizeof bytes);
    memcpy(bytes + at, value, value_len);
    memcpy(bytes + 32, &crc, 4);
    crc = crc32c(0, bytes, len);
    memcpy(bytes + 32, &crc, 4);
    int rc = map_header_unpack(bytes, len, &back, &why);
    CHECK(rc == 0 || (why && back.entries == NULL));
    map_header_fini(&back);
    return rc;
}

#define FIELD(f)              offsetof(struct map_header_disk, f)
#define HEADER                sizeof(struct map_header_disk)
#define ENTRY(f)              (HEADER + offsetof(struct map_entry, f))
#define WITH(at, type, value) unpack_with(at, &(type){value}, sizeof(type))

static void test_contradictions_are_refused(void)
{
    CHECK_EQ(WITH(FIELD(epoch), uint64_t, 4), 0);
    CHECK_EQ(WITH(FIELD(format), uint32_t, 0), -EPROTONOSUPPORT);
    CHECK_EQ(WITH(FIELD(format), uint32_t, 1), -EBADMSG); /* has a least length */
    CHECK_EQ(WITH(FIELD(format), uint32_t, 3), -EPROTONOSUPPORT);
    CHECK_EQ(WITH(FIELD(block_bytes), uint32_t, 0), -EBADMSG);
    CHECK_EQ(WITH(FIELD(block_bytes), uint32_t, 3u << 20), -EBADMSG);
    CHECK_EQ(WITH(FIELD(block_bytes), uint32_t, 32u << 10), -EBADMSG);
    CHECK_EQ(WITH(FIELD(block_bytes), uint32_t, 8u << 20), -EBADMSG);
    CHECK_EQ(WITH(FIELD(size_bytes), uint64_t, UINT64_MAX), -EBADMSG);
    CHECK_EQ(WITH(FIELD(flags), uint32_t, XSEG_VOL_HELD), -EBADMSG);
    CHECK_EQ(WITH(FIELD(nr_entries), uint32_t, 1), -EBADMSG);
    CHECK_EQ(WITH(FIELD(nr_entries), uint32_t, UINT32_MAX), -EBADMSG);
    CHECK_EQ(WITH(FIELD(name_len), uint16_t, 0), -EBADMSG);
    CHECK_EQ(WITH(FIELD(name_len), uint16_t, 300), -EBADMSG);
    CHECK_EQ(WITH(FIELD(reserved0), uint8_t, 1), -EBADMSG);
    CHECK_EQ(WITH(FIELD(reserved1), uint8_t, 1), -EBADMSG);
    CHECK_EQ(WITH(FIELD(journal_least_bytes), uint64_t, UINT64_MAX), -EBADMSG);
    CHECK_EQ(WITH(ENTRY(type), uint32_t, 0), -EBADMSG);
    CHECK_EQ(WITH(ENTRY(type), uint32_t, 3), -EBADMSG);
    CHECK_EQ(WITH(ENTRY(type), uint32_t, MAP_ENTRY_LAYER), -EBADMSG);
    CHECK_EQ(WITH(ENTRY(flags), uint32_t, 2), -EBADMSG);
    CHECK_EQ(WITH(ENTRY(length_bytes), uint64_t, UINT64_MAX), -EBADMSG);
    CHECK_EQ(WITH(ENTRY(length_bytes) + sizeof(struct map_entry), uint64_t, 5000),
             -EBADMSG);
    uint8_t zero[16] = {0};
    CHECK_EQ(unpack_with(FIELD(uuid), zero, sizeof zero), -EBADMSG);
    size_t name = HEADER + 2 * sizeof(struct map_entry);
    CHECK_EQ(WITH(name, uint8_t, 0), -EBADMSG);
    CHECK_EQ(WITH(name, uint8_t, 0xff), -EBADMSG);
    CHECK_EQ(WITH(name, uint8_t, 0xc3), -EBADMSG); /* a first byte without its second */
}

static void random_text(uint64_t *seed, struct map_name *n, size_t least)
{
    static const char *letters[] = {"a", "\xc3\xbc", "\xe2\x82\xac",
                                    "\xf0\x9f\x98\x80"};
    size_t chars = least + check_next(seed) % 60;
    n->len = 0;
    for (size_t i = 0; i < chars; i++) {
        const char *letter = letters[check_next(seed) % 4];
        memcpy(n->bytes + n->len, letter, strlen(letter));
        n->len = (uint16_t)(n->len + strlen(letter));
    }
    n->bytes[n->len] = 0;
}

static void test_random_round_trip(uint64_t *seed)
{
    static struct map_entry entries[MAP_HEADER_MAX_ENTRIES];
    static uint8_t bytes[MAP_HEADER_MAX_BYTES];
    struct map_header h = {0}, back;
    const char *why;
    h.version = check_next(seed);
    h.fence = check_next(seed);
    h.size_bytes = check_next(seed) % (MAP_SIZE_MAX + 1);
    h.epoch = check_next(seed);
    h.created_ns = check_next(seed);
    h.journal = check_next(seed);
    h.journal_least_bytes = check_next(seed) % MAP_JOURNAL_MAX_BYTES;
    h.block_bytes = XSEG_BLOCK_MIN_BYTES << check_next(seed) % 7;
    h.flags = (uint32_t)check_next(seed) & MAP_HEADER_FLAGS;
    memset(h.uuid, (int)(1 + check_next(seed) % 255), 16);
    h.nr_entries = (uint32_t)(check_next(seed) % (MAP_HEADER_MAX_ENTRIES + 1));
    h.entries = entries;
    for (uint32_t i = 0; i < h.nr_entries; i++) {
        struct map_entry *e = &entries[i];
        memset(e, 0, sizeof *e);
        e->type = 1 + (uint32_t)(check_next(seed) % 2);
        e->flags = (uint32_t)(check_next(seed) % 2);
        e->limit_bytes = check_next(seed);
        memset(e->id, (int)check_next(seed), 16);
        e->length_bytes = check_next(seed) % MAP_JOURNAL_MAX_BYTES;
        if (e->type == MAP_ENTRY_LAYER) {
            e->length_bytes = (1 + check_next(seed) % UINT32_MAX) * LAYER_PAGE_BYTES;
        } else {
            e->number = check_next(seed);
            e->extent_epoch = check_next(seed);
        }
    }
    random_text(seed, &h.name, 1);
    random_text(seed, &h.parent, 0);
    random_text(seed, &h.moving_to, 0);
    random_text(seed, &h.moved_from, 0);
    size_t len = pack(&h, bytes, sizeof bytes);
    CHECK_EQ(map_header_unpack(bytes, len, &back, &why), 0);
    CHECK(same(&h, &back));
    map_header_fini(&back);
}

int main(void)
{
    uint64_t seed = check_seed();
    test_golden();
    test_version_1_is_read();
    test_every_flipped_bit_is_refused();
    test_contradictions_are_refused();
    for (int i = 0; i < 200; i++)
        test_random_round_trip(&seed);
    return 0;
}
