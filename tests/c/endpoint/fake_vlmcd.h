/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A composer and a control in one: volumes in memory, behind the real ports.
 *
 * Serves XSEG_PORT_VLMCD and XSEG_PORT_CONTROL on a reactor, with the semantics of
 * xseg/payload.h and none of the storage, so that the endpoint is tested alone and
 * made to meet errors on purpose.
 *
 *   disk      FAKE_DISK_BYTES, read-write, sparse
 *   snap      FAKE_SNAP_BYTES, read-only, its first sector holds 0x5a; a plain OPEN
 *             tells by its flags
 *   strict    the same, but a plain OPEN says -EROFS
 *   odd       FAKE_ODD_BYTES, a size that is no multiple of anything
 *   huge      16 TiB of zeros; writes are accepted and forgotten
 *   busy      -EBUSY
 *   v%05u     FAKE_MANY of them, listed only
 */
#ifndef TESTS_FAKE_VLMCD_H
#define TESTS_FAKE_VLMCD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "reactor/reactor.h"

#define FAKE_DISK_BYTES (96u << 20)
#define FAKE_SNAP_BYTES (1u << 20)
#define FAKE_ODD_BYTES  ((1u << 20) + 4097u)
#define FAKE_HUGE_BYTES (UINT64_C(16) << 40)
#define FAKE_MANY       3000u

struct fake_vlmcd {
    struct reactor *reactor;
    struct xseg_port *vlmcd, *control;
    uint8_t *disk, *snap, *odd; /* contents */
    uint8_t *present;           /* one byte per sector of disk */
    struct reactor_poller poller;
    struct xseg_request *held[1024];
    uint32_t nr_held;

    /* Set by a test while the server runs. */
    _Atomic int64_t fail_offset; /* requests that cover it fail; -1: none */
    _Atomic int64_t fail_result;
    atomic_uint nr_gone_opens; /* so many OPEN and LIST find nobody */
    atomic_uint nr_unserved;   /* so many data requests end with unserved_result */
    _Atomic int64_t unserved_result;
    _Atomic uint64_t since; /* fence from which on the lease is this instance's alone */
    _Atomic uint8_t uuid;   /* of every volume, its first byte */
    atomic_bool hold; /* keep data requests unanswered; then answer in reverse order */

    /* Read by a test. */
    atomic_uint life;     /* raised by fake_vlmcd_die: a handle belongs to one life */
    atomic_uint nr_opens; /* open now */
    atomic_uint nr_flushes;
    atomic_uint nr_fua;
    atomic_uint nr_data; /* READ, WRITE, ZERO, DISCARD, MAPR served */
    atomic_uint nr_writes;
    atomic_uint nr_zeros; /* ZERO and DISCARD served */
    atomic_uint nr_held_now;
};

/** Bind both ports and serve.  0 or -errno. */
int fake_vlmcd_start(struct fake_vlmcd *fake, struct reactor *r);
/** From now on it is another process: it knows no handle of before. */
void fake_vlmcd_die(struct fake_vlmcd *fake);
void fake_vlmcd_stop(struct fake_vlmcd *fake);

#endif
