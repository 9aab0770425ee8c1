/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a segment sound?  What a process leaves that dies at any instruction is sound: a
 * reap gives it back.  What only a broken process can have written is not, and no reap
 * mends it: the segment must be made anew.
 */
#ifndef XSEG_CHECK_H
#define XSEG_CHECK_H

#include <stdint.h>

struct xseg_segment;

/** Receives one line about one thing that is wrong. */
typedef void xseg_check_report(void *arg, const char *text);

/**
 * Look at everything that must hold, while peers go on working.
 *
 * What changes all the time is looked at again and again: it is wrong only if it stays
 * wrong.
 *
 * @param report  called for each finding, on this thread; NULL: only count.
 * Returns how many things are wrong; 0 for a sound segment.
 * Thread-safety: safe; writes nothing.  Blocks: some milliseconds.
 */
uint32_t xseg_check(const struct xseg_segment *seg, xseg_check_report *report,
                    void *arg);

#endif
