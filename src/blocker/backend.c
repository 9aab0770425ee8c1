/* SPDX-License-Identifier: Apache-2.0 */
/* Which backends there are. */
#include "blocker/backend.h"

#include <string.h>

static const struct blk_backend_ops *const backends[] = {
    &blk_file_ops,
    &blk_mem_ops,
};

const struct blk_backend_ops *blk_backend_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof backends / sizeof backends[0]; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}
