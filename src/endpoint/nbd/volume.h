/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection asks of other peers for its options: its volume, and the list.
 */
#ifndef ENDPOINT_NBD_VOLUME_H
#define ENDPOINT_NBD_VOLUME_H

#include <stdint.h>

#include "endpoint/nbd/conn.h"

/* ---- the volume (volume.c) ---------------------------------------------------------
 */

/** Prepare the volume of a new connection. */
void nbd_volume_init(struct nbd_conn *conn);

/** Open the volume conn->name.  Ends in nbd_volume_opened. */
void nbd_volume_open(struct nbd_conn *conn, enum client_open_mode mode);

/** Close it, if it is open or about to be.  Ends in nbd_volume_closed, or in the end of
 *  a closed connection. */
void nbd_volume_close(struct nbd_conn *conn);

/* Called with the answers (options.c). */

/** The volume is open (0), or not (-errno). */
void nbd_volume_opened(struct nbd_conn *conn, int64_t result);
/** The volume that INFO looked at is closed again. */
void nbd_volume_closed(struct nbd_conn *conn);

/* ---- LIST (exports.c) --------------------------------------------------------------
 */

/** Begin to list: 0, or -ENOMEM. */
int nbd_exports_start(struct nbd_conn *conn);
/** The page before was sent: ask for the next one. */
void nbd_exports_continue(struct nbd_conn *conn);
/** Forget the list of a connection. */
void nbd_exports_free(struct nbd_conn *conn);

/** A list is whole (0), or failed (-errno). (options.c) */
void nbd_exports_finished(struct nbd_conn *conn, int64_t result);

#endif
