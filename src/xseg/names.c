/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of op codes and states, for status and logs.
 */
#include "xseg/request.h"

static const char *const op_names[XSEG_NR_OPS] = {
    [XSEG_OP_PING] = "PING",         [XSEG_OP_READ] = "READ",
    [XSEG_OP_WRITE] = "WRITE",       [XSEG_OP_SYNC] = "SYNC",
    [XSEG_OP_TRUNCATE] = "TRUNCATE", [XSEG_OP_DELETE] = "DELETE",
    [XSEG_OP_ACQUIRE] = "ACQUIRE",   [XSEG_OP_RELEASE] = "RELEASE",
    [XSEG_OP_COPY] = "COPY",         [XSEG_OP_CLONE] = "CLONE",
    [XSEG_OP_COMMIT] = "COMMIT",     [XSEG_OP_INFO] = "INFO",
    [XSEG_OP_MAPR] = "MAPR",         [XSEG_OP_MAPW] = "MAPW",
    [XSEG_OP_OPEN] = "OPEN",         [XSEG_OP_CLOSE] = "CLOSE",
    [XSEG_OP_SNAPSHOT] = "SNAPSHOT", [XSEG_OP_HASH] = "HASH",
    [XSEG_OP_CREATE] = "CREATE",     [XSEG_OP_RENAME] = "RENAME",
    [XSEG_OP_FLUSH] = "FLUSH",       [XSEG_OP_UPDATE] = "UPDATE",
    [XSEG_OP_DISCARD] = "DISCARD",   [XSEG_OP_ZERO] = "ZERO",
    [XSEG_OP_APPEND] = "APPEND",     [XSEG_OP_LIST] = "LIST",
    [XSEG_OP_NOTIFY] = "NOTIFY",     [XSEG_OP_CHANGES] = "CHANGES",
    [XSEG_OP_USAGE] = "USAGE",
};

static const char *const state_names[] = {
    [XSEG_RS_FREE] = "free",           [XSEG_RS_ALLOCATED] = "allocated",
    [XSEG_RS_SUBMITTED] = "submitted", [XSEG_RS_SERVING] = "serving",
    [XSEG_RS_DONE] = "done",
};

const char *xseg_op_name(uint32_t op)
{
    return op < XSEG_NR_OPS && op_names[op] ? op_names[op] : "?";
}

const char *xseg_request_state_name(uint32_t state)
{
    return state < sizeof(state_names) / sizeof(state_names[0]) ? state_names[state]
                                                                : "?";
}
