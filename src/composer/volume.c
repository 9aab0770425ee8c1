/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of open volumes: handles, freeze and drain.
 *
 * A handle is slot | generation << 24, with bit 63 for an open that may only read; the
 * generation makes a handle of a closed volume stale instead of another volume's.
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "composer/internal.h"

#define MAX_VOLUMES   65536u
#define SLOT_BITS     24
#define HANDLE_RDONLY (UINT64_C(1) << 63)

int volume_table_init(struct composer *c)
{
    list_init(&c->volumes);
    c->nr_slots = MAX_VOLUMES;
    /* Another life of this process starts elsewhere: its handles are stale here. */
    c->generation = (uint32_t)(reactor_now_ns(c->reactor) >> 10);
    c->slots = calloc(c->nr_slots, sizeof *c->slots);
    return c->slots ? 0 : -ENOMEM;
}

void volume_table_fini(struct composer *c)
{
    LIST_FOR_EACH(it, n, &c->volumes)
    volume_free(LIST_ENTRY(it, struct volume, link));
    free(c->slots);
}

struct volume *volume_new(struct composer *c, const uint8_t *name, uint8_t name_len)
{
    uint32_t slot = 0;
    while (slot < c->nr_slots && c->slots[slot])
        slot++;
    if (slot == c->nr_slots)
        return NULL;
    struct volume *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    v->c = c;
    v->state = VOLUME_OPENING;
    v->slot = slot;
    v->handle = slot | ((uint64_t)(++c->generation & 0x7fffffff) << SLOT_BITS);
    v->info.name_len = name_len;
    memcpy(v->info.name, name, name_len);
    list_init(&v->opens);
    list_init(&v->pending_opens);
    list_init(&v->closers);
    list_init(&v->after);
    list_init(&v->removals);
    list_init(&v->ask_waiter.link);
    list_init(&v->frozen);
    list_init(&v->overdue);
    list_init(&v->revived);
    list_init(&v->revive_waiter.link);
    list_init(&v->drain_waiters);
    list_init(&v->mutations);
    barrier_init(v);
    c->slots[slot] = v;
    list_push_back(&c->volumes, &v->link);
    return v;
}

void volume_free(struct volume *v)
{
    list_remove(&v->link);
    v->c->slots[v->slot] = NULL;
    LIST_FOR_EACH(it, n, &v->opens)
    {
        list_remove(it);
        free(it); /* struct open_ref starts with its link */
    }
    free(v);
}

/* What may follow each state.  A volume that CONTROL does not open is freed as OPENING. */
#define TO(state) (1u << VOLUME_##state)

static const uint32_t volume_next[VOLUME_NR_STATES] = {
    [VOLUME_OPENING] = TO(OPEN) | TO(CLOSING),
    [VOLUME_OPEN] = TO(OPENING) | TO(UPGRADING) | TO(CLOSING),
    [VOLUME_UPGRADING] = TO(OPEN),
    [VOLUME_CLOSING] = TO(CLOSING),
};

void volume_go(struct volume *v, enum volume_state state)
{
    if (!(volume_next[v->state] & 1u << state))
        log_line(LOG_ERROR, "vlmcd", "\"%.*s\": state %d must not follow state %d",
                 (int)v->info.name_len, (const char *)v->info.name, (int)state,
                 (int)v->state);
    v->state = state;
}

bool volume_has_name(const struct volume *v, const uint8_t *name, uint8_t len)
{
    return v->info.name_len == len && memcmp(v->info.name, name, len) == 0;
}

struct volume *volume_by_name(struct composer *c, const uint8_t *name, uint8_t len)
{
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        if (!v->lost && volume_has_name(v, name, len))
            return v;
    }
    return NULL;
}

struct volume *volume_leaving(struct composer *c, const uint8_t *name, uint8_t len)
{
    LIST_FOR_EACH(it, n, &c->volumes)
    {
        struct volume *v = LIST_ENTRY(it, struct volume, link);
        if (v->lost && volume_reviving(v) && volume_has_name(v, name, len))
            return v;
    }
    return NULL;
}

struct volume *volume_by_handle(struct composer *c, uint64_t handle, bool *read_only)
{
    *read_only = handle & HANDLE_RDONLY;
    handle &= ~HANDLE_RDONLY;
    uint64_t slot = handle & ((1u << SLOT_BITS) - 1);
    if (slot >= c->nr_slots)
        return NULL;
    struct volume *v = c->slots[slot];
    if (!v || v->handle != handle ||
        (v->state != VOLUME_OPEN && v->state != VOLUME_UPGRADING))
        return NULL;
    if (volume_read_only(v))
        *read_only = true;
    return v;
}

bool volume_enter(struct volume *v, struct xseg_request *rq)
{
    if (v->lost) {
        composer_reply(v->c, rq, -ESTALE);
        return false;
    }
    if (v->freezers) {
        composer_queue(v->c, &v->frozen, rq, NULL);
        return false;
    }
    if (lease_overdue(v)) {
        composer_queue(v->c, &v->overdue, rq, NULL);
        return false;
    }
    v->nr_active++;
    return true;
}

static void volume_check_drained(struct volume *v)
{
    if (v->nr_active)
        return;
    struct list *link = list_pop_front(&v->drain_waiters);
    if (link) {
        struct drain *d = LIST_ENTRY(link, struct drain, link);
        d->drained(d);
    }
}

void volume_leave(struct volume *v)
{
    v->nr_active--;
    volume_check_drained(v);
}

void volume_freeze(struct volume *v, struct drain *d)
{
    /* one change at a time: a second freezer waits for the first to unfreeze */
    v->freezers++;
    list_push_back(&v->drain_waiters, &d->link);
    if (v->freezers == 1)
        volume_check_drained(v);
}

void volume_unfreeze(struct volume *v)
{
    struct composer *c = v->c;

    v->freezers--;
    if (v->freezers) {
        volume_check_drained(v);
        return;
    }
    composer_serve_again(c, &v->frozen);
}

bool volume_record(const struct xseg_request *reply, struct xseg_volume_info *out)
{
    memcpy(out, reply->inline_data, sizeof *out);
    if (out->inline_valid != 1)
        return false;
    uint32_t block = out->block_bytes;
    if (block < XSEG_BLOCK_MIN_BYTES || block > XSEG_BLOCK_MAX_BYTES ||
        (block & (block - 1)) || !out->name_len || out->size_bytes > INT64_MAX) {
        log_line(LOG_ERROR, "vlmcd",
                 "control sent a volume record that makes no sense");
        return false;
    }
    return true;
}
