/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owner words: does the process that one names still run?
 */
#include "xseg/owner.h"

#include "xseg/process.h"

bool process_packed_alive(uint64_t packed)
{
    uint64_t start = packed & ((UINT64_C(1) << PROCESS_START_BITS) - 1);
    return packed != 0 &&
           xseg_process_alive((uint32_t)(packed >> PROCESS_START_BITS), start);
}

bool process_memo_alive(struct process_memo *memo, uint64_t packed)
{
    for (uint32_t i = 0; i < memo->nr; i++) {
        if (memo->packed[i] == packed)
            return memo->alive[i];
    }
    bool alive = process_packed_alive(packed);
    if (memo->nr < sizeof(memo->packed) / sizeof(memo->packed[0])) {
        memo->packed[memo->nr] = packed;
        memo->alive[memo->nr] = alive;
        memo->nr++;
    }
    return alive;
}
