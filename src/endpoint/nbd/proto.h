/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD wire: numbers, layouts and big-endian access.
 *
 * Source: the NBD protocol specification (github.com/NetworkBlockDevice/nbd,
 * doc/proto.md).  Everything on the wire is big endian and unaligned; only the helpers
 * below touch it.
 *
 *   request          magic 4, flags 2, type 2, cookie 8, offset 8, length 4
 *   simple reply     magic 4, error 4, cookie 8 [, data]
 *   chunk            magic 4, flags 2, type 2, cookie 8, length 4, payload
 *   option           magic 8, option 4, length 4, data
 *   option reply     magic 8, option 4, type 4, length 4, data
 */
#ifndef ENDPOINT_NBD_PROTO_H
#define ENDPOINT_NBD_PROTO_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_INIT_MAGIC             UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC           UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC     UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)

enum {
    NBD_GREETING_BYTES = 18,
    NBD_CLIENT_FLAGS_BYTES = 4,
    NBD_OPTION_HEAD_BYTES = 16,
    NBD_OPTION_REPLY_HEAD_BYTES = 20,
    NBD_EXPORT_NAME_PAD_BYTES = 124,
    NBD_REQUEST_BYTES = 28,
    NBD_SIMPLE_REPLY_BYTES = 16,
    NBD_CHUNK_HEAD_BYTES = 20,
};

/** Largest READ or WRITE [bytes], announced as the maximum block size. */
#define NBD_MAX_PAYLOAD_BYTES     (32u << 20)
#define NBD_MIN_BLOCK_BYTES       1u
#define NBD_PREFERRED_BLOCK_BYTES 4096u
/** Longest string the protocol allows [bytes]. */
#define NBD_MAX_STRING_BYTES 4096u

/* Handshake flags of the server and of the client. */
#define NBD_FLAG_FIXED_NEWSTYLE   (1u << 0)
#define NBD_FLAG_NO_ZEROES        (1u << 1)
#define NBD_FLAG_C_FIXED_NEWSTYLE (1u << 0)
#define NBD_FLAG_C_NO_ZEROES      (1u << 1)

enum nbd_transmission_flag {
    NBD_FLAG_HAS_FLAGS = 1u << 0,
    NBD_FLAG_READ_ONLY = 1u << 1,
    NBD_FLAG_SEND_FLUSH = 1u << 2,
    NBD_FLAG_SEND_FUA = 1u << 3,
    NBD_FLAG_SEND_TRIM = 1u << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1u << 6,
    NBD_FLAG_SEND_DF = 1u << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1u << 8,
    NBD_FLAG_SEND_CACHE = 1u << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1u << 11,
};

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ACK          UINT32_C(1)
#define NBD_REP_SERVER       UINT32_C(2)
#define NBD_REP_INFO         UINT32_C(3)
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_ERR(n)       (UINT32_C(0x80000000) | (n))
#define NBD_REP_ERR_UNSUP    NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY   NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID  NBD_REP_ERR(3)
#define NBD_REP_ERR_PLATFORM NBD_REP_ERR(4)
#define NBD_REP_ERR_UNKNOWN  NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERR(7)
#define NBD_REP_ERR_TOO_BIG  NBD_REP_ERR(9)

enum nbd_info {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

enum nbd_command_type {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flag {
    NBD_CMD_FLAG_FUA = 1u << 0,
    NBD_CMD_FLAG_NO_HOLE = 1u << 1,
    NBD_CMD_FLAG_DF = 1u << 2,
    NBD_CMD_FLAG_REQ_ONE = 1u << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1u << 4,
};

#define NBD_REPLY_FLAG_DONE 1u

enum nbd_chunk_type {
    NBD_REPLY_TYPE_NONE = 0,
    NBD_REPLY_TYPE_OFFSET_DATA = 1,
    NBD_REPLY_TYPE_OFFSET_HOLE = 2,
    NBD_REPLY_TYPE_BLOCK_STATUS = 5,
    NBD_REPLY_TYPE_ERROR = 0x8001,
    NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002,
};

/** Our number for base:allocation, the only context. */
#define NBD_ALLOCATION_CONTEXT_ID UINT32_C(1)

#define NBD_STATE_HOLE 1u
#define NBD_STATE_ZERO 2u

/** Errors as numbered on the wire, whatever errno says here. */
enum nbd_error {
    NBD_OK = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

static inline uint16_t nbd_get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return be16toh(v);
}

static inline uint32_t nbd_get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static inline uint64_t nbd_get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return be64toh(v);
}

static inline void nbd_put16(uint8_t *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void nbd_put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void nbd_put64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof(v));
}

#endif
