/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random layers and journals, what they say sector by sector, and reading them back
 * with the product's codecs.
 */
#ifndef TESTS_MAPPER_TABLES_H
#define TESTS_MAPPER_TABLES_H

#include <stdbool.h>

#include "mapper/journal.h"
#include "mapper/layer_write.h"
#include "mapper/resolve.h"

struct blob {
    uint8_t *bytes;
    size_t size;
};
void blob_put(struct blob *blob, uint64_t offset, const void *data, size_t len);
void blob_fini(struct blob *blob);
/** layer_write_fn over a struct blob. */
int blob_write(void *ctx, uint64_t offset, const void *data, size_t len);

/** What a table or a map says of one sector. */
struct says {
    bool set;
    bool vague; /* zeros that may as well be a hole */
    struct map_ref ref;
};

/** Random number below `n`. */
uint32_t below(uint64_t *random, uint64_t n);

/** Write a random layer of `nr_blocks` blocks; `says` has a record per sector. */
void random_layer(uint64_t *random, const uint8_t uuid[16], uint32_t block_bytes,
                  uint32_t nr_blocks, struct blob *out, struct says *says);

/** Write random journal 0 of volume `extent`; marks refer to EXTENT(extent, epoch). */
void random_journal(uint64_t *random, const uint8_t extent[16], uint64_t epoch,
                    uint32_t nr_sectors, struct blob *out, struct says *says);

/** A stack entry read from a blob, as a source of map_resolve or map_merge. */
struct table_source {
    struct map_table table;
    struct layer layer;
    struct blob *blob;
    struct layer_page pages[LAYER_MAX_HEIGHT];
    uint32_t nr_gets; /* pages asked for */
};
/** The blob must outlive it; -errno if it is damaged. */
int table_source_init(struct table_source *t, const struct map_entry *entry,
                      struct blob *blob, uint32_t block_bytes, struct map_source *out);
void table_source_fini(struct table_source *t);

#endif
