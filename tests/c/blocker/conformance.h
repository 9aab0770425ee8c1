/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every backend must do, whatever it is made of (conformance.c): the store under
 * test, and the groups of tests.
 */
#ifndef TESTS_BLOCKER_CONFORMANCE_H
#define TESTS_BLOCKER_CONFORMANCE_H

#include "blocker/client.h"

extern struct setup setup;
extern struct server *const s;
extern uint8_t page[XSEG_BUFFER_MAX_BYTES], got[XSEG_BUFFER_MAX_BYTES];

void fill(uint8_t *data, size_t size, uint64_t seed);
bool all(const uint8_t *data, size_t size, uint8_t value);
/** True if the store outlives its process. */
bool survives(void);
/** End the blockers and start them anew, if the store survives that. */
void restart(void);

#define LONG_NS (UINT64_C(3600) * 1000000000)

void test_data(void);
void test_leases(void);
void test_presences(void);
void test_listing(void);
void test_generations(void);
void test_requests(void);
void test_model(void);
void test_seals(void);
void test_notify(void);

#endif
