/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names in control's answer to LIST: a scanner for that one JSON document.
 */
#ifndef CLIENT_NAMES_H
#define CLIENT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** One name, UTF-8, valid during the call.  Returns 0, or -errno to stop. */
typedef int client_name_fn(void *arg, const uint8_t *name, size_t len);

/**
 * Read {"volumes": [{"name": "...", ...}, ...], "more": bool, ...}.
 *
 * @param json  len bytes of UTF-8 [bytes]; need not end in NUL.
 * @param each  called for every element that has a name of 1 to 255 bytes, in order.
 * @param more  out: the member "more", false if there is none.
 * Returns the number of names; -EBADMSG if it is not such a document; what `each` said.
 * Thread-safety: safe.  Blocks: never.  Recursion is bounded.
 */
int64_t client_names_parse(const char *json, size_t len, client_name_fn *each,
                           void *arg, bool *more);

/**
 * Append `name` to `out` as a JSON string with its quotes.
 * Returns the length written [bytes], 0 if `room` is not enough (6 * len + 2 always
 * is).
 */
size_t client_names_quote(char *out, size_t room, const uint8_t *name, size_t len);

#endif
