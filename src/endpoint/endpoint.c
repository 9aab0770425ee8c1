/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kinds of endpoints there are.
 */
#include "endpoint/endpoint.h"

#include <string.h>

#include "endpoint/fuse/fuse.h"
#include "endpoint/nbd/nbd.h"

static const struct endpoint_kind *const kinds[] = {&nbd_endpoint, &fuse_endpoint};

const struct endpoint_kind *endpoint_kind(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    return NULL;
}
