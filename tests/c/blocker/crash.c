/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that are killed while they change objects, and processes that want the same
 * lease.
 *
 * A child serves a store and changes it; it tells each acknowledged step through a
 * pipe; the parent kills it after a random number of steps and looks at what is there.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blocker/client.h"

#define NR_OBJECTS  4u
#define BODY_BYTES  20000u
#define RECORD      512u
#define NR_KILLS    12u
#define NR_SECTIONS 60u

static struct setup setup = {.backend = "file", .engine = "auto"};
static struct server server, *s = &server;
static uint8_t data[64u << 10], got[64u << 10];

/** What a child tells: the step it got an answer for. */
struct step {
    uint64_t version[NR_OBJECTS]; /* header: last acknowledged */
    uint64_t nr_content;          /* contents put */
    uint64_t journal_bytes;
};

static void fill_body(uint64_t object, uint64_t version)
{
    fill_header(data, BODY_BYTES, version, 1, (uint8_t)(object * 16 + version));
}

static void tell(int fd, const struct step *step)
{
    CHECK_EQ(write(fd, step, sizeof *step), sizeof *step);
}

static void child(int fd, struct step step)
{
    server_start(s, &setup);
    for (;;) {
        for (uint64_t i = 0; i < NR_OBJECTS; i++) {
            struct xseg_object h = header_name(i), c = content_name(step.nr_content);
            struct xseg_object j = journal_name(1, 1);
            uint64_t version = step.version[i];
            fill_body(i, version + 1);
            if (version == 0)
                CHECK_EQ(do_create(s, &h, data, BODY_BYTES, 0), 0);
            else
                CHECK_EQ(do_update(s, &h, version, data, BODY_BYTES), 0);
            step.version[i]++;
            tell(fd, &step);
            memset(data, (int)step.nr_content, BODY_BYTES);
            int64_t rc = do_create(s, &c, data, BODY_BYTES,
                                   step.nr_content % 2 ? XSEG_F_NOSYNC : 0);
            CHECK(rc == 0 || rc == -EEXIST);
            step.nr_content++;
            tell(fd, &step);
            memset(data, (int)(step.journal_bytes / RECORD), RECORD);
            CHECK_EQ(do_append(s, &j, step.journal_bytes, 0, data, RECORD), 0);
            step.journal_bytes += RECORD;
            tell(fd, &step);
        }
    }
}

static bool all(const uint8_t *bytes, size_t nr, uint8_t value)
{
    for (size_t i = 0; i < nr; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

/** Look at the store; bring `step` up to what is really there. */
static void verify(struct step *step)
{
    struct xseg_object_info info;

    server_start(s, &setup);
    for (uint64_t i = 0; i < NR_OBJECTS; i++) {
        struct xseg_object h = header_name(i);
        int64_t rc = do_read(s, &h, 0, got, sizeof got);
        if (rc == -ENOENT) {
            CHECK_EQ(step->version[i], 0);
            continue;
        }
        struct xseg_versioned v;
        memcpy(&v, got, sizeof v);
        /* the acknowledged one, or the one that was under way: whole */
        CHECK(v.version == step->version[i] || v.version == step->version[i] + 1);
        fill_body(i, v.version);
        CHECK_EQ(rc, BODY_BYTES);
        CHECK(memcmp(got, data, BODY_BYTES) == 0);
        step->version[i] = v.version;
    }
    for (uint64_t n = 0; n <= step->nr_content; n++) {
        struct xseg_object c = content_name(n);
        int64_t rc = do_info(s, &c, &info);
        CHECK(rc == 0 || (rc == -ENOENT && n == step->nr_content));
        if (rc < 0)
            continue;
        CHECK_EQ(info.size_bytes, BODY_BYTES);
        CHECK_EQ(do_read(s, &c, 0, got, BODY_BYTES), BODY_BYTES);
        CHECK(all(got, BODY_BYTES, (uint8_t)n));
    }
    struct xseg_object j = journal_name(1, 1);
    int64_t rc = do_info(s, &j, &info);
    uint64_t length = rc == 0 ? info.size_bytes : 0;
    CHECK(rc == 0 || step->journal_bytes == 0);
    CHECK(length >= step->journal_bytes && length <= step->journal_bytes + RECORD);
    for (uint64_t at = 0; at + RECORD <= length; at += RECORD) {
        CHECK_EQ(do_read(s, &j, at, got, RECORD), RECORD);
        CHECK(all(got, RECORD, (uint8_t)(at / RECORD)));
    }
    if (length % RECORD) {
        /* A torn tail is for the reader's checksum; here: start a fresh journal. */
        CHECK_EQ(do_delete(s, &j), 0);
        length = 0;
    }
    step->journal_bytes = length;
    server_stop(s);
}

static void test_objects_are_whole_after_kill(void)
{
    uint64_t seed = check_seed();
    struct step step = {0}, last;
    int fds[2];

    for (uint32_t kills = 0; kills < NR_KILLS; kills++) {
        uint64_t nr_steps = check_next(&seed) % 40 + 1;
        CHECK_EQ(pipe(fds), 0);
        fflush(stdout);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            close(fds[0]);
            child(fds[1], step);
        }
        close(fds[1]);
        for (uint64_t i = 0; i < nr_steps; i++)
            CHECK_EQ(read(fds[0], &step, sizeof step), sizeof step);
        CHECK_EQ(kill(pid, SIGKILL), 0);
        CHECK_EQ(waitpid(pid, NULL, 0), pid);
        /* it went on until the signal came */
        while (read(fds[0], &last, sizeof last) == sizeof last)
            step = last;
        close(fds[0]);
        verify(&step);
    }
}

/* ---- contention --------------------------------------------------------- */

struct record {
    uint64_t fence;
    uint64_t owner;
    uint8_t rest[RECORD - 16];
};
static_assert(sizeof(struct record) == RECORD, "record");

/** Take the lease, append one record under its fence, give it back; NR_SECTIONS times.
 */
static void contend(uint64_t owner)
{
    struct xseg_object l = lease_name(9), j = journal_name(9, 1);
    char name[32];
    snprintf(name, sizeof name, "owner-%u", (unsigned)owner);
    server_start(s, &setup);
    appear(s, name);
    for (uint32_t done = 0; done < NR_SECTIONS;) {
        struct xseg_lease lease = lease_of(name);
        int64_t rc = do_lease(s, XSEG_OP_ACQUIRE, &l, &lease, 0);
        if (rc == -EBUSY)
            continue;
        CHECK_EQ(rc, 0);
        struct xseg_object_info info;
        uint64_t at = do_info(s, &j, &info) == 0 ? info.size_bytes : 0;
        struct record record = {.fence = lease.fence, .owner = owner};
        CHECK_EQ(do_append(s, &j, at, lease.fence, &record, sizeof record), 0);
        CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &l, &lease, 0), 0);
        done++;
    }
    server_stop(s);
    exit(0);
}

static void test_two_processes_never_hold_one_lease(void)
{
    struct xseg_object j = journal_name(9, 1);
    uint64_t nr[2] = {0}, fence = 0;
    struct record record;
    pid_t pids[2];
    int status;

    for (uint64_t i = 0; i < 2; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0)
            contend(i);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(waitpid(pids[i], &status, 0), pids[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    server_start(s, &setup);
    for (uint64_t at = 0; at < 2 * NR_SECTIONS * RECORD; at += RECORD) {
        CHECK_EQ(do_read(s, &j, at, &record, sizeof record), sizeof record);
        CHECK(record.fence > fence);
        fence = record.fence;
        nr[record.owner]++;
    }
    CHECK(nr[0] == NR_SECTIONS && nr[1] == NR_SECTIONS);
    server_stop(s);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        setup.engine = engine_or_skip(argv[1]);
    signal(SIGPIPE, SIG_IGN);
    make_root(setup.path);
    test_objects_are_whole_after_kill();
    test_two_processes_never_hold_one_lease();
    remove_root(setup.path);
    return 0;
}
