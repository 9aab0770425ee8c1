/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in the shared segment, byte for byte.
 *
 * Every peer maps the same bytes at its own address, so nothing here is a
 * pointer: `*_off` fields are byte offsets from the start of the segment.
 * Fields are fixed width and little endian (the segment never leaves the
 * machine); new fields are appended and the layout version raised.
 *
 *   header | ports | request and reply rings | requests | free map | heap table | heap
 *
 * docs/format/segment.md has the same as tables.
 */
#ifndef XSEG_LAYOUT_H
#define XSEG_LAYOUT_H

#include <assert.h>
#include <stdint.h>

#define XSEG_MAGIC          UINT64_C(0x3147455358504341) /* "ACPXSEG1" */
#define XSEG_LAYOUT_VERSION 2u

#define XSEG_PAGE_BYTES 4096u
#define XSEG_CACHE_LINE 64u

/** Longest volume, snapshot or role name in bytes, without a terminator. */
#define XSEG_NAME_MAX 255u

/** Well-known ports.  Ports from XSEG_PORT_DYNAMIC on are for clients. */
enum xseg_well_known_port {
    XSEG_PORT_NONE = 0,
    XSEG_PORT_BLOCKERB = 1, /* data: content blocks and private extents */
    XSEG_PORT_BLOCKERM = 2, /* maps: headers, layers, journals, leases */
    XSEG_PORT_MAPPERD = 3,  /* native half of mapperd: MAPR, MAPW, FLUSH */
    XSEG_PORT_CONTROL = 4,  /* control half of mapperd: CREATE, SNAPSHOT, ... */
    XSEG_PORT_VLMCD = 5,    /* composer: volume I/O and volume control */
    XSEG_PORT_ENDPOINT = 6, /* the NBD endpoint's own client port */
    XSEG_PORT_FUSE = 7,     /* the FUSE endpoint's */
    XSEG_PORT_DYNAMIC = 8,
};
#define XSEG_PORT_ANY UINT32_MAX

/** Cells of each ring of a dynamic port, if there are as many requests. */
#define XSEG_DYNAMIC_RING_CELLS 256u

/** One bounded multi-producer ring of request indices (see ring.h). */
struct xseg_ring_cell {
    uint32_t sequence; /* atomic */
    uint32_t value;
};

struct xseg_ring_shared {
    uint64_t cells_off; /* capacity cells of struct xseg_ring_cell */
    uint32_t capacity;  /* a power of two, at most nr_requests */
    uint32_t pad0;
    uint8_t pad1[48];
    uint32_t head; /* atomic; next cell to fill */
    uint8_t pad2[60];
    uint32_t tail; /* atomic; next cell to empty */
    uint8_t pad3[60];
};
static_assert(sizeof(struct xseg_ring_cell) == 8, "ring cell");
static_assert(sizeof(struct xseg_ring_shared) == 192, "ring");

/** Port life: FREE -> BINDING -> BOUND -> FREE; DEAD once its owner is known dead. */
enum xseg_port_state {
    XSEG_PORT_FREE = 0,
    XSEG_PORT_BINDING = 1,
    XSEG_PORT_BOUND = 2,
    XSEG_PORT_DEAD = 3,
};

/** Counters of one port; each is written by the port's owner alone. */
struct xseg_port_stats {
    uint64_t accepted;   /* requests taken from the request ring */
    uint64_t completed;  /* requests answered */
    uint64_t errors;     /* answered with a negative result */
    uint64_t submitted;  /* requests sent to others */
    uint64_t reaped;     /* replies taken */
    uint64_t read_bytes; /* answered READ bytes */
    uint64_t write_bytes;
    uint64_t sleeps;  /* times the owner went to sleep */
    uint64_t dropped; /* ring entries that named no request of this port */
    uint64_t reserved[7];
};
static_assert(sizeof(struct xseg_port_stats) == 128, "port stats");

/** One port slot.  768 bytes: identity, doorbell, rings, counters. */
struct xseg_port_shared {
    uint32_t state;      /* atomic enum xseg_port_state */
    uint32_t generation; /* raised by every bind */
    uint32_t owner_pid;  /* of the process that bound the port; for people */
    uint32_t bell_port;  /* whose doorbell wakes the owner (itself, or one it shares) */
    uint64_t owner_start; /* of the same, clock ticks since boot; for people */
    uint64_t bound_ns;    /* CLOCK_REALTIME at bind */
    char role[32];        /* "blockerb", "client", ...; NUL padded */
    /* doorbell, one cache line: senders write, the owner sleeps on it */
    uint32_t bell_word;     /* atomic; futex word, raised by each ring of the bell */
    uint32_t bell_sleeping; /* atomic; 1 while the owner sleeps or is about to */
    uint8_t pad0[56];
    struct xseg_ring_shared requests; /* sent to this port */
    struct xseg_ring_shared replies;  /* answers to what this port sent */
    struct xseg_port_stats stats;
    /* what the owner is in the middle of, for whoever reaps it */
    uint64_t push_intent; /* atomic; 1 << 63 | port << 33 | replies << 32 | position */
    uint32_t complete_intent; /* atomic; index + 1 of the request being answered */
    uint32_t rescan; /* atomic; look in the table for 1: replies, 2: requests */
    uint64_t owner;  /* atomic; the process that bound the port (src/xseg/owner.h) */
    uint8_t pad1[104];
};
static_assert(sizeof(struct xseg_port_shared) == 768, "port slot");

/** Segment header: the first page. */
struct xseg_header {
    uint64_t magic; /* XSEG_MAGIC, written last at creation */
    uint32_t layout_version;
    uint32_t features; /* none yet: an unknown bit refuses the segment */
    uint64_t size_bytes;
    uint8_t uuid[16];
    uint32_t nr_ports;
    uint32_t nr_requests;
    uint32_t creator_pid;
    uint32_t pad0;
    uint64_t creator_start;
    uint64_t created_ns; /* CLOCK_REALTIME */
    uint64_t ports_off;
    uint64_t rings_off;
    uint64_t requests_off;
    uint64_t heap_table_off; /* heap bookkeeping (src/xseg/heap.h) */
    uint64_t heap_off;       /* page aligned */
    uint64_t heap_bytes;
    uint64_t lock_owner; /* atomic; holder of the robust lock (src/xseg/owner.h) */
    uint32_t nr_orphans; /* atomic; requests whose answer waits for a third peer */
    uint8_t pad1[52];
    uint64_t request_map_off;       /* one bit for each descriptor: likely to be free */
    uint8_t creator_boot_id[16];    /* in which owner words name processes by pid */
    uint64_t creator_pid_namespace; /* inode; 0: not known */
    uint8_t pad2[XSEG_PAGE_BYTES - 216];
};
static_assert(sizeof(struct xseg_header) == XSEG_PAGE_BYTES, "segment header");

#endif
