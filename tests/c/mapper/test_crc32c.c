/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C: known answers, and the fast variant against the portable one. */
#include "common/crc32c.h"

#include "check.h"

static void test_known_answers(void)
{
    uint8_t bytes[32];
    CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(crc32c_table(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(crc32c(0, "", 0), 0);
    memset(bytes, 0, sizeof bytes); /* RFC 3720, appendix B.4 */
    CHECK_EQ(crc32c(0, bytes, sizeof bytes), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    CHECK_EQ(crc32c(0, bytes, sizeof bytes), 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    CHECK_EQ(crc32c(0, bytes, sizeof bytes), 0x46dd794eu);
}

static void test_variants_agree(uint64_t *seed)
{
    static uint8_t bytes[10000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)check_next(seed);
    for (int round = 0; round < 3000; round++) {
        size_t at = check_next(seed) % 64, len = check_next(seed) % 5000;
        size_t cut = len ? check_next(seed) % len : 0;
        uint32_t whole = crc32c(7, bytes + at, len);
        CHECK_EQ(whole, crc32c_table(7, bytes + at, len));
        CHECK_EQ(whole,
                 crc32c(crc32c(7, bytes + at, cut), bytes + at + cut, len - cut));
    }
}

int main(void)
{
    uint64_t seed = check_seed();
    printf("accelerated: %d\n", crc32c_is_accelerated());
    test_known_answers();
    test_variants_agree(&seed);
    return 0;
}
