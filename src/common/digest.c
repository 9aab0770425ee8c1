/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block names, by libcrypto, which picks the processor's SHA instructions.
 *
 * Called by import and hashing (Python threads without the GIL) and by blockers that
 * verify what they read.  Most images are half zeros, so the scan for trailing zeros
 * comes first and runs at memory speed.
 */
#include "common/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

/* 128 bytes at a time: wide enough for any vector unit the compiler may target. */
typedef uint64_t lanes_t __attribute__((vector_size(32)));
#define SCAN_BYTES (4 * sizeof(lanes_t))

static int scan_is_zero(const uint8_t *bytes)
{
    lanes_t lanes[4];
    memcpy(lanes, bytes, sizeof(lanes)); /* any alignment; compiles to plain loads */
    lanes_t any = (lanes[0] | lanes[1]) | (lanes[2] | lanes[3]);
    return (any[0] | any[1] | any[2] | any[3]) == 0;
}

size_t digest_stripped_bytes(const void *data, size_t len)
{
    const uint8_t *bytes = data;

    while (len >= SCAN_BYTES && scan_is_zero(bytes + len - SCAN_BYTES))
        len -= SCAN_BYTES;
    while (len > 0 && bytes[len - 1] == 0)
        len--;
    return len;
}

int digest_block_id(const void *data, size_t len, uint8_t id[DIGEST_BYTES])
{
    size_t stripped = digest_stripped_bytes(data, len);

    if (EVP_Digest(stripped ? data : "", stripped, id, NULL, EVP_sha256(), NULL) != 1)
        return -EIO;
    return 0;
}
