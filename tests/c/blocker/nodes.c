/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several nodes on one store: nothing that a node writes after its extent was sealed is
 * read by anybody, whether it is alive, paused in the middle of writing, or dead; and
 * who loses a lease to another node is told.
 *
 *   test_blocker_nodes ENGINE [direct]
 *
 * The sealer is this process, or, to be killed at each of its steps, one child for each
 * step: the linker sends the calls that change the store through this file (--wrap).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blocker/node.h"

#define BORDER (UINT64_C(1) << 40) /* between two files of an extent */
#define FAR    (5 * BORDER)

static struct setup setup = {.backend = "file"};
static struct server server, *s = &server;
static uint8_t data[1u << 20], got[1u << 20];

/* ---- dying at a step ---------------------------------------------------- */

int __real_fsync(int fd);
int __real_ftruncate(int fd, off_t size);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __real_openat(int fd, const char *path, int flags, ...);
ssize_t __real_copy_file_range(int from, off_t *in, int to, off_t *out, size_t size,
                               unsigned flags);
int __wrap_fsync(int fd);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_openat(int fd, const char *path, int flags, ...);
ssize_t __wrap_copy_file_range(int from, off_t *in, int to, off_t *out, size_t size,
                               unsigned flags);

static atomic_uint die_at; /* the how manieth call from now is the last; 0: none */

static void step(void)
{
    unsigned left = atomic_load(&die_at);
    while (left > 0 && !atomic_compare_exchange_weak(&die_at, &left, left - 1))
        ;
    if (left == 1)
        raise(SIGKILL);
}

int __wrap_fsync(int fd)
{
    step();
    return __real_fsync(fd);
}

int __wrap_ftruncate(int fd, off_t size)
{
    step();
    return __real_ftruncate(fd, size);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    step();
    return __real_renameat(from_fd, from, to_fd, to);
}

int __wrap_openat(int fd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
        step();
    }
    return __real_openat(fd, path, flags, mode);
}

ssize_t __wrap_copy_file_range(int from, off_t *in, int to, off_t *out, size_t size,
                               unsigned flags)
{
    step();
    return __real_copy_file_range(from, in, to, out, size, flags);
}

/* ---- what is there ------------------------------------------------------ */

static bool reads(const struct xseg_object *e, uint64_t off, uint64_t size,
                  uint8_t fill)
{
    CHECK_EQ(do_read(s, e, off, got, size), size);
    for (uint64_t i = 0; i < size; i++)
        if (got[i] != fill)
            return false;
    return true;
}

static void restart(void)
{
    server_stop(s);
    server_start(s, &setup);
}

static struct order order(enum node_verb verb, const struct xseg_object *e,
                          uint64_t off, uint8_t fill)
{
    return (struct order){
        .verb = verb, .object = *e, .off = off, .size = 2 * SECTOR, .fill = fill};
}

static ino_t inode_of(const struct xseg_object *e)
{
    char path[600], hex[33];
    struct stat st;

    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", e->id[i]);
    snprintf(path, sizeof path, "%s/data/extents/%s/%016llx.0", setup.path, hex,
             (unsigned long long)blk_object_number(e));
    return stat(path, &st) == 0 ? st.st_ino : 0;
}

/** Two sectors at the border of the first two files, two far away; flushed. */
static void write_everywhere(struct node *node, const struct xseg_object *e)
{
    CHECK_EQ(node_do(node, order(NODE_WRITE, e, BORDER - SECTOR, 'a')), 2 * SECTOR);
    CHECK_EQ(node_do(node, order(NODE_WRITE, e, FAR, 'a')), 2 * SECTOR);
    CHECK_EQ(node_do(node, order(NODE_FLUSH, e, 0, 0)), 0);
}

static void check_everywhere(const struct xseg_object *e)
{
    CHECK(reads(e, BORDER - SECTOR, 2 * SECTOR, 'a'));
    CHECK(reads(e, FAR, 2 * SECTOR, 'a'));
    CHECK(reads(e, 3 * BORDER, SECTOR, 0));
}

/* ---- holders ------------------------------------------------------------ */

static void test_a_holder_that_lives_writes_into_the_void(void)
{
    struct xseg_object e = extent_name(1, 1);
    struct node node;

    node_start(&node, &setup);
    write_everywhere(&node, &e);
    server_start(s, &setup);
    check_everywhere(&e); /* open here before it is sealed */
    ino_t before = inode_of(&e);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK(inode_of(&e) != before);
    /* it does not know yet; what it opens from now on it may not write to */
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, BORDER - SECTOR, 'x')), 2 * SECTOR);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, FAR, 'x')), 2 * SECTOR);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 3 * BORDER, 'x')), -ESTALE);
    check_everywhere(&e);
    restart();
    check_everywhere(&e);
    /* nor does it read it when the epoch is a past one, or has lost the hold */
    CHECK_EQ(node_do(&node, order(NODE_READ, &e, FAR, 'a')), 2 * SECTOR);
    CHECK_EQ(node_do(&node, order(NODE_READ, &e, BORDER - SECTOR, 'a')), 2 * SECTOR);
    CHECK_EQ(node_do(&node, order(NODE_RELEASE, &e, 0, 0)), 0);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, FAR, 'x')), -ESTALE);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 0, 'x')), -ESTALE);
    check_everywhere(&e);
    CHECK_EQ(do_delete(s, &e), 0);
    server_stop(s);
    node_stop(&node);
}

/** Its hold is on a first file without a name; the other file still is the extent's. */
static void test_a_holder_opens_another_file_after_the_sealing(void)
{
    struct xseg_object e = extent_name(7, 1);
    struct node node;

    node_start(&node, &setup);
    write_everywhere(&node, &e);
    CHECK_EQ(node_do(&node, order(NODE_RELEASE, &e, 0, 0)), 0);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 0, 'b')), 2 * SECTOR);
    node_pause(&node);
    server_start(s, &setup);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    node_continue(&node);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 0, 'x')), 2 * SECTOR);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, FAR, 'x')), -ESTALE);
    check_everywhere(&e);
    CHECK(reads(&e, 0, 2 * SECTOR, 'b'));
    server_stop(s);
    node_stop(&node);
}

static void test_a_holder_that_lets_go_costs_no_copy(void)
{
    struct xseg_object e = extent_name(2, 1), dead = extent_name(2, 2);
    struct node node;

    node_start(&node, &setup);
    write_everywhere(&node, &e);
    write_everywhere(&node, &dead);
    ino_t before = inode_of(&e), before_dead = inode_of(&dead);
    server_start(s, &setup);
    CHECK_EQ(node_do(&node, order(NODE_RELEASE, &e, 0, 0)), 0);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK_EQ(inode_of(&e), before);
    /* the kernel lets go for the dead */
    node_kill(&node);
    CHECK_EQ(do_release(s, &dead, XSEG_F_FORCE), 0);
    CHECK_EQ(inode_of(&dead), before_dead);
    check_everywhere(&e);
    check_everywhere(&dead);
    server_stop(s);
}

static void test_the_first_write_comes_late(void)
{
    struct xseg_object e = extent_name(3, 1);
    struct node node;

    node_start(&node, &setup);
    server_start(s, &setup);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 0, 'x')), -ESTALE);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, FAR, 'x')), -ESTALE);
    CHECK_EQ(do_read(s, &e, 0, got, SECTOR), -ENOENT);
    server_stop(s);
    node_stop(&node);
}

static void test_only_another_file_was_written(void)
{
    struct xseg_object e = extent_name(4, 1);
    struct node node;

    node_start(&node, &setup);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, FAR, 'a')), 2 * SECTOR);
    CHECK_EQ(node_do(&node, order(NODE_FLUSH, &e, 0, 0)), 0);
    node_pause(&node);
    server_start(s, &setup);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    node_continue(&node);
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, FAR, 'x')), 2 * SECTOR);
    CHECK(reads(&e, FAR, 2 * SECTOR, 'a'));
    CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 0, 'x')), 2 * SECTOR);
    CHECK(reads(&e, 0, 2 * SECTOR, 0));
    server_stop(s);
    node_stop(&node);
}

static void test_paused_in_the_middle_of_writing(void)
{
    const uint64_t nr = 64;
    struct xseg_object e = extent_name(5, 1);
    struct node node;
    char byte;

    node_start(&node, &setup);
    struct order writes = order(NODE_STORM, &e, 0, 0);
    writes.count = nr;
    node_tell(&node, &writes);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(read(node.fd, &byte, 1), 1);
    node_pause(&node);
    server_start(s, &setup);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK_EQ(do_read(s, &e, 0, data, nr * SECTOR), nr * SECTOR);
    node_continue(&node);
    int64_t rc = node_result(&node);
    CHECK(rc == SECTOR || rc == -ESTALE);
    CHECK_EQ(do_read(s, &e, 0, got, nr * SECTOR), nr * SECTOR);
    CHECK(memcmp(got, data, nr * SECTOR) == 0);
    restart();
    CHECK_EQ(do_read(s, &e, 0, got, nr * SECTOR), nr * SECTOR);
    CHECK(memcmp(got, data, nr * SECTOR) == 0);
    server_stop(s);
    node_stop(&node);
}

/* ---- readers ------------------------------------------------------------ */

static void test_readers_notice_that_their_file_was_replaced(void)
{
    struct xseg_object e = extent_name(6, 1);
    struct node holder, live, late;
    struct order look = order(NODE_READ, &e, FAR, 'a');
    struct order look_live = look;

    look_live.flags = XSEG_F_LIVE;
    node_start(&holder, &setup);
    node_start(&live, &setup);
    node_start(&late, &setup);
    write_everywhere(&holder, &e);
    CHECK_EQ(node_do(&live, look_live), 2 * SECTOR);
    CHECK_EQ(node_do(&late, look_live), 2 * SECTOR); /* opens it */
    server_start(s, &setup);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    CHECK_EQ(node_do(&holder, order(NODE_WRITE, &e, FAR, 'x')), 2 * SECTOR);
    CHECK_EQ(node_do(&live, look_live), 2 * SECTOR);
    CHECK_EQ(node_do(&late, look), 2 * SECTOR);
    CHECK_EQ(node_do(&late, look), 2 * SECTOR);
    server_stop(s);
    node_stop(&holder);
    node_stop(&live);
    node_stop(&late);
}

/* ---- sealers that die --------------------------------------------------- */

#define MAX_STEPS 48u

static struct xseg_object extent_of_step(unsigned k)
{
    return extent_name(100 + k, 1);
}

/** Seal it, or die at the k-th call that changes the store. */
static void seal_and_die(unsigned k)
{
    struct xseg_object e = extent_of_step(k);

    server_start(s, &setup);
    atomic_store(&die_at, k);
    CHECK_EQ(do_release(s, &e, XSEG_F_FORCE), 0);
    atomic_store(&die_at, 0);
    server_stop(s);
    exit(0);
}

static void test_sealing_again_after_a_crash_at_each_step(void)
{
    struct xseg_request *seals[MAX_STEPS + 1];
    pid_t pids[MAX_STEPS + 1];
    unsigned nr_died = 0;
    struct node node;
    int status;

    /* All at once, since each sealer waits a while for the holder. */
    node_start(&node, &setup);
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        struct xseg_object e = extent_of_step(k);
        write_everywhere(&node, &e);
    }
    node_pause(&node);
    fflush(stdout);
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        pids[k] = fork();
        CHECK(pids[k] >= 0);
        if (pids[k] == 0)
            seal_and_die(k);
    }
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        CHECK_EQ(waitpid(pids[k], &status, 0), pids[k]);
        bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        CHECK(died || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
        nr_died += died;
    }
    CHECK(nr_died >= 15 && nr_died < MAX_STEPS); /* each step was the last of one */
    server_start(s, &setup);
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        struct xseg_object e = extent_of_step(k);
        seals[k] = ask(s, XSEG_OP_RELEASE, &e);
        seals[k]->flags = XSEG_F_FORCE;
        send_only(s, seals[k]);
    }
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        CHECK_EQ(await(s, seals[k]), 0);
        xseg_request_free(s->port, seals[k]);
    }
    node_continue(&node);
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        struct xseg_object e = extent_of_step(k);
        int64_t rc = node_do(&node, order(NODE_WRITE, &e, BORDER - SECTOR, 'x'));
        CHECK(rc == 2 * SECTOR || rc == -ESTALE);
        rc = node_do(&node, order(NODE_WRITE, &e, FAR, 'x'));
        CHECK(rc == 2 * SECTOR || rc == -ESTALE);
        CHECK_EQ(node_do(&node, order(NODE_WRITE, &e, 3 * BORDER, 'x')), -ESTALE);
        check_everywhere(&e);
    }
    restart();
    for (unsigned k = 1; k <= MAX_STEPS; k++) {
        struct xseg_object e = extent_of_step(k);
        check_everywhere(&e);
    }
    server_stop(s);
    node_stop(&node);
}

/* ---- leases ------------------------------------------------------------- */

static void test_the_loss_of_a_lease_is_told_across_nodes(void)
{
    struct xseg_object l = lease_name(1), j = journal_name(1, 1);
    struct xseg_lease lease = lease_of("admin");
    struct order take = {.verb = NODE_ACQUIRE, .count = 1};
    struct order wait = {.verb = NODE_NOTIFY, .count = 1};
    struct node node;

    node_start(&node, &setup);
    CHECK_EQ(node_do(&node, take), 0);
    node_tell(&node, &wait);
    server_start(s, &setup);
    struct xseg_lease broken = lease;
    CHECK_EQ(do_append(s, &j, 0, 1, data, 0), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &broken, XSEG_F_FORCE), 0);
    CHECK_EQ(node_result(&node), 2);
    CHECK_EQ(do_append(s, &j, 0, 1, data, 0), -ESTALE);
    CHECK_EQ(do_append(s, &j, 0, 2, data, 0), 0);
    /* lost while it was paused and nobody waited: told when it asks */
    CHECK_EQ(node_do(&node, take), 0);
    node_pause(&node);
    broken = lease;
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &broken, XSEG_F_FORCE), 0);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0), 0);
    CHECK_EQ(lease.fence, 5);
    node_continue(&node);
    CHECK_EQ(node_do(&node, wait), 5);
    /* the file is gone */
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &lease, 0), 0);
    CHECK_EQ(node_do(&node, take), 0);
    node_tell(&node, &wait);
    CHECK_EQ(do_delete(s, &l), 0);
    CHECK_EQ(node_result(&node), 0);
    server_stop(s);
    node_stop(&node);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    setup.engine = engine_or_skip(argv[1]);
    setup.direct = argc > 2;
    signal(SIGPIPE, SIG_IGN);
    make_root(setup.path);
    test_a_holder_that_lives_writes_into_the_void();
    test_a_holder_opens_another_file_after_the_sealing();
    test_a_holder_that_lets_go_costs_no_copy();
    test_the_first_write_comes_late();
    test_only_another_file_was_written();
    test_paused_in_the_middle_of_writing();
    test_readers_notice_that_their_file_was_replaced();
    test_sealing_again_after_a_crash_at_each_step();
    test_the_loss_of_a_lease_is_told_across_nodes();
    remove_root(setup.path);
    return 0;
}
