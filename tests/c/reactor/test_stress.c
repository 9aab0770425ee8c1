/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 100,000 requests over three ports, two on one reactor and one on another thread's:
 * answered at once, later, by way of another port, or after a job, in random order.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "fixture.h"

#define NR_REQUESTS 100000u
#define DEPTH       200u
#define NR_LATER    32u
#define PORT_FRONT  1u
#define PORT_BACK   2u
#define PORT_FAR    3u

/** A port that answers arg[0] + 1, sometimes after asking another one. */
struct station {
    struct reactor *r;
    struct xseg_port *port;
    uint32_t next; /* port to pass requests on to, or 0 */
    uint64_t seed;
    struct xseg_request *later[NR_LATER]; /* answered in random order */
    uint32_t nr_later;
    struct reactor_task release; /* answers what is left when nothing else comes */
    bool releasing;
};

struct passed {
    struct station *station;
    struct xseg_request *asked;
};

struct job {
    struct reactor_job job; /* first: callbacks cast */
    struct station *station;
    struct xseg_request *rq;
    uint64_t answer;
};

static void answer(struct station *s, struct xseg_request *rq)
{
    CHECK_EQ(xseg_request_complete(s->port, rq, (int64_t)rq->arg[0] + 1), 0);
}

static void on_passed(void *arg, struct xseg_request *rq)
{
    struct passed *passed = arg;
    int64_t result = rq->result;

    xseg_request_free(passed->station->port, rq);
    CHECK_EQ(result, passed->asked->arg[0] + 1);
    answer(passed->station, passed->asked);
    free(passed);
}

static bool pass_on(struct station *s, struct xseg_request *rq)
{
    struct xseg_request *onward;
    struct passed *passed;

    if (!s->next || xseg_request_alloc(s->port, &onward))
        return false;
    passed = malloc(sizeof *passed);
    CHECK(passed);
    *passed = (struct passed){s, rq};
    onward->op = rq->op;
    onward->arg[0] = rq->arg[0];
    reactor_submit(s->r, s->port, onward, s->next, on_passed, passed);
    return true;
}

static void job_run(struct reactor_job *self)
{
    struct job *job = (struct job *)(void *)self;

    job->answer = job->rq->arg[0] + 1;
}

static void job_done(struct reactor_job *self)
{
    struct job *job = (struct job *)(void *)self;

    CHECK_EQ(job->answer, job->rq->arg[0] + 1);
    answer(job->station, job->rq);
    free(job);
}

static void offload(struct station *s, struct xseg_request *rq)
{
    struct job *job = malloc(sizeof *job);

    CHECK(job);
    *job = (struct job){{.run = job_run, .done = job_done}, s, rq, 0};
    reactor_offload(s->r, &job->job);
}

static void answer_one_of_the_late(struct station *s)
{
    uint32_t pick = (uint32_t)(check_next(&s->seed) % s->nr_later);
    struct xseg_request *rq = s->later[pick];

    s->later[pick] = s->later[--s->nr_later];
    answer(s, rq);
}

static void on_release(struct reactor_task *task)
{
    struct station *s =
        (struct station *)(void *)((char *)task - offsetof(struct station, release));
    s->releasing = false;
    while (s->nr_later)
        answer_one_of_the_late(s);
}

static void on_request(void *ctx, struct xseg_request *rq)
{
    struct station *s = ctx;

    switch (check_next(&s->seed) % 8) {
    case 0:
    case 1:
        if (s->nr_later == NR_LATER)
            answer_one_of_the_late(s);
        s->later[s->nr_later++] = rq;
        if (!s->releasing)
            reactor_defer(s->r, &s->release);
        s->releasing = true;
        break;
    case 2:
        offload(s, rq);
        break;
    case 3:
    case 4:
    case 5:
        if (!pass_on(s, rq))
            answer(s, rq);
        break;
    default:
        answer(s, rq);
        break;
    }
}

static void *far_main(void *arg)
{
    struct station *s = arg;

    CHECK_EQ(reactor_run(s->r), 0);
    return NULL;
}

static void station_open(struct station *s, struct reactor *r, uint32_t id,
                         uint32_t next, uint64_t seed)
{
    *s = (struct station){.r = r, .next = next, .seed = seed | 1};
    s->release.fn = on_release;
    s->port = fixture_port(r, id, on_request, s);
}

int main(void)
{
    uint64_t seed = check_seed();
    struct xseg_segment *seg = fixture_segment();
    struct reactor *near = fixture_reactor(seg), *far = fixture_reactor(seg);
    struct station front, back, away;
    struct reactor_statistics stats;
    struct pinger pinger;
    pthread_t thread;

    station_open(&front, near, PORT_FRONT, PORT_BACK, check_next(&seed));
    station_open(&back, near, PORT_BACK, PORT_FAR, check_next(&seed));
    station_open(&away, far, PORT_FAR, 0, check_next(&seed));
    CHECK_EQ(pthread_create(&thread, NULL, far_main, &away), 0);

    /* a port of its own, so that the load does not starve the peers that pass on */
    pinger = (struct pinger){.r = near, .dst = PORT_FRONT, .stop_at_end = true};
    pinger.port = fixture_port(near, 4, NULL, NULL);
    pinger_start(&pinger, NR_REQUESTS, DEPTH);
    CHECK_EQ(reactor_run(near), 0);
    CHECK_EQ(pinger.left, 0);
    CHECK_EQ(front.nr_later + back.nr_later, 0);

    reactor_stop(far);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    reactor_statistics(near, &stats);
    CHECK_EQ(stats.unknown_replies, 0);
    CHECK_EQ(away.nr_later, 0);
    fixture_drop_port(near, pinger.port);
    fixture_drop_port(near, front.port);
    fixture_drop_port(near, back.port);
    fixture_drop_port(far, away.port);
    reactor_destroy(near);
    reactor_destroy(far);
    xseg_segment_detach(seg);
    return 0;
}
