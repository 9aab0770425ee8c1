/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composer among peers that die, and with leases that end: clients see a pause and
 * no error as long as the volume is theirs, and -ESTALE at once when it is not.
 */
#include <time.h>

#include "client.h"

static uint64_t boot_ns(void)
{
    struct timespec now;

    CHECK_EQ(clock_gettime(CLOCK_BOOTTIME, &now), 0);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/** Make the three peers living and forgiving again, and the volume open. */
static void recover(struct client *c)
{
    struct fake_store *f = c->store;

    f->stay_dead = false;
    f->deadline_ns = 0;
    f->fail_dst = 0;
    f->disowned = false;
    memset(f->fail_op, 0, sizeof f->fail_op);
    fake_store_rebirth(f);
    if (call_simple(c, XSEG_OP_FLUSH, 0, 0, 0) == 0)
        return;
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), -ESTALE);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

/* ---- children that die ---- */

static void test_nobody_notices_random_deaths(struct client *c)
{
    struct fake_store *f = c->store;

    f->deadly = true;
    test_random_work_matches_the_model(c);
    f->deadly = false;
    fake_store_rebirth(f);
    CHECK(f->nr_deaths > 0);
}

static void test_a_full_mark_log_is_flushed(struct client *c)
{
    struct fake_store *f = c->store;

    f->mark_room = 7; /* the largest single mark and one more */
    test_random_work_matches_the_model(c);
    CHECK(f->nr_refused > 0);
    f->deadly = true;
    test_random_work_matches_the_model(c);
    f->deadly = false;
    fake_store_rebirth(f);
    f->mark_room = 0;
}

/** Each kind of child ends with each kind of death, once; the client sees nothing. */
static void test_each_child_is_sent_again(struct client *c)
{
    static const struct {
        uint32_t op, dst;
    } children[] = {
        {XSEG_OP_MAPR, XSEG_PORT_MAPPERD},   {XSEG_OP_READ, XSEG_PORT_BLOCKERB},
        {XSEG_OP_WRITE, XSEG_PORT_BLOCKERB}, {XSEG_OP_DISCARD, XSEG_PORT_BLOCKERB},
        {XSEG_OP_MAPW, XSEG_PORT_MAPPERD},   {XSEG_OP_FLUSH, XSEG_PORT_BLOCKERB},
        {XSEG_OP_FLUSH, XSEG_PORT_MAPPERD},
    };
    static const int64_t deaths[] = {-EPIPE, -EOWNERDEAD, -ECANCELED, -ESTALE};
    struct fake_store *f = c->store;

    for (uint32_t i = 0; i < sizeof children / sizeof children[0]; i++) {
        for (uint32_t d = 0; d < 4; d++) {
            if (deaths[d] == -ESTALE && children[i].dst == XSEG_PORT_BLOCKERB)
                continue; /* that is a sealed extent */
            uint64_t handle = f->map_handle;
            uint32_t opens = f->nr_opens;
            f->fail_dst = children[i].dst;
            f->fail_op[children[i].op] = deaths[d];
            /* unaligned at both ends and durable: needs each of them */
            CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 100, 5 * S, XSEG_F_FUA), 5 * S);
            CHECK_EQ(f->fail_op[children[i].op], 0);
            CHECK_EQ(f->nr_opens, opens + (f->fail_dst == XSEG_PORT_MAPPERD));
            CHECK_EQ(f->map_handle, handle); /* the map had been there all the time */
        }
    }
    f->fail_dst = 0;
}

static void test_block_status_survives_the_mapper(struct client *c)
{
    struct fake_store *f = c->store;

    f->stay_dead = true;
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    send_async(c, 0, XSEG_OP_MAPR, 0, 4 * S);
    client_run(c, 20);
    CHECK(c->ops[0].busy);
    f->stay_dead = false;
    fake_store_rebirth(f);
    CHECK(await(c, 0) > 0);
}

static void test_data_goes_on_while_the_map_is_away(struct client *c)
{
    struct fake_store *f = c->store;

    f->stay_dead = true;
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    uint32_t writes = f->nr_ops[XSEG_OP_WRITE];
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    send_async(c, 1, XSEG_OP_WRITE, 8 * S, S);
    while (f->nr_ops[XSEG_OP_WRITE] != writes + 2)
        client_run(c, 1);
    CHECK(c->ops[0].busy && c->ops[1].busy);
    fake_store_rebirth(f);
    f->stay_dead = false;
    CHECK_EQ(await(c, 0), S);
    CHECK_EQ(await(c, 1), S);
}

/** With patience of a fraction of a second. */
static void test_waiting_has_an_end(struct client *c)
{
    struct fake_store *f = c->store;

    f->stay_dead = true;
    fake_store_kill(f, XSEG_PORT_BLOCKERB);
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    CHECK_EQ(call_simple(c, XSEG_OP_READ, 0, 0, 0), 0); /* needs nobody */
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    send_async(c, 1, XSEG_OP_READ, 4 * S, S);
    send_async(c, 2, XSEG_OP_FLUSH, 0, 0);
    CHECK_EQ(await(c, 0), -EIO);
    CHECK_EQ(await(c, 1), -EIO);
    CHECK_EQ(await(c, 2), -EIO);
    recover(c); /* the same handle, and it is as if nothing had been */
}

/* ---- revival ---- */

static void test_another_fence_loses_the_volume(struct client *c)
{
    struct fake_store *f = c->store;
    uint64_t old = c->handle, fresh;
    uint32_t closes = f->nr_closes;

    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_HOLD, NULL), 0);
    f->fence++;
    f->disowned = true;
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    send_async(c, 0, XSEG_OP_READ, 0, S);
    send_async(c, 1, XSEG_OP_WRITE, 8 * S, S);
    send_async(c, 2, XSEG_OP_FLUSH, 0, 0);
    CHECK_EQ(await(c, 0), -ESTALE);
    CHECK_EQ(await(c, 1), -ESTALE);
    CHECK_EQ(await(c, 2), -ESTALE);
    CHECK_EQ(f->nr_closes, closes + 1); /* CONTROL need not keep it for us */
    CHECK_EQ(call_simple(c, XSEG_OP_READ, 0, S, 0), -ESTALE);
    CHECK_EQ(call_simple(c, XSEG_OP_INFO, 0, 0, 0), 0); /* the handle is known */
    CHECK_EQ(call_named(c, XSEG_OP_CLOSE, XSEG_F_HOLD, NULL), -ENOENT);

    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &fresh), 0); /* it asks anew */
    CHECK(fresh != old);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), -ESTALE);
    CHECK_EQ(f->nr_closes, closes + 1); /* not again: the new one has it open */
    c->handle = fresh;
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), S);
    recover(c);
}

static void test_another_epoch_loses_the_volume(struct client *c)
{
    struct fake_store *f = c->store;

    f->disowned = true;
    f->epochs_on = 1;
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), -ESTALE);
    f->epochs_on = 0;
    recover(c);
}

static void test_a_new_control_learns_what_is_open(struct client *c)
{
    struct fake_store *f = c->store;
    uint32_t opens = f->nr_opens;

    fake_store_kill(f, XSEG_PORT_MAPPERD);
    while (f->nr_opens == opens) /* nobody asks for I/O: its lease must be renewed */
        client_run(c, 1);
    /* nor must it be removed before that */
    opens = f->nr_opens;
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    fake_store_rebirth(f);
    CHECK_EQ(call_named(c, XSEG_OP_DELETE, 0, NULL), 0); /* as the fake one has it */
    CHECK_EQ(f->nr_opens, opens + 1);
}

static void test_a_rename_may_have_been_the_last_deed(struct client *c)
{
    struct fake_store *f = c->store;

    fake_store_kill(f, XSEG_PORT_MAPPERD);
    f->name = 'w';
    send_async(c, 0, XSEG_OP_READ, 0, S);
    CHECK_EQ(await(c, 0), S);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0); /* by its new name */
    f->name = 'v';
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_a_reader_takes_what_it_finds(struct client *c)
{
    struct fake_store *f = c->store;

    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    f->flags = XSEG_VOL_RDONLY_OPEN;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, XSEG_F_RDONLY, &c->handle), 0);
    f->fence++;
    f->epochs_on = 1;
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    send_async(c, 0, XSEG_OP_READ, 0, S);
    CHECK_EQ(await(c, 0), S);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    f->epochs_on = 0;
    f->flags = 0;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_what_control_says_decides(struct client *c)
{
    static const int64_t passing[] = {-EPIPE,  -EOWNERDEAD, -ECANCELED,
                                      -EAGAIN, -ENOSPC,     -EIO};
    static const int64_t final[] = {-EBUSY, -ENOENT, -ESTALE};
    struct fake_store *f = c->store;

    f->fail_dst = XSEG_PORT_CONTROL;
    for (uint32_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        fake_store_kill(f, XSEG_PORT_MAPPERD);
        f->fail_op[XSEG_OP_OPEN] = passing[i];
        CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 100, 2 * S, XSEG_F_FUA), 2 * S);
        CHECK_EQ(f->fail_op[XSEG_OP_OPEN], 0);
    }
    for (uint32_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        f->fail_dst = XSEG_PORT_CONTROL;
        fake_store_kill(f, XSEG_PORT_MAPPERD);
        f->fail_op[XSEG_OP_OPEN] = final[i];
        f->disowned = true;
        CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 100, 2 * S, 0), -ESTALE);
        recover(c);
    }
}

static void test_a_sealed_extent_loses_the_volume(struct client *c)
{
    struct fake_store *f = c->store;

    f->disowned = true;
    f->fail_op[XSEG_OP_DISCARD] = -ESTALE;
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, 2 * S, 0), -ESTALE);
    CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), -ESTALE);
    recover(c);
}

/** CONTROL dies over a snapshot, before or after it was made: the volume goes on. */
static void test_a_change_that_dies_is_found_out(struct client *c)
{
    struct fake_store *f = c->store;

    for (uint32_t round = 0; round < 20; round++) {
        uint64_t epoch = f->epoch;
        uint32_t late = f->nr_late;
        send_async(c, 0, XSEG_OP_SNAPSHOT, 0, 0);
        send_async(c, 1, XSEG_OP_WRITE, 3 * S, S);
        while (c->ops[0].busy && epoch == f->epoch && f->nr_late == late)
            client_run(c, 1);
        fake_store_kill(f, XSEG_PORT_MAPPERD);
        int64_t result = await(c, 0);
        CHECK(result == 0 || fake_store_away(result));
        CHECK_EQ(await(c, 1), S); /* never to the old epoch's extent */
        CHECK_EQ(call_simple(c, XSEG_OP_FLUSH, 0, 0, 0), 0);
    }
    /* and if nobody says what became of it, nothing may be written */
    f->fail_dst = XSEG_PORT_CONTROL;
    f->fail_op[XSEG_OP_SNAPSHOT] = -EOWNERDEAD;
    f->fail_op[XSEG_OP_OPEN] = -EBUSY;
    f->disowned = true;
    CHECK_EQ(call_named(c, XSEG_OP_SNAPSHOT, 0, NULL), -EOWNERDEAD);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), -ESTALE);
    recover(c);
    f->fail_dst = XSEG_PORT_CONTROL;
    f->fail_op[XSEG_OP_SNAPSHOT] = -EOWNERDEAD; /* it did not happen */
    CHECK_EQ(call_named(c, XSEG_OP_SNAPSHOT, 0, NULL), -EOWNERDEAD);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), S);
    recover(c);
}

static void test_open_and_close_wait_for_control(struct client *c)
{
    struct fake_store *f = c->store;

    f->fail_dst = XSEG_PORT_CONTROL;
    for (uint32_t i = 0; i < 3; i++) {
        f->fail_op[XSEG_OP_CLOSE] =
            (const int64_t[]){-EPIPE, -EOWNERDEAD, -ECANCELED}[i];
        CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
        CHECK_EQ(f->fail_op[XSEG_OP_CLOSE], 0);
        f->fail_op[XSEG_OP_OPEN] =
            (const int64_t[]){-EPIPE, -EOWNERDEAD, -ECANCELED}[i];
        CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
        CHECK_EQ(f->fail_op[XSEG_OP_OPEN], 0);
    }
    f->fail_dst = 0;
}

/* ---- leases ---- */

/** A word of CONTROL: the deadline of the instance, or the loss of a volume's lease. */
static int64_t call_word(struct client *c, uint32_t op, uint32_t kind,
                         uint64_t deadline_ns)
{
    struct xseg_request *rq = new_request(c, op);
    rq->object.kind = kind;
    memcpy(rq->object.id, "composer-testing", 16);
    rq->arg[1] = deadline_ns;
    int64_t result = call(c, rq);
    xseg_request_free(c->port, rq);
    return result;
}

static int64_t call_deadline(struct client *c, uint64_t deadline_ns)
{
    return call_word(c, XSEG_OP_ACQUIRE, XSEG_OBJ_PRESENCE, deadline_ns);
}

static int64_t call_loss(struct client *c)
{
    return call_word(c, XSEG_OP_RELEASE, XSEG_OBJ_LEASE, 0);
}

/** Open the volume with a lease that is over. */
static void reopen_overdue(struct client *c)
{
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), 0);
    CHECK_EQ(call_deadline(c, 0), 0);
    c->store->deadline_ns = 1;
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);
}

static void test_after_the_deadline_requests_wait(struct client *c)
{
    struct fake_store *f = c->store;

    reopen_overdue(c);
    uint32_t writes = f->nr_ops[XSEG_OP_WRITE], reads = f->nr_ops[XSEG_OP_MAPR];
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    send_async(c, 1, XSEG_OP_READ, 0, S);
    send_async(c, 2, XSEG_OP_FLUSH, 0, 0);
    client_run(c, 20);
    CHECK_EQ(call_deadline(c, 2), 0); /* over as well */
    client_run(c, 20);
    CHECK(c->ops[0].busy && c->ops[1].busy && c->ops[2].busy);
    CHECK_EQ(f->nr_ops[XSEG_OP_WRITE], writes);
    CHECK_EQ(f->nr_ops[XSEG_OP_MAPR], reads);
    CHECK_EQ(call_deadline(c, boot_ns() + UINT64_C(3600000000000)), 0);
    CHECK_EQ(await(c, 0), S);
    CHECK_EQ(await(c, 1), S);
    CHECK_EQ(await(c, 2), 0);
}

static void test_data_that_waited_looks_at_the_deadline(struct client *c)
{
    struct fake_store *f = c->store;

    f->stay_dead = true;
    fake_store_kill(f, XSEG_PORT_BLOCKERB);
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    client_run(c, 5);
    CHECK_EQ(call_deadline(c, 1), 0);
    uint32_t writes = f->nr_ops[XSEG_OP_WRITE];
    fake_store_rebirth(f);
    f->stay_dead = false;
    /* another volume's worth of waiting: a revival runs the same timer */
    client_run(c, 50);
    CHECK(c->ops[0].busy);
    CHECK_EQ(f->nr_ops[XSEG_OP_WRITE], writes);
    CHECK_EQ(call_deadline(c, 0), 0);
    CHECK_EQ(await(c, 0), S);
}

static void test_a_lost_lease_answers_all_that_waits(struct client *c)
{
    struct fake_store *f = c->store;

    reopen_overdue(c);
    uint32_t closes = f->nr_closes;
    f->disowned = true;
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    send_async(c, 1, XSEG_OP_READ, 0, S);
    client_run(c, 5);
    CHECK_EQ(call_loss(c), 0);
    CHECK_EQ(await(c, 0), -ESTALE);
    CHECK_EQ(await(c, 1), -ESTALE);
    CHECK_EQ(call_loss(c), -ENOENT); /* no client counts on it */
    CHECK_EQ(call_word(c, XSEG_OP_ACQUIRE, XSEG_OBJ_LEASE, 0), -EINVAL);
    CHECK_EQ(call_word(c, XSEG_OP_RELEASE, XSEG_OBJ_PRESENCE, 0), -EINVAL);
    CHECK_EQ(call_simple(c, XSEG_OP_CLOSE, 0, 0, 0), -ESTALE);
    CHECK_EQ(f->nr_closes, closes + 1); /* told once, at the loss */
    CHECK_EQ(call_simple(c, XSEG_OP_READ, 0, S, 0), -ESTALE);
    f->deadline_ns = 0;
    CHECK_EQ(call_deadline(c, 0), 0);
    CHECK_EQ(call_named(c, XSEG_OP_OPEN, 0, &c->handle), 0);

    /* while children wait for dead peers */
    f->stay_dead = true;
    fake_store_kill(f, XSEG_PORT_BLOCKERB);
    fake_store_kill(f, XSEG_PORT_MAPPERD);
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    send_async(c, 1, XSEG_OP_READ, 4 * S, S);
    send_async(c, 2, XSEG_OP_FLUSH, 0, 0);
    client_run(c, 5);
    CHECK(c->ops[0].busy && c->ops[1].busy && c->ops[2].busy);
    CHECK_EQ(call_loss(c), 0);
    CHECK_EQ(await(c, 0), -ESTALE);
    CHECK_EQ(await(c, 1), -ESTALE);
    CHECK_EQ(await(c, 2), -ESTALE);
    recover(c);
}

/* ---- stop ---- */

/** Nothing hangs, what cannot end ends with an error, what comes now is sent back. */
static void test_stop_does_not_wait_for_the_dead(struct client *c)
{
    struct fake_store *f = c->store;
    uint32_t closes = f->nr_closes;

    f->stay_dead = true;
    fake_store_kill(f, XSEG_PORT_BLOCKERB);
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    client_run(c, 5);
    client_begin_stop(c);
    CHECK_EQ(call_simple(c, XSEG_OP_ZERO, 0, S, 0), -ECANCELED);
    CHECK_EQ(await(c, 0), -EIO);
    client_stop_composer(c);
    CHECK_EQ(f->nr_closes, closes); /* CONTROL keeps what could not be flushed */
    fake_store_rebirth(f);
}

/** The endpoint ends first: what it waits for must not take longer than an end may. */
static void test_a_process_that_ends_waits_less(struct client *c)
{
    c->store->stay_dead = true;
    fake_store_kill(c->store, XSEG_PORT_BLOCKERB);
    send_async(c, 0, XSEG_OP_WRITE, 0, S);
    client_run(c, 5);
    c->composer->hurry(c->composer);
    CHECK_EQ(await(c, 0), -EIO);
    client_stop_composer(c);
    fake_store_rebirth(c->store);
}

int main(void)
{
    static struct fake_store store;
    static struct client client;
    struct client *c = &client;

    client_start(c, &store, &(struct composer_options){.queue_depth = 16});
    test_nobody_notices_random_deaths(c);
    test_a_full_mark_log_is_flushed(c);
    test_each_child_is_sent_again(c);
    test_block_status_survives_the_mapper(c);
    test_data_goes_on_while_the_map_is_away(c);
    test_another_fence_loses_the_volume(c);
    test_another_epoch_loses_the_volume(c);
    test_a_new_control_learns_what_is_open(c);
    test_a_rename_may_have_been_the_last_deed(c);
    test_a_reader_takes_what_it_finds(c);
    test_what_control_says_decides(c);
    test_a_sealed_extent_loses_the_volume(c);
    test_a_change_that_dies_is_found_out(c);
    test_open_and_close_wait_for_control(c);
    test_after_the_deadline_requests_wait(c);
    test_data_that_waited_looks_at_the_deadline(c);
    test_a_lost_lease_answers_all_that_waits(c);
    client_stop_composer(c);
    client_end(c);

    client_start(c, &store,
                 &(struct composer_options){.queue_depth = 16, .patience_ms = 50});
    test_waiting_has_an_end(c);
    client_stop_composer(c);
    client_end(c);

    client_start(c, &store,
                 &(struct composer_options){.queue_depth = 16, .stop_patience_ms = 50});
    test_stop_does_not_wait_for_the_dead(c);
    client_end(c);

    client_start(c, &store,
                 &(struct composer_options){.queue_depth = 16, .stop_patience_ms = 50});
    test_a_process_that_ends_waits_less(c);
    client_end(c);
    return 0;
}
