/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every endpoint must do (src/endpoint/endpoint.h), whatever its clients speak.
 *
 * An endpoint brings a driver: a blocking client of it.  The suite runs the endpoint over
 * the real composer and a store in memory, all on one reactor in a thread; the store
 * answers late and out of order, and ends the test if data and marks become durable in
 * the wrong order.  The one volume is called "v".
 */
#ifndef TESTS_ENDPOINT_CONFORMANCE_H
#define TESTS_ENDPOINT_CONFORMANCE_H

#include "endpoint/endpoint.h"

/** A blocking client.  Calls return 0 or -errno, and are made on the test's thread. */
struct endpoint_driver {
    const char *kind;
    /** Called before the endpoint is made: what it needs (a listening socket). */
    void (*prepare)(struct endpoint_options *options);
    void (*clean)(void);

    /** Open "v"; the client is given to all calls below. */
    void *(*open)(uint64_t *size_bytes, bool *read_only);
    void (*close)(void *client);
    /** Let go of a client whose server has gone. */
    void (*drop)(void *client);
    int (*read)(void *client, uint64_t offset, void *data, uint32_t length);
    int (*write)(void *client, uint64_t offset, const void *data, uint32_t length,
                 bool durable);
    int (*flush)(void *client);
    int (*discard)(void *client, uint64_t offset, uint32_t length);
    int (*zero)(void *client, uint64_t offset, uint32_t length);
};

/** Of the endpoint under test. */
extern const struct endpoint_driver endpoint_driver;

#endif
