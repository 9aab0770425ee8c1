/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden files: bytes that this format had when it was fixed, in tests/format.  What is
 * written must equal them, and they must read back, for as long as the format lives.
 * TEST_GOLDEN_WRITE=1 writes them anew (only when a format gets a new version).
 */
#ifndef TESTS_MAPPER_GOLDEN_H
#define TESTS_MAPPER_GOLDEN_H

#include "check.h"

/** Read the bytes of an older version, which is not written any more. */
static inline size_t golden_read(const char *name, void *bytes, size_t room)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    FILE *f = fopen(path, "rb");
    CHECK(f);
    size_t len = fread(bytes, 1, room, f);
    CHECK(len > 0 && len < room);
    fclose(f);
    return len;
}

static inline void golden_check(const char *name, const void *bytes, size_t len)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    if (getenv("TEST_GOLDEN_WRITE")) {
        FILE *f = fopen(path, "wb");
        CHECK(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
    }
    FILE *f = fopen(path, "rb");
    CHECK(f);
    unsigned char *want = malloc(len + 1);
    CHECK(want);
    CHECK_EQ(fread(want, 1, len + 1, f), len);
    CHECK(memcmp(want, bytes, len) == 0);
    fclose(f);
    free(want);
}

#endif
