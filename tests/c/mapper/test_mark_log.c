/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mark log against a model, and stopped between any two instructions: a child that
 * works on it is single-stepped, and after each step that changed the memory a copy of
 * it must say what was answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "common/log.h"
#include "mapper/mark_log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define VOLUMES 3u
#define SECTORS 24u
#define CHUNKS  (MARK_LOG_BYTES_MIN / MARK_CHUNK_BYTES)

static int make_memory(void)
{
    int fd = memfd_create("marks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)MARK_LOG_BYTES_MIN), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    return fd;
}

static void open_log(struct mark_log *log, int fd)
{
    const char *why = NULL;
    memset(log, 0, sizeof *log);
    CHECK_EQ(mark_log_init(log, fd, &why), 0);
    CHECK(!why);
}

static struct mark_key key_of(uint32_t volume, uint64_t fence)
{
    struct mark_key key = {.epoch = 1 + volume, .fence = fence};
    memset(key.uuid, (int)(1 + volume), sizeof key.uuid);
    return key;
}

static void own(struct mark_owner *owner, struct mark_key key)
{
    mark_owner_init(owner);
    owner->key = key;
}

static int apply(void *ctx, const struct journal_mark *mark)
{
    uint8_t *state = ctx;
    CHECK(mark->start < SECTORS && mark->nr <= SECTORS - mark->start);
    memset(state + mark->start, (int)mark->kind, mark->nr);
    return 0;
}

/* ---- the model: a row of operations that a seed decides ---- */

enum kind { MARK, FLUSH_BEGIN, FLUSH_END, LOSE, RESTART };

struct op {
    enum kind kind;
    uint32_t volume;
    uint64_t generation;
    struct journal_mark mark;
};

struct volume {
    uint8_t now[SECTORS];     /* what was answered: 0 or enum journal_mark_kind */
    uint8_t flushed[SECTORS]; /* what the flush under way covers */
    uint8_t journal[SECTORS];
    uint64_t fence;
    uint64_t generation;
    bool flushing;
};

/** Marks of one volume at first, so that a chunk gets full. */
#define RUSH (MARK_CHUNK_RECORDS + 40u)

struct model {
    uint64_t random;
    uint32_t nr_ops;
    struct volume volumes[VOLUMES];
};

static void model_start(struct model *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->random = seed;
    for (uint32_t v = 0; v < VOLUMES; v++)
        m->volumes[v].generation = m->volumes[v].fence = 1;
}

/** Decide the next operation; the model has not changed yet. */
static struct op next_op(struct model *m)
{
    uint64_t dice = check_next(&m->random);
    struct op op = {.volume = (uint32_t)(dice >> 8) % VOLUMES};
    const struct volume *v;
    uint32_t choice = (uint32_t)dice % 64;
    if (m->nr_ops++ < RUSH)
        choice = op.volume = 0;
    v = &m->volumes[op.volume];
    op.kind = choice < 52 ? MARK : v->flushing ? FLUSH_END : FLUSH_BEGIN;
    if (choice == 63)
        op.kind = dice >> 60 ? LOSE : RESTART;
    op.generation = v->generation;
    op.mark.start = (dice >> 16) % SECTORS;
    op.mark.nr = 1 + (uint32_t)(dice >> 24) % (SECTORS - (uint32_t)op.mark.start);
    if ((dice >> 32) % 4)
        op.mark.nr = 1;
    op.mark.kind = (dice >> 40) % 3 ? JOURNAL_PRESENT : JOURNAL_ZERO;
    return op;
}

/** The operation is done; a mark was taken, or not. */
static void model_apply(struct model *m, const struct op *op, bool taken)
{
    struct volume *v = &m->volumes[op->volume];
    switch (op->kind) {
    case MARK:
        if (taken)
            apply(v->now, &op->mark);
        break;
    case FLUSH_BEGIN:
        memcpy(v->flushed, v->now, SECTORS);
        v->generation++;
        v->flushing = true;
        break;
    case FLUSH_END:
        memcpy(v->journal, v->flushed, SECTORS);
        v->flushing = false;
        break;
    case LOSE:
        memcpy(v->now, v->journal, SECTORS);
        v->flushing = false;
        v->fence++;
        break;
    case RESTART: /* found marks are of generation 0: all flushes are over */
        for (uint32_t i = 0; i < VOLUMES; i++)
            m->volumes[i].flushing = false;
        break;
    }
}

/* ---- the same on the log ---- */

struct worker {
    struct mark_log log;
    struct mark_owner owners[VOLUMES];
    int fd;
};

static void worker_open(struct worker *w, const struct model *m)
{
    open_log(&w->log, w->fd);
    for (uint32_t v = 0; v < VOLUMES; v++) {
        own(&w->owners[v], key_of(v, m->volumes[v].fence));
        mark_log_adopt(&w->log, &w->owners[v]);
    }
}

static void worker_close(struct worker *w)
{
    for (uint32_t v = 0; v < VOLUMES; v++)
        mark_log_leave(&w->log, &w->owners[v]);
    CHECK_EQ(w->log.nr_owned, 0);
    mark_log_fini(&w->log);
}

/** Do it; returns whether a mark was taken. */
static bool worker_do(struct worker *w, const struct model *m, const struct op *op)
{
    struct mark_owner *owner = &w->owners[op->volume];
    switch (op->kind) {
    case MARK:
        if (mark_log_reserve(&w->log, owner, op->generation, 1) < 0)
            return false;
        mark_log_add(&w->log, owner, op->generation, &op->mark);
        break;
    case FLUSH_BEGIN:
        break;
    case FLUSH_END:
        mark_log_release(&w->log, owner, op->generation);
        break;
    case LOSE:
        mark_log_drop(&w->log, owner);
        owner->key.fence++;
        break;
    case RESTART:
        worker_close(w);
        worker_open(w, m);
        break;
    }
    return true;
}

/** What a fresh process finds of a volume, over its journal. */
static void recover(const struct mark_log *log, const struct model *m, uint32_t volume,
                    uint8_t state[SECTORS])
{
    const struct volume *v = &m->volumes[volume];
    struct mark_key key = key_of(volume, v->fence);
    memcpy(state, v->journal, SECTORS);
    CHECK_EQ(mark_log_read(log, &key, apply, state), 0);
}

static void test_operations_against_the_model(uint64_t seed)
{
    for (uint32_t round = 0; round < 20; round++) {
        struct worker w = {.fd = make_memory()};
        struct model m;
        model_start(&m, check_next(&seed));
        worker_open(&w, &m);
        for (uint32_t i = 0; i < 20000; i++) {
            struct op op = next_op(&m);
            model_apply(&m, &op, worker_do(&w, &m, &op));
            if (i % 64)
                continue;
            struct mark_log log;
            open_log(&log, w.fd);
            for (uint32_t v = 0; v < VOLUMES; v++) {
                uint8_t state[SECTORS];
                recover(&log, &m, v, state);
                CHECK(memcmp(state, m.volumes[v].now, SECTORS) == 0);
            }
            mark_log_fini(&log);
        }
        worker_close(&w);
        close(w.fd);
    }
}

/* ---- stopped between any two stores ---- */

/** Written by the child, read by its parent. */
struct progress {
    volatile uint32_t begun, done; /* operations */
    volatile uint8_t taken[1];     /* of each: was the mark taken */
};

static void child_work(struct progress *p, int fd, uint64_t seed, uint32_t nr_ops)
{
    struct worker w = {.fd = fd};
    struct model m;
    model_start(&m, seed);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(77);
    raise(SIGSTOP);
    worker_open(&w, &m);
    for (uint32_t i = 0; i < nr_ops; i++) {
        struct op op = next_op(&m);
        p->begun = i + 1;
        bool taken = worker_do(&w, &m, &op);
        model_apply(&m, &op, taken);
        p->taken[i] = taken;
        p->done = i + 1;
    }
    _exit(0);
}

/** The parent's view: the model as of the operations that are done, and the next. */
struct watcher {
    struct model before, after; /* after: with the one under way, if it is taken */
    struct op op;               /* under way */
    uint32_t done;
    int copy;
};

/** Check one stop: each sector as before the operation under way, or as after it. */
static void check_stop(struct watcher *w, const uint8_t *memory, bool under_way)
{
    struct mark_log log;
    CHECK_EQ(pwrite(w->copy, memory, MARK_LOG_BYTES_MIN, 0), MARK_LOG_BYTES_MIN);
    open_log(&log, w->copy);
    for (uint32_t v = 0; v < VOLUMES; v++) {
        const struct model *m = &w->before;
        bool busy = under_way && v == w->op.volume;
        uint8_t state[SECTORS];
        if (busy && w->op.kind == LOSE)
            continue; /* its marks are void */
        if (busy && w->op.kind == FLUSH_END)
            m = &w->after; /* the append is durable before the log is touched */
        recover(&log, m, v, state);
        for (uint32_t s = 0; s < SECTORS; s++)
            CHECK(state[s] == w->before.volumes[v].now[s] ||
                  (busy && state[s] == w->after.volumes[v].now[s]));
    }
    mark_log_fini(&log);
}

static void decide(struct watcher *w)
{
    w->op = next_op(&w->before);
    w->after = w->before;
    model_apply(&w->after, &w->op, true);
}

static void catch_up(struct watcher *w, const struct progress *p)
{
    while (w->done < p->done) {
        model_apply(&w->before, &w->op, p->taken[w->done]);
        w->done++;
        decide(w);
    }
}

static void test_a_stop_between_any_two_stores(uint64_t seed, uint32_t nr_ops)
{
    size_t size = sizeof(struct progress) + nr_ops;
    struct progress *p =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = make_memory(), status;
    const uint8_t *memory =
        mmap(NULL, MARK_LOG_BYTES_MIN, PROT_READ, MAP_SHARED, fd, 0);
    uint8_t *last = calloc(1, MARK_LOG_BYTES_MIN);
    struct watcher w = {.copy = make_memory()};
    uint64_t steps = 0, stops = 0;
    CHECK(p != MAP_FAILED && memory != MAP_FAILED && last);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        child_work(p, fd, seed, nr_ops);
    model_start(&w.before, seed);
    decide(&w);
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("not stepped: no tracing here\n");
        nr_ops = 0;
    }
    while (nr_ops && !WIFEXITED(status)) {
        CHECK(WIFSTOPPED(status));
        CHECK(WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP);
        CHECK_EQ(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL), 0);
        CHECK_EQ(waitpid(child, &status, 0), child);
        steps++;
        catch_up(&w, p);
        if (memcmp(last, memory, MARK_LOG_BYTES_MIN) == 0)
            continue;
        memcpy(last, memory, MARK_LOG_BYTES_MIN);
        check_stop(&w, memory, p->begun > w.done);
        stops++;
    }
    CHECK_EQ(WEXITSTATUS(status), nr_ops ? 0 : 77);
    CHECK(nr_ops == 0 || (w.done == nr_ops && stops > nr_ops));
    printf("%llu steps, %llu changed the memory\n", (unsigned long long)steps,
           (unsigned long long)stops);
    munmap(p, size);
    munmap((void *)(uintptr_t)memory, MARK_LOG_BYTES_MIN);
    free(last);
    close(w.copy);
    close(fd);
}

/* ---- one promise at a time ---- */

/** Room for `nr` records, or it is full. */
static bool add(struct mark_log *log, struct mark_owner *owner, uint64_t generation,
                uint64_t start, uint32_t kind)
{
    const struct journal_mark mark = {start, 1, kind};
    if (mark_log_reserve(log, owner, generation, 1) < 0)
        return false;
    mark_log_add(log, owner, generation, &mark);
    return true;
}

struct count {
    uint64_t nr, sectors;
};

static int count(void *ctx, const struct journal_mark *mark)
{
    struct count *c = ctx;
    c->nr++;
    c->sectors += mark->nr;
    return 0;
}

static void test_neighbours_are_one_record(void)
{
    struct mark_log log;
    struct mark_owner owner;
    struct count c = {0};
    int fd = make_memory();
    own(&owner, key_of(0, 1));
    open_log(&log, fd);
    for (uint64_t s = 0; s < 100000; s++)
        CHECK(add(&log, &owner, 1, s, JOURNAL_PRESENT));
    CHECK(add(&log, &owner, 1, 100000, JOURNAL_ZERO));
    CHECK(add(&log, &owner, 1, 0, JOURNAL_PRESENT)); /* backwards: one of its own */
    CHECK(add(&log, &owner, 2, 1, JOURNAL_PRESENT)); /* and so is another generation */
    CHECK_EQ(log.nr_owned, 2);
    mark_log_leave(&log, &owner);
    CHECK_EQ(mark_log_read(&log, &owner.key, count, &c), 0);
    CHECK_EQ(c.nr, 4);
    CHECK_EQ(c.sectors, 100003);
    mark_log_fini(&log);
    close(fd);
}

/** A generation goes on in a chunk that is newer than the next generation's first. */
static void test_order_over_generations(void)
{
    struct mark_log log;
    struct mark_owner owner;
    uint8_t state[SECTORS] = {0};
    int fd = make_memory();
    own(&owner, key_of(0, 1));
    open_log(&log, fd);
    for (uint32_t i = 0; i < MARK_CHUNK_RECORDS; i++)
        CHECK(add(&log, &owner, 1, i % 2 * 2, JOURNAL_PRESENT));
    CHECK(add(&log, &owner, 2, 10, JOURNAL_PRESENT));
    CHECK(add(&log, &owner, 1, 20, JOURNAL_ZERO));
    CHECK(add(&log, &owner, 2, 20, JOURNAL_PRESENT));
    mark_log_release(&log, &owner, 2);
    CHECK_EQ(log.nr_owned, 2);
    mark_log_leave(&log, &owner);
    CHECK_EQ(mark_log_read(&log, &owner.key, apply, state), 0);
    CHECK_EQ(state[20], JOURNAL_PRESENT);
    CHECK_EQ(state[10], JOURNAL_PRESENT);
    CHECK_EQ(state[0], 0); /* was released */
    mark_log_fini(&log);
    close(fd);
}

static void test_keys(void)
{
    struct mark_log log;
    struct mark_owner owners[4];
    int fd = make_memory();
    open_log(&log, fd);
    for (uint32_t i = 0; i < 4; i++) { /* two volumes, two fences each */
        own(&owners[i], key_of(i / 2, 1 + i % 2));
        CHECK(add(&log, &owners[i], 1, i, JOURNAL_PRESENT));
        mark_log_leave(&log, &owners[i]);
    }
    mark_log_fini(&log);
    open_log(&log, fd);
    CHECK_EQ(log.nr_free, CHUNKS - 4);
    mark_log_adopt(&log, &owners[0]); /* the other fence of this volume goes */
    CHECK_EQ(log.nr_owned, 1);
    CHECK_EQ(log.nr_free, CHUNKS - 3);
    owners[2].key.epoch++;
    mark_log_adopt(&log, &owners[2]); /* neither is of this epoch */
    CHECK_EQ(log.nr_owned, 1);
    CHECK_EQ(log.nr_free, CHUNKS - 1);
    CHECK(add(&log, &owners[0], 1, 9, JOURNAL_PRESENT));
    mark_log_leave(&log, &owners[0]); /* what it found, and what it made */
    CHECK_EQ(log.nr_free, CHUNKS - 2);
    mark_log_adopt(&log, &owners[0]);
    CHECK_EQ(log.nr_owned, 2);
    mark_log_drop(&log, &owners[0]);
    CHECK_EQ(log.nr_free, CHUNKS);
    mark_log_fini(&log);
    close(fd);
}

static void test_full(void)
{
    struct mark_log log;
    struct mark_owner owner, other;
    struct count c = {0};
    uint64_t nr = 0;
    int fd = make_memory();
    own(&owner, key_of(0, 1));
    own(&other, key_of(1, 1));
    open_log(&log, fd);
    while (add(&log, &owner, 1, nr * 2, JOURNAL_PRESENT))
        nr++;
    CHECK_EQ(nr, CHUNKS * MARK_CHUNK_RECORDS);
    CHECK(!add(&log, &other, 1, 0, JOURNAL_PRESENT));
    CHECK_EQ(mark_log_reserve(&log, &owner, 1, 1), -ENOBUFS);
    mark_log_release(&log, &owner, 2);
    CHECK_EQ(mark_log_reserve(&log, &owner, 2, (uint32_t)nr), 0);
    CHECK_EQ(mark_log_reserve(&log, &owner, 2, (uint32_t)nr + 1),
             0); /* none is owned */
    CHECK(add(&log, &owner, 2, 0, JOURNAL_PRESENT));
    CHECK_EQ(mark_log_reserve(&log, &owner, 2, (uint32_t)nr), -ENOBUFS);
    for (nr = 1; add(&log, &owner, 2, nr * 2, JOURNAL_PRESENT);)
        nr++;
    mark_log_leave(&log, &owner); /* now a flush would make no room */
    CHECK(add(&log, &other, 1, 0, JOURNAL_PRESENT));
    CHECK(list_empty(&other.slots));
    CHECK_EQ(mark_log_read(&log, &owner.key, count, &c), 0);
    CHECK_EQ(c.nr, CHUNKS * MARK_CHUNK_RECORDS);
    mark_log_fini(&log);
    close(fd);
}

/* ---- damage ---- */

static int in_range(void *ctx, const struct journal_mark *mark)
{
    uint64_t *nr = ctx;
    CHECK(mark->nr && mark->start < MAP_SIZE_MAX / XSEG_SECTOR_BYTES);
    CHECK(mark->nr <= MAP_SIZE_MAX / XSEG_SECTOR_BYTES - mark->start);
    CHECK(mark->kind == JOURNAL_PRESENT || mark->kind == JOURNAL_ZERO);
    ++*nr;
    return 0;
}

/** Whatever is in the memory: it is read, taken over, used and given back. */
static void use(int fd)
{
    struct mark_log log;
    struct mark_owner owners[VOLUMES];
    uint64_t nr = 0;
    open_log(&log, fd);
    for (uint32_t v = 0; v < VOLUMES; v++) {
        own(&owners[v], key_of(v, 1));
        CHECK_EQ(mark_log_read(&log, &owners[v].key, in_range, &nr), 0);
        mark_log_adopt(&log, &owners[v]);
        add(&log, &owners[v], 1, v, JOURNAL_ZERO);
    }
    CHECK(nr <= CHUNKS * MARK_CHUNK_RECORDS);
    for (uint32_t v = 0; v < VOLUMES; v++)
        mark_log_release(&log, &owners[v], 2);
    CHECK_EQ(log.nr_owned, 0);
    mark_log_fini(&log);
}

static void test_damage_is_dropped(uint64_t seed)
{
    int fd = make_memory();
    uint64_t *words =
        mmap(NULL, MARK_LOG_BYTES_MIN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint32_t per_chunk = MARK_CHUNK_BYTES / 8;
    CHECK(words != MAP_FAILED);
    for (uint32_t round = 0; round < 400; round++) {
        struct worker w = {.fd = fd};
        struct model m;
        memset(words, 0, MARK_LOG_BYTES_MIN);
        model_start(&m, check_next(&seed));
        worker_open(&w, &m);
        for (uint32_t i = 0; i < 1000; i++) {
            struct op op = next_op(&m);
            if (op.kind == MARK)
                worker_do(&w, &m, &op);
        }
        worker_close(&w);
        for (uint32_t i = 0; i < 40; i++) {
            uint64_t dice = check_next(&seed);
            uint32_t chunk = (uint32_t)(dice >> 8) % CHUNKS;
            uint32_t word = (uint32_t)(dice >> 16) % (dice & 1 ? 10 : per_chunk);
            uint64_t bits = check_next(&seed);
            words[chunk * per_chunk + word] ^=
                dice & 2 ? bits : UINT64_C(1) << (bits & 63);
        }
        use(fd);
    }
    for (uint32_t i = 0; i < MARK_LOG_BYTES_MIN / 8; i++)
        words[i] = check_next(&seed);
    use(fd);
    memset(words, 0xff, MARK_LOG_BYTES_MIN);
    use(fd);
    munmap(words, MARK_LOG_BYTES_MIN);
    close(fd);
}

int main(void)
{
    uint64_t seed = check_seed();
    log_set_level(LOG_ERROR);
    test_neighbours_are_one_record();
    test_order_over_generations();
    test_keys();
    test_full();
    test_operations_against_the_model(check_next(&seed));
    if (SANITIZED)
        printf("not stepped: most instructions are the sanitizer's\n");
    else
        test_a_stop_between_any_two_stores(check_next(&seed), 800);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* a line for each damage */
    CHECK(null >= 0 && dup2(null, STDERR_FILENO) >= 0);
    test_damage_is_dropped(check_next(&seed));
    return 0;
}
