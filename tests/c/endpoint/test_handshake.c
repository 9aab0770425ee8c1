/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake: every option, and every way to get it wrong. */
#include <unistd.h>

#include "server.h"

#define FLAGS (NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)

static struct server s;

static uint32_t name_data(uint8_t *data, const char *name, uint16_t nr_infos)
{
    uint32_t len = (uint32_t)strlen(name);

    nbd_put32(data, len);
    memcpy(data + 4, name, len);
    nbd_put16(data + 4 + len, nr_infos);
    return len + 6;
}

/** The connection can still negotiate and serve. */
static void expect_usable(int fd)
{
    uint8_t data[64];
    uint32_t len = name_data(data, "disk", 0), type;

    client_option(fd, NBD_OPT_GO, data, len);
    while ((type = client_reply(fd, NBD_OPT_GO, NULL, 0, NULL)) == NBD_REP_INFO)
        continue;
    CHECK_EQ(type, NBD_REP_ACK);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);
}

static void abort_handshake(int fd)
{
    client_expect(fd, NBD_OPT_ABORT, NULL, 0, NBD_REP_ACK);
    client_expect_eof(fd);
}

static void go_tells_size_and_flags(void)
{
    uint64_t size;
    uint16_t flags;
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, &size, &flags);

    CHECK_EQ(size, FAKE_DISK_BYTES);
    CHECK_EQ(flags, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                        NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
                        NBD_FLAG_SEND_DF | NBD_FLAG_CAN_MULTI_CONN |
                        NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO);
    client_disconnect(fd);
    wait_until(&s.fake.nr_opens, 0);
}

static void df_is_offered_only_with_structured_replies(void)
{
    uint16_t flags;
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, &flags);

    CHECK(!(flags & NBD_FLAG_SEND_DF));
    client_disconnect(fd);
}

static void snapshots_are_read_only(void)
{
    static const char *const names[] = {"snap", "strict"};

    for (int i = 0; i < 2; i++) {
        uint16_t flags;
        int fd = client_go(&s, names[i], CLIENT_SIMPLE, NULL, &flags);
        CHECK(flags & NBD_FLAG_READ_ONLY);
        CHECK(!(flags & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
                         NBD_FLAG_SEND_FAST_ZERO)));
        client_disconnect(fd);
    }
}

static void export_name_enters_transmission(void)
{
    uint8_t reply[10 + NBD_EXPORT_NAME_PAD_BYTES];
    int fd = client_greet(&s, FLAGS);

    client_option(fd, NBD_OPT_EXPORT_NAME, "disk", 4);
    client_recv(fd, reply, 10);
    CHECK_EQ(nbd_get64(reply), FAKE_DISK_BYTES);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);

    /* plain newstyle: 124 zeros behind */
    fd = client_greet(&s, 0);
    client_option(fd, NBD_OPT_EXPORT_NAME, "disk", 4);
    client_recv(fd, reply, sizeof(reply));
    for (size_t i = 10; i < sizeof(reply); i++)
        CHECK_EQ(reply[i], 0);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);
}

static void export_name_of_nothing_disconnects(void)
{
    char name[300];
    int fd = client_greet(&s, FLAGS);

    client_option(fd, NBD_OPT_EXPORT_NAME, "nothing", 7);
    client_expect_eof(fd);
    fd = client_greet(&s, FLAGS);
    client_option(fd, NBD_OPT_EXPORT_NAME, NULL, 0);
    client_expect_eof(fd);
    memset(name, 'x', sizeof(name));
    fd = client_greet(&s, FLAGS);
    client_option(fd, NBD_OPT_EXPORT_NAME, name, sizeof(name));
    client_expect_eof(fd);
}

static void options_without_fixed_newstyle_disconnect(void)
{
    int fd = client_greet(&s, 0);

    client_option(fd, NBD_OPT_LIST, NULL, 0);
    client_expect_eof(fd);
}

static void unknown_client_flags_disconnect(void)
{
    client_expect_eof(client_greet(&s, FLAGS | 4));
}

static void bad_option_magic_disconnects(void)
{
    uint8_t head[NBD_OPTION_HEAD_BYTES] = "NOT AN OPTION!!";
    int fd = client_greet(&s, FLAGS);

    client_send(fd, head, sizeof(head));
    client_expect_eof(fd);
}

static void unknown_options_are_refused_and_harmless(void)
{
    uint8_t data[300] = {0};
    int fd = client_greet(&s, FLAGS);

    client_expect(fd, 4711, NULL, 0, NBD_REP_ERR_UNSUP);
    client_expect(fd, 0, data, sizeof(data), NBD_REP_ERR_UNSUP);
    client_expect(fd, 0xffffffff, data, 1, NBD_REP_ERR_UNSUP);
    client_expect(fd, NBD_OPT_STARTTLS, NULL, 0, NBD_REP_ERR_UNSUP);
    expect_usable(fd);
}

static void data_where_none_belongs_is_invalid(void)
{
    int fd = client_greet(&s, FLAGS);

    client_expect(fd, NBD_OPT_LIST, "x", 1, NBD_REP_ERR_INVALID);
    client_expect(fd, NBD_OPT_STRUCTURED_REPLY, "x", 1, NBD_REP_ERR_INVALID);
    expect_usable(fd);
}

static void malformed_go_is_invalid(void)
{
    uint8_t data[5000];
    uint32_t len;
    int fd = client_greet(&s, FLAGS);

    client_expect(fd, NBD_OPT_GO, NULL, 0, NBD_REP_ERR_INVALID);
    nbd_put32(data, 1000); /* a name longer than the option */
    client_expect(fd, NBD_OPT_GO, data, 10, NBD_REP_ERR_INVALID);
    nbd_put32(data, 0xffffffff);
    client_expect(fd, NBD_OPT_GO, data, 10, NBD_REP_ERR_INVALID);
    len = name_data(data, "disk", 3); /* more types than there are */
    client_expect(fd, NBD_OPT_GO, data, len, NBD_REP_ERR_INVALID);
    client_expect(fd, NBD_OPT_GO, data, len + 5, NBD_REP_ERR_INVALID);
    len = name_data(data, "disk", 0); /* bytes behind */
    client_expect(fd, NBD_OPT_GO, data, len + 1, NBD_REP_ERR_INVALID);
    memset(data, 'x', sizeof(data)); /* 256 bytes */
    nbd_put32(data, 256);
    nbd_put16(data + 260, 0);
    client_expect(fd, NBD_OPT_GO, data, 262, NBD_REP_ERR_TOO_BIG);
    len = name_data(data, "", 0);
    client_expect(fd, NBD_OPT_GO, data, len, NBD_REP_ERR_UNKNOWN);
    len = name_data(data, "nothing", 0);
    client_expect(fd, NBD_OPT_GO, data, len, NBD_REP_ERR_UNKNOWN);
    len = name_data(data, "busy", 0);
    client_expect(fd, NBD_OPT_GO, data, len, NBD_REP_ERR_POLICY);
    expect_usable(fd);
}

static void long_options_are_skipped_or_end_it(void)
{
    static uint8_t data[64 << 10];
    uint8_t head[NBD_OPTION_HEAD_BYTES];
    int fd = client_greet(&s, FLAGS);

    client_expect(fd, NBD_OPT_GO, data, sizeof(data), NBD_REP_ERR_TOO_BIG);
    expect_usable(fd);

    fd = client_greet(&s, FLAGS);
    nbd_put64(head, NBD_OPTION_MAGIC);
    nbd_put32(head + 8, NBD_OPT_GO);
    nbd_put32(head + 12, 0xffffffff);
    client_send(fd, head, sizeof(head));
    client_expect_eof(fd);
}

static void endless_options_end_it(void)
{
    uint8_t head[NBD_OPTION_HEAD_BYTES];
    int fd = client_greet(&s, FLAGS);

    nbd_put64(head, NBD_OPTION_MAGIC);
    nbd_put32(head + 8, 999);
    nbd_put32(head + 12, 0);
    for (uint32_t nr = 0; nr < 4096; nr++)
        client_expect(fd, 999, NULL, 0, NBD_REP_ERR_UNSUP);
    client_send(fd, head, sizeof(head));
    client_expect_eof(fd);
}

static void info_tells_all_and_opens_nothing_for_good(void)
{
    uint8_t data[64], reply[512];
    uint32_t len = name_data(data, "odd", 5), type, seen = 0;
    int fd = client_greet(&s, FLAGS);

    for (uint16_t i = 0; i < 5; i++) /* one type that nobody knows */
        nbd_put16(data + len + 2 * i, i);
    len += 10;
    for (int round = 0; round < 2; round++) {
        uint32_t got;
        client_option(fd, NBD_OPT_INFO, data, len);
        while ((type = client_reply(fd, NBD_OPT_INFO, reply, sizeof(reply), &got)) ==
               NBD_REP_INFO) {
            seen |= 1u << nbd_get16(reply);
            if (nbd_get16(reply) == NBD_INFO_EXPORT)
                CHECK_EQ(nbd_get64(reply + 2), FAKE_ODD_BYTES);
            if (nbd_get16(reply) == NBD_INFO_NAME)
                CHECK(got == 5 && memcmp(reply + 2, "odd", 3) == 0);
            if (nbd_get16(reply) == NBD_INFO_BLOCK_SIZE) {
                CHECK_EQ(got, 14);
                CHECK_EQ(nbd_get32(reply + 2), NBD_MIN_BLOCK_BYTES);
                CHECK_EQ(nbd_get32(reply + 6), 4096);
                CHECK_EQ(nbd_get32(reply + 10), 32 << 20);
            }
        }
        CHECK_EQ(type, NBD_REP_ACK);
        CHECK_EQ(seen, 15);
        CHECK_EQ(atomic_load(&s.fake.nr_opens), 0);
    }
    expect_usable(fd);
}

static void info_of_a_busy_volume_works(void)
{
    uint8_t data[64], reply[64];
    uint32_t len = name_data(data, "busy", 0);
    int fd = client_greet(&s, FLAGS);

    client_option(fd, NBD_OPT_INFO, data, len);
    CHECK_EQ(client_reply(fd, NBD_OPT_INFO, reply, sizeof(reply), NULL), NBD_REP_INFO);
    CHECK(!(nbd_get16(reply + 10) & NBD_FLAG_READ_ONLY));
    CHECK_EQ(client_reply(fd, NBD_OPT_INFO, NULL, 0, NULL), NBD_REP_ACK);
    expect_usable(fd);
}

static void list_names_every_volume_in_order(void)
{
    char last[64] = "", name[64];
    uint8_t reply[512];
    uint32_t nr = 0, len, type;
    int fd = client_greet(&s, FLAGS);

    client_option(fd, NBD_OPT_LIST, NULL, 0);
    while ((type = client_reply(fd, NBD_OPT_LIST, reply, sizeof(reply), &len)) ==
           NBD_REP_SERVER) {
        CHECK_EQ(nbd_get32(reply), len - 4);
        CHECK(len - 4 < sizeof(name));
        memcpy(name, reply + 4, len - 4);
        name[len - 4] = 0;
        CHECK(strcmp(last, name) < 0);
        strcpy(last, name);
        nr++;
    }
    CHECK_EQ(type, NBD_REP_ACK);
    CHECK_EQ(nr, FAKE_MANY + 6);
    expect_usable(fd);
}

static void who_is_needed_is_waited_for(void)
{
    uint8_t reply[512];
    uint32_t type;
    int fd;

    atomic_store(&s.fake.nr_gone_opens, 5);
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);
    atomic_store(&s.fake.nr_gone_opens, 5);
    fd = client_greet(&s, FLAGS);
    client_option(fd, NBD_OPT_LIST, NULL, 0);
    do
        type = client_reply(fd, NBD_OPT_LIST, reply, sizeof(reply), NULL);
    while (type == NBD_REP_SERVER);
    CHECK_EQ(type, NBD_REP_ACK);
    CHECK_EQ(atomic_load(&s.fake.nr_gone_opens), 0);
    close(fd);
}

static void leaving_while_somebody_is_waited_for_is_harmless(void)
{
    static const char name[] = "\0\0\0\4disk\0";

    for (int i = 0; i < 20; i++) {
        int fd = client_greet(&s, FLAGS);
        atomic_store(&s.fake.nr_gone_opens, 3);
        client_option(fd, i % 2 ? NBD_OPT_LIST : NBD_OPT_GO, name,
                      i % 2 ? 0 : sizeof(name));
        close(fd);
    }
    atomic_store(&s.fake.nr_gone_opens, 0);
}

static void leaving_in_the_middle_of_a_list_is_harmless(void)
{
    for (int i = 0; i < 20; i++) {
        uint8_t reply[512];
        int fd = client_greet(&s, FLAGS);
        client_option(fd, NBD_OPT_LIST, NULL, 0);
        if (i % 2)
            CHECK_EQ(client_reply(fd, NBD_OPT_LIST, reply, sizeof(reply), NULL),
                     NBD_REP_SERVER);
        close(fd);
    }
}

static uint32_t meta_data(uint8_t *data, const char *name, const char *query)
{
    uint32_t len = (uint32_t)strlen(name);

    nbd_put32(data, len);
    memcpy(data + 4, name, len);
    len += 4;
    nbd_put32(data + len, query ? 1 : 0);
    len += 4;
    if (!query)
        return len;
    nbd_put32(data + len, (uint32_t)strlen(query));
    memcpy(data + len + 4, query, strlen(query));
    return len + 4 + (uint32_t)strlen(query);
}

/** Does this query find base:allocation? */
static bool finds(int fd, uint32_t option, const char *query)
{
    uint8_t data[256], reply[64];
    uint32_t len = meta_data(data, "disk", query), got;
    bool found = false;
    uint32_t type;

    client_option(fd, option, data, len);
    while ((type = client_reply(fd, option, reply, sizeof(reply), &got)) ==
           NBD_REP_META_CONTEXT) {
        CHECK_EQ(got, 4 + 15);
        CHECK(memcmp(reply + 4, "base:allocation", 15) == 0);
        found = true;
    }
    CHECK_EQ(type, NBD_REP_ACK);
    return found;
}

static void meta_contexts_are_listed_and_set(void)
{
    uint8_t data[256];
    uint32_t len = meta_data(data, "disk", "base:allocation");
    int fd = client_greet(&s, FLAGS);

    client_expect(fd, NBD_OPT_SET_META_CONTEXT, data, len, NBD_REP_ERR_INVALID);
    client_expect(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NBD_REP_ACK);
    CHECK(finds(fd, NBD_OPT_LIST_META_CONTEXT, NULL));
    CHECK(finds(fd, NBD_OPT_LIST_META_CONTEXT, "base:"));
    CHECK(finds(fd, NBD_OPT_LIST_META_CONTEXT, "base:allocation"));
    CHECK(!finds(fd, NBD_OPT_LIST_META_CONTEXT, "qemu:"));
    CHECK(finds(fd, NBD_OPT_SET_META_CONTEXT, "base:allocation"));
    CHECK(!finds(fd, NBD_OPT_SET_META_CONTEXT, "base:alloc"));
    CHECK(!finds(fd, NBD_OPT_SET_META_CONTEXT, NULL));

    client_expect(fd, NBD_OPT_SET_META_CONTEXT, NULL, 0, NBD_REP_ERR_INVALID);
    client_expect(fd, NBD_OPT_SET_META_CONTEXT, data, len - 1, NBD_REP_ERR_INVALID);
    client_expect(fd, NBD_OPT_SET_META_CONTEXT, data, len + 1, NBD_REP_ERR_INVALID);
    nbd_put32(data + 8, 0xffffffff); /* queries that never come */
    client_expect(fd, NBD_OPT_SET_META_CONTEXT, data, len, NBD_REP_ERR_INVALID);
    abort_handshake(fd);
}

static void contexts_hold_for_the_export_they_were_set_for(void)
{
    uint8_t data[64];
    uint32_t len = name_data(data, "odd", 0);
    int fd = client_greet(&s, FLAGS);

    client_expect(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NBD_REP_ACK);
    CHECK(finds(fd, NBD_OPT_SET_META_CONTEXT, "base:allocation"));
    client_option(fd, NBD_OPT_GO, data, len);
    while (client_reply(fd, NBD_OPT_GO, NULL, 0, NULL) == NBD_REP_INFO)
        continue;
    client_request(fd, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096);
    CHECK_EQ(client_error_chunk(fd, 1), NBD_EINVAL);
    client_disconnect(fd);
}

static void abort_is_acknowledged(void)
{
    abort_handshake(client_greet(&s, FLAGS));
}

static void leaving_anywhere_is_harmless(void)
{
    uint8_t whole[128];
    uint32_t len;

    nbd_put32(whole, FLAGS);
    nbd_put64(whole + 4, NBD_OPTION_MAGIC);
    nbd_put32(whole + 12, NBD_OPT_GO);
    len = name_data(whole + 20, "disk", 0);
    nbd_put32(whole + 16, len);
    for (uint32_t n = 0; n <= 20 + len; n++) {
        int fd = client_connect(&s);
        client_send(fd, whole, n);
        close(fd);
    }
    wait_until(&s.fake.nr_opens, 0);
    expect_usable(client_greet(&s, FLAGS));
}

static void a_handshake_may_come_byte_by_byte(void)
{
    uint8_t whole[128], reply[20 + 12 + 20];
    uint32_t len;
    int fd = client_connect(&s);

    client_recv(fd, whole, NBD_GREETING_BYTES);
    nbd_put32(whole, FLAGS);
    nbd_put64(whole + 4, NBD_OPTION_MAGIC);
    nbd_put32(whole + 12, NBD_OPT_GO);
    len = name_data(whole + 20, "disk", 0);
    nbd_put32(whole + 16, len);
    for (uint32_t i = 0; i < 20 + len; i++)
        client_send(fd, whole + i, 1);
    client_recv(fd, reply, sizeof(reply));
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);
}

static void a_handshake_that_takes_too_long_ends(void)
{
    static struct server hasty;
    uint8_t head[NBD_OPTION_HEAD_BYTES] = {0};
    int fd;

    server_start(&hasty, &(struct server_options){.handshake_ms = 1});
    fd = client_connect(&hasty);
    client_recv(fd, head, 16);
    client_recv(fd, head, 2);
    client_expect_eof(fd);
    server_stop(&hasty);
}

int main(void)
{
    server_start(&s, NULL);
    go_tells_size_and_flags();
    df_is_offered_only_with_structured_replies();
    snapshots_are_read_only();
    export_name_enters_transmission();
    export_name_of_nothing_disconnects();
    options_without_fixed_newstyle_disconnect();
    unknown_client_flags_disconnect();
    bad_option_magic_disconnects();
    unknown_options_are_refused_and_harmless();
    data_where_none_belongs_is_invalid();
    malformed_go_is_invalid();
    long_options_are_skipped_or_end_it();
    endless_options_end_it();
    info_tells_all_and_opens_nothing_for_good();
    info_of_a_busy_volume_works();
    list_names_every_volume_in_order();
    leaving_in_the_middle_of_a_list_is_harmless();
    who_is_needed_is_waited_for();
    leaving_while_somebody_is_waited_for_is_harmless();
    meta_contexts_are_listed_and_set();
    contexts_hold_for_the_export_they_were_set_for();
    abort_is_acknowledged();
    leaving_anywhere_is_harmless();
    a_handshake_may_come_byte_by_byte();
    server_stop(&s);
    a_handshake_that_takes_too_long_ends();
    return 0;
}
