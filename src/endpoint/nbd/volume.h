/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume of a connection: OPEN and CLOSE at vlmcd, LIST at control.
 */
#ifndef ENDPOINT_NBD_VOLUME_H
#define ENDPOINT_NBD_VOLUME_H

#include <stdint.h>

#include "endpoint/nbd/conn.h"

/**
 * Ask for what conn->volume_step says, now or as soon as a descriptor is free.  OPEN of
 * a snapshot that is refused is tried again read-only.  The answer ends in one of
 * the calls below, or in the end of a closed connection.
 */
void nbd_volume_ask(struct nbd_conn *conn);

/**
 * Ask for `step` a little later: who is needed is not there.  It ends, at the latest,
 * with the time for a handshake.
 */
void nbd_volume_ask_later(struct nbd_conn *conn, enum nbd_volume_step step);

/* Called with the answers (options.c). */

/** The volume is open (0), or not (-errno). */
void nbd_volume_opened(struct nbd_conn *conn, int64_t result);
/** The volume that INFO looked at is closed again. */
void nbd_volume_closed(struct nbd_conn *conn);

/* ---- LIST (exports.c) -----------------------------------------------------------
 */

/** Begin to list: 0, or -ENOMEM. */
int nbd_exports_start(struct nbd_conn *conn);
/** Ask for the next page; conn->volume_step is NBD_VOLUME_LIST.  False: must wait. */
bool nbd_exports_ask(struct nbd_conn *conn);
/** The page before was sent: ask for the next one.  True if the list goes on. */
bool nbd_exports_continue(struct nbd_conn *conn);
/** Forget the list of a connection, unless an answer is still to come. */
void nbd_exports_free(struct nbd_conn *conn);

/** A list is whole (0), or failed (-errno). (options.c) */
void nbd_exports_finished(struct nbd_conn *conn, int64_t result);

#endif
