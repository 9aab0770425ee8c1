/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each option means and how it is answered.
 *
 * Called by handshake.c with one whole option, and by volume.c and
 * exports.c when what an option waited for is there.
 */
#include <errno.h>
#include <stdio.h>

#include "endpoint/nbd/handshake.h"
#include "endpoint/nbd/parse.h"
#include "endpoint/nbd/volume.h"

static enum nbd_step sent(int rc)
{
    return rc ? NBD_STEP_CLOSE : NBD_STEP_AGAIN;
}

static enum nbd_step acknowledge(struct nbd_conn *conn)
{
    return sent(nbd_option_reply(conn, NBD_REP_ACK, NULL, 0));
}

static enum nbd_step refuse(struct nbd_conn *conn, uint32_t type, const char *message)
{
    return sent(nbd_option_error(conn, type, message));
}

static uint16_t transmission_flags(const struct nbd_conn *conn)
{
    /* The composer's flush covers the volume whatever connection wrote to it. */
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

    if (conn->structured)
        flags |= NBD_FLAG_SEND_DF;
    if (conn->info_only ? conn->volume.snapshot : conn->volume.read_only)
        return flags | NBD_FLAG_READ_ONLY;
    return flags | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
           NBD_FLAG_SEND_FAST_ZERO;
}

/* ---- EXPORT_NAME, INFO, GO: open the volume, then tell of it
 * ------------------------- */

static enum nbd_step open_volume(struct nbd_conn *conn, const uint8_t *name,
                                 uint32_t len)
{
    memcpy(conn->name, name, len);
    conn->name_len = (uint8_t)len;
    conn->info_only = conn->option == NBD_OPT_INFO;
    conn->state = NBD_CONN_OPTION_WAIT;
    /* INFO must not take the lease from the node that is about to use the volume. */
    nbd_volume_open(conn,
                    conn->info_only ? CLIENT_OPEN_READ : CLIENT_OPEN_WRITE_OR_READ);
    return NBD_STEP_WAIT;
}

static enum nbd_step export_name(struct nbd_conn *conn, const uint8_t *data,
                                 uint32_t len)
{
    /* This option has no error replies. */
    if (len == 0 || len > XSEG_NAME_MAX)
        return NBD_STEP_CLOSE;
    return open_volume(conn, data, len);
}

static enum nbd_step info_or_go(struct nbd_conn *conn, const uint8_t *data,
                                uint32_t len)
{
    struct nbd_info_query query;
    int rc = nbd_parse_info(data, len, &query);

    if (rc == -ENAMETOOLONG || (!rc && query.name_len > XSEG_NAME_MAX))
        return refuse(conn, NBD_REP_ERR_TOO_BIG, "a name is at most 255 bytes long");
    if (rc)
        return refuse(conn, NBD_REP_ERR_INVALID, "malformed option");
    if (query.name_len == 0)
        return refuse(conn, NBD_REP_ERR_UNKNOWN,
                      "there is no default export: give the name of a volume");
    conn->info_wanted = query.wanted;
    return open_volume(conn, query.name, query.name_len);
}

static int reply_export(struct nbd_conn *conn)
{
    uint8_t data[12];

    nbd_put16(data, NBD_INFO_EXPORT);
    nbd_put64(data + 2, conn->volume.size_bytes);
    nbd_put16(data + 10, transmission_flags(conn));
    return nbd_option_reply(conn, NBD_REP_INFO, data, sizeof(data));
}

static int reply_text(struct nbd_conn *conn, uint16_t type, const void *text,
                      size_t len)
{
    uint8_t data[2 + XSEG_NAME_MAX];

    nbd_put16(data, type);
    memcpy(data + 2, text, len);
    return nbd_option_reply(conn, NBD_REP_INFO, data, (uint32_t)(2 + len));
}

static int reply_description(struct nbd_conn *conn)
{
    char text[64];
    int len = snprintf(text, sizeof(text), "%s in blocks of %u KiB",
                       conn->volume.snapshot ? "snapshot" : "volume",
                       conn->volume.block_bytes >> 10);

    return reply_text(conn, NBD_INFO_DESCRIPTION, text, (size_t)len);
}

static int reply_block_size(struct nbd_conn *conn)
{
    uint8_t data[14];

    nbd_put16(data, NBD_INFO_BLOCK_SIZE);
    nbd_put32(data + 2, NBD_MIN_BLOCK_BYTES);
    nbd_put32(data + 6, NBD_PREFERRED_BLOCK_BYTES);
    nbd_put32(data + 10, NBD_MAX_PAYLOAD_BYTES);
    return nbd_option_reply(conn, NBD_REP_INFO, data, sizeof(data));
}

static int reply_infos(struct nbd_conn *conn)
{
    int rc = reply_export(conn);

    if (!rc && conn->info_wanted & 1u << NBD_INFO_NAME)
        rc = reply_text(conn, NBD_INFO_NAME, conn->name, conn->name_len);
    if (!rc && conn->info_wanted & 1u << NBD_INFO_DESCRIPTION)
        rc = reply_description(conn);
    if (!rc && conn->info_wanted & 1u << NBD_INFO_BLOCK_SIZE)
        rc = reply_block_size(conn);
    return rc ? rc : nbd_option_reply(conn, NBD_REP_ACK, NULL, 0);
}

static int reply_export_name(struct nbd_conn *conn)
{
    uint8_t reply[10 + NBD_EXPORT_NAME_PAD_BYTES] = {0};

    nbd_put64(reply, conn->volume.size_bytes);
    nbd_put16(reply + 8, transmission_flags(conn));
    return nbd_reply_copy(conn, reply, conn->no_zeroes ? 10 : sizeof(reply));
}

/** Contexts hold for the export they were set for. */
static void check_contexts(struct nbd_conn *conn)
{
    if (conn->meta_name_len != conn->name_len ||
        memcmp(conn->meta_name, conn->name, conn->name_len) != 0)
        conn->allocation = false;
}

/** The kind of a refusal on the wire, and what it says if control gave no reason. */
static uint32_t refusal_of(int64_t result, const char **text)
{
    switch (-result) {
    case ENOENT:
        *text = "there is no such volume";
        return NBD_REP_ERR_UNKNOWN;
    case EBUSY:
        *text = "the volume is in use elsewhere";
        return NBD_REP_ERR_POLICY;
    case EINVAL:
    case ENAMETOOLONG:
        *text = "not a volume's name";
        return NBD_REP_ERR_INVALID;
    case ENOSPC:
        *text = "the store is full";
        return NBD_REP_ERR_PLATFORM;
    default:
        *text = "the volume cannot be opened: see the server's log";
        return NBD_REP_ERR_PLATFORM;
    }
}

static int refuse_open(struct nbd_conn *conn, int64_t result)
{
    const char *text;
    uint32_t type = refusal_of(result, &text);

    return nbd_option_error(conn, type,
                            conn->volume.reason[0] ? conn->volume.reason : text);
}

void nbd_volume_opened(struct nbd_conn *conn, int64_t result)
{
    int rc;

    conn->state = NBD_CONN_OPTION;
    if (result < 0 && client_volume_is_open(&conn->volume)) {
        nbd_conn_close(conn); /* open, but what was said of it makes no sense */
        return;
    }
    if (result < 0) {
        rc = conn->option == NBD_OPT_EXPORT_NAME ? (int)result
                                                 : refuse_open(conn, result);
    } else if (conn->info_only) {
        conn->state = NBD_CONN_OPTION_WAIT;
        nbd_volume_close(conn);
        return;
    } else if (conn->option == NBD_OPT_EXPORT_NAME) {
        check_contexts(conn);
        rc = reply_export_name(conn);
        nbd_handshake_done(conn);
    } else {
        check_contexts(conn);
        rc = reply_infos(conn);
        nbd_handshake_done(conn);
    }
    if (rc)
        nbd_conn_close(conn);
    else
        nbd_conn_resume(conn);
}

void nbd_volume_closed(struct nbd_conn *conn)
{
    conn->state = NBD_CONN_OPTION;
    if (reply_infos(conn))
        nbd_conn_close(conn);
    else
        nbd_conn_resume(conn);
}

/* ---- the others
 * ------------------------------------------------------------------------ */

static enum nbd_step list(struct nbd_conn *conn)
{
    conn->state = NBD_CONN_OPTION_WAIT;
    return nbd_exports_start(conn) ? NBD_STEP_CLOSE : NBD_STEP_WAIT;
}

void nbd_exports_finished(struct nbd_conn *conn, int64_t result)
{
    int rc = result < 0
                 ? nbd_option_error(conn, NBD_REP_ERR_PLATFORM, "cannot list volumes")
                 : nbd_option_reply(conn, NBD_REP_ACK, NULL, 0);

    conn->state = NBD_CONN_OPTION;
    if (rc)
        nbd_conn_close(conn);
    else
        nbd_conn_resume(conn);
}

static enum nbd_step meta_context(struct nbd_conn *conn, const uint8_t *data,
                                  uint32_t len)
{
    bool set = conn->option == NBD_OPT_SET_META_CONTEXT;
    uint8_t reply[4 + sizeof("base:allocation") - 1];
    struct nbd_meta_query query;
    bool found;
    int rc;

    if (set)
        conn->allocation = false; /* a failed one leaves none */
    if (!conn->structured)
        return refuse(conn, NBD_REP_ERR_INVALID, "negotiate structured replies first");
    rc = nbd_parse_meta(data, len, &query);
    if (rc == -ENAMETOOLONG || (!rc && query.name_len > XSEG_NAME_MAX))
        return refuse(conn, NBD_REP_ERR_TOO_BIG, "a name is at most 255 bytes long");
    if (rc)
        return refuse(conn, NBD_REP_ERR_INVALID, "malformed option");

    found = query.allocation || (!set && (query.base || query.nr_queries == 0));
    if (found) {
        nbd_put32(reply, set ? NBD_ALLOCATION_CONTEXT_ID : 0);
        memcpy(reply + 4, "base:allocation", sizeof(reply) - 4);
        if (nbd_option_reply(conn, NBD_REP_META_CONTEXT, reply, sizeof(reply)))
            return NBD_STEP_CLOSE;
    }
    if (set) {
        conn->allocation = found;
        memcpy(conn->meta_name, query.name, query.name_len);
        conn->meta_name_len = (uint8_t)query.name_len;
    }
    return acknowledge(conn);
}

static enum nbd_step structured_reply(struct nbd_conn *conn)
{
    conn->structured = true;
    return acknowledge(conn);
}

static enum nbd_step abort_handshake(struct nbd_conn *conn)
{
    if (nbd_option_reply(conn, NBD_REP_ACK, NULL, 0))
        return NBD_STEP_CLOSE;
    nbd_conn_drain(conn);
    return NBD_STEP_WAIT;
}

enum nbd_step nbd_option_serve(struct nbd_conn *conn, const uint8_t *data, uint32_t len)
{
    switch (conn->option) {
    case NBD_OPT_EXPORT_NAME:
        return export_name(conn, data, len);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return info_or_go(conn, data, len);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return meta_context(conn, data, len);
    case NBD_OPT_ABORT:
        return abort_handshake(conn);
    case NBD_OPT_LIST:
        return len ? refuse(conn, NBD_REP_ERR_INVALID, "LIST has no data") : list(conn);
    case NBD_OPT_STRUCTURED_REPLY:
        return len ? refuse(conn, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data")
                   : structured_reply(conn);
    case NBD_OPT_STARTTLS:
        return refuse(conn, NBD_REP_ERR_UNSUP, "this socket does not offer TLS");
    default:
        return refuse(conn, NBD_REP_ERR_UNSUP, "unknown option");
    }
}
