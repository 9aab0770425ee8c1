/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes of one FUSE connection: what the kernel knows by number.
 *
 * The kernel keeps the numbers of files for as long as the connection lives, and that may
 * be longer than this process.  So the table lies in a memory file that the supervisor
 * holds: the next process finds names, look-ups and opens as they were.
 *
 *   offset 0: struct fuse_table (4096 bytes), then FUSE_NODES_MAX struct fuse_node.
 *   Native byte order: one machine, one boot.
 *
 * One process maps it at a time, on the reactor's thread.  What is read there is checked:
 * a record that is not well formed is treated as free and logged.
 */
#ifndef ENDPOINT_FUSE_NODES_H
#define ENDPOINT_FUSE_NODES_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "xseg/layout.h"

#define FUSE_NODES_MAX (1u << 17)
/** Number of the mounted directory itself (FUSE_ROOT_ID). */
#define FUSE_NODE_ROOT UINT64_C(1)

/** What was agreed with the kernel, and what the next process must know. */
struct fuse_table {
    uint64_t magic;
    uint32_t version;
    uint32_t initialized; /* 1: INIT was answered */
    uint32_t minor;       /* of the protocol, as agreed */
    uint32_t flags;       /* FUSE_TABLE_* */
    uint64_t counted;     /* the request whose look-up or open was counted last */
    uint64_t generation;  /* of the next node number */
    uint64_t used;        /* records behind that many were never used */
};

/** The kernel sends requests again that were not answered, when it is asked to. */
#define FUSE_TABLE_RESENDS 1u

/** One file that the kernel knows.  320 bytes. */
struct fuse_node {
    uint64_t id;      /* 0: free */
    uint64_t lookups; /* the kernel forgets as many */
    uint32_t readers; /* opens for reading only */
    uint32_t writers; /* opens for writing */
    uint32_t name_len;
    uint32_t reserved;
    uint8_t name[XSEG_NAME_MAX + 1];
    uint8_t padding[32];
};
static_assert(sizeof(struct fuse_node) == 320, "node record");

struct fuse_nodes;

/**
 * Map a table.
 *
 * @param fd   memory file, at least fuse_nodes_bytes() long; the caller's, and may be
 *             closed afterwards.
 * @param out  the table, to be freed with fuse_nodes_unmap; NULL on failure.
 * Returns 0; -EINVAL: too small; -EPROTONOSUPPORT: of another version; -ENOMEM.
 */
int fuse_nodes_map(int fd, struct fuse_nodes **out);
void fuse_nodes_unmap(struct fuse_nodes *nodes);

/** Size of the memory file [bytes].  It is sparse. */
uint64_t fuse_nodes_bytes(void);

struct fuse_table *fuse_nodes_table(struct fuse_nodes *nodes);

/** The node of that number, or NULL. */
struct fuse_node *fuse_nodes_by_id(struct fuse_nodes *nodes, uint64_t id);
/** Positions from 0 that may hold a node: the rest of the file was never touched, and
 *  looking at it would give it memory. */
uint32_t fuse_nodes_used(const struct fuse_nodes *nodes);
/** The node at a position, or NULL if that is free. */
struct fuse_node *fuse_nodes_at(struct fuse_nodes *nodes, uint32_t at);
/** The node of that name, or NULL. */
struct fuse_node *fuse_nodes_by_name(struct fuse_nodes *nodes, const uint8_t *name,
                                     uint32_t name_len);
/** A new node without look-ups; NULL: the table is full, or no memory. */
struct fuse_node *fuse_nodes_add(struct fuse_nodes *nodes, const uint8_t *name,
                                 uint32_t name_len);
/** The kernel forgets `count` look-ups; a node without any and without opens is freed. */
void fuse_nodes_forget(struct fuse_nodes *nodes, struct fuse_node *node,
                       uint64_t count);
/** Position of a node in the table: 0 to FUSE_NODES_MAX - 1. */
uint32_t fuse_nodes_index(const struct fuse_nodes *nodes, const struct fuse_node *node);

#endif
