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
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "xseg/internal.h"

#define SHM_DIR          "/dev/shm"
#define NAME_MAX_BYTES   200
#define DEFAULT_PORTS    64u
#define DEFAULT_REQUESTS 4096u
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
    geo->requests_off =
        page_align(geo->rings_off + (uint64_t)nr_ports * 2 * nr_requests *
                                        sizeof(struct xseg_ring_cell));
    geo->request_map_off =
        geo->requests_off + (uint64_t)nr_requests * sizeof(struct xseg_request);
    geo->heap_table_off = page_align(geo->request_map_off + nr_requests / 8);
    geo->heap_off = page_align(geo->heap_table_off + heap->table_bytes);
    geo->size_bytes = geo->heap_off + heap_bytes;
    return 0;
}

static bool name_valid(const char *name)
{
    if (!name || name[0] == '\0' || name[0] == '.')
        return false;
    size_t len = strlen(name);
    return len <= NAME_MAX_BYTES &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                        "0123456789._-") == len;
}

static uint64_t realtime_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static uint64_t ring_cells_off(const struct segment_geometry *geo, uint32_t port,
                               bool replies)
{
    return geo->rings_off + ((uint64_t)port * 2 + replies) * geo->nr_requests *
                                sizeof(struct xseg_ring_cell);
}

struct ring segment_ring(const struct xseg_segment *seg, uint32_t port, bool replies)
{
    struct xseg_port_shared *slot = &seg->ports[port];
    return (struct ring){
        .shared = replies ? &slot->replies : &slot->requests,
        .cells =
            (struct xseg_ring_cell *)(void *)(seg->base +
                                              ring_cells_off(&seg->geo, port, replies)),
        .mask = seg->geo.nr_requests - 1,
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

/* Map `fd` and set up the private view.  `seg->geo` is filled. */
static int segment_map(struct xseg_segment *seg, const char *name, int fd)
{
    void *base =
        mmap(NULL, seg->geo.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    seg->base = base;
    seg->header = base;
    seg->ports = (struct xseg_port_shared *)(void *)(seg->base + seg->geo.ports_off);
    seg->requests = (struct xseg_request *)(void *)(seg->base + seg->geo.requests_off);
    seg->pid = (uint32_t)getpid();
    seg->start = xseg_process_start(seg->pid);
    seg->self = process_pack(seg->pid, seg->start);
    snprintf(seg->name, sizeof(seg->name), "%s", name);
    return seg->start ? 0 : -ESRCH;
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
            ring.shared->capacity = geo->nr_requests;
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
    char path[sizeof(SHM_DIR) + 1 + NAME_MAX_BYTES], fd_path[40];

    *out = NULL;
    if (!name_valid(name))
        return -EINVAL;
    snprintf(path, sizeof(path), SHM_DIR "/%s", name);

    struct xseg_segment *seg = calloc(1, sizeof(*seg));
    if (!seg)
        return -ENOMEM;
    int rc = segment_geometry_init(&seg->geo, &seg->heap,
                                   o->nr_ports ? o->nr_ports : DEFAULT_PORTS,
                                   o->nr_requests ? o->nr_requests : DEFAULT_REQUESTS,
                                   o->heap_bytes ? o->heap_bytes : DEFAULT_HEAP);
    if (rc < 0)
        goto fail_seg;
    if (access(path, F_OK) == 0) { /* early and cheap; linkat below decides */
        rc = -EEXIST;
        goto fail_seg;
    }

    int fd = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = -errno;
        goto fail_seg;
    }
    if ((o->gid != 0 && o->gid != (gid_t)-1 && fchown(fd, (uid_t)-1, o->gid) < 0) ||
        fchmod(fd, o->mode ? o->mode : 0660) < 0) {
        rc = -errno;
        goto fail_fd;
    }
    do { /* a signal may interrupt a large allocation; what it got stays */
        rc = -posix_fallocate(fd, 0, (off_t)seg->geo.size_bytes);
    } while (rc == -EINTR);
    if (rc == -ENOMEM || rc == -EFBIG)
        rc = -ENOSPC;
    if (rc < 0)
        goto fail_fd;
    rc = segment_map(seg, name, fd);
    if (rc < 0)
        goto fail_map;
    rc = segment_format(seg);
    if (rc < 0)
        goto fail_map;
    snprintf(fd_path, sizeof(fd_path), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, fd_path, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0) {
        rc = -errno;
        goto fail_map;
    }
    close(fd);
    *out = seg;
    return 0;

fail_map:
    if (seg->base)
        munmap(seg->base, seg->geo.size_bytes);
fail_fd:
    close(fd);
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

int xseg_segment_attach(const char *name, struct xseg_segment **out)
{
    char path[1 + NAME_MAX_BYTES + 1];
    struct xseg_header header;
    struct stat st;

    *out = NULL;
    if (!name_valid(name))
        return -EINVAL;
    snprintf(path, sizeof(path), "/%s", name);
    struct xseg_segment *seg = calloc(1, sizeof(*seg));
    if (!seg)
        return -ENOMEM;
    int rc;
    int fd = shm_open(path, O_RDWR, 0);
    if (fd < 0) {
        rc = -errno;
        goto fail_seg;
    }
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        goto fail_fd;
    }
    ssize_t n = pread(fd, &header, sizeof(header), 0);
    if (n != (ssize_t)sizeof(header)) {
        rc = n < 0 ? -errno : -EBADMSG;
        goto fail_fd;
    }
    rc = header_check(&header, (uint64_t)st.st_size, seg);
    if (rc < 0)
        goto fail_fd;
    rc = segment_map(seg, name, fd);
    if (rc < 0)
        goto fail_map;
    close(fd);
    *out = seg;
    return 0;

fail_map:
    if (seg->base)
        munmap(seg->base, seg->geo.size_bytes);
fail_fd:
    close(fd);
fail_seg:
    free(seg);
    return rc;
}

void xseg_segment_detach(struct xseg_segment *seg)
{
    if (!seg)
        return;
    munmap(seg->base, seg->geo.size_bytes);
    free(seg);
}

int xseg_segment_destroy(const char *name)
{
    char path[1 + NAME_MAX_BYTES + 1];
    if (!name_valid(name))
        return -EINVAL;
    snprintf(path, sizeof(path), "/%s", name);
    return shm_unlink(path) < 0 ? -errno : 0;
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
