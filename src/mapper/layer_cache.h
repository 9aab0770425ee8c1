/* SPDX-License-Identifier: Apache-2.0 */
/* Open layers, shared by all maps that have them on their stack. */
#ifndef MAPPER_LAYER_CACHE_H
#define MAPPER_LAYER_CACHE_H

#include <stdint.h>

#include "mapper/page_cache.h"

/** The layer of that uuid, with a reference; NULL without memory.  Reads nothing. */
struct map_layer *map_layer_get(struct mapper *m, const uint8_t uuid[16]);
void map_layer_put(struct map_layer *layer);
/** Read the superblock and the extents unless that is done or on its way. */
void map_layer_prepare(struct map_layer *layer);

#endif
