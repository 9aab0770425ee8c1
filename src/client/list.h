/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of all volumes, asked of control page by page.
 *
 * The owner asks for the next page when it has used the one before, so that a client of
 * the endpoint that does not read costs one page.
 */
#ifndef CLIENT_LIST_H
#define CLIENT_LIST_H

#include <stddef.h>

#include "client/client.h"

struct client_list;

/**
 * Begin to list.
 *
 * @param name  called for each name of a page, in order: UTF-8, valid during the call.
 *              Returns 0, or -errno, which ends the page with it.
 * @param page  called at the end of each page: 1 if there are more, 0 at the end,
 *              -errno.  While control is away the page is asked for again for 30 s.
 * @param arg   of both.
 * Returns the list, to be freed with client_list_free; NULL when out of memory.
 */
struct client_list *
client_list_start(struct client *client,
                  int (*name)(void *arg, const uint8_t *name, size_t len),
                  void (*page)(void *arg, int64_t result), void *arg);

/** Ask for the next page.  Only after `page` was called with 1. */
void client_list_next(struct client_list *list);

/** Forget it, at any time: nothing is called any more.  NULL is fine. */
void client_list_free(struct client_list *list);

#endif
