/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli polynomial, RFC 3720 appendix B.4): the checksum of every stored
 * map structure.  Any thread.
 */
#ifndef COMMON_CRC32C_H
#define COMMON_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Continue a CRC-32C over `len` bytes.
 *
 * @param crc   0 to start, or the result for the bytes before these.
 * Returns the checksum.  Uses the processor's instruction where it has one.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/** The portable variant: the reference that the other must match bit for bit. */
uint32_t crc32c_table(uint32_t crc, const void *data, size_t len);

/** True if crc32c() runs on the processor's own instruction. */
bool crc32c_is_accelerated(void);

#endif
