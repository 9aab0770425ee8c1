/* SPDX-License-Identifier: Apache-2.0 */
/* A reference: where sectors come from. */
#ifndef MAPPER_REF_H
#define MAPPER_REF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "mapper/map_format.h"

/** ZERO, CONTENT(sha256) or EXTENT(uuid, epoch); id as in struct xseg_object. */
struct map_ref {
    uint32_t kind; /* enum xseg_reference_kind */
    uint8_t id[32];
};

static inline struct map_ref map_ref_zero(void)
{
    return (struct map_ref){.kind = XSEG_REF_ZERO};
}

static inline struct map_ref map_ref_content(const uint8_t digest[32])
{
    struct map_ref ref = {.kind = XSEG_REF_CONTENT};
    memcpy(ref.id, digest, 32);
    return ref;
}

static inline struct map_ref map_ref_extent(const uint8_t uuid[16], uint64_t epoch)
{
    struct map_ref ref = {.kind = XSEG_REF_EXTENT};
    memcpy(ref.id, uuid, 16);
    memcpy(ref.id + 16, &epoch, 8);
    return ref;
}

static inline bool map_ref_equal(const struct map_ref *a, const struct map_ref *b)
{
    return a->kind == b->kind && memcmp(a->id, b->id, 32) == 0;
}

#endif
