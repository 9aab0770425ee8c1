/* SPDX-License-Identifier: Apache-2.0 */
/* The mem backend's planned faults: what tests of other parts rely on. */
#include <errno.h>

#include "blocker/client.h"
#include "blocker/mem/mem.h"

static struct server server, *s = &server;
static uint8_t data[8192], got[8192];

static void plan(enum mem_call call, struct mem_fault fault)
{
    mem_fault_set(call, &fault);
}

static void test_the_kth_call_fails(void)
{
    struct xseg_object e = extent_name(1, 1), l = layer_name(1);

    memset(data, 1, sizeof data);
    plan(MEM_WRITE, (struct mem_fault){.after = 2, .times = 1, .error = EIO});
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &e, 4096, data, 4096, 0), -EIO);
    CHECK_EQ(do_read(s, &e, 4096, got, 1), 1);
    CHECK_EQ(got[0], 0);
    CHECK_EQ(do_write(s, &e, 4096, data, 4096, 0), 4096);
    CHECK_EQ(mem_fault_calls(MEM_WRITE), 4);
    /* only one kind of object */
    plan(MEM_WRITE,
         (struct mem_fault){.kind = XSEG_OBJ_LAYER, .times = 1, .error = ENOSPC});
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), 4096);
    CHECK_EQ(do_write(s, &l, 0, data, 4096, 0), -ENOSPC);
    CHECK_EQ(do_read(s, &l, 0, got, 1), -ENOENT);
    plan(MEM_FLUSH, (struct mem_fault){.times = 2, .error = EIO});
    CHECK_EQ(do_flush(s, &e), -EIO);
    CHECK_EQ(do_flush(s, &e), -EIO);
    CHECK_EQ(do_flush(s, &e), 0);
    mem_fault_clear();
    CHECK_EQ(mem_fault_calls(MEM_WRITE), 0);
}

static void test_writes_tear(void)
{
    struct xseg_object e = extent_name(2, 1), j = journal_name(2, 1);
    struct xseg_object_info info;
    struct mem_fault torn = {.times = 1, .error = EIO, .torn = true, .torn_bytes = 512};

    memset(data, 2, sizeof data);
    plan(MEM_WRITE, torn);
    CHECK_EQ(do_write(s, &e, 0, data, 4096, 0), -EIO);
    CHECK_EQ(do_read(s, &e, 0, got, 4096), 4096);
    CHECK(got[511] == 2 && got[512] == 0);
    plan(MEM_APPEND, torn);
    CHECK_EQ(do_append(s, &j, 0, 0, data, 1000), -EIO);
    CHECK_EQ(do_info(s, &j, &info), 0);
    CHECK_EQ(info.size_bytes, 512);
    mem_fault_clear();
}

static void test_every_call_can_fail(void)
{
    struct mem_fault once = {.times = 1, .error = EIO};
    struct xseg_object e = extent_name(3, 1), h = header_name(3), t = lease_name(3);
    struct xseg_lease lease = lease_of("a");
    struct xseg_list_entry entry;
    struct xseg_object_info info;
    struct xseg_opaque cursor = {.length = 0};

    for (enum mem_call call = 0; call < MEM_NR_CALLS; call++)
        plan(call, once);
    fill_header(data, 64, 1, 1, 0);
    CHECK_EQ(do_read(s, &e, 0, got, 1), -EIO);
    CHECK_EQ(do_zero(s, &e, 0, 1), -EIO);
    CHECK_EQ(do_create(s, &h, data, 64, 0), -EIO);
    CHECK_EQ(do_update(s, &h, 1, data, 64), -EIO);
    CHECK_EQ(do_info(s, &h, &info), -EIO);
    CHECK_EQ(do_list(s, XSEG_OBJ_HEADER, &cursor, &entry, 1), -EIO);
    CHECK_EQ(do_delete(s, &h), -EIO);
    CHECK_EQ(do_lease(s, XSEG_OP_ACQUIRE, &t, &lease, 0), -EIO);
    CHECK_EQ(do_lease(s, XSEG_OP_RELEASE, &t, &lease, 0), -EIO);
    CHECK_EQ(do_info(s, &h, &info), -ENOENT);
    mem_fault_clear();
}

int main(void)
{
    const struct setup setup = {.backend = "mem", .engine = "auto", .path = "unused"};

    server_start(s, &setup);
    test_the_kth_call_fails();
    test_writes_tear();
    test_every_call_can_fail();
    server_stop(s);
    return 0;
}
