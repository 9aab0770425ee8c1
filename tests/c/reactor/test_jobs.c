/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs run off the reactor's thread and finish on it; tasks, pollers and stopping. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "fixture.h"

#define NR_JOBS 2000u

static struct reactor *loop;
static pthread_t loop_thread;

struct work {
    struct reactor_job job; /* first: callbacks cast */
    uint64_t value;
    bool ran;
};

static unsigned nr_done;

static void work_run(struct reactor_job *job)
{
    struct work *work = (struct work *)(void *)job;

    CHECK(!pthread_equal(pthread_self(), loop_thread));
    work->value = work->value * 3 + 1;
    work->ran = true;
}

static void work_done(struct reactor_job *job)
{
    struct work *work = (struct work *)(void *)job;

    CHECK(pthread_equal(pthread_self(), loop_thread));
    CHECK(work->ran);
    if (++nr_done == NR_JOBS)
        reactor_stop(loop);
}

static void test_jobs_run_elsewhere_and_finish_here(void)
{
    struct work *all = calloc(NR_JOBS, sizeof *all);

    CHECK(all);
    nr_done = 0;
    for (unsigned i = 0; i < NR_JOBS; i++) {
        all[i] = (struct work){.job = {.run = work_run, .done = work_done}, .value = i};
        reactor_offload(loop, &all[i].job);
    }
    CHECK_EQ(reactor_run(loop), 0);
    for (unsigned i = 0; i < NR_JOBS; i++)
        CHECK_EQ(all[i].value, (uint64_t)i * 3 + 1);
    free(all);
}

/** One job at a time, each sent from the last one's end: the loop sleeps in between. */
static void chain_done(struct reactor_job *job)
{
    if (++nr_done == 500)
        reactor_stop(loop);
    else
        reactor_offload(loop, job);
}

static void test_a_sleeping_loop_is_woken_by_each_job(void)
{
    struct work work = {.job = {.run = work_run, .done = chain_done}};

    nr_done = 0;
    reactor_offload(loop, &work.job);
    CHECK_EQ(reactor_run(loop), 0);
    CHECK_EQ(nr_done, 500);
}

/* ---- tasks --------------------------------------------------------------------- */

struct note {
    struct reactor_task task; /* first: callbacks cast */
    unsigned nr;
};

static unsigned notes[8], nr_notes;
static struct note notes_again = {.nr = 3};

static void take_note(struct reactor_task *task)
{
    struct note *note = (struct note *)(void *)task;

    notes[nr_notes++] = note->nr;
    if (nr_notes == 1) {
        notes_again.task.fn = take_note;
        reactor_defer(loop, &notes_again.task); /* after those already there */
    }
    if (nr_notes == 4)
        reactor_stop(loop);
}

static void test_tasks_run_in_order_and_new_ones_on_the_next_turn(void)
{
    struct note list[3];

    for (unsigned i = 0; i < 3; i++) {
        list[i] = (struct note){.task = {.fn = take_note}, .nr = i};
        reactor_defer(loop, &list[i].task);
    }
    CHECK_EQ(nr_notes, 0);
    CHECK_EQ(reactor_run(loop), 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(notes[i], i);
}

/* ---- tasks of foreign threads --------------------------------------------------- */

#define NR_POSTERS 4u
#define NR_POSTS   500u

struct post {
    struct reactor_task task; /* first: callbacks cast */
    unsigned poster, nr;
};

static struct post posts[NR_POSTERS][NR_POSTS];
static unsigned nr_posted[NR_POSTERS];

static void post_run(struct reactor_task *task)
{
    struct post *post = (struct post *)(void *)task;

    CHECK(pthread_equal(pthread_self(), loop_thread));
    CHECK_EQ(post->nr, nr_posted[post->poster]); /* in order */
    nr_posted[post->poster]++;
    if (++nr_done == NR_POSTERS * NR_POSTS)
        reactor_stop(loop);
}

static void *post_all(void *arg)
{
    unsigned poster = (unsigned)(uintptr_t)arg;

    for (unsigned i = 0; i < NR_POSTS; i++) {
        posts[poster][i] =
            (struct post){.task = {.fn = post_run}, .poster = poster, .nr = i};
        reactor_post(loop, &posts[poster][i].task);
    }
    return NULL;
}

static void test_foreign_threads_hand_tasks_over_in_order(void)
{
    pthread_t threads[NR_POSTERS];

    nr_done = 0;
    for (uintptr_t i = 0; i < NR_POSTERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, post_all, (void *)i), 0);
    CHECK_EQ(reactor_run(loop), 0);
    for (unsigned i = 0; i < NR_POSTERS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(nr_posted[i], NR_POSTS);
    }
}

/* ---- pollers ------------------------------------------------------------------- */

struct source {
    struct reactor_poller poller; /* first: callbacks cast */
    unsigned nr_polled;
    struct source *remove; /* on the third visit */
};

static int source_poll(struct reactor_poller *self)
{
    struct source *source = (struct source *)(void *)self;

    if (++source->nr_polled == 3)
        reactor_remove_poller(loop, &source->remove->poller);
    if (source->nr_polled == 10)
        reactor_stop(loop);
    return 1;
}

static void test_pollers_are_visited_each_turn_and_may_remove_others(void)
{
    struct source a = {.poller = {.poll = source_poll}}, b = a, c = a;

    a.remove = &b; /* visited last to first: c, b, a */
    b.remove = &b;
    c.remove = &b; /* the very next */
    reactor_add_poller(loop, &a.poller);
    reactor_add_poller(loop, &b.poller);
    reactor_add_poller(loop, &c.poller);
    CHECK_EQ(reactor_run(loop), 0);
    CHECK_EQ(b.nr_polled, 2);
    CHECK_EQ(c.nr_polled, 10);
    CHECK_EQ(a.nr_polled, 10);
    reactor_remove_poller(loop, &a.poller);
    reactor_remove_poller(loop, &c.poller);
    reactor_remove_poller(loop, &c.poller);
}

/* ---- stopping ------------------------------------------------------------------ */

static void on_alarm(int signal)
{
    (void)signal;
    reactor_stop(loop);
}

static void *send_signal(void *arg)
{
    (void)arg;
    CHECK_EQ(pthread_kill(loop_thread, SIGUSR1), 0);
    return NULL;
}

static void test_a_signal_handler_stops_the_loop(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    pthread_t thread;

    sigemptyset(&action.sa_mask);
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    for (unsigned i = 0; i < 200; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, send_signal, NULL), 0);
        CHECK_EQ(reactor_run(loop), 0); /* asleep or not: it ends */
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
}

static void *stop_it(void *arg)
{
    (void)arg;
    reactor_stop(loop);
    return NULL;
}

static void test_another_thread_stops_the_loop(void)
{
    pthread_t thread;

    for (unsigned i = 0; i < 200; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, stop_it, NULL), 0);
        CHECK_EQ(reactor_run(loop), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    reactor_stop(loop); /* before it runs: it ends at once */
    CHECK_EQ(reactor_run(loop), 0);
}

int main(void)
{
    struct xseg_segment *seg = fixture_segment();

    loop = fixture_reactor(seg);
    loop_thread = pthread_self();
    test_jobs_run_elsewhere_and_finish_here();
    test_a_sleeping_loop_is_woken_by_each_job();
    test_tasks_run_in_order_and_new_ones_on_the_next_turn();
    test_foreign_threads_hand_tasks_over_in_order();
    test_pollers_are_visited_each_turn_and_may_remove_others();
    test_a_signal_handler_stops_the_loop();
    test_another_thread_stops_the_loop();
    reactor_destroy(loop);
    xseg_segment_detach(seg);
    return 0;
}
