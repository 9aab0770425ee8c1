/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer heap: classes, exhaustion, double free, threads, lost shortcuts.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "fixture.h"
#include "xseg/internal.h"

/* The smallest heap in which every class has a buffer. */
static const struct xseg_segment_options options = {
    .nr_ports = 16, .nr_requests = 64, .heap_bytes = 64u << 20};
static struct xseg_segment *seg;

static uint64_t buffer_new(uint64_t size, int64_t capacity)
{
    uint64_t off = 0;
    CHECK_EQ(xseg_buffer_alloc(seg, size, &off), capacity);
    CHECK(off != 0 && off % XSEG_PAGE_BYTES == 0);
    CHECK(xseg_heap_ptr(seg, off, (uint64_t)capacity));
    return off;
}

static void sizes_round_up_to_a_class(void)
{
    static const struct {
        uint64_t size;
        int64_t capacity;
    } cases[] = {{1, 4096},
                 {4096, 4096},
                 {4097, 8192},
                 {65536, 65536},
                 {65537, 131072},
                 {1u << 20, 1 << 20},
                 {(1u << 20) + 1, 2 << 20},
                 {4u << 20, 4 << 20}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t off = buffer_new(cases[i].size, cases[i].capacity);
        CHECK_EQ(xseg_buffer_free(seg, off), 0);
    }
    uint64_t off;
    CHECK_EQ(xseg_buffer_alloc(seg, 0, &off), -EINVAL);
    CHECK_EQ(xseg_buffer_alloc(seg, XSEG_BUFFER_MAX_BYTES + 1, &off), -EINVAL);
    CHECK_EQ(xseg_buffer_alloc(seg, UINT64_MAX, &off), -EINVAL);
}

static void the_classes_fill_the_heap_without_overlap(void)
{
    for (uint64_t bytes = 16u << 20; bytes <= UINT64_C(64) << 30; bytes *= 2) {
        struct heap_geometry geo;
        heap_geometry_init(&geo, bytes + (4u << 20));
        uint64_t at = 0, total = 0;
        for (uint32_t c = HEAP_NR_CLASSES; c-- > 0;) {
            CHECK_EQ(geo.start[c], at);
            at += (uint64_t)geo.nr_slots[c] << (HEAP_MIN_SHIFT + c);
            total += geo.nr_slots[c];
        }
        CHECK_EQ(at, bytes + (4u << 20));
        CHECK_EQ(total, geo.nr_slots_total);
        /* The promised shares: half for 4 MiB, a sixteenth for 4 KiB. */
        uint64_t largest = (uint64_t)geo.nr_slots[HEAP_NR_CLASSES - 1] << 22;
        CHECK(largest * 2 + (8u << 20) >= at && largest <= at / 2 + (4u << 20));
        CHECK(((uint64_t)geo.nr_slots[0] << 12) * 16 >= at);
    }
}

static void free_refuses_what_is_not_an_allocated_buffer(void)
{
    const struct xseg_header *header = xseg_segment_header(seg);
    uint64_t off = buffer_new(8192, 8192);
    CHECK_EQ(xseg_buffer_free(seg, off + 4096), -EINVAL);
    CHECK_EQ(xseg_buffer_free(seg, off + 1), -EINVAL);
    CHECK_EQ(xseg_buffer_free(seg, 0), -EINVAL);
    CHECK_EQ(xseg_buffer_free(seg, header->heap_off - 4096), -EINVAL);
    CHECK_EQ(xseg_buffer_free(seg, header->size_bytes), -EINVAL);
    CHECK_EQ(xseg_buffer_free(seg, UINT64_MAX), -EINVAL);
    CHECK_EQ(xseg_buffer_free(seg, off), 0);
    CHECK_EQ(xseg_buffer_free(seg, off), -EINVAL);
}

static void heap_ptr_refuses_what_is_outside(void)
{
    const struct xseg_header *header = xseg_segment_header(seg);
    uint64_t heap = header->heap_off, end = header->size_bytes;
    CHECK(xseg_heap_ptr(seg, heap, header->heap_bytes));
    CHECK(xseg_heap_ptr(seg, end - 1, 1));
    CHECK(!xseg_heap_ptr(seg, end - 1, 2));
    CHECK(!xseg_heap_ptr(seg, end, 1));
    CHECK(!xseg_heap_ptr(seg, heap - 1, 1));
    CHECK(!xseg_heap_ptr(seg, heap, UINT64_MAX));
    CHECK(!xseg_heap_ptr(seg, UINT64_MAX, 1));
    CHECK(!xseg_heap_ptr(seg, UINT64_MAX, UINT64_MAX));
    char *ptr = xseg_heap_ptr(seg, heap + 12345, 1);
    CHECK_EQ(xseg_heap_off(seg, ptr), heap + 12345);
    CHECK_EQ(xseg_heap_off(seg, header), 0);
    CHECK_EQ(xseg_heap_off(seg, &end), 0);
}

/* Take every buffer, smallest first, so that requests spill into larger classes. */
static uint32_t take_all(uint64_t *offs, uint32_t max)
{
    uint32_t n = 0;
    while (n < max && xseg_buffer_alloc(seg, 1, &offs[n]) > 0)
        n++;
    return n;
}

static void give_back(const uint64_t *offs)
{
    struct xseg_heap_usage usage;
    xseg_heap_usage(seg, &usage);
    for (uint32_t i = 0; i < usage.nr_used_buffers; i++)
        CHECK_EQ(xseg_buffer_free(seg, offs[i]), 0);
}

static void exhaustion_spills_then_fails_and_recovers(void)
{
    struct xseg_heap_usage usage;
    xseg_heap_usage(seg, &usage);
    CHECK_EQ(usage.total_bytes, options.heap_bytes);
    uint64_t *offs = calloc(usage.nr_buffers + 1, sizeof(*offs));
    CHECK(offs);
    CHECK_EQ(take_all(offs, usage.nr_buffers + 1), usage.nr_buffers);
    uint64_t off;
    CHECK_EQ(xseg_buffer_alloc(seg, 1, &off), -ENOBUFS);
    CHECK_EQ(xseg_buffer_alloc(seg, XSEG_BUFFER_MAX_BYTES, &off), -ENOBUFS);
    struct xseg_heap_usage full;
    xseg_heap_usage(seg, &full);
    CHECK_EQ(full.nr_used_buffers, usage.nr_buffers);
    CHECK_EQ(full.used_bytes, usage.total_bytes);
    /* One back, one out: the very same. */
    CHECK_EQ(xseg_buffer_free(seg, offs[7]), 0);
    CHECK(xseg_buffer_alloc(seg, 1, &off) > 0);
    CHECK_EQ(off, offs[7]);
    give_back(offs);
    free(offs);
}

/* A process that died between freeing buffers and saying so in the map. */
static void buffers_that_no_map_shows_are_found_by_a_reap(void)
{
    struct xseg_heap_usage usage;
    struct xseg_reap_result reaped;
    xseg_heap_usage(seg, &usage);
    uint64_t *offs = calloc(usage.nr_buffers + 1, sizeof(*offs));
    CHECK(offs);
    /* The free map of the 4 KiB class, the first in the table. */
    memset(seg->base + seg->geo.heap_table_off, 0, seg->heap.nr_slots[0] / 8);
    CHECK(take_all(offs, usage.nr_buffers + 1) < usage.nr_buffers);
    give_back(offs);
    memset(seg->base + seg->geo.heap_table_off, 0, seg->heap.nr_slots[0] / 8);
    CHECK_EQ(xseg_reap(seg, &reaped), 0);
    CHECK_EQ(take_all(offs, usage.nr_buffers + 1), usage.nr_buffers);
    give_back(offs);
    /* A map that shows too much: every buffer is still given out once. */
    memset(seg->base + seg->geo.heap_table_off, 0xff, seg->heap.owners_off);
    CHECK_EQ(take_all(offs, usage.nr_buffers + 1), usage.nr_buffers);
    memset(seg->base + seg->geo.heap_table_off, 0xff, seg->heap.owners_off);
    uint64_t off;
    CHECK_EQ(xseg_buffer_alloc(seg, 1, &off), -ENOBUFS);
    give_back(offs);
    free(offs);
}

#define NR_THREADS 4
#define NR_ROUNDS  30000
#define NR_HELD    48

/* Each thread fills what it gets with its own mark: two owners of one buffer would
 * show. */
static void *churn(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg, offs[NR_HELD] = {0};
    uint8_t mark = (uint8_t)seed;
    for (int i = 0; i < NR_ROUNDS; i++) {
        uint64_t *held = &offs[check_next(&seed) % NR_HELD];
        if (*held == 0) {
            uint64_t size = UINT64_C(1) << (check_next(&seed) % 15);
            if (xseg_buffer_alloc(seg, size, held) < 0) {
                *held = 0;
                continue;
            }
            uint8_t *bytes = xseg_heap_ptr(seg, *held, 4096);
            bytes[0] = bytes[2048] = bytes[4095] = mark;
        } else {
            const uint8_t *bytes = xseg_heap_ptr(seg, *held, 4096);
            CHECK(bytes[0] == mark && bytes[2048] == mark && bytes[4095] == mark);
            CHECK_EQ(xseg_buffer_free(seg, *held), 0);
            *held = 0;
        }
    }
    for (int i = 0; i < NR_HELD; i++) {
        if (offs[i])
            CHECK_EQ(xseg_buffer_free(seg, offs[i]), 0);
    }
    return NULL;
}

static void *reap_often(void *arg)
{
    struct xseg_reap_result reaped;
    (void)arg;
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(xseg_reap(seg, &reaped), 0);
        CHECK_EQ(reaped.buffers, 0);
        sched_yield();
    }
    return NULL;
}

static void threads_never_share_a_buffer(void)
{
    uint64_t seed = check_seed();
    pthread_t threads[NR_THREADS + 1];
    for (int i = 0; i < NR_THREADS; i++) {
        uint64_t own = (check_next(&seed) & ~UINT64_C(0xff)) | (unsigned)(i + 1);
        CHECK_EQ(pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)own), 0);
    }
    CHECK_EQ(pthread_create(&threads[NR_THREADS], NULL, reap_often, NULL), 0);
    for (int i = 0; i <= NR_THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
    seg = segment_new(&options);
    sizes_round_up_to_a_class();
    the_classes_fill_the_heap_without_overlap();
    free_refuses_what_is_not_an_allocated_buffer();
    heap_ptr_refuses_what_is_outside();
    exhaustion_spills_then_fails_and_recovers();
    buffers_that_no_map_shows_are_found_by_a_reap();
    threads_never_share_a_buffer();
    segment_end(seg);
    return 0;
}
