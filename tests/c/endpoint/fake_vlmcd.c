/* SPDX-License-Identifier: Apache-2.0 */
/* The endpoint's neighbours in memory (see fake_vlmcd.h).  Runs on the reactor's
 * thread. */
#include "fake_vlmcd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_volume {
    const char *name;
    uint64_t size;
    uint32_t flags;
    int64_t plain_open; /* what an OPEN for write says */
};

/* A handle is an index here plus 1, and the life in the upper half. */
static const struct fake_volume volumes[] = {
    {"disk", FAKE_DISK_BYTES, 0, 0},
    {"snap", FAKE_SNAP_BYTES, XSEG_VOL_READONLY, 0},
    {"strict", FAKE_SNAP_BYTES, XSEG_VOL_READONLY, -EROFS},
    {"odd", FAKE_ODD_BYTES, 0, 0},
    {"huge", FAKE_HUGE_BYTES, 0, 0},
    {"busy", FAKE_DISK_BYTES, 0, -EBUSY},
};
#define NR_VOLUMES (sizeof(volumes) / sizeof(volumes[0]))

static uint8_t *contents(struct fake_vlmcd *fake, uint64_t index)
{
    switch (index) {
    case 0:
        return fake->disk;
    case 1:
    case 2:
        return fake->snap;
    case 3:
        return fake->odd;
    default:
        return NULL; /* zeros */
    }
}

/** True while requests find nobody. */
static bool is_gone(struct fake_vlmcd *fake)
{
    if (!atomic_load(&fake->nr_gone_opens))
        return false;
    atomic_fetch_sub(&fake->nr_gone_opens, 1);
    return true;
}

static int64_t serve_open(struct fake_vlmcd *fake, struct xseg_request *rq)
{
    struct xseg_volume_info info = {.inline_valid = 1, .block_bytes = 4u << 20};
    uint64_t life = atomic_load(&fake->life);
    size_t len = rq->arg[XSEG_ARG_NAME_LEN];

    if (is_gone(fake))
        return -EPIPE;

    for (size_t i = 0; i < NR_VOLUMES; i++) {
        const struct fake_volume *v = &volumes[i];
        if (strlen(v->name) != len || memcmp(v->name, rq->inline_data, len) != 0)
            continue;
        if (!(rq->flags & XSEG_F_RDONLY) && v->plain_open)
            return v->plain_open;
        info.size_bytes = v->size;
        info.flags = v->flags;
        info.uuid[0] = atomic_load(&fake->uuid);
        info.fence = atomic_load(&fake->since);
        memcpy(rq->inline_data, &info, sizeof(info));
        rq->arg[2] = info.fence;
        rq->handle = (i + 1) | life << 32;
        atomic_fetch_add(&fake->nr_opens, 1);
        return 0;
    }
    return -ENOENT;
}

static void mark(struct fake_vlmcd *fake, const struct xseg_request *rq, uint8_t value)
{
    uint64_t first = rq->offset / XSEG_SECTOR_BYTES;
    uint64_t end = (rq->offset + rq->size + XSEG_SECTOR_BYTES - 1) / XSEG_SECTOR_BYTES;

    if ((uint32_t)rq->handle != 1)
        return;
    if (!value) { /* whole sectors only */
        first = (rq->offset + XSEG_SECTOR_BYTES - 1) / XSEG_SECTOR_BYTES;
        end = (rq->offset + rq->size) / XSEG_SECTOR_BYTES;
    }
    for (uint64_t s = first; s < end; s++)
        fake->present[s] = value;
}

static int64_t serve_mapr(struct fake_vlmcd *fake, struct xseg_request *rq)
{
    struct xseg_run *runs =
        xseg_heap_ptr(reactor_segment(fake->reactor), rq->data_off, rq->data_len);
    uint64_t at = rq->offset, end = rq->offset + rq->size;
    uint32_t index = (uint32_t)rq->handle - 1;
    int64_t nr = 0;

    while (at < end && (uint64_t)nr < rq->data_len / sizeof(*runs)) {
        uint64_t start = at;
        bool here = index == 0 ? fake->present[at / XSEG_SECTOR_BYTES]
                               : contents(fake, index) != NULL;
        if (index != 0)
            at = end;
        while (at < end && fake->present[at / XSEG_SECTOR_BYTES] == here)
            at += XSEG_SECTOR_BYTES;
        runs[nr++] = (struct xseg_run){
            .offset = start,
            .size = at - start,
            .kind = here ? XSEG_REF_EXTENT : XSEG_REF_ZERO,
        };
    }
    return nr;
}

static int64_t serve_data(struct fake_vlmcd *fake, struct xseg_request *rq)
{
    uint32_t index = (uint32_t)rq->handle - 1;
    const struct fake_volume *v = &volumes[index];
    uint8_t *bytes = contents(fake, index);
    uint8_t *data;
    int64_t fail = atomic_load(&fake->fail_offset);

    if (atomic_load(&fake->nr_unserved)) {
        atomic_fetch_sub(&fake->nr_unserved, 1);
        return atomic_load(&fake->unserved_result);
    }
    atomic_fetch_add(&fake->nr_data, 1);
    if (rq->flags & XSEG_F_FUA)
        atomic_fetch_add(&fake->nr_fua, 1);
    if (fail >= 0 && rq->offset <= (uint64_t)fail &&
        (uint64_t)fail < rq->offset + rq->size)
        return atomic_load(&fake->fail_result);
    if (rq->op == XSEG_OP_MAPR)
        return serve_mapr(fake, rq);
    if (rq->offset > v->size || rq->size > v->size - rq->offset)
        return -EINVAL;
    if (rq->op != XSEG_OP_READ && v->flags & XSEG_VOL_READONLY)
        return -EROFS;
    if (rq->op == XSEG_OP_ZERO || rq->op == XSEG_OP_DISCARD) {
        atomic_fetch_add(&fake->nr_zeros, 1);
        if (bytes)
            memset(bytes + rq->offset, 0, rq->size);
        mark(fake, rq, 0);
        return (int64_t)rq->size;
    }
    data = xseg_heap_ptr(reactor_segment(fake->reactor), rq->data_off, rq->size);
    if (!data || rq->size > rq->data_len)
        return -EINVAL;
    if (rq->op == XSEG_OP_READ) {
        if (bytes)
            memcpy(data, bytes + rq->offset, rq->size);
        else
            memset(data, 0, rq->size);
    } else {
        atomic_fetch_add(&fake->nr_writes, 1);
        if (bytes)
            memcpy(bytes + rq->offset, data, rq->size);
        mark(fake, rq, 1);
    }
    return (int64_t)rq->size;
}

static int64_t serve(struct fake_vlmcd *fake, struct xseg_request *rq)
{
    if (rq->op == XSEG_OP_OPEN)
        return serve_open(fake, rq);
    if ((uint32_t)rq->handle == 0 || (uint32_t)rq->handle > NR_VOLUMES ||
        rq->handle >> 32 != atomic_load(&fake->life))
        return -ESTALE;
    switch (rq->op) {
    case XSEG_OP_INFO:
        return 0;
    case XSEG_OP_CLOSE:
        if (rq->flags & XSEG_F_NOSYNC)
            return 0; /* it will be closed */
        atomic_fetch_sub(&fake->nr_opens, 1);
        return 0;
    case XSEG_OP_FLUSH:
        atomic_fetch_add(&fake->nr_flushes, 1);
        return 0;
    case XSEG_OP_READ:
    case XSEG_OP_WRITE:
    case XSEG_OP_ZERO:
    case XSEG_OP_DISCARD:
    case XSEG_OP_MAPR:
        return serve_data(fake, rq);
    default:
        return -EOPNOTSUPP;
    }
}

static void on_vlmcd(void *ctx, struct xseg_request *rq)
{
    struct fake_vlmcd *fake = ctx;

    if (atomic_load(&fake->hold) && rq->op != XSEG_OP_OPEN && rq->op != XSEG_OP_CLOSE &&
        fake->nr_held < sizeof(fake->held) / sizeof(fake->held[0])) {
        fake->held[fake->nr_held++] = rq;
        atomic_store(&fake->nr_held_now, fake->nr_held);
        return;
    }
    xseg_request_complete(fake->vlmcd, rq, serve(fake, rq));
}

/** Answer what was held, last first. */
static int release(struct reactor_poller *self)
{
    struct fake_vlmcd *fake =
        (struct fake_vlmcd *)(void *)((char *)self -
                                      offsetof(struct fake_vlmcd, poller));
    int nr = 0;

    if (atomic_load(&fake->hold))
        return 0;
    while (fake->nr_held) {
        struct xseg_request *rq = fake->held[--fake->nr_held];
        xseg_request_complete(fake->vlmcd, rq, serve(fake, rq));
        nr++;
    }
    atomic_store(&fake->nr_held_now, 0);
    return nr;
}

/* ---- LIST -------------------------------------------------------------------------
 */

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/** All names in order, as the control half would sort them. */
static uint32_t all_names(char (*names)[16])
{
    uint32_t nr = 0;

    for (size_t i = 0; i < NR_VOLUMES; i++)
        strcpy(names[nr++], volumes[i].name);
    for (uint32_t i = 0; i < FAKE_MANY; i++)
        snprintf(names[nr++], 16, "v%05u", i);
    qsort(names, nr, 16, compare);
    return nr;
}

static int64_t serve_list(struct fake_vlmcd *fake, struct xseg_request *rq)
{
    uint8_t *page =
        xseg_heap_ptr(reactor_segment(fake->reactor), rq->data_off, rq->data_len);
    char(*names)[16] = calloc(FAKE_MANY + NR_VOLUMES, 16);
    char marker[16] = "";
    uint64_t marker_len = rq->arg[XSEG_ARG_NAME_LEN], used = 0;
    int64_t sent = 0;
    uint32_t nr = all_names(names), i = 0;

    memcpy(marker, rq->inline_data, marker_len < 15 ? marker_len : 15);
    while (i < nr && strcmp(names[i], marker) <= 0)
        i++;
    for (; i < nr; i++) {
        size_t len = strlen(names[i]);
        if (used + 1 + len > rq->data_len)
            break;
        page[used++] = (uint8_t)len;
        memcpy(page + used, names[i], len);
        used += len;
        sent++;
    }
    rq->arg[0] = used;
    rq->arg[1] = i < nr;
    free(names);
    return sent;
}

static void on_control(void *ctx, struct xseg_request *rq)
{
    struct fake_vlmcd *fake = ctx;
    int64_t result = -EINVAL;

    if (is_gone(fake))
        result = -EOWNERDEAD;
    else if (rq->op == XSEG_OP_LIST && rq->size == 0 && rq->data_len)
        result = serve_list(fake, rq);
    xseg_request_complete(fake->control, rq, result);
}

/* ---- life -------------------------------------------------------------------------
 */

int fake_vlmcd_start(struct fake_vlmcd *fake, struct reactor *r)
{
    struct xseg_segment *seg = reactor_segment(r);
    int rc;

    memset(fake, 0, sizeof(*fake));
    fake->reactor = r;
    fake->disk = calloc(1, FAKE_DISK_BYTES);
    fake->snap = calloc(1, FAKE_SNAP_BYTES);
    fake->odd = calloc(1, FAKE_ODD_BYTES);
    fake->present = calloc(1, FAKE_DISK_BYTES / XSEG_SECTOR_BYTES + 1);
    memset(fake->snap, 0x5a, XSEG_SECTOR_BYTES);
    atomic_store(&fake->fail_offset, -1);
    atomic_store(&fake->fail_result, -EIO);
    rc = xseg_port_bind(seg, XSEG_PORT_VLMCD, "vlmcd", &fake->vlmcd);
    if (!rc)
        rc = xseg_port_bind(seg, XSEG_PORT_CONTROL, "control", &fake->control);
    if (!rc)
        rc = reactor_add_port(r, fake->vlmcd, on_vlmcd, fake);
    if (!rc)
        rc = reactor_add_port(r, fake->control, on_control, fake);
    fake->poller.poll = release;
    reactor_add_poller(r, &fake->poller);
    return rc;
}

void fake_vlmcd_die(struct fake_vlmcd *fake)
{
    atomic_store(&fake->nr_opens, 0);
    atomic_fetch_add(&fake->life, 1);
}

void fake_vlmcd_stop(struct fake_vlmcd *fake)
{
    reactor_remove_poller(fake->reactor, &fake->poller);
    reactor_remove_port(fake->reactor, fake->vlmcd);
    reactor_remove_port(fake->reactor, fake->control);
    xseg_port_unbind(fake->vlmcd);
    xseg_port_unbind(fake->control);
    free(fake->disk);
    free(fake->snap);
    free(fake->odd);
    free(fake->present);
}
