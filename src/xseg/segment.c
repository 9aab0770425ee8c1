/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: create, attach, detach, destroy.  Called by any thread; no state of its
 * own.
 *
 * A segment is made without a name and linked into /dev/shm when it is complete, so
 * nobody can attach to half of one, and a death while making it leaves nothing behind.
 */
#include "xseg/xseg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "xseg/internal.h"
#include "xseg/segfile.h"

#define DEFAULT_PORTS    1024u
#define DEFAULT_REQUESTS 8192u
#define DEFAULT_HEAP     (UINT64_C(128) << 20)
#define MIN_HEAP         (UINT64_C(16) << 20)
#define MAX_HEAP         (UINT64_C(64) << 30)

const char *xseg_version(void)
{
    return XSEG_VERSION;
}

static uint64_t page_align(uint64_t n)
{
    return (n + XSEG_PAGE_BYTES - 1) & ~(uint64_t)(XSEG_PAGE_BYTES - 1);
}

/*
 * Every request fits at once in a ring of a well-known port.  A client has few under
 * way; when its ring is full, senders get -EAGAIN and answers are found by a scan.
 */
static uint32_t ring_capacity(const struct segment_geometry *geo, uint32_t port)
{
    return port < XSEG_PORT_DYNAMIC || geo->nr_requests < XSEG_DYNAMIC_RING_CELLS
               ? geo->nr_requests
               : XSEG_DYNAMIC_RING_CELLS;
}

/* The rings of port 0, 1, ...: requests, then replies. */
static uint64_t ring_cells_off(const struct segment_geometry *geo, uint32_t port,
                               bool replies)
{
    uint64_t nr_large = port < XSEG_PORT_DYNAMIC ? port : XSEG_PORT_DYNAMIC;
    uint64_t nr_cells = nr_large * 2 * ring_capacity(geo, 0) +
                        (port - nr_large) * 2 * ring_capacity(geo, XSEG_PORT_DYNAMIC) +
                        (replies ? ring_capacity(geo, port) : 0);
    return geo->rings_off + nr_cells * sizeof(struct xseg_ring_cell);
}

/* Where everything goes; -EINVAL for numbers outside the limits. */
static int segment_geometry_init(struct segment_geometry *geo,
                                 struct heap_geometry *heap, uint32_t nr_ports,
                                 uint32_t nr_requests, uint64_t heap_bytes)
{
    if (nr_ports < 16 || nr_ports > 4096 || nr_requests < 64 || nr_requests > 65536 ||
        (nr_requests & (nr_requests - 1)) || heap_bytes < MIN_HEAP ||
        heap_bytes > MAX_HEAP || heap_bytes % XSEG_BUFFER_MAX_BYTES)
        return -EINVAL;
    heap_geometry_init(heap, heap_bytes);
    geo->nr_ports = nr_ports;
    geo->nr_requests = nr_requests;
    geo->heap_bytes = heap_bytes;
    geo->ports_off = sizeof(struct xseg_header);
    geo->rings_off = page_align(geo->ports_off +
                                (uint64_t)nr_ports * sizeof(struct xseg_port_shared));
    geo->requests_off = page_align(ring_cells_off(geo, nr_ports, false));
    geo->request_map_off =
        geo->requests_off + (uint64_t)nr_requests * sizeof(struct xseg_request);
    geo->heap_table_off = page_align(geo->request_map_off + nr_requests / 8);
    geo->heap_off = page_align(geo->heap_table_off + heap->table_bytes);
    geo->size_bytes = geo->heap_off + heap_bytes;
    return 0;
}

static uint64_t realtime_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

struct ring segment_ring(const struct xseg_segment *seg, uint32_t port, bool replies)
{
    struct xseg_port_shared *slot = &seg->ports[port];
    return (struct ring){
        .shared = replies ? &slot->replies : &slot->requests,
        .cells =
            (struct xseg_ring_cell *)(void *)(seg->base +
                                              ring_cells_off(&seg->geo, port, replies)),
        .mask = ring_capacity(&seg->geo, port) - 1,
    };
}

uint32_t segment_request_index(const struct xseg_segment *seg,
                               const struct xseg_request *rq)
{
    uintptr_t at = (uintptr_t)rq, table = (uintptr_t)seg->requests;
    if (at < table || (at - table) % sizeof(*rq) ||
        (at - table) / sizeof(*rq) >= seg->geo.nr_requests)
        return FREEMAP_NONE;
    return (uint32_t)((at - table) / sizeof(*rq));
}

/* Map the file and set up the private view.  `seg->geo` is filled, `seg->fd` open. */
static int segment_map(struct xseg_segment *seg, const char *name)
{
    void *base =
        mmap(NULL, seg->geo.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, seg->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    seg->base = base;
    seg->header = base;
    seg->ports = (struct xseg_port_shared *)(void *)(seg->base + seg->geo.ports_off);
    seg->requests = (struct xseg_request *)(void *)(seg->base + seg->geo.requests_off);
    snprintf(seg->name, sizeof(seg->name), "%s", name);
    return owner_identify(seg);
}

static int segment_format(struct xseg_segment *seg)
{
    struct xseg_header *h = seg->header;
    const struct segment_geometry *geo = &seg->geo;

    h->layout_version = XSEG_LAYOUT_VERSION;
    h->size_bytes = geo->size_bytes;
    h->nr_ports = geo->nr_ports;
    h->nr_requests = geo->nr_requests;
    h->creator_pid = seg->pid;
    h->creator_start = seg->start;
    h->created_ns = realtime_ns();
    memcpy(h->creator_boot_id, seg->boot_id, sizeof(seg->boot_id));
    h->creator_pid_namespace = seg->pid_namespace;
    h->ports_off = geo->ports_off;
    h->rings_off = geo->rings_off;
    h->requests_off = geo->requests_off;
    h->request_map_off = geo->request_map_off;
    h->heap_table_off = geo->heap_table_off;
    h->heap_off = geo->heap_off;
    h->heap_bytes = geo->heap_bytes;
    if (getrandom(h->uuid, sizeof(h->uuid), 0) != (ssize_t)sizeof(h->uuid))
        return -EIO;
    h->uuid[6] = (uint8_t)((h->uuid[6] & 0x0f) | 0x40); /* RFC 9562, version 4 */
    h->uuid[8] = (uint8_t)((h->uuid[8] & 0x3f) | 0x80);

    for (uint32_t p = 0; p < geo->nr_ports; p++) {
        for (int replies = 0; replies < 2; replies++) {
            struct ring ring = segment_ring(seg, p, replies);
            ring.shared->cells_off = ring_cells_off(geo, p, replies);
            ring.shared->capacity = ring_capacity(geo, p);
            ring_init(&ring);
        }
    }
    for (uint32_t i = 0; i < geo->nr_requests; i++)
        seg->requests[i].index = i;
    request_mend(seg);
    heap_mend(seg);
    store64_release(&h->magic, XSEG_MAGIC);
    return 0;
}

int xseg_segment_create(const char *name, const struct xseg_segment_options *options,
                        struct xseg_segment **out)
{
    static const struct xseg_segment_options defaults = {.gid = (gid_t)-1};
    const struct xseg_segment_options *o = options ? options : &defaults;
    char path[SEGFILE_PATH_BYTES];
    struct xseg_process self;

    *out = NULL;
    int rc = segfile_path(name, path);
    if (rc < 0)
        return rc;
    struct xseg_segment *seg = calloc(1, sizeof(*seg));
    if (!seg)
        return -ENOMEM;
    rc = segment_geometry_init(&seg->geo, &seg->heap,
                               o->nr_ports ? o->nr_ports : DEFAULT_PORTS,
                               o->nr_requests ? o->nr_requests : DEFAULT_REQUESTS,
                               o->heap_bytes ? o->heap_bytes : DEFAULT_HEAP);
    if (rc < 0)
        goto fail_seg;
    if (access(path, F_OK) == 0) { /* early and cheap; segfile_link below decides */
        rc = -EEXIST;
        goto fail_seg;
    }
    xseg_process_self(&self);
    memcpy(seg->boot_id, self.boot_id, sizeof(seg->boot_id));
    seg->pid_namespace = self.pid_namespace;
    seg->fd = segfile_make(seg->geo.size_bytes, o->mode ? o->mode : 0660, o->gid);
    if (seg->fd < 0) {
        rc = seg->fd;
        goto fail_seg;
    }
    rc = segment_map(seg, name);
    if (rc < 0)
        goto fail_map;
    rc = segment_format(seg);
    if (rc < 0)
        goto fail_map;
    rc = segfile_link(seg->fd, name);
    if (rc < 0)
        goto fail_map;
    *out = seg;
    return 0;

fail_map:
    if (seg->base)
        munmap(seg->base, seg->geo.size_bytes);
    close(seg->fd);
fail_seg:
    free(seg);
    return rc;
}

/* Accept a header only if it is the one that its three sizes imply. */
static int header_check(const struct xseg_header *h, uint64_t file_bytes,
                        struct xseg_segment *seg)
{
    struct segment_geometry *geo = &seg->geo;

    if (h->magic != XSEG_MAGIC)
        return -EBADMSG;
    if (h->layout_version != XSEG_LAYOUT_VERSION || h->features != 0)
        return -EPROTONOSUPPORT;
    if (segment_geometry_init(geo, &seg->heap, h->nr_ports, h->nr_requests,
                              h->heap_bytes) < 0)
        return -EBADMSG;
    if (h->size_bytes != geo->size_bytes || file_bytes != geo->size_bytes ||
        h->ports_off != geo->ports_off || h->rings_off != geo->rings_off ||
        h->requests_off != geo->requests_off ||
        h->request_map_off != geo->request_map_off ||
        h->heap_table_off != geo->heap_table_off || h->heap_off != geo->heap_off)
        return -EBADMSG;
    return 0;
}

int xseg_segment_attach_of(const char *name, uid_t owner, struct xseg_segment **out)
{
    struct xseg_header header;
    uint64_t file_bytes;

    *out = NULL;
    struct xseg_segment *seg = calloc(1, sizeof(*seg));
    if (!seg)
        return -ENOMEM;
    int rc = seg->fd = segfile_open(name, owner, &file_bytes);
    if (rc < 0)
        goto fail_seg;
    ssize_t n = pread(seg->fd, &header, sizeof(header), 0);
    rc = n < 0                          ? -errno
         : n != (ssize_t)sizeof(header) ? -EBADMSG
                                        : header_check(&header, file_bytes, seg);
    if (rc < 0)
        goto fail_map;
    memcpy(seg->boot_id, header.creator_boot_id, sizeof(seg->boot_id));
    seg->pid_namespace = header.creator_pid_namespace;
    rc = segment_map(seg, name);
    if (rc < 0)
        goto fail_map;
    *out = seg;
    return 0;

fail_map:
    if (seg->base)
        munmap(seg->base, seg->geo.size_bytes);
    close(seg->fd);
fail_seg:
    free(seg);
    return rc;
}

int xseg_segment_attach(const char *name, struct xseg_segment **out)
{
    return xseg_segment_attach_of(name, geteuid(), out);
}

void xseg_segment_detach(struct xseg_segment *seg)
{
    if (!seg)
        return;
    munmap(seg->base, seg->geo.size_bytes);
    close(seg->fd); /* releases its lock, if that is how it is named */
    free(seg);
}

int xseg_segment_destroy(const char *name)
{
    char path[SEGFILE_PATH_BYTES];
    int rc = segfile_path(name, path);
    if (rc < 0)
        return rc;
    return unlink(path) < 0 ? -errno : 0;
}

const struct xseg_header *xseg_segment_header(const struct xseg_segment *seg)
{
    return seg->header;
}

const char *xseg_segment_name(const struct xseg_segment *seg)
{
    return seg->name;
}

const struct xseg_port_shared *xseg_segment_port(const struct xseg_segment *seg,
                                                 uint32_t id)
{
    return id < seg->geo.nr_ports ? &seg->ports[id] : NULL;
}

const struct xseg_request *xseg_segment_request(const struct xseg_segment *seg,
                                                uint32_t index)
{
    return index < seg->geo.nr_requests ? &seg->requests[index] : NULL;
}
