/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What another node did, and died before it was durable: whoever relies on it here makes
 * it so, although this process has synced the same directories and files before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/calls.h"
#include "blocker/client.h"
#include "blocker/file/file.h"

static struct setup setup = {.backend = "file", .engine = "threads"};
static struct server server, *s = &server;
static uint8_t data[1u << 20], got[1u << 20];

/* ---- the other node --------------------------------------------------------- */

struct place {
    char path[1024];
};

static struct place place_of(const char *store, const char *path)
{
    struct place place;
    snprintf(place.path, sizeof place.path, "%s/%s/%s", setup.path, store, path);
    return place;
}

/** Where an object is; its first file. */
static struct place file_of(const struct xseg_object *object)
{
    bool in_data = object->kind == XSEG_OBJ_CONTENT || object->kind == XSEG_OBJ_EXTENT;
    char path[FILE_PATH_MAX];

    file_path(path, object, 0);
    return place_of(in_data ? "data" : "maps", path);
}

static struct place dir_of(const struct xseg_object *object)
{
    struct place place = file_of(object);
    *strrchr(place.path, '/') = '\0';
    return place;
}

/** Append to a file, which is made if need be. */
static void append_elsewhere(const struct xseg_object *object)
{
    int fd = openat(AT_FDCWD, file_of(object).path, O_RDWR | O_CREAT, 0660);
    CHECK(fd >= 0);
    off_t length = lseek(fd, 0, SEEK_END);
    CHECK(length >= 0);
    CHECK_EQ(pwrite(fd, data, 64, length), 64);
    close(fd);
}

/** Write again what a file holds. */
static void write_elsewhere(const struct xseg_object *object)
{
    int fd = openat(AT_FDCWD, file_of(object).path, O_RDWR);
    CHECK(fd >= 0);
    ssize_t nr = pread(fd, got, sizeof got, 0);
    CHECK(nr > 0);
    CHECK_EQ(pwrite(fd, got, (size_t)nr, 0), nr);
    close(fd);
}

static void unlink_elsewhere(const struct xseg_object *object)
{
    CHECK_EQ(unlinkat(AT_FDCWD, file_of(object).path, 0), 0);
}

/** Give a file its name once more, by a rename. */
static void name_elsewhere(const struct xseg_object *object)
{
    struct place other = place_of("maps", "tmp/other");

    CHECK_EQ(link(file_of(object).path, other.path), 0);
    unlink_elsewhere(object);
    CHECK_EQ(renameat(AT_FDCWD, other.path, AT_FDCWD, file_of(object).path), 0);
}

static void make_dir_elsewhere(const struct xseg_object *object)
{
    CHECK_EQ(mkdirat(AT_FDCWD, dir_of(object).path, 0770), 0);
    CHECK(calls_not_durable() > 0);
}

/* ---- tests -------------------------------------------------------------------- */

static int64_t flush_maps(void)
{
    struct xseg_request *rq = ask(s, XSEG_OP_FLUSH, &whole_store);
    CHECK_EQ(xseg_request_submit(s->port, rq, XSEG_PORT_BLOCKERM), 0);
    int64_t rc = await(s, rq);
    xseg_request_free(s->port, rq);
    return rc;
}

/** This process has synced every directory that is not a volume's own. */
static void know_all(void)
{
    struct xseg_object e = extent_name(1, 1), j = journal_name(1, 1), t = lease_name(1);
    struct xseg_lease lease = lease_of("a");

    CHECK_EQ(do_write(s, &e, 0, data, SECTOR, XSEG_F_FUA), SECTOR);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(do_append(s, &j, 0, lease.fence, data, 64), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_the_directory_of_a_volume(void)
{
    struct xseg_object e = extent_name(10, 2), f = extent_name(11, 2);

    make_dir_elsewhere(&e);
    CHECK_EQ(do_write(s, &e, 0, data, SECTOR, 0), SECTOR);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_not_durable(), 0);
    make_dir_elsewhere(&f);
    CHECK_EQ(do_write(s, &f, 0, data, SECTOR, XSEG_F_FUA), SECTOR);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_the_directory_of_a_volume_that_is_taken_over(void)
{
    struct xseg_object old = extent_name(12, 1), e = extent_name(12, 2);

    /* one that this process knows, removed and made again */
    CHECK_EQ(do_write(s, &old, 0, data, SECTOR, XSEG_F_FUA), SECTOR);
    unlink_elsewhere(&old);
    CHECK_EQ(unlinkat(AT_FDCWD, dir_of(&old).path, AT_REMOVEDIR), 0);
    make_dir_elsewhere(&e);
    append_elsewhere(&e);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_the_files_of_a_volume(void)
{
    struct xseg_object old = extent_name(13, 1), e = extent_name(13, 2);

    CHECK_EQ(do_write(s, &old, 0, data, SECTOR, XSEG_F_FUA), SECTOR);
    append_elsewhere(&e);
    CHECK_EQ(calls_not_durable(), 2);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_content_that_is_there(void)
{
    struct xseg_object c = content_name(20);

    CHECK_EQ(do_create(s, &c, data, 64, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    name_elsewhere(&c);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_create(s, &c, data, 64, 0), -EEXIST);
    CHECK_EQ(calls_not_durable(), 0);
    name_elsewhere(&c);
    CHECK_EQ(do_create(s, &c, data, 64, XSEG_F_NOSYNC), -EEXIST);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_flush(s, &whole_store), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_a_lease_file(void)
{
    struct xseg_object t = lease_name(30);
    struct xseg_lease lease = lease_of("a");

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &t, &lease, 0), 0);
    name_elsewhere(&t);
    CHECK(calls_not_durable() > 0);
    lease = lease_of("a");
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

/** A lease that was granted to a process that is gone: read, and then asked for. */
static void test_a_lease_that_is_inherited(void)
{
    struct xseg_object t = lease_name(31);
    struct xseg_lease lease = lease_of("a"), ask = lease;

    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    write_elsewhere(&t);
    /* a renewal relies on an answer, which was durable */
    ask.fence = lease.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &ask, 0), 0);
    CHECK_EQ(calls_not_durable(), 1);
    ask = lease_of("a");
    ask.flags = XSEG_LEASE_INHERIT;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &ask, 0), -EINVAL);
    ask.fence = lease.fence;
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &ask, 0), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(ask.fence, lease.fence);
    CHECK_EQ(ask.flags, 0);
}

static void test_a_journal(void)
{
    struct xseg_object j = journal_name(40, 1), fresh = journal_name(41, 1);
    struct xseg_object found = journal_name(42, 1);
    struct xseg_object_info info;

    CHECK_EQ(do_append(s, &j, 0, 0, data, 64), 0);
    CHECK_EQ(do_flush(s, &j), 0);
    CHECK_EQ(calls_not_durable(), 0);
    for (uint64_t i = 0; i < 3; i++) {
        append_elsewhere(&j);
        CHECK_EQ(calls_not_durable(), 1);
        CHECK_EQ(do_flush(s, &j), 0);
        CHECK_EQ(calls_not_durable(), 0);
        CHECK_EQ(flush_maps(), 0);
        CHECK_EQ(do_append(s, &j, 128 * (i + 1), 0, data, 64), 0);
    }
    append_elsewhere(&fresh);
    CHECK_EQ(calls_not_durable(), 2); /* its name too */
    CHECK_EQ(do_flush(s, &fresh), 0);
    CHECK_EQ(calls_not_durable(), 0);
    CHECK_EQ(do_info(s, &fresh, &info), 0);
    append_elsewhere(&found);
    CHECK_EQ(do_append(s, &found, 64, 0, data, 64), 0);
    CHECK_EQ(calls_not_durable(), 0);
}

static void test_headers(void)
{
    struct xseg_object h = header_name(600), i = header_name(601), any = header_name(0);

    fill_header(data, 64, 1, 1, 0);
    CHECK_EQ(do_create(s, &h, data, 64, 0), 0);
    CHECK_EQ(do_create(s, &i, data, 64, 0), 0);
    CHECK_EQ(do_flush(s, &any), 0);
    CHECK_EQ(calls_not_durable(), 0);
    name_elsewhere(&h);
    CHECK_EQ(do_read(s, &h, 0, got, 64), 64);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_flush(s, &any), 0);
    CHECK_EQ(calls_not_durable(), 0);
    unlink_elsewhere(&h);
    CHECK_EQ(do_read(s, &h, 0, got, 64), -ENOENT);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_flush(s, &any), 0);
    CHECK_EQ(calls_not_durable(), 0);
    /* who acts on one header reads it so */
    for (int there = 1; there >= 0; there--) {
        if (there)
            name_elsewhere(&i);
        else
            unlink_elsewhere(&i);
        CHECK(calls_not_durable() > 0);
        CHECK_EQ(do_read_as(s, &i, 0, got, 64, XSEG_F_FUA), there ? 64 : -ENOENT);
        CHECK_EQ(calls_not_durable(), 0);
    }
    CHECK_EQ(do_create(s, &i, data, 64, 0), 0);
    /* who is told by a DELETE that it is gone need not ask for that */
    unlink_elsewhere(&i);
    CHECK(calls_not_durable() > 0);
    CHECK_EQ(do_delete(s, &i), -ENOENT);
    CHECK_EQ(calls_not_durable(), 0);
    /* nothing is left to do for an ordinary flush */
    CHECK_EQ(flush_maps(), 0);
    unsigned before = calls_syncs();
    CHECK_EQ(flush_maps(), 0);
    CHECK_EQ(calls_syncs(), before);
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    make_root(setup.path);
    server_start(s, &setup);
    know_all();
    test_the_directory_of_a_volume();
    test_the_directory_of_a_volume_that_is_taken_over();
    test_the_files_of_a_volume();
    test_content_that_is_there();
    test_a_lease_file();
    test_a_lease_that_is_inherited();
    test_a_journal();
    test_headers();
    server_stop(s);
    remove_root(setup.path);
    return 0;
}
