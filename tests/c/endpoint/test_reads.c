/* SPDX-License-Identifier: Apache-2.0 */
/* Large and structured reads, DF, failures in the middle, and BLOCK_STATUS. */
#include <unistd.h>

#include "server.h"

#define MIB (1u << 20)

static struct server s;
static uint8_t *disk; /* what the volume holds */
static uint8_t got[34 * MIB];

static void fill_disk(void)
{
    uint64_t seed = 7;

    disk = s.fake.disk;
    for (size_t i = 0; i < FAKE_DISK_BYTES; i += 8) {
        uint64_t v = check_next(&seed);
        memcpy(disk + i, &v, 8);
    }
    memset(disk + 40 * MIB, 0, 2 * MIB);
    memset(s.fake.present, 1, FAKE_DISK_BYTES / XSEG_SECTOR_BYTES);
}

/** Read one structured reply to the end; returns its error, or 0 and checks the data.
 */
static uint32_t take_reply(int fd, uint64_t cookie, uint64_t offset, uint32_t length,
                           uint32_t *nr_content, uint32_t *nr_holes)
{
    static uint8_t covered[34 * MIB];
    uint32_t error = 0, content = 0, holes = 0, sum = 0;
    struct client_chunk chunk;

    memset(covered, 0, length);
    do {
        uint8_t head[1024];
        chunk = client_chunk(fd);
        CHECK_EQ(chunk.cookie, cookie);
        if (chunk.type == NBD_REPLY_TYPE_OFFSET_DATA) {
            client_recv(fd, head, 8);
            uint64_t at = nbd_get64(head) - offset;
            uint32_t len = chunk.length - 8;
            CHECK(at + len <= length && len > 0);
            CHECK(!memchr(covered + at, 1, len));
            memset(covered + at, 1, len);
            client_recv(fd, got + at, len);
            content++;
            sum += len;
        } else if (chunk.type == NBD_REPLY_TYPE_OFFSET_HOLE) {
            CHECK_EQ(chunk.length, 12);
            client_recv(fd, head, 12);
            uint64_t at = nbd_get64(head) - offset;
            uint32_t len = nbd_get32(head + 8);
            CHECK(at + len <= length && len > 0);
            memset(covered + at, 1, len);
            memset(got + at, 0, len);
            content++;
            holes++;
            sum += len;
        } else if (chunk.type == NBD_REPLY_TYPE_ERROR) {
            CHECK(chunk.length <= sizeof(head));
            client_recv(fd, head, chunk.length);
            error = nbd_get32(head);
            CHECK(error != 0);
        } else {
            CHECK_EQ(chunk.type, NBD_REPLY_TYPE_NONE);
            CHECK_EQ(chunk.length, 0);
            CHECK_EQ(chunk.flags, NBD_REPLY_FLAG_DONE);
        }
    } while (!(chunk.flags & NBD_REPLY_FLAG_DONE));
    if (!error) {
        CHECK_EQ(sum, length);
        CHECK(memcmp(got, disk + offset, length) == 0);
    }
    if (nr_content)
        *nr_content = content;
    if (nr_holes)
        *nr_holes = holes;
    return error;
}

static void structured_reads_cover_the_range(void)
{
    static const uint32_t sizes[] = {1, 4096, MIB, MIB + 1, 5 * MIB - 3, 32 * MIB};
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (uint64_t offset = 0; offset < 10000; offset += 4999) {
            client_request(fd, NBD_CMD_READ, 0, i, offset, sizes[i]);
            CHECK_EQ(take_reply(fd, i, offset, sizes[i], NULL, NULL), 0);
        }
    }
    client_disconnect(fd);
}

static void zeros_are_sent_as_holes(void)
{
    uint32_t content, holes;
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);

    client_request(fd, NBD_CMD_READ, 0, 1, 40 * MIB, 2 * MIB);
    CHECK_EQ(take_reply(fd, 1, 40 * MIB, 2 * MIB, &content, &holes), 0);
    CHECK_EQ(holes, content);
    client_request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1, 40 * MIB, 4096);
    CHECK_EQ(take_reply(fd, 1, 40 * MIB, 4096, &content, &holes), 0);
    CHECK_EQ(holes, 0);
    client_disconnect(fd);
}

static void df_sends_one_content_chunk(void)
{
    static const uint32_t sizes[] = {1, 65536, MIB, 7 * MIB + 5, 32 * MIB};
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t content;
        client_request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, i, 777, sizes[i]);
        CHECK_EQ(take_reply(fd, i, 777, sizes[i], &content, NULL), 0);
        CHECK_EQ(content, 1);
    }
    client_disconnect(fd);
}

/** Several large reads at once, with small requests between them. */
static void simple_reads_are_never_interleaved(void)
{
    int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
    uint32_t left[3] = {4, 4, 20};

    for (uint32_t i = 0; i < 4; i++) {
        client_request(fd, NBD_CMD_READ, 0, 100 + i, i * 5 * MIB, 9 * MIB);
        for (uint32_t j = 0; j < 5; j++)
            client_request(fd, NBD_CMD_READ, 0, 300 + i * 5 + j, (i * 5 + j) * MIB,
                           4096);
        client_request(fd, NBD_CMD_FLUSH, 0, 200 + i, 0, 0);
    }
    for (int i = 0; i < 28; i++) {
        uint64_t cookie;
        CHECK_EQ(client_simple(fd, &cookie), NBD_OK);
        if (cookie >= 300) {
            client_recv(fd, got, 4096);
            CHECK(memcmp(got, disk + (cookie - 300) * MIB, 4096) == 0);
            left[2]--;
        } else if (cookie >= 200) {
            left[1]--;
        } else {
            client_recv(fd, got, 9 * MIB);
            CHECK(memcmp(got, disk + (cookie - 100) * 5 * MIB, 9 * MIB) == 0);
            left[0]--;
        }
    }
    CHECK(left[0] == 0 && left[1] == 0 && left[2] == 0);
    client_disconnect(fd);
}

/** The same with DF, where chunks of others may not come in between either. */
static void df_reads_at_once(void)
{
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);

    for (uint32_t i = 0; i < 6; i++)
        client_request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, i, i * MIB, 6 * MIB);
    /* Each reply is one run of bytes and a closing chunk; those of several commands
     * may only alternate between chunks. */
    bool closed[6] = {false};
    for (uint32_t nr_closed = 0; nr_closed < 6;) {
        struct client_chunk chunk = client_chunk(fd);
        CHECK(chunk.cookie < 6 && !closed[chunk.cookie]);
        if (chunk.type == NBD_REPLY_TYPE_OFFSET_DATA) {
            CHECK_EQ(chunk.length, 6 * MIB + 8);
            client_recv(fd, got, 8);
            CHECK_EQ(nbd_get64(got), chunk.cookie * MIB);
            client_recv(fd, got, 6 * MIB);
            CHECK(memcmp(got, disk + chunk.cookie * MIB, 6 * MIB) == 0);
        }
        if (chunk.flags & NBD_REPLY_FLAG_DONE) {
            closed[chunk.cookie] = true;
            nr_closed++;
        }
    }
    client_disconnect(fd);
}

static void a_failed_structured_read_says_so(void)
{
    int fd = client_go(&s, "disk", CLIENT_STRUCTURED, NULL, NULL);

    for (uint64_t bad = 0; bad < 20 * MIB; bad += 3 * MIB + 1) {
        atomic_store(&s.fake.fail_offset, (int64_t)bad);
        client_request(fd, NBD_CMD_READ, 0, bad, 0, 20 * MIB);
        CHECK_EQ(take_reply(fd, bad, 0, 20 * MIB, NULL, NULL), NBD_EIO);
        client_request(fd, NBD_CMD_READ, NBD_CMD_FLAG_DF, bad, 0, 20 * MIB);
        CHECK_EQ(take_reply(fd, bad, 0, 20 * MIB, NULL, NULL), NBD_EIO);
    }
    atomic_store(&s.fake.fail_offset, -1);
    client_check_alive(fd, CLIENT_STRUCTURED);
    client_disconnect(fd);
}

/** A simple reply either is the error alone, or breaks off before the bad byte. */
static void a_failed_simple_read_is_an_error_or_the_end(void)
{
    for (uint64_t bad = 0; bad < 20 * MIB; bad += 6 * MIB + 1) {
        uint32_t len = 0;
        int fd = client_go(&s, "disk", CLIENT_SIMPLE, NULL, NULL);
        atomic_store(&s.fake.fail_offset, (int64_t)bad);
        client_request(fd, NBD_CMD_READ, 0, 5, 0, 20 * MIB);
        client_request_disc(fd);
        for (ssize_t n; (n = read(fd, got + len, sizeof(got) - len)) > 0;)
            len += (uint32_t)n;
        if (len) {
            CHECK(len >= NBD_SIMPLE_REPLY_BYTES);
            len -= NBD_SIMPLE_REPLY_BYTES;
            CHECK(len <= bad);
            CHECK(nbd_get32(got + 4) == NBD_OK ||
                  (nbd_get32(got + 4) == NBD_EIO && len == 0));
            CHECK(memcmp(got + NBD_SIMPLE_REPLY_BYTES, disk, len) == 0);
        }
        close(fd);
    }
    atomic_store(&s.fake.fail_offset, -1);
    wait_until(&s.fake.nr_opens, 0);
}

/* ---- BLOCK_STATUS ---------------------------------------------------------------- */

struct extent {
    uint32_t length, flags;
};

static uint32_t status(int fd, uint16_t flags, uint64_t offset, uint32_t length,
                       struct extent *extents)
{
    static uint8_t payload[64 << 10];
    struct client_chunk chunk;
    uint32_t nr;

    client_request(fd, NBD_CMD_BLOCK_STATUS, flags, 3, offset, length);
    chunk = client_chunk(fd);
    CHECK_EQ(chunk.type, NBD_REPLY_TYPE_BLOCK_STATUS);
    CHECK_EQ(chunk.flags, NBD_REPLY_FLAG_DONE);
    CHECK_EQ(chunk.cookie, 3);
    CHECK(chunk.length <= sizeof(payload) && chunk.length % 8 == 4);
    client_recv(fd, payload, chunk.length);
    CHECK_EQ(nbd_get32(payload), NBD_ALLOCATION_CONTEXT_ID);
    nr = chunk.length / 8;
    CHECK(nr > 0);
    for (uint32_t i = 0; i < nr; i++) {
        extents[i].length = nbd_get32(payload + 4 + 8 * i);
        extents[i].flags = nbd_get32(payload + 8 + 8 * i);
        CHECK(extents[i].length > 0);
    }
    return nr;
}

static void status_tells_holes(void)
{
    static struct extent e[8192];
    int fd = client_go(&s, "disk", CLIENT_ALLOCATION, NULL, NULL);

    memset(s.fake.present, 0, FAKE_DISK_BYTES / XSEG_SECTOR_BYTES);
    memset(s.fake.present + 2, 1, 3); /* 8192 to 20480 */
    CHECK_EQ(status(fd, 0, 0, MIB, e), 3);
    CHECK(e[0].length == 8192 && e[0].flags == (NBD_STATE_HOLE | NBD_STATE_ZERO));
    CHECK(e[1].length == 12288 && e[1].flags == 0);
    CHECK(e[2].length == MIB - 20480 &&
          e[2].flags == (NBD_STATE_HOLE | NBD_STATE_ZERO));
    CHECK_EQ(status(fd, NBD_CMD_FLAG_REQ_ONE, 8192, MIB, e), 1);
    CHECK(e[0].length == 12288 && e[0].flags == 0);
    /* unaligned at both ends */
    CHECK_EQ(status(fd, 0, 8000, 300, e), 2);
    CHECK(e[0].length == 192 && e[1].length == 108);
    CHECK_EQ(status(fd, 0, FAKE_DISK_BYTES - 1, 1, e), 1);
    CHECK_EQ(e[0].length, 1);
    client_disconnect(fd);

    fd = client_go(&s, "odd", CLIENT_ALLOCATION, NULL, NULL);
    CHECK_EQ(status(fd, 0, 0, FAKE_ODD_BYTES, e), 1);
    CHECK_EQ(e[0].length, FAKE_ODD_BYTES);
    client_disconnect(fd);

    fd = client_go(&s, "huge", CLIENT_ALLOCATION, NULL, NULL);
    CHECK_EQ(status(fd, 0, 4096, 0xfffffff0, e), 1);
    CHECK_EQ(e[0].length, 0xfffffff0);
    client_disconnect(fd);
}

static void status_of_fragments_is_answered_in_part(void)
{
    static struct extent e[8192];
    uint32_t sectors = FAKE_DISK_BYTES / XSEG_SECTOR_BYTES, nr, covered = 0;
    int fd = client_go(&s, "disk", CLIENT_ALLOCATION, NULL, NULL);

    for (uint32_t i = 0; i < sectors; i++)
        s.fake.present[i] = i % 2;
    while (covered < FAKE_DISK_BYTES) {
        nr = status(fd, 0, covered, FAKE_DISK_BYTES - covered, e);
        for (uint32_t i = 0; i < nr; i++) {
            CHECK_EQ(e[i].length, XSEG_SECTOR_BYTES);
            CHECK_EQ(e[i].flags == 0, covered / XSEG_SECTOR_BYTES % 2);
            covered += e[i].length;
        }
    }
    CHECK_EQ(covered, FAKE_DISK_BYTES);
    client_disconnect(fd);
}

static void status_can_fail(void)
{
    int fd = client_go(&s, "disk", CLIENT_ALLOCATION, NULL, NULL);

    client_request(fd, NBD_CMD_BLOCK_STATUS, 0, 8, FAKE_DISK_BYTES - 10, 11);
    CHECK_EQ(client_error_chunk(fd, 8), NBD_EINVAL);
    client_request(fd, NBD_CMD_BLOCK_STATUS, 0, 8, 0, 0);
    CHECK_EQ(client_error_chunk(fd, 8), NBD_EINVAL);
    atomic_store(&s.fake.fail_offset, 4096);
    client_request(fd, NBD_CMD_BLOCK_STATUS, 0, 8, 0, 8192);
    CHECK_EQ(client_error_chunk(fd, 8), NBD_EIO);
    atomic_store(&s.fake.fail_offset, -1);
    client_check_alive(fd, CLIENT_STRUCTURED);
    client_disconnect(fd);
}

int main(void)
{
    server_start(&s, NULL);
    fill_disk();
    structured_reads_cover_the_range();
    zeros_are_sent_as_holes();
    df_sends_one_content_chunk();
    simple_reads_are_never_interleaved();
    df_reads_at_once();
    a_failed_structured_read_says_so();
    a_failed_simple_read_is_an_error_or_the_end();
    status_tells_holes();
    status_of_fragments_is_answered_in_part();
    status_can_fail();
    server_stop(&s);
    return 0;
}
