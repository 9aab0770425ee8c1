/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the data of options (see parse.h).  Any bytes may come; none is trusted.
 */
#include "endpoint/nbd/parse.h"

#include <errno.h>

#include "endpoint/nbd/proto.h"

struct cursor {
    const uint8_t *at;
    uint32_t left; /* [bytes] */
};

static bool take32(struct cursor *c, uint32_t *value)
{
    if (c->left < 4)
        return false;
    *value = nbd_get32(c->at);
    c->at += 4;
    c->left -= 4;
    return true;
}

static bool take16(struct cursor *c, uint16_t *value)
{
    if (c->left < 2)
        return false;
    *value = nbd_get16(c->at);
    c->at += 2;
    c->left -= 2;
    return true;
}

/** A string with its length in front: 0, -EINVAL, -ENAMETOOLONG. */
static int take_string(struct cursor *c, const uint8_t **text, uint32_t *len)
{
    if (!take32(c, len) || *len > c->left)
        return -EINVAL;
    if (*len > NBD_MAX_STRING_BYTES)
        return -ENAMETOOLONG;
    *text = c->at;
    c->at += *len;
    c->left -= *len;
    return 0;
}

int nbd_parse_info(const uint8_t *data, uint32_t len, struct nbd_info_query *out)
{
    struct cursor c = {data, len};
    uint16_t nr, type;
    int rc = take_string(&c, &out->name, &out->name_len);

    if (rc)
        return rc;
    if (!take16(&c, &nr) || c.left != 2u * nr)
        return -EINVAL;
    out->wanted = 0;
    while (take16(&c, &type))
        if (type <= NBD_INFO_BLOCK_SIZE)
            out->wanted |= (uint16_t)(1u << type);
    return 0;
}

static bool is(const uint8_t *text, uint32_t len, const char *word)
{
    return len == strlen(word) && memcmp(text, word, len) == 0;
}

int nbd_parse_meta(const uint8_t *data, uint32_t len, struct nbd_meta_query *out)
{
    struct cursor c = {data, len};
    int rc = take_string(&c, &out->name, &out->name_len);

    if (rc)
        return rc;
    if (!take32(&c, &out->nr_queries))
        return -EINVAL;
    out->allocation = out->base = false;
    /* Each query takes four bytes at least, so the data's end bounds their number. */
    for (uint32_t i = 0; i < out->nr_queries; i++) {
        const uint8_t *query;
        uint32_t query_len;
        rc = take_string(&c, &query, &query_len);
        if (rc)
            return rc;
        if (is(query, query_len, "base:allocation"))
            out->allocation = true;
        else if (is(query, query_len, "base:"))
            out->base = true;
    }
    return c.left ? -EINVAL : 0;
}
