/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the data of options: pure functions over bytes that came from a client.
 */
#ifndef ENDPOINT_NBD_PARSE_H
#define ENDPOINT_NBD_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/** Data of INFO and GO: name length 4, name, number 2, information types 2 each. */
struct nbd_info_query {
    const uint8_t *name; /* in the data */
    uint32_t name_len;   /* [bytes] */
    uint16_t wanted;     /* bit per enum nbd_info; unknown types are left out */
};

/**
 * @param data  len bytes of option data; the result points into it.
 * Returns 0; -EINVAL if lengths contradict each other; -ENAMETOOLONG for a name longer
 * than the protocol's strings may be.
 */
int nbd_parse_info(const uint8_t *data, uint32_t len, struct nbd_info_query *out);

/**
 * Data of LIST_META_CONTEXT and SET_META_CONTEXT: name length 4, name, number 4, then
 * length 4 and text of each query.
 */
struct nbd_meta_query {
    const uint8_t *name;
    uint32_t name_len; /* [bytes] */
    uint32_t nr_queries;
    bool allocation; /* a query names base:allocation */
    bool base;       /* a query is "base:", which lists all of that namespace */
};

/** As nbd_parse_info. */
int nbd_parse_meta(const uint8_t *data, uint32_t len, struct nbd_meta_query *out);

#endif
