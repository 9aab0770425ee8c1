/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake: fixed newstyle negotiation.
 */
#ifndef ENDPOINT_NBD_HANDSHAKE_H
#define ENDPOINT_NBD_HANDSHAKE_H

#include <stdint.h>

#include "endpoint/nbd/conn.h"

/** Queue the server's first words.  0 or -ENOMEM. */
int nbd_handshake_greet(struct nbd_conn *conn);

/** Queue a reply to the option being served (conn->option).  0 or -ENOMEM. */
int nbd_option_reply(struct nbd_conn *conn, uint32_t type, const void *data,
                     uint32_t len);

/** The same with an error for people to read. */
int nbd_option_error(struct nbd_conn *conn, uint32_t type, const char *message);

/** Serve one whole option (options.c). */
enum nbd_step nbd_option_serve(struct nbd_conn *conn, const uint8_t *data,
                               uint32_t len);

/** The handshake ends: requests come next. */
void nbd_handshake_done(struct nbd_conn *conn);

#endif
