/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: create, attach, destroy; every error has its number; no bad header is
 * believed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fixture.h"

static void create_and_attach_see_the_same_bytes(void)
{
    struct xseg_segment *one = segment_new(NULL), *two = NULL;
    const struct xseg_header *header = xseg_segment_header(one);
    CHECK_EQ(header->magic, XSEG_MAGIC);
    CHECK(memcmp(&header->magic, "ACPXSEG1", 8) == 0);
    CHECK_EQ(header->nr_ports, 1024);
    CHECK_EQ(header->nr_requests, 8192);
    CHECK_EQ(header->heap_bytes, 128 << 20);
    CHECK_EQ(header->creator_pid, getpid());
    CHECK_EQ(header->heap_off % XSEG_PAGE_BYTES, 0);
    CHECK(strcmp(xseg_segment_name(one), segment_name()) == 0);

    CHECK_EQ(xseg_segment_attach(segment_name(), &two), 0);
    uint64_t off;
    CHECK_EQ(xseg_buffer_alloc(one, 5, &off), 4096);
    strcpy(xseg_heap_ptr(one, off, 5), "here");
    CHECK(xseg_heap_ptr(one, off, 5) != xseg_heap_ptr(two, off, 5));
    CHECK(strcmp(xseg_heap_ptr(two, off, 5), "here") == 0);
    CHECK_EQ(xseg_buffer_free(two, off), 0);

    CHECK(!xseg_segment_port(one, header->nr_ports));
    CHECK(xseg_segment_port(one, header->nr_ports - 1));
    CHECK(!xseg_segment_request(one, header->nr_requests));
    CHECK_EQ(xseg_segment_request(one, 17)->index, 17);
    xseg_segment_detach(two);
    segment_end(one);
}

static void names_are_checked(void)
{
    char longest[202];
    struct xseg_segment *seg;
    memset(longest, 'a', 201);
    longest[201] = '\0';
    const char *bad[] = {"",   ".",   "..",       ".hidden", "a/b",
                         "/a", "a b", "\xc3\xa9", longest};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_EQ(xseg_segment_create(bad[i], &small_segment, &seg), -EINVAL);
        CHECK(!seg);
        CHECK_EQ(xseg_segment_attach(bad[i], &seg), -EINVAL);
        CHECK_EQ(xseg_segment_destroy(bad[i]), -EINVAL);
    }
}

static void sizes_are_checked(void)
{
    const struct xseg_segment_options bad[] = {
        {.nr_ports = 15},
        {.nr_ports = 4097},
        {.nr_requests = 63},
        {.nr_requests = 100},
        {.nr_requests = 131072},
        {.heap_bytes = 12u << 20},
        {.heap_bytes = (16u << 20) + 4096},
        {.heap_bytes = UINT64_C(65) << 30},
        {.heap_bytes = UINT64_MAX - (4u << 20) + 1},
    };
    struct xseg_segment *seg;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_EQ(xseg_segment_create(segment_name(), &bad[i], &seg), -EINVAL);
    CHECK_EQ(xseg_segment_attach(segment_name(), &seg), -ENOENT);
}

static void a_name_is_taken_once_and_removed_once(void)
{
    struct xseg_segment *seg = segment_new(&small_segment), *other = NULL;
    CHECK_EQ(xseg_segment_create(segment_name(), &small_segment, &other), -EEXIST);
    segment_end(seg);
    CHECK_EQ(xseg_segment_destroy(segment_name()), -ENOENT);
    CHECK_EQ(xseg_segment_attach(segment_name(), &other), -ENOENT);
}

static void the_mode_is_the_one_asked_for(void)
{
    struct xseg_segment_options options = small_segment;
    char path[128];
    struct stat st;
    mode_t before = umask(077);
    snprintf(path, sizeof(path), "/dev/shm/%s", segment_name());
    struct xseg_segment *seg = segment_new(&options);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0660);
    /* All of it is there: no hole can become a SIGBUS later. */
    CHECK(st.st_blocks * 512 >= st.st_size);
    segment_end(seg);
    options.mode = 0600;
    seg = segment_new(&options);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0600);
    segment_end(seg);
    umask(before);
}

static void too_large_a_segment_leaves_nothing(void)
{
    const struct xseg_segment_options huge = {.heap_bytes = UINT64_C(64) << 30};
    struct xseg_segment *seg;
    struct statvfs fs;
    CHECK_EQ(statvfs("/dev/shm", &fs), 0);
    if (fs.f_blocks == 0 || fs.f_blocks * fs.f_frsize > huge.heap_bytes)
        return; /* a machine where it fits, or where only memory is the limit */
    CHECK_EQ(xseg_segment_create(segment_name(), &huge, &seg), -ENOSPC);
    CHECK_EQ(xseg_segment_attach(segment_name(), &seg), -ENOENT);
}

/* Change one word of the header on disk, expect the attach to fail, change it back. */
static void refuse(size_t off, const void *bytes, size_t len, int expected)
{
    char path[128], before[8];
    struct xseg_segment *seg;
    snprintf(path, sizeof(path), "/dev/shm/%s", segment_name());
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, before, len, (off_t)off), len);
    CHECK_EQ(pwrite(fd, bytes, len, (off_t)off), len);
    CHECK_EQ(xseg_segment_attach(segment_name(), &seg), expected);
    CHECK(!seg);
    CHECK_EQ(pwrite(fd, before, len, (off_t)off), len);
    close(fd);
    CHECK_EQ(xseg_segment_attach(segment_name(), &seg), 0);
    xseg_segment_detach(seg);
}

#define REFUSE(field, value, expected)                                                 \
    do {                                                                               \
        uint64_t refused = (value);                                                    \
        refuse(offsetof(struct xseg_header, field), &refused,                          \
               sizeof(((struct xseg_header *)0)->field), expected);                    \
    } while (0)

static void a_header_that_contradicts_itself_is_refused(void)
{
    struct xseg_segment *seg = segment_new(&small_segment);
    const struct xseg_header *header = xseg_segment_header(seg);
    REFUSE(magic, 0, -EBADMSG);
    REFUSE(layout_version, XSEG_LAYOUT_VERSION + 1, -EPROTONOSUPPORT);
    REFUSE(features, 1, -EPROTONOSUPPORT);
    REFUSE(size_bytes, header->size_bytes + 4096, -EBADMSG);
    REFUSE(nr_ports, 0, -EBADMSG);
    REFUSE(nr_ports, 17, -EBADMSG);
    REFUSE(nr_ports, UINT32_MAX, -EBADMSG);
    REFUSE(nr_requests, 0, -EBADMSG);
    REFUSE(nr_requests, 512, -EBADMSG);
    REFUSE(nr_requests, 0x80000000u, -EBADMSG);
    REFUSE(ports_off, 0, -EBADMSG);
    REFUSE(rings_off, UINT64_MAX, -EBADMSG);
    REFUSE(requests_off, header->heap_off, -EBADMSG);
    REFUSE(heap_table_off, 64, -EBADMSG);
    REFUSE(heap_off, header->heap_off + 1, -EBADMSG);
    REFUSE(heap_bytes, UINT64_MAX, -EBADMSG);
    REFUSE(heap_bytes, 0, -EBADMSG);
    segment_end(seg);
}

static void a_file_that_is_too_short_is_refused(void)
{
    char path[128];
    struct xseg_segment *seg = segment_new(&small_segment), *other;
    const struct xseg_header *header = xseg_segment_header(seg);
    off_t size = (off_t)header->size_bytes;
    snprintf(path, sizeof(path), "/dev/shm/%s", segment_name());
    segment_check_idle(seg);
    xseg_segment_detach(seg);
    const off_t sizes[] = {size - 1, size - 4096, 4096, 4095, 1, 0};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        CHECK_EQ(truncate(path, sizes[i]), 0);
        CHECK_EQ(xseg_segment_attach(segment_name(), &other), -EBADMSG);
    }
    CHECK_EQ(xseg_segment_destroy(segment_name()), 0);
}

/* Issue 9, fault 22: the file is judged before a byte of it is believed. */
static void a_file_that_is_not_to_be_trusted_is_refused(void)
{
    char path[128], second[140];
    struct xseg_segment *seg = segment_new(&small_segment), *other;
    snprintf(path, sizeof(path), "/dev/shm/%s", segment_name());
    snprintf(second, sizeof(second), "%s.second", path);
    CHECK_EQ(chmod(path, 0666), 0);
    CHECK_EQ(xseg_segment_attach(segment_name(), &other), -EPERM);
    CHECK_EQ(chmod(path, 0660), 0);
    CHECK_EQ(link(path, second), 0);
    CHECK_EQ(xseg_segment_attach(segment_name(), &other), -EPERM);
    CHECK_EQ(unlink(second), 0);
    CHECK_EQ(rename(path, second), 0);
    CHECK_EQ(symlink(second, path), 0);
    CHECK_EQ(xseg_segment_attach(segment_name(), &other), -EPERM);
    CHECK_EQ(rename(second, path), 0);
    CHECK_EQ(xseg_segment_attach(segment_name(), &other), 0);
    xseg_segment_detach(other);
    if (geteuid() == 0) { /* another user's, unless that user is named */
        CHECK_EQ(chown(path, 65534, 0), 0);
        CHECK_EQ(xseg_segment_attach(segment_name(), &other), -EPERM);
        CHECK_EQ(xseg_segment_attach_of(segment_name(), 1, &other), -EPERM);
        CHECK_EQ(xseg_segment_attach_of(segment_name(), 65534, &other), 0);
        xseg_segment_detach(other);
    }
    segment_end(seg);
    CHECK_EQ(mkfifo(path, 0600), 0);
    CHECK_EQ(xseg_segment_attach(segment_name(), &other), -EPERM);
    CHECK_EQ(unlink(path), 0);
}

static void names_of_ops_and_states(void)
{
    CHECK(strcmp(xseg_op_name(XSEG_OP_READ), "READ") == 0);
    for (uint32_t op = 0; op < XSEG_NR_OPS; op++)
        CHECK(strcmp(xseg_op_name(op), "?") != 0);
    CHECK(strcmp(xseg_op_name(XSEG_NR_OPS), "?") == 0);
    CHECK(strcmp(xseg_op_name(UINT32_MAX), "?") == 0);
    CHECK(strcmp(xseg_request_state_name(XSEG_RS_SERVING), "serving") == 0);
    CHECK(strcmp(xseg_request_state_name(99), "?") == 0);
    CHECK(strcmp(xseg_version(), XSEG_VERSION) == 0);
}

int main(void)
{
    create_and_attach_see_the_same_bytes();
    names_are_checked();
    sizes_are_checked();
    a_name_is_taken_once_and_removed_once();
    the_mode_is_the_one_asked_for();
    too_large_a_segment_leaves_nothing();
    a_header_that_contradicts_itself_is_refused();
    a_file_that_is_too_short_is_refused();
    a_file_that_is_not_to_be_trusted_is_refused();
    names_of_ops_and_states();
    return 0;
}
