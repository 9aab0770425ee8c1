/* SPDX-License-Identifier: Apache-2.0 */
/* Flushes of a map: rounds, and the appends that they are made of. */
#ifndef MAPPER_FLUSH_H
#define MAPPER_FLUSH_H

#include <stdint.h>

#include "mapper/map.h"

/** Start a round if there is something to do. */
void flush_pump(struct map *map);
/** Answer all flushes, waiting or of the round under way. */
void flush_fail(struct map *map, int error);
/** Append marks of the round, as many as one record takes.  0 or -ENOMEM. */
int append_start(struct map *map);
/** Marks in the append under way. */
uint32_t append_nr(const struct map *map);

#endif
