/* SPDX-License-Identifier: Apache-2.0 */
/* Words of the mapper's log. */
#ifndef MAPPER_TEXT_H
#define MAPPER_TEXT_H

#include <stdint.h>

#define MAP_UUID_TEXT 33u
/** A uuid as 32 hexadecimal digits; returns `out`. */
const char *map_uuid_text(const uint8_t uuid[16], char out[MAP_UUID_TEXT]);
/** What an error of stored bytes means, to follow the name of what has them. */
const char *map_error_text(int rc);

#endif
