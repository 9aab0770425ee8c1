/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offsets that other programs rely on, as docs/format/segment.md has them.  A change
 * raises XSEG_LAYOUT_VERSION.
 */
#include <stddef.h>

#include "check.h"
#include "xseg/xseg.h"

#define AT(type, field, offset) CHECK_EQ(offsetof(struct type, field), offset)

static void header(void)
{
    CHECK_EQ(XSEG_LAYOUT_VERSION, 2);
    CHECK_EQ(sizeof(struct xseg_header), 4096);
    AT(xseg_header, magic, 0);
    AT(xseg_header, layout_version, 8);
    AT(xseg_header, features, 12);
    AT(xseg_header, size_bytes, 16);
    AT(xseg_header, uuid, 24);
    AT(xseg_header, nr_ports, 40);
    AT(xseg_header, nr_requests, 44);
    AT(xseg_header, creator_pid, 48);
    AT(xseg_header, creator_start, 56);
    AT(xseg_header, created_ns, 64);
    AT(xseg_header, ports_off, 72);
    AT(xseg_header, rings_off, 80);
    AT(xseg_header, requests_off, 88);
    AT(xseg_header, heap_table_off, 96);
    AT(xseg_header, heap_off, 104);
    AT(xseg_header, heap_bytes, 112);
    AT(xseg_header, lock_owner, 120);
    AT(xseg_header, nr_orphans, 128);
    AT(xseg_header, request_map_off, 184);
    AT(xseg_header, creator_boot_id, 192);
    AT(xseg_header, creator_pid_namespace, 208);
}

static void port(void)
{
    CHECK_EQ(sizeof(struct xseg_port_shared), 768);
    AT(xseg_port_shared, state, 0);
    AT(xseg_port_shared, generation, 4);
    AT(xseg_port_shared, owner_pid, 8);
    AT(xseg_port_shared, bell_port, 12);
    AT(xseg_port_shared, owner_start, 16);
    AT(xseg_port_shared, bound_ns, 24);
    AT(xseg_port_shared, role, 32);
    AT(xseg_port_shared, bell_word, 64);
    AT(xseg_port_shared, bell_sleeping, 68);
    AT(xseg_port_shared, requests, 128);
    AT(xseg_port_shared, replies, 320);
    AT(xseg_port_shared, stats, 512);
    AT(xseg_port_shared, push_intent, 640);
    AT(xseg_port_shared, complete_intent, 648);
    AT(xseg_port_shared, rescan, 652);
    AT(xseg_port_shared, owner, 656);
    AT(xseg_ring_shared, head, 64);
    AT(xseg_ring_shared, tail, 128);
}

static void request(void)
{
    CHECK_EQ(sizeof(struct xseg_request), 512);
    AT(xseg_request, state, 8);
    AT(xseg_request, op, 12);
    AT(xseg_request, flags, 16);
    AT(xseg_request, src_port, 20);
    AT(xseg_request, dst_port, 24);
    AT(xseg_request, result, 40);
    AT(xseg_request, handle, 48);
    AT(xseg_request, offset, 56);
    AT(xseg_request, size, 64);
    AT(xseg_request, data_off, 72);
    AT(xseg_request, data_len, 80);
    AT(xseg_request, arg, 88);
    AT(xseg_request, submitted_ns, 128);
    AT(xseg_request, object, 136);
    AT(xseg_request, inline_data, 176);
}

int main(void)
{
    header();
    port();
    request();
    return 0;
}
