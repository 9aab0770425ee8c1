/* SPDX-License-Identifier: Apache-2.0 */
/* What only the file backend has: its directory, and what people and crashes do to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/client.h"
#include "blocker/lease.h"

static struct setup setup = {.backend = "file", .engine = "auto"};
static struct server server, *s = &server;
static uint8_t data[1u << 20], got[1u << 20];

static void path_in(char out[512], const char *name)
{
    snprintf(out, 512, "%s/%s", setup.path, name);
}

static void put_file(const char *name, const char *text)
{
    char path[512];
    path_in(path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0660);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static bool exists(const char *name)
{
    char path[512];
    path_in(path, name);
    return access(path, F_OK) == 0;
}

/** Open data/ alone and say why it cannot be. */
static int try_open(const char *path, const char **why)
{
    const struct xseg_segment_options options = {.heap_bytes = 16u << 20};
    struct xseg_segment *seg;
    struct reactor *r;
    struct blk_backend *be;
    char name[64];

    snprintf(name, sizeof name, "test-store-%d", (int)getpid());
    CHECK_EQ(xseg_segment_create(name, &options, &seg), 0);
    CHECK_EQ(xseg_segment_destroy(name), 0);
    CHECK_EQ(reactor_create(seg, NULL, &r), 0);
    struct blk_options store = {.path = path, .engine = setup.engine};
    int rc = blk_file_ops.open(r, &store, &be, why);
    if (rc == 0)
        blk_file_ops.close(be);
    reactor_destroy(r);
    xseg_segment_detach(seg);
    return rc;
}

static void test_open_makes_the_tree_and_checks_its_format(void)
{
    const char *const dirs[] = {"content",  "extents", "layers",   "headers",
                                "journals", "leases",  "presence", "tmp"};
    char path[512], text[64];
    const char *why;

    path_in(path, "deep/er/data///");
    CHECK_EQ(try_open(path, &why), 0);
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        snprintf(text, sizeof text, "deep/er/data/%s", dirs[i]);
        CHECK(exists(text));
    }
    CHECK_EQ(try_open(path, &why), 0);
    put_file("deep/er/data/format", "archipelago-store 2\n");
    CHECK_EQ(try_open(path, &why), -EPROTONOSUPPORT);
    CHECK(strstr(why, "format 2") && strstr(why, "deep/er/data"));
    const char *const bad[] = {"",
                               "x",
                               "archipelago-store 0\n",
                               "archipelago-store -1\n",
                               "archipelago-store 1x\n",
                               "qcow2 1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_file("deep/er/data/format", bad[i]);
        CHECK_EQ(try_open(path, &why), -EBADMSG);
        CHECK(strstr(why, "format"));
    }
    path_in(path, "deep/er/data/format");
    CHECK_EQ(try_open(path, &why), -ENOTDIR);
    CHECK(strstr(why, path));
    CHECK_EQ(try_open("", &why), -EINVAL);
    CHECK_EQ(try_open("/proc/no/such", &why), -ENOENT);
    CHECK(strstr(why, "/proc/no/such"));
    setup.engine = "steam";
    path_in(path, "deep/er/other");
    CHECK_EQ(try_open(path, &why), -EINVAL);
    CHECK(strstr(why, "io_uring"));
    setup.engine = "auto";
}

static void test_open_removes_what_dead_writers_left(void)
{
    const char *foreign = "data/tmp/00000000-0000-0000-0000-000000000000.1.1.1";
    const char *old = "data/tmp/00000000-0000-0000-0000-000000000000.1.1.2";
    const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    char path[512], alive[160], dead[160];
    char boot_id[40];
    const char *why;
    uint32_t pid = (uint32_t)getpid();

    lease_boot_id(boot_id);
    path_in(path, "data");
    CHECK_EQ(try_open(path, &why), 0);
    snprintf(alive, sizeof alive, "data/tmp/%s.%u.%llu.99", boot_id, pid,
             (unsigned long long)xseg_process_start(pid));
    snprintf(dead, sizeof dead, "data/tmp/%s.%u.%llu.99", boot_id, pid,
             (unsigned long long)xseg_process_start(pid) + 1);
    put_file(alive, "x");
    put_file(dead, "x");
    put_file("data/tmp/notes", "x");
    /* of another machine, or of this one before it crashed: who knows */
    put_file(foreign, "x");
    put_file(old, "x");
    path_in(path, old);
    CHECK_EQ(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    path_in(path, "data");
    CHECK_EQ(try_open(path, &why), 0);
    CHECK(exists(alive) && !exists(dead) && exists("data/tmp/notes"));
    CHECK(exists(foreign) && !exists(old));
}

static void test_paths_are_those_of_the_format(void)
{
    struct xseg_object c = {.kind = XSEG_OBJ_CONTENT}, h = {.kind = XSEG_OBJ_HEADER};
    struct xseg_object e = {.kind = XSEG_OBJ_EXTENT}, l = {.kind = XSEG_OBJ_LAYER};
    struct xseg_object j = {.kind = XSEG_OBJ_JOURNAL}, t = {.kind = XSEG_OBJ_LEASE};
    struct xseg_lease lease = lease_of("a");
    struct xseg_list_entry entries[4];
    struct xseg_opaque cursor = {.length = 0};

    memset(c.id, 0xab, 32);
    memset(h.id, '/', 32); /* hex, whatever the bytes are */
    memset(e.id, '.', 16);
    e.id[16] = 0x10;
    memset(l.id, 0x01, 16);
    memset(j.id, 0x02, 16);
    j.id[23] = 0xff;
    memset(t.id, 0x02, 16);
    server_start(s, &setup);
    fill_header(data, 64, 1, 1, 0);
    CHECK_EQ(do_create(s, &c, data, 64, 0), 0);
    CHECK_EQ(do_create(s, &h, data, 64, 0), 0);
    CHECK_EQ(do_write(s, &e, (UINT64_C(0x1f) << 40) + 4096, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &l, 0, data, 64, 0), 64);
    CHECK_EQ(do_append(s, &j, 0, 0, data, 64), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    const char *const files[] = {
        "data/content/ab/ab/"
        "abababababababababababababababababababababababababababababababab",
        "maps/headers/2f/"
        "2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f2f",
        "data/extents/2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e/0000000000000010.1f",
        "maps/layers/01010101010101010101010101010101",
        "maps/journals/02020202020202020202020202020202.ff00000000000000",
        "maps/leases/02020202020202020202020202020202",
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        CHECK(exists(files[i]));
    /* what people leave there is neither listed nor touched */
    put_file("maps/journals/README", "x");
    put_file("maps/journals/02020202020202020202020202020202.FF00000000000000", "x");
    put_file("data/extents/README", "x");
    CHECK_EQ(do_list(s, XSEG_OBJ_JOURNAL, &cursor, entries, 4), 1);
    CHECK_EQ(cursor.length, 0);
    CHECK_EQ(do_list(s, XSEG_OBJ_EXTENT, &cursor, entries, 4), 1);
    /* deleting the last epoch removes the volume's directory */
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK(!exists("data/extents/2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e"));
    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK(exists("data/extents/2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e/0000000000000010.0"));
    server_stop(s);
}

/** Overwrite one byte of a file. */
static void damage(const char *name, off_t at)
{
    char path[512];
    uint8_t byte = 0x5a, old;
    path_in(path, name);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, &old, 1, at), 1);
    byte = (uint8_t)(old ^ byte);
    CHECK_EQ(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_a_damaged_lease_slot_is_survived_two_are_told(void)
{
    struct xseg_object t = {.kind = XSEG_OBJ_LEASE, .id = {7}};
    const char *file = "maps/leases/07000000000000000000000000000000";
    struct xseg_lease a = lease_of("a"), x;

    server_start(s, &setup);
    appear(s, "a");
    /* sequence 1: free, slot 0; 2: a, slot 1; 3: a again, slot 0 */
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &a, 0), 0);
    x = a;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &x, 0), 0);
    damage(file, 40);
    x = lease_of("b");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &x, 0), -EBUSY);
    CHECK_EQ(x.fence, a.fence);
    damage(file, 4096 + 100);
    x = lease_of("b");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &x, 0), -EBADMSG);
    CHECK_EQ(do_read(s, &t, 0, got, 4096), -EBADMSG);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &t, &x, 0), -EBADMSG);
    /* the cure: broken, with a fence above all that the damaged record may have had */
    x = lease_of("b");
    x.fence = a.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &t, &x, XSEG_F_FORCE), 0);
    CHECK(x.fence > a.fence + UINT32_MAX);
    a = lease_of("b");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &a, 0), 0);
    CHECK_EQ(a.fence, x.fence + 1);
    server_stop(s);
}

static void test_more_files_than_may_be_open(void)
{
    struct rlimit old, few;

    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 96;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    server_start(s, &setup);
    for (uint64_t round = 0; round < 2; round++)
        for (uint64_t i = 0; i < 200; i++) {
            struct xseg_object e = extent_name(1000 + i, 1);
            memset(data, (int)(i + round), 4096);
            CHECK_EQ(do_write(s, &e, round * 4096, data, 4096, 0), 4096);
            CHECK_EQ(do_flush(s, &e), 0);
        }
    for (uint64_t i = 0; i < 200; i++) {
        struct xseg_object e = extent_name(1000 + i, 1);
        CHECK_EQ(do_read(s, &e, 0, got, 8192), 8192);
        CHECK(got[0] == (uint8_t)i && got[4096] == (uint8_t)(i + 1));
    }
    server_stop(s);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/** Dirty files count too (issue 9, fault 04): at the cap the oldest is synced and closed. */
static void test_more_dirty_files_than_may_be_open(void)
{
    struct rlimit old, few;
    uint64_t nr = 300;

    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 96;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    server_start(s, &setup);
    for (uint64_t round = 0; round < 2; round++)
        for (uint64_t i = 0; i < nr; i++) {
            struct xseg_object e = extent_name(2000 + i, 1);
            memset(data, (int)(i + round), 4096);
            CHECK_EQ(do_write(s, &e, round * 4096, data, 4096, 0), 4096);
        }
    /* many at once, each of which needs a file */
    struct xseg_request *writes[48];
    for (uint64_t i = 0; i < 48; i++) {
        struct xseg_object e = extent_name(2000 + i * 6, 1);
        writes[i] = ask(s, XSEG_OP_WRITE, &e);
        writes[i]->offset = 8192;
        writes[i]->size = 4096;
        send_only(s, writes[i]);
    }
    for (uint64_t i = 0; i < 48; i++) {
        CHECK_EQ(await(s, writes[i]), 4096);
        xseg_request_free(s->port, writes[i]);
    }
    for (uint64_t i = 0; i < nr; i++) {
        struct xseg_object e = extent_name(2000 + i, 1);
        CHECK_EQ(do_read(s, &e, 0, got, 8192), 8192);
        CHECK(got[0] == (uint8_t)i && got[4096] == (uint8_t)(i + 1));
        CHECK_EQ(do_flush(s, &e), 0);
    }
    CHECK_EQ(do_flush(s, &whole_store), 0);
    server_stop(s);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/* ---- a full filesystem -------------------------------------------------- */

/** A filesystem of its own for a store; false where there can be none. */
static bool mount_small(struct setup *small, const char *name, const char *options)
{
    CHECK(snprintf(small->path, sizeof small->path, "%s/%s", setup.path, name) <
          (int)sizeof small->path);
    CHECK_EQ(mkdir(small->path, 0700), 0);
    if (mount("none", small->path, "tmpfs", 0, options) == 0)
        return true;
    printf("a store with %s: not tested, mount(2): %s\n", options, strerror(errno));
    return false;
}

static void test_a_full_store_refuses_and_goes_on(void)
{
    struct setup small = setup;
    struct xseg_object e = extent_name(1, 1), f = extent_name(2, 1), h = header_name(1);
    struct xseg_object j = journal_name(1, 1), c = content_name(1);
    struct xseg_object_info info;
    uint64_t off = 0, length = 64;
    int64_t rc;

    if (!mount_small(&small, "small", "size=8m"))
        return;
    server_start(s, &small);
    memset(data, 1, sizeof data);
    fill_header(got, 64, 1, 1, 'a');
    CHECK_EQ(do_create(s, &h, got, 64, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, 0, data, length), 0);
    CHECK_EQ(do_write(s, &f, 0, data, 4096, 0), 4096);
    while ((rc = do_write(s, &e, off, data, 65536, 0)) == 65536)
        off += 65536;
    CHECK_EQ(rc, -ENOSPC);
    while ((rc = do_write(s, &e, off, data, 4096, 0)) == 4096)
        off += 4096;
    CHECK_EQ(rc, -ENOSPC);
    /* nothing is torn, and what does not need space goes on */
    CHECK_EQ(do_create(s, &c, data, 1u << 20, 0), -ENOSPC);
    CHECK_EQ(do_info(s, &c, &info), -ENOENT);
    uint8_t big[20000];
    fill_header(big, sizeof big, 2, 1, 'b');
    CHECK_EQ(do_update(s, &h, 1, big, sizeof big), -ENOSPC);
    CHECK_EQ(do_read(s, &h, 0, got, 4096), 64);
    CHECK_EQ(do_append(s, &j, length, 0, data, 65536), -ENOSPC);
    CHECK_EQ(do_info(s, &j, &info), 0);
    CHECK_EQ(info.size_bytes, length);
    CHECK_EQ(do_write(s, &f, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_read(s, &e, 0, got, 4096), 4096);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_flush(s, &f), 0);
    /* space comes back: all goes on */
    CHECK_EQ(do_zero(s, &e, 0, 2u << 20), 0);
    CHECK_EQ(do_create(s, &c, data, 1u << 20, 0), 0);
    CHECK_EQ(do_update(s, &h, 1, big, sizeof big), 0);
    CHECK_EQ(do_append(s, &j, length, 0, data, 65536), 0);
    CHECK_EQ(do_read(s, &j, 0, got, 1u << 20), length + 65536);
    server_stop(s);
    CHECK_EQ(umount(small.path), 0);
}

static void test_a_store_without_room_for_a_file_opens(void)
{
    struct xseg_object c = content_name(72);
    struct xseg_object_info info;
    struct setup small = setup;
    char path[600];
    int fd, nr = 0;

    if (!mount_small(&small, "few", "size=8m,nr_inodes=100"))
        return;
    server_start(s, &small);
    CHECK_EQ(do_create(s, &c, data, 4096, 0), 0);
    server_stop(s);
    do {
        snprintf(path, sizeof path, "%s/filler-%d", small.path, nr++);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        CHECK(fd >= 0 || errno == ENOSPC);
        if (fd >= 0)
            close(fd);
    } while (fd >= 0);
    /* twice at once, as two nodes do: neither is in the other's way */
    struct server other;
    server_start(s, &small);
    server_start(&other, &small);
    CHECK_EQ(do_read(&other, &c, 0, got, 4096), 4096);
    CHECK_EQ(do_delete(s, &c), 0);
    CHECK_EQ(do_info(&other, &c, &info), -ENOENT);
    server_stop(&other);
    server_stop(s);
    CHECK_EQ(umount(small.path), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        setup.engine = engine_or_skip(argv[1]);
    make_root(setup.path);
    test_open_makes_the_tree_and_checks_its_format();
    test_open_removes_what_dead_writers_left();
    test_paths_are_those_of_the_format();
    test_a_damaged_lease_slot_is_survived_two_are_told();
    test_more_files_than_may_be_open();
    test_more_dirty_files_than_may_be_open();
    test_a_full_store_refuses_and_goes_on();
    test_a_store_without_room_for_a_file_opens();
    remove_root(setup.path);
    return 0;
}
