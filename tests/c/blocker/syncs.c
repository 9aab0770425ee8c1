/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the file backend makes durable and when, and what it does when that fails.
 *
 * The linker sends every call that matters through the functions below (--wrap), which
 * keep a set of inodes with changes that no sync has covered: files after a write,
 * directories after a name was made or removed.  After an answer that promises
 * durability the set is empty.  They also fail the k-th call on demand.  The threads
 * engine, since io_uring makes no such calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocker/client.h"

/* ---- the calls ---------------------------------------------------------- */

int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_syncfs(int fd);
ssize_t __real_pwrite(int fd, const void *buf, size_t nr, off_t off);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to,
                     unsigned flags);
int __real_unlinkat(int fd, const char *path, int flags);
int __real_mkdirat(int fd, const char *path, mode_t mode);
int __real_openat(int fd, const char *path, int flags, ...);

int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_syncfs(int fd);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t nr, off_t off);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to,
                     unsigned flags);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_mkdirat(int fd, const char *path, mode_t mode);
int __wrap_openat(int fd, const char *path, int flags, ...);

#define MAX_DIRTY 256

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ino_t dirty[MAX_DIRTY];
static size_t nr_dirty;
static unsigned nr_syncs;   /* fsync, fdatasync, syncfs */
static unsigned nr_calls;   /* all that can fail */
static unsigned fail_at;    /* the one of them that fails; 0: none */
static bool named_unsynced; /* a rename gave a name to bytes that were not durable */

static void mark(ino_t ino)
{
    for (size_t i = 0; i < nr_dirty; i++)
        if (dirty[i] == ino)
            return;
    CHECK(nr_dirty < MAX_DIRTY);
    dirty[nr_dirty++] = ino;
}

static bool unmark(ino_t ino)
{
    for (size_t i = 0; i < nr_dirty; i++)
        if (dirty[i] == ino) {
            dirty[i] = dirty[--nr_dirty];
            return true;
        }
    return false;
}

static ino_t inode_of(int fd)
{
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    return st.st_ino;
}

/** A name in tmp/ does not have to last. */
static bool is_temporary(const char *path)
{
    return strncmp(path, "tmp/", 4) == 0;
}

static void mark_parent(int dir_fd, const char *path)
{
    char dir[512];
    struct stat st;

    if (is_temporary(path))
        return;
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        *slash = '\0';
    CHECK_EQ(fstatat(dir_fd, slash ? dir : ".", &st, 0), 0);
    mark(st.st_ino);
}

/** Count a call; true if it is the one to fail. */
static bool strikes(void)
{
    return ++nr_calls == fail_at;
}

static int sync_call(int fd, int (*call)(int))
{
    pthread_mutex_lock(&lock);
    nr_syncs++;
    bool fails = strikes();
    if (!fails)
        unmark(inode_of(fd));
    pthread_mutex_unlock(&lock);
    if (!fails)
        return call(fd);
    errno = EIO;
    return -1;
}

int __wrap_fsync(int fd)
{
    return sync_call(fd, __real_fsync);
}

int __wrap_fdatasync(int fd)
{
    return sync_call(fd, __real_fdatasync);
}

int __wrap_syncfs(int fd)
{
    pthread_mutex_lock(&lock);
    nr_syncs++;
    bool fails = strikes();
    if (!fails)
        nr_dirty = 0;
    pthread_mutex_unlock(&lock);
    errno = EIO;
    return fails ? -1 : __real_syncfs(fd);
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t nr, off_t off)
{
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    mark(inode_of(fd));
    pthread_mutex_unlock(&lock);
    if (!fails)
        return __real_pwrite(fd, buf, nr, off);
    /* a torn write: half of it is there */
    (void)__real_pwrite(fd, buf, nr / 2, off);
    errno = EIO;
    return -1;
}

static bool rename_fails(int from_fd, const char *from)
{
    struct stat st;

    pthread_mutex_lock(&lock);
    bool fails = strikes();
    if (!fails && fstatat(from_fd, from, &st, 0) == 0 && unmark(st.st_ino)) {
        named_unsynced = true;
        mark(st.st_ino);
    }
    pthread_mutex_unlock(&lock);
    errno = EIO;
    return fails;
}

static int renamed(int rc, int to_fd, const char *to)
{
    int error = errno;
    pthread_mutex_lock(&lock);
    if (rc == 0)
        mark_parent(to_fd, to);
    pthread_mutex_unlock(&lock);
    errno = error;
    return rc;
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    if (rename_fails(from_fd, from))
        return -1;
    return renamed(__real_renameat(from_fd, from, to_fd, to), to_fd, to);
}

int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to,
                     unsigned flags)
{
    if (rename_fails(from_fd, from))
        return -1;
    return renamed(__real_renameat2(from_fd, from, to_fd, to, flags), to_fd, to);
}

int __wrap_unlinkat(int fd, const char *path, int flags)
{
    struct stat st = {0};
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    int rc = -1;
    errno = EIO;
    if (!fails) {
        bool known = fstatat(fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
        rc = __real_unlinkat(fd, path, flags);
        int error = errno;
        if (rc == 0) {
            mark_parent(fd, path);
            if (known)
                unmark(st.st_ino);
        }
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int __wrap_mkdirat(int fd, const char *path, mode_t mode)
{
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    int rc = -1;
    errno = EIO;
    if (!fails) {
        rc = __real_mkdirat(fd, path, mode);
        int error = errno;
        if (rc == 0)
            mark_parent(fd, path);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int __wrap_openat(int fd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    pthread_mutex_lock(&lock);
    bool fails = strikes();
    int rc = -1;
    errno = EIO;
    if (!fails) {
        bool there = faccessat(fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        rc = __real_openat(fd, path, flags, mode);
        int error = errno;
        if (rc >= 0 && !there) {
            mark_parent(fd, path);
            mark(inode_of(rc));
        }
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- ordering ----------------------------------------------------------- */

static struct setup setup = {.backend = "file", .engine = "threads"};
static struct server server, *s = &server;
static uint8_t data[1u << 20], got[1u << 20];

static size_t not_durable(void)
{
    pthread_mutex_lock(&lock);
    size_t nr = nr_dirty;
    pthread_mutex_unlock(&lock);
    return nr;
}

static unsigned syncs(void)
{
    pthread_mutex_lock(&lock);
    unsigned nr = nr_syncs;
    pthread_mutex_unlock(&lock);
    return nr;
}

static void test_durable_answers_leave_nothing_behind(void)
{
    struct xseg_object h = header_name(1), c = content_name(1), j = journal_name(1, 1);
    struct xseg_object e = extent_name(1, 1), l = layer_name(1), t = lease_name(1);
    struct xseg_lease lease = lease_of("a", UINT64_C(1) << 50);

    CHECK_EQ(not_durable(), 0); /* the tree, once open */
    fill_header(data, 64, 1, 1, 0);
    CHECK_EQ(do_create(s, &h, data, 64, 0), 0);
    CHECK_EQ(not_durable(), 0);
    fill_header(data, 64, 2, 1, 0);
    CHECK_EQ(do_update(s, &h, 1, data, 64), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_append(s, &j, 0, 1, data, 64), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_append(s, &j, 64, 1, data, 64), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &t, &lease, 0), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_create(s, &c, data, 64, 0), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_write(s, &e, UINT64_C(1) << 40, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_write(s, &e, (UINT64_C(3) << 40) - 4096, data, 8192, 0), 8192);
    CHECK(not_durable() > 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_write(s, &l, 0, data, 100, 0), 100);
    CHECK(not_durable() > 0);
    CHECK_EQ(do_flush(s, &l), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(do_delete(s, &e), 0);
    CHECK_EQ(do_delete(s, &j), 0);
    CHECK_EQ(do_delete(s, &h), 0);
    CHECK_EQ(do_delete(s, &t), 0);
    CHECK_EQ(not_durable(), 0);
    CHECK(!named_unsynced);
}

static void test_deferred_content_is_named_last_and_flushed_together(void)
{
    struct xseg_object e = extent_name(2, 1);

    /* few directories one by one, many at once */
    for (uint64_t nr = 3; nr <= 100; nr += 97) {
        for (uint64_t i = 0; i < nr; i++) {
            struct xseg_object c = content_name(nr * 1000 + i);
            CHECK_EQ(do_create(s, &c, data, 64, XSEG_F_NOSYNC), 0);
        }
        CHECK(!named_unsynced);
        CHECK(not_durable() > 0);
        CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
        CHECK_EQ(do_flush(s, &whole_store), 0);
        CHECK_EQ(not_durable(), 0);
    }
    unsigned before = syncs();
    CHECK_EQ(do_flush(s, &whole_store), 0);
    CHECK_EQ(syncs(), before);
}

static void test_a_flush_with_nothing_to_do_makes_no_call(void)
{
    struct xseg_object e = extent_name(3, 1), f = extent_name(4, 1);

    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &f, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(do_flush(s, &f), 0);
    unsigned before = syncs();
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(syncs(), before);
    /* only what is dirty is synced: one file, no directory */
    CHECK_EQ(do_write(s, &e, 4096, data, 4096, 0), 4096);
    CHECK_EQ(do_flush(s, &f), 0);
    CHECK_EQ(syncs(), before);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(syncs(), before + 1);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(syncs(), before + 2);
    CHECK_EQ(do_zero(s, &e, 0, 4096), 0);
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(syncs(), before + 3);
}

static void test_what_another_process_left_is_flushed(void)
{
    struct xseg_object e = extent_name(5, 1), c = content_name(5);

    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(do_create(s, &c, data, 64, 0), 0);
    server_stop(s);
    server_start(s, &setup);
    /* nothing is known dirty, yet the one before us might have died with writes */
    unsigned before = syncs();
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK(syncs() >= before + 2); /* the file and its directory */
    before = syncs();
    CHECK_EQ(do_flush(s, &e), 0);
    CHECK_EQ(syncs(), before);
    CHECK_EQ(do_create(s, &c, data, 64, 0), -EEXIST);
    CHECK(syncs() > before); /* the name that we now rely on */
    before = syncs();
    CHECK_EQ(do_create(s, &c, data, 64, 0), -EEXIST);
    CHECK_EQ(syncs(), before);
}

/* ---- failures ----------------------------------------------------------- */

static void arm(unsigned k)
{
    pthread_mutex_lock(&lock);
    nr_calls = 0;
    fail_at = k;
    pthread_mutex_unlock(&lock);
}

/** Stop failing; true if a call failed. */
static bool disarm(void)
{
    pthread_mutex_lock(&lock);
    bool struck = fail_at != 0 && nr_calls >= fail_at;
    fail_at = 0;
    pthread_mutex_unlock(&lock);
    return struck;
}

static void restart(void)
{
    server_stop(s);
    server_start(s, &setup);
}

static void test_a_failed_sync_is_never_forgotten(void)
{
    struct xseg_object e = extent_name(6, 1), f = extent_name(7, 1);

    CHECK_EQ(do_write(s, &e, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(do_write(s, &f, 0, data, 4096, XSEG_F_FUA), 4096);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &f, 0, data, 4096, 0), 4096);
    arm(1);
    CHECK_EQ(do_flush(s, &e), -EIO);
    CHECK(disarm());
    /* the kernel would now say that all is well */
    CHECK_EQ(do_flush(s, &e), -EIO);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_flush(s, &e), -EIO);
    CHECK_EQ(do_flush(s, &f), 0);
    CHECK_EQ(do_flush(s, &whole_store), -EIO);
    restart();
    CHECK_EQ(do_flush(s, &e), 0);
    /* the same when the first flush of a process fails */
    restart();
    arm(3); /* after opening the directory and the file */
    CHECK_EQ(do_flush(s, &e), -EIO);
    CHECK(disarm());
    CHECK_EQ(do_flush(s, &e), -EIO);
    restart();
}

static void check_header(const struct xseg_object *h, uint64_t version, uint64_t size)
{
    struct xseg_versioned v;
    CHECK_EQ(do_read(s, h, 0, got, sizeof got), size);
    memcpy(&v, got, sizeof v);
    CHECK_EQ(v.version, version);
    CHECK_EQ(v.length, size);
}

/** Fail each call of CREATE and UPDATE of a header in turn. */
static void test_headers_survive_each_failure(void)
{
    for (unsigned k = 1;; k++) {
        struct xseg_object h = header_name(100 + k);
        restart();
        fill_header(data, 5000, 1, 1, 'a');
        arm(k);
        int64_t rc = do_create(s, &h, data, 5000, 0);
        bool struck = disarm();
        CHECK(rc == 0 || (struck && rc == -EIO));
        if (rc < 0) {
            restart();
            rc = do_create(s, &h, data, 5000, 0);
            CHECK(rc == 0 || rc == -EEXIST);
        }
        check_header(&h, 1, 5000);
        if (!struck)
            break;
    }
    for (unsigned k = 1;; k++) {
        struct xseg_object h = header_name(200 + k);
        restart();
        fill_header(data, 5000, 1, 1, 'a');
        CHECK_EQ(do_create(s, &h, data, 5000, 0), 0);
        fill_header(data, 300, 2, 1, 'b');
        arm(k);
        int64_t rc = do_update(s, &h, 1, data, 300);
        bool struck = disarm();
        CHECK(rc == 0 || (struck && rc == -EIO));
        if (rc < 0) {
            restart();
            rc = do_update(s, &h, 1, data, 300);
            CHECK(rc == 0 || rc == -ESTALE); /* -ESTALE: it had its name already */
        }
        check_header(&h, 2, 300);
        if (!struck)
            break;
    }
}

/** Fail each call of two APPENDs in turn: a torn record never stays. */
static void test_journals_survive_each_failure(void)
{
    for (uint64_t k = 1;; k++) {
        struct xseg_object j = journal_name(k, 1);
        struct xseg_object_info info;
        uint64_t length = 0;
        bool struck = false;

        memset(data, 0x77, 1000);
        for (int i = 0; i < 3; i++) {
            if (i != 1)
                arm(i == 0 ? (unsigned)k : 1);
            int64_t rc = do_append(s, &j, length, 1, data, 1000);
            bool now = i != 1 && disarm();
            struck |= now && i == 0;
            CHECK(rc == 0 || (now && rc == -EIO));
            if (rc < 0) {
                int64_t info_rc = do_info(s, &j, &info);
                if (info_rc == 0 && info.size_bytes == length + 1000) {
                    /* It is there, but nobody could tell if the fence was ours. */
                    length += 1000;
                    continue;
                }
                CHECK(info_rc == -ENOENT ? length == 0 : info.size_bytes == length);
                rc = do_append(s, &j, length, 1, data, 1000);
                if (rc < 0) {
                    /* only the sync of a new journal's name is not forgiven */
                    CHECK_EQ(rc, -EIO);
                    CHECK_EQ(i, 0);
                    restart();
                    rc = do_append(s, &j, length, 1, data, 1000);
                }
                CHECK_EQ(rc, 0);
            }
            length += 1000;
        }
        CHECK_EQ(do_read(s, &j, 0, got, sizeof got), length);
        for (uint64_t i = 0; i < length; i++)
            CHECK_EQ(got[i], 0x77);
        if (!struck)
            break;
        restart();
    }
}

/** Fail each call of a lease's life: the fence never goes back. */
static void test_leases_survive_each_failure(void)
{
    for (uint64_t k = 1;; k++) {
        struct xseg_object t = lease_name(k);
        struct xseg_lease a = lease_of("a", UINT64_C(1) << 50);
        struct xseg_lease b = lease_of("b", UINT64_C(1) << 50);
        uint64_t fence = 0;

        restart();
        arm((unsigned)k);
        if (do_lease(s, XSEG_OP_ACQUIRE, &t, &a, 0) == 0)
            fence = a.fence;
        if (fence && do_lease(s, XSEG_OP_RELEASE, &t, &b, XSEG_F_FORCE) == 0)
            fence++;
        if (do_lease(s, XSEG_OP_ACQUIRE, &t, &b, 0) == 0) {
            CHECK(b.fence > fence);
            fence = b.fence;
        }
        bool struck = disarm();
        restart();
        a = lease_of("c", UINT64_C(1) << 50);
        int64_t rc = do_lease(s, XSEG_OP_ACQUIRE, &t, &a, 0);
        CHECK(rc == 0 || rc == -EBUSY);
        CHECK(a.fence >= fence);
        if (rc == 0)
            CHECK(a.fence > fence);
        if (!struck)
            break;
    }
}

/** Fail each call of a write and its flush: success only if it is all there. */
static void test_extents_survive_each_failure(void)
{
    for (uint64_t k = 1;; k++) {
        struct xseg_object e = extent_name(300 + k, 1);

        restart();
        memset(data, 0x42, 8192);
        arm((unsigned)k);
        int64_t rc = do_write(s, &e, 0, data, 8192, 0);
        CHECK(rc == 8192 || rc == -EIO);
        if (rc > 0)
            rc = do_flush(s, &e);
        CHECK(rc == 0 || rc == -EIO);
        bool struck = disarm();
        CHECK(rc == 0 || struck);
        if (rc == 0)
            CHECK_EQ(not_durable(), 0);
        else
            restart();
        CHECK_EQ(do_write(s, &e, 0, data, 8192, XSEG_F_FUA), 8192);
        CHECK_EQ(do_read(s, &e, 0, got, 8192), 8192);
        CHECK(memcmp(got, data, 8192) == 0);
        if (!struck)
            break;
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    make_root(setup.path);
    server_start(s, &setup);
    test_durable_answers_leave_nothing_behind();
    test_deferred_content_is_named_last_and_flushed_together();
    test_a_flush_with_nothing_to_do_makes_no_call();
    test_what_another_process_left_is_flushed();
    test_a_failed_sync_is_never_forgotten();
    test_headers_survive_each_failure();
    test_journals_survive_each_failure();
    test_leases_survive_each_failure();
    test_extents_survive_each_failure();
    server_stop(s);
    remove_root(setup.path);
    return 0;
}
