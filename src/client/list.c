/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of volumes (see list.h): one page, one buffer, one request to control at a time.
 *
 *   WAITING --descriptor and buffer--> ASKED --answer--> READY --client_list_next--.
 *      ^------------- control is away --'                                           |
 *      ^----------------------------------------------------------------------------'
 *
 * A list that is freed while it is ASKED stays until the answer, as FORGOTTEN.
 */
#include "client/list.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES     (64u << 10)
#define PAGE_MIN_BYTES (4u << 10)
/* Pages of all lists of a client under way at once: each takes a buffer. */
#define MAX_PAGES   2u
#define PAUSE_NS    UINT64_C(10000000)
#define PATIENCE_NS UINT64_C(30000000000)

enum list_state {
    LIST_READY,     /* a page was given to the owner */
    LIST_WAITING,   /* for a descriptor, a buffer, or control */
    LIST_ASKED,     /* control has the request */
    LIST_FORGOTTEN, /* the same, and the owner does not want the answer */
};

struct client_list {
    struct client *client;
    enum list_state state;
    int (*name)(void *arg, const uint8_t *name, size_t len);
    void (*page)(void *arg, int64_t result);
    void *arg;
    struct client_waiter waiter;
    struct reactor_timer timer;
    uint64_t away_ns; /* since when control is away; 0: it is not */
    uint64_t buffer_off;
    uint32_t capacity; /* [bytes] */
    uint8_t marker_len;
    uint8_t marker[XSEG_NAME_MAX]; /* the last name of the page before */
};

static void list_ask(struct client_list *list);

static int list_take_name(void *arg, const uint8_t *name, size_t len)
{
    struct client_list *list = arg;

    memcpy(list->marker, name, len);
    list->marker_len = (uint8_t)len;
    return list->name(list->arg, name, len);
}

/**
 * Hand the names of a page on: each is its length in one byte, then its bytes.  They come
 * from another process.  Returns 1 if there are more, 0, or -errno.
 */
static int64_t list_take_page(struct client_list *list, const struct xseg_request *rq)
{
    uint64_t used = rq->arg[0], at = 0;
    const uint8_t *page;

    if (rq->result <= 0)
        return rq->result; /* a page without a name leads nowhere */
    if (used > list->capacity)
        return -EBADMSG;
    page = xseg_heap_ptr(list->client->segment, list->buffer_off, list->capacity);
    for (int64_t i = 0; i < rq->result; i++) {
        uint8_t name[XSEG_NAME_MAX];
        uint8_t len;
        int rc;

        if (at >= used)
            return -EBADMSG;
        len = page[at++];
        if (len == 0 || len > used - at)
            return -EBADMSG;
        memcpy(name, page + at, len);
        at += len;
        rc = list_take_name(list, name, len);
        if (rc < 0)
            return rc;
    }
    return rq->arg[1] != 0;
}

static void list_ask_later(struct client_list *list)
{
    list->state = LIST_WAITING;
    reactor_arm_timer(list->client->reactor, &list->timer, PAUSE_NS);
}

/** Control is away: true if that has not lasted too long. */
static bool list_is_patient(struct client_list *list)
{
    uint64_t now = reactor_now_ns(list->client->reactor);

    if (!list->away_ns)
        list->away_ns = now;
    return now - list->away_ns <= PATIENCE_NS;
}

static void list_answered(void *arg, struct xseg_request *rq)
{
    struct client_list *list = arg;
    struct client *client = list->client;
    int64_t result = 0;

    if (list->state != LIST_FORGOTTEN)
        result = list_take_page(list, rq);
    xseg_buffer_free(client->segment, list->buffer_off);
    xseg_request_free(client->port, rq);
    client->nr_lists--;
    client_wake(client); /* another list may wait for its page */
    if (list->state == LIST_FORGOTTEN) {
        free(list);
        return;
    }
    if (client_is_away(result) && list_is_patient(list)) {
        list_ask_later(list);
        return;
    }
    list->away_ns = 0;
    list->state = LIST_READY;
    list->page(list->arg, result);
}

/** A buffer for one page: a smaller one when memory is short. */
static bool list_take_buffer(struct client_list *list)
{
    for (uint32_t size = PAGE_BYTES; size >= PAGE_MIN_BYTES; size /= 2) {
        int64_t got = xseg_buffer_alloc(list->client->segment, size, &list->buffer_off);
        if (got > 0) {
            list->capacity = (uint32_t)got;
            return true;
        }
    }
    return false;
}

static void list_fill(const struct client_list *list, struct xseg_request *rq)
{
    rq->op = XSEG_OP_LIST;
    rq->arg[XSEG_ARG_NAME_LEN] = list->marker_len;
    memcpy(rq->inline_data, list->marker, list->marker_len);
    rq->data_off = list->buffer_off;
    rq->data_len = list->capacity;
}

static void list_ask(struct client_list *list)
{
    struct client *client = list->client;
    struct xseg_request *rq;

    list->state = LIST_WAITING;
    if (client->nr_lists >= MAX_PAGES || xseg_request_alloc(client->port, &rq)) {
        client_wait(client, &list->waiter);
        return;
    }
    if (!list_take_buffer(list)) {
        xseg_request_free(client->port, rq);
        client_wait(client, &list->waiter);
        return;
    }
    list_fill(list, rq);
    list->state = LIST_ASKED;
    client->nr_lists++;
    reactor_submit(client->reactor, client->port, rq, XSEG_PORT_CONTROL, list_answered,
                   list);
}

static void list_on_memory(struct client_waiter *self)
{
    list_ask(LIST_ENTRY(self, struct client_list, waiter));
}

static void list_on_timer(struct reactor_timer *self)
{
    list_ask(LIST_ENTRY(self, struct client_list, timer));
}

struct client_list *
client_list_start(struct client *client,
                  int (*name)(void *arg, const uint8_t *name, size_t len),
                  void (*page)(void *arg, int64_t result), void *arg)
{
    struct client_list *list = calloc(1, sizeof(*list));

    if (!list)
        return NULL;
    list->client = client;
    list->name = name;
    list->page = page;
    list->arg = arg;
    list->waiter.resume = list_on_memory;
    list->timer.on_fire = list_on_timer;
    list_init(&list->waiter.link);
    list_ask(list);
    return list;
}

void client_list_next(struct client_list *list)
{
    list_ask(list);
}

void client_list_free(struct client_list *list)
{
    if (!list)
        return;
    client_wait_cancel(&list->waiter);
    reactor_disarm_timer(list->client->reactor, &list->timer);
    if (list->state == LIST_ASKED)
        list->state = LIST_FORGOTTEN;
    else
        free(list);
}
