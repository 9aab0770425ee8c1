/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: each command, each way to get one wrong, and what others notice of it. */
#include <unistd.h>

#include "server.h"

#define MIB (1u << 20)

static struct server s;
static uint8_t out[36 * MIB], in[36 * MIB];

static void fill(uint8_t *data, size_t len, uint64_t seed)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t v = check_next(&seed);
        memcpy(data + i, &v, 8);
    }
}

static uint32_t write_at(int fd, uint64_t offset, const void *data, uint32_t len,
                         uint16_t flags)
{
    client_request(fd, NBD_CMD_WRITE, flags, 5, offset, len);
    client_send(fd, data, len);
    return client_simple(fd, NULL);
}

static void read_at(int fd, uint64_t offset, void *data, uint32_t len)
{
    client_request(fd, NBD_CMD_READ, 0, 6, offset, len);
    CHECK_EQ(client_simple(fd, NULL), NBD_OK);
    client_recv(fd, data, len);
}

static void what_is_written_is_read(void)
{
    static const uint32_t sizes[] = {1,    511,      512,     4096,
                                     4097, 65536,    100000,  MIB - 1,
                                     MIB,  MIB + 13, 3 * MIB, 32u * MIB};
    static const uint64_t offsets[] = {0, 1, 4095, 4096, 123456, MIB};
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizeof(offsets) / sizeof(offsets[0]); j++) {
            fill(out, sizes[i] + 8, i * 100 + j + 1);
            CHECK_EQ(write_at(fd, offsets[j], out, sizes[i], 0), NBD_OK);
            read_at(fd, offsets[j], in, sizes[i]);
            CHECK(memcmp(in, out, sizes[i]) == 0);
        }
    }
    client_disconnect(fd);
}

static void flush_and_fua_reach_the_volume(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    unsigned flushes = atomic_load(&s.fake.nr_flushes),
             fua = atomic_load(&s.fake.nr_fua);

    CHECK_EQ(client_do(fd, NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
    CHECK_EQ(atomic_load(&s.fake.nr_flushes), flushes + 1);
    CHECK_EQ(write_at(fd, 0, out, 512, NBD_CMD_FLAG_FUA), NBD_OK);
    CHECK_EQ(atomic_load(&s.fake.nr_fua), fua + 1);
    CHECK_EQ(write_at(fd, 0, out, 4 * MIB, NBD_CMD_FLAG_FUA), NBD_OK);
    CHECK_EQ(atomic_load(&s.fake.nr_fua), fua + 5);
    CHECK_EQ(client_do(fd, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096), NBD_OK);
    CHECK_EQ(client_do(fd, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA, 0, 4096), NBD_OK);
    CHECK_EQ(atomic_load(&s.fake.nr_fua), fua + 7);
    client_disconnect(fd);
}

static void zeros_are_zeros(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    for (uint16_t flags = 0; flags <= NBD_CMD_FLAG_FAST_ZERO;
         flags += NBD_CMD_FLAG_NO_HOLE) {
        if (flags & (NBD_CMD_FLAG_DF | NBD_CMD_FLAG_REQ_ONE))
            continue;
        unsigned zeros = atomic_load(&s.fake.nr_zeros);
        memset(out, 0x33, 5 * MIB);
        CHECK_EQ(write_at(fd, 0, out, 5 * MIB, 0), NBD_OK);
        CHECK_EQ(client_do(fd, NBD_CMD_WRITE_ZEROES, flags, 1000, 4 * MIB), NBD_OK);
        memset(out + 1000, 0, 4 * MIB);
        read_at(fd, 0, in, 5 * MIB);
        CHECK(memcmp(in, out, 5 * MIB) == 0);
        /* NO_HOLE allocates: zeros are written. */
        CHECK((atomic_load(&s.fake.nr_zeros) == zeros) ==
              (flags == NBD_CMD_FLAG_NO_HOLE));
    }
    client_disconnect(fd);

    /* Larger than any READ or WRITE may be. */
    fd = client_go(&s, "huge", CLIENT_SIMPLE, NULL, NULL);
    CHECK_EQ(client_do(fd, NBD_CMD_WRITE_ZEROES, 0, 4096, 0xffffffff), NBD_OK);
    CHECK_EQ(client_do(fd, NBD_CMD_TRIM, 0, UINT64_C(1) << 43, 0xffffffff), NBD_OK);
    client_disconnect(fd);
}

static void cache_answers(void)
{
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);

    CHECK_EQ(client_do(fd, NBD_CMD_CACHE, 0, 0, 64 * MIB), NBD_OK);
    client_disconnect(fd);
}

/** Each wrong request gets its error, and the connection goes on. */
static void wrong_requests_get_errors(void)
{
    static const struct {
        const char *volume;
        uint16_t type, flags;
        uint64_t offset;
        uint32_t length, error;
    } cases[] = {
        {"disk", NBD_CMD_READ, 0, 0, 0, NBD_EINVAL},
        {"disk", NBD_CMD_TRIM, 0, 0, 0, NBD_EINVAL},
        {"disk", NBD_CMD_WRITE_ZEROES, 0, 0, 0, NBD_EINVAL},
        {"disk", NBD_CMD_READ, 0, FAKE_DISK_BYTES, 1, NBD_EINVAL},
        {"disk", NBD_CMD_READ, 0, FAKE_DISK_BYTES - 1, 2, NBD_EINVAL},
        {"disk", NBD_CMD_READ, 0, UINT64_MAX, 2, NBD_EINVAL},
        {"disk", NBD_CMD_READ, 0, UINT64_MAX - 4095, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_READ, 0, INT64_MAX, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_TRIM, 0, FAKE_DISK_BYTES - 1, 2, NBD_EINVAL},
        {"disk", NBD_CMD_TRIM, 0, UINT64_MAX, 0xffffffff, NBD_EINVAL},
        {"disk", NBD_CMD_CACHE, 0, FAKE_DISK_BYTES - 1, 2, NBD_EINVAL},
        {"disk", NBD_CMD_WRITE_ZEROES, 0, FAKE_DISK_BYTES - 1, 2, NBD_ENOSPC},
        {"disk", NBD_CMD_WRITE_ZEROES, 0, UINT64_MAX, 2, NBD_ENOSPC},
        {"disk", NBD_CMD_READ, 0, 0, 32 * MIB + 1, NBD_EOVERFLOW},
        {"disk", NBD_CMD_READ, 0, 0, 0xffffffff, NBD_EOVERFLOW},
        {"disk", 8, 0, 0, 4096, NBD_EINVAL},
        {"disk", 0xffff, 0, 0, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_READ, 0x8000, 0, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 4096, NBD_EINVAL}, /* not offered */
        {"disk", NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE, 0, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_REQ_ONE, 0, 4096, NBD_EINVAL},
        {"disk", NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0,
         4096, NBD_ENOTSUP},
        {"disk", NBD_CMD_FLUSH, 0, 1, 0, NBD_EINVAL},
        {"disk", NBD_CMD_FLUSH, 0, 0, 1, NBD_EINVAL},
        {"disk", NBD_CMD_FLUSH, NBD_CMD_FLAG_NO_HOLE, 0, 0, NBD_EINVAL},
        {"disk", NBD_CMD_BLOCK_STATUS, 0, 0, 4096, NBD_EINVAL}, /* not negotiated */
        {"snap", NBD_CMD_TRIM, 0, 0, 4096, NBD_EPERM},
        {"snap", NBD_CMD_WRITE_ZEROES, 0, 0, 4096, NBD_EPERM},
        {"odd", NBD_CMD_READ, 0, FAKE_ODD_BYTES - 4096, 4097, NBD_EINVAL},
    };
    unsigned served = atomic_load(&s.fake.nr_data);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = client_go(&s, cases[i].volume, CLIENT_SIMPLE, NULL, NULL);
        CHECK_EQ(client_do(fd, cases[i].type, cases[i].flags, cases[i].offset,
                           cases[i].length),
                 cases[i].error);
        CHECK_EQ(atomic_load(&s.fake.nr_data), served);
        client_check_alive(fd, CLIENT_SIMPLE);
        served++;
        client_disconnect(fd);
    }
}

/** The same for WRITE, whose data follows whatever is wrong. */
static void wrong_writes_get_errors(void)
{
    static const struct {
        const char *volume;
        uint16_t flags;
        uint64_t offset;
        uint32_t length, error;
    } cases[] = {
        {"disk", 0, 0, 0, NBD_EINVAL},
        {"disk", 0, FAKE_DISK_BYTES, 1, NBD_ENOSPC},
        {"disk", 0, FAKE_DISK_BYTES - 4096, 8192, NBD_ENOSPC},
        {"disk", 0, UINT64_MAX - 4095, 4096, NBD_ENOSPC},
        {"disk", 0, 0, 33 * MIB, NBD_EOVERFLOW},
        {"disk", NBD_CMD_FLAG_NO_HOLE, 0, 200000, NBD_EINVAL},
        {"snap", 0, 0, 4096, NBD_EPERM},
        {"strict", 0, 0, 1000000, NBD_EPERM},
    };
    unsigned writes = atomic_load(&s.fake.nr_writes);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = client_go(&s, cases[i].volume, CLIENT_SIMPLE, NULL, NULL);
        CHECK_EQ(write_at(fd, cases[i].offset, out, cases[i].length, cases[i].flags),
                 cases[i].error);
        client_check_alive(fd, CLIENT_SIMPLE);
        client_disconnect(fd);
        CHECK_EQ(atomic_load(&s.fake.nr_writes), writes);
    }
}

static void streams_out_of_step_end(void)
{
    uint8_t junk[NBD_REQUEST_BYTES];
    int bystander = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    memset(junk, 0xee, sizeof(junk));
    client_send(fd, junk, sizeof(junk));
    client_expect_eof(fd);

    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    client_request(fd, NBD_CMD_WRITE, 0, 1, 0, 0xffffffff); /* not read to its end */
    client_expect_eof(fd);

    client_check_alive(bystander, CLIENT_SIMPLE);
    client_disconnect(bystander);
}

static void structured_errors_say_why(void)
{
    int fd = client_go(&s, "snap", CLIENT_STRUCTURED, NULL, NULL);

    client_request(fd, NBD_CMD_READ, 0, 11, FAKE_SNAP_BYTES, 1);
    CHECK_EQ(client_error_chunk(fd, 11), NBD_EINVAL);
    client_request(fd, NBD_CMD_WRITE, 0, 12, 0, 4096);
    client_send(fd, out, 4096);
    CHECK_EQ(client_error_chunk(fd, 12), NBD_EPERM);
    client_request(fd, 99, 0, 13, 0, 4096);
    CHECK_EQ(client_error_chunk(fd, 13), NBD_EINVAL);
    client_check_alive(fd, CLIENT_STRUCTURED);
    client_disconnect(fd);
}

static void errors_of_the_volume_are_translated(void)
{
    static const struct {
        int64_t result;
        uint32_t error;
    } cases[] = {
        {-EIO, NBD_EIO},       {-ENOSPC, NBD_ENOSPC},      {-EROFS, NBD_EPERM},
        {-EINVAL, NBD_EINVAL}, {-EBADMSG, NBD_EIO},        {1, NBD_EIO},
        {-ENOMEM, NBD_ENOMEM}, {-EOPNOTSUPP, NBD_ENOTSUP},
    };
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    atomic_store(&s.fake.fail_offset, 5 * MIB);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        atomic_store(&s.fake.fail_result, cases[i].result);
        CHECK_EQ(write_at(fd, 5 * MIB, out, 4096, 0), cases[i].error);
        CHECK_EQ(client_do(fd, NBD_CMD_READ, 0, 5 * MIB, 4096), cases[i].error);
        CHECK_EQ(client_do(fd, NBD_CMD_TRIM, 0, 5 * MIB, 4096), cases[i].error);
        /* one of many pieces */
        CHECK_EQ(write_at(fd, 4 * MIB - 5, out, 3 * MIB, 0), cases[i].error);
    }
    atomic_store(&s.fake.fail_offset, -1);
    atomic_store(&s.fake.fail_result, -EIO);
    client_check_alive(fd, CLIENT_SIMPLE);
    client_disconnect(fd);
}

static void replies_carry_their_cookies_in_any_order(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    bool seen[64] = {false};
    bool reordered = false;

    memset(out, 0, 64 * 4096);
    for (uint32_t i = 0; i < 64; i++)
        memset(out + i * 4096, (int)i + 1, 4096);
    CHECK_EQ(write_at(fd, 0, out, 64 * 4096, 0), NBD_OK);
    atomic_store(&s.fake.hold, true);
    for (uint32_t i = 0; i < 64; i++)
        client_request(fd, NBD_CMD_READ, 0, 0xabcd0000 + i, i * 4096, 4096);
    wait_until(&s.fake.nr_held_now, 64);
    server_release(&s);
    for (uint32_t i = 0; i < 64; i++) {
        uint64_t cookie;
        CHECK_EQ(client_simple(fd, &cookie), NBD_OK);
        cookie -= 0xabcd0000;
        CHECK(cookie < 64 && !seen[cookie]);
        seen[cookie] = true;
        reordered |= cookie != i;
        client_recv(fd, in, 4096);
        CHECK(in[0] == cookie + 1 && memcmp(in, in + 1, 4095) == 0);
    }
    CHECK(reordered);
    client_disconnect(fd);
}

/** Every prefix of a WRITE, then gone: nothing of it is written. */
static void a_write_cut_off_is_dropped(void)
{
    uint8_t head[NBD_REQUEST_BYTES];
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    unsigned writes;

    memset(out, 0x11, 64 * 4096);
    CHECK_EQ(write_at(fd, 0, out, 64 * 4096, 0), NBD_OK);
    writes = atomic_load(&s.fake.nr_writes);
    memset(out, 0x22, 64 * 4096);
    nbd_put32(head, NBD_REQUEST_MAGIC);
    nbd_put32(head + 4, NBD_CMD_WRITE);
    nbd_put64(head + 8, 1);
    nbd_put64(head + 16, 0);
    nbd_put32(head + 24, 64 * 4096);
    for (uint32_t n = 0; n < 64 * 4096; n += n < 40 ? 1 : 40009) {
        int cut = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
        client_send(cut, head, n < sizeof(head) ? n : sizeof(head));
        if (n > sizeof(head))
            client_send(cut, out, n - sizeof(head));
        close(cut);
    }
    wait_until(&s.fake.nr_opens, 1);
    CHECK_EQ(atomic_load(&s.fake.nr_writes), writes);
    read_at(fd, 0, in, 64 * 4096);
    memset(out, 0x11, 64 * 4096);
    CHECK(memcmp(in, out, 64 * 4096) == 0);
    client_disconnect(fd);
}

static void leaving_with_requests_in_flight_closes_the_volume_after_them(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    atomic_store(&s.fake.hold, true);
    for (uint32_t i = 0; i < 32; i++)
        client_request(fd, i % 2 ? NBD_CMD_READ : NBD_CMD_TRIM, 0, i, i * MIB, 65536);
    wait_until(&s.fake.nr_held_now, 32);
    close(fd);
    /* another connection sees the volume still open twice */
    fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    CHECK_EQ(atomic_load(&s.fake.nr_opens), 2);
    server_release(&s);
    wait_until(&s.fake.nr_opens, 1);
    client_disconnect(fd);
}

static void disconnect_answers_what_is_in_flight_first(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);

    atomic_store(&s.fake.hold, true);
    client_request(fd, NBD_CMD_READ, 0, 9, 0, 4096);
    client_request(fd, NBD_CMD_DISC, 0, 0, 0, 0);
    wait_until(&s.fake.nr_held_now, 1);
    server_release(&s);
    CHECK_EQ(client_simple(fd, NULL), NBD_OK);
    client_recv(fd, in, 4096);
    client_expect_eof(fd);
}

int main(void)
{
    server_start(&s, NULL);
    what_is_written_is_read();
    flush_and_fua_reach_the_volume();
    zeros_are_zeros();
    cache_answers();
    wrong_requests_get_errors();
    wrong_writes_get_errors();
    streams_out_of_step_end();
    structured_errors_say_why();
    errors_of_the_volume_are_translated();
    replies_carry_their_cookies_in_any_order();
    a_write_cut_off_is_dropped();
    leaving_with_requests_in_flight_closes_the_volume_after_them();
    disconnect_answers_what_is_in_flight_first();
    server_stop(&s);
    return 0;
}
