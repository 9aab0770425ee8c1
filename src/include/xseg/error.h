/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one meaning of every error number that crosses the segment.
 *
 * A function that returns int (or a request's `result`) gives 0 or a count on
 * success and a negated errno on failure.  The global errno carries nothing.
 *
 *   -EAGAIN           ring full, or nothing there yet: try again
 *   -ENOBUFS          no request descriptor or no buffer of that size is free
 *   -EOWNERDEAD       the peer that held the request died
 *   -EPIPE            no process is bound to the port
 *   -EPERM            a segment of another user, or one that every user may write
 *   -EBADMSG          checksum or digest mismatch: stored bytes are damaged
 *   -EPROTONOSUPPORT  layout or format version this build does not speak
 *   -ENOENT           no such volume, object, port or segment
 *   -EEXIST           the name is taken
 *   -EBUSY            the lease is held by somebody else, or the volume is in use
 *   -EROFS            a snapshot, or opened read-only
 *   -ENOSPC           the storage is full
 *   -ESTALE           an older fence, version or handle than the current one
 *   -ERANGE           an append that does not begin where its object ends
 *   -ETIMEDOUT        the wait ended without an answer
 *   -EINVAL           the caller's mistake: range, alignment, unknown op
 *   -EOPNOTSUPP       the peer knows the op and does not offer it
 *   -ENAMETOOLONG     a name longer than XSEG_NAME_MAX
 *   -ECANCELED        the peer was stopped before it served the request
 */
#ifndef XSEG_ERROR_H
#define XSEG_ERROR_H

#include <errno.h>

#endif
