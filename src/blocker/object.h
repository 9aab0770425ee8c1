/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Object names as a blocker sees them: which are well formed, and how they sort.
 */
#ifndef BLOCKER_OBJECT_H
#define BLOCKER_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xseg/payload.h"

/** True if the kind is known and every byte of the id that the kind leaves unused is 0.
 */
bool blk_object_valid(const struct xseg_object *object);

bool blk_object_equal(const struct xseg_object *a, const struct xseg_object *b);
uint64_t blk_object_hash(const struct xseg_object *object);

/** The number of an EXTENT (epoch) or JOURNAL: bytes 16 to 23 of its id. */
uint64_t blk_object_number(const struct xseg_object *object);

/** Value of a hex digit, lower case only; -1 if it is none. */
int blk_hex_digit(char c);
/** Parse 2 * nr hex digits, lower case only.  False if there is anything else. */
bool blk_parse_hex(const char *text, uint8_t *out, size_t nr);

/** True for kinds that start with struct xseg_versioned and are replaced by version. */
bool blk_object_is_versioned(const struct xseg_object *object);

/** True for kinds that keep the generation of the change that needed them last. */
bool blk_object_has_generation(const struct xseg_object *object);

/** The lease that guards a journal: same uuid. */
struct xseg_object blk_object_lease_of(const struct xseg_object *journal);

/**
 * Where an object stands in a listing of its kind: LIST goes by rising keys, and its
 * cursor is the smallest key not yet listed.  Digests are their own keys, which lets a
 * lister skip whole directories; ids that start with a uuid are hashed, since many
 * extents share one uuid.
 */
uint64_t blk_object_key(const struct xseg_object *object);

/** A cursor of LIST made of a key, and the key of such a cursor.  0 is both ends.
 *  -EINVAL: not one of ours. */
void blk_cursor_from_key(uint64_t key, struct xseg_opaque *out);
int blk_cursor_to_key(const struct xseg_opaque *cursor, uint64_t *out);

#endif
