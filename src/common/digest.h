/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name of a content block: SHA-256 of its bytes with trailing zeros stripped.
 */
#ifndef COMMON_DIGEST_H
#define COMMON_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES 32

/**
 * Length of `data` without its trailing zero bytes.
 *
 * @param data  in: `len` bytes, any alignment; may be NULL if `len` is 0.
 * Returns 0 to `len` [bytes]; 0 means all of it is zero.
 * Thread-safety: safe.  Blocks: never.
 */
size_t digest_stripped_bytes(const void *data, size_t len);

/**
 * Name a block.
 *
 * @param data  in: `len` bytes, any alignment; may be NULL if `len` is 0.
 * @param id    out: the SHA-256 of the stripped bytes.
 * Returns 0; -EIO when libcrypto refuses (SHA-256 disabled by its configuration,
 * or out of memory).
 * Thread-safety: safe.  Blocks: never; about 2 ms for 4 MiB without SHA instructions.
 */
int digest_block_id(const void *data, size_t len, uint8_t id[DIGEST_BYTES]);

#endif
