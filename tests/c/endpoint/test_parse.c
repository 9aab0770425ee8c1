/* SPDX-License-Identifier: Apache-2.0 */
/* Option data: what is taken, what is refused, and that any bytes do no harm. */
#include <errno.h>

#include "check.h"
#include "endpoint/nbd/parse.h"
#include "endpoint/nbd/proto.h"

/** An exact copy on the heap, so that a read past the end is found by the sanitizer. */
static uint8_t *exact(const uint8_t *data, uint32_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    memcpy(copy, data, len);
    return copy;
}

static int info(const uint8_t *data, uint32_t len, struct nbd_info_query *out)
{
    uint8_t *copy = exact(data, len);
    int rc = nbd_parse_info(copy, len, out);

    if (!rc)
        CHECK(out->name_len <= len && out->name >= copy &&
              out->name + out->name_len <= copy + len);
    free(copy);
    return rc;
}

static int meta(const uint8_t *data, uint32_t len, struct nbd_meta_query *out)
{
    uint8_t *copy = exact(data, len);
    int rc = nbd_parse_meta(copy, len, out);

    free(copy);
    return rc;
}

static void info_takes_what_is_whole(void)
{
    static const uint8_t data[] = {0, 0, 0, 2, 'a', 'b', 0, 3, 0, 3, 0, 1, 0, 99};
    struct nbd_info_query q;

    CHECK_EQ(info(data, sizeof(data), &q), 0);
    CHECK_EQ(q.name_len, 2);
    CHECK_EQ(q.wanted, 1 << NBD_INFO_BLOCK_SIZE | 1 << NBD_INFO_NAME);
    for (uint32_t n = 0; n < sizeof(data); n++)
        CHECK_EQ(info(data, n, &q), -EINVAL);
}

static void meta_takes_what_is_whole(void)
{
    static const uint8_t data[] =
        "\0\0\0\1x\0\0\0\2\0\0\0\5base:\0\0\0\17base:allocation";
    struct nbd_meta_query q;

    CHECK_EQ(meta(data, sizeof(data) - 1, &q), 0);
    CHECK_EQ(q.nr_queries, 2);
    CHECK(q.base && q.allocation);
    for (uint32_t n = 0; n < sizeof(data) - 1; n++)
        CHECK_EQ(meta(data, n, &q), -EINVAL);
}

static void long_strings_are_refused(void)
{
    static uint8_t data[8192];
    struct nbd_info_query q;
    struct nbd_meta_query m;

    nbd_put32(data, NBD_MAX_STRING_BYTES);
    CHECK_EQ(info(data, 4 + NBD_MAX_STRING_BYTES + 2, &q), 0);
    nbd_put32(data, NBD_MAX_STRING_BYTES + 1);
    CHECK_EQ(info(data, sizeof(data), &q), -ENAMETOOLONG);
    CHECK_EQ(meta(data, sizeof(data), &m), -ENAMETOOLONG);
}

static void any_bytes_do_no_harm(void)
{
    uint64_t state = check_seed();

    for (int i = 0; i < 100000; i++) {
        uint8_t data[64];
        uint32_t len = (uint32_t)(check_next(&state) % sizeof(data));
        struct nbd_info_query q;
        struct nbd_meta_query m;
        /* Mostly small numbers, so that lengths often make sense. */
        for (uint32_t n = 0; n < len; n++)
            data[n] = (uint8_t)(check_next(&state) % 3 ? 0 : check_next(&state) % 20);
        info(data, len, &q);
        meta(data, len, &m);
    }
}

int main(void)
{
    info_takes_what_is_whole();
    meta_takes_what_is_whole();
    long_strings_are_refused();
    any_bytes_do_no_harm();
    return 0;
}
