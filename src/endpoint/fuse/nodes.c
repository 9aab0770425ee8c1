/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of nodes in its memory file (see nodes.h), and an index of names over it.
 *
 * The index is a chained hash table in this process's memory, made anew from the records.
 * Free records are kept in a stack.
 */
#include "endpoint/fuse/nodes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/log.h"

#define TABLE_MAGIC   UINT64_C(0x315345444f4e5041) /* "APNODES1" */
#define TABLE_VERSION 1u
#define TABLE_BYTES   4096u
#define NR_BUCKETS    (1u << 14)
#define NONE          UINT32_MAX
/* A number is its record's position below and the generation above. */
#define INDEX_BITS  18
#define INDEX_MASK  ((UINT64_C(1) << INDEX_BITS) - 1)
#define FIRST_INDEX 2u /* 0 means none, 1 is the root */

struct fuse_nodes {
    struct fuse_table *table;
    struct fuse_node *records;
    uint32_t *buckets; /* first record of each, or NONE */
    uint32_t *chain;   /* next record of the same bucket, or NONE */
    uint32_t *free;    /* stack of free records */
    uint32_t nr_free;
};

uint64_t fuse_nodes_bytes(void)
{
    return TABLE_BYTES + (uint64_t)FUSE_NODES_MAX * sizeof(struct fuse_node);
}

struct fuse_table *fuse_nodes_table(struct fuse_nodes *nodes)
{
    return nodes->table;
}

uint32_t fuse_nodes_index(const struct fuse_nodes *nodes, const struct fuse_node *node)
{
    return (uint32_t)(node - nodes->records);
}

/* FNV-1a: names are short and chosen by the administrator. */
static uint32_t bucket_of(const uint8_t *name, uint32_t name_len)
{
    uint32_t hash = 2166136261u;

    for (uint32_t i = 0; i < name_len; i++)
        hash = (hash ^ name[i]) * 16777619u;
    return hash % NR_BUCKETS;
}

static void index_add(struct fuse_nodes *nodes, uint32_t at)
{
    const struct fuse_node *node = &nodes->records[at];
    uint32_t bucket = bucket_of(node->name, node->name_len);

    nodes->chain[at] = nodes->buckets[bucket];
    nodes->buckets[bucket] = at;
}

static void index_remove(struct fuse_nodes *nodes, uint32_t at)
{
    const struct fuse_node *node = &nodes->records[at];
    uint32_t *link = &nodes->buckets[bucket_of(node->name, node->name_len)];

    while (*link != at)
        link = &nodes->chain[*link];
    *link = nodes->chain[at];
}

static bool record_sound(const struct fuse_node *node, uint32_t at)
{
    return (node->id & INDEX_MASK) == at + FIRST_INDEX && node->name_len > 0 &&
           node->name_len <= XSEG_NAME_MAX;
}

/** Records from `used` on are free.  The lowest is taken first. */
static void nodes_push_unused(struct fuse_nodes *nodes, uint32_t used)
{
    for (uint32_t at = FUSE_NODES_MAX; at-- > used;)
        nodes->free[nodes->nr_free++] = at;
}

/** Find what an earlier process left. */
static void nodes_adopt(struct fuse_nodes *nodes)
{
    uint32_t used = fuse_nodes_used(nodes);

    nodes_push_unused(nodes, used);
    for (uint32_t at = used; at-- > 0;) {
        struct fuse_node *node = &nodes->records[at];

        if (node->id && !record_sound(node, at)) {
            log_line(LOG_WARNING, "fuse", "node record %u is damaged: dropped", at);
            memset(node, 0, sizeof(*node));
        }
        if (node->id)
            index_add(nodes, at);
        else
            nodes->free[nodes->nr_free++] = at;
    }
}

static void nodes_begin(struct fuse_nodes *nodes)
{
    *nodes->table = (struct fuse_table){
        .magic = TABLE_MAGIC, .version = TABLE_VERSION, .generation = 1};
    nodes_push_unused(nodes, 0);
}

int fuse_nodes_map(int fd, struct fuse_nodes **out)
{
    struct fuse_nodes *nodes;
    struct stat st;
    void *base;
    int rc;

    *out = NULL;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_size < fuse_nodes_bytes())
        return -EINVAL;
    base = mmap(NULL, fuse_nodes_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    nodes = calloc(1, sizeof(*nodes));
    if (!nodes) {
        munmap(base, fuse_nodes_bytes());
        return -ENOMEM;
    }
    nodes->table = base;
    nodes->records = (struct fuse_node *)(void *)((char *)base + TABLE_BYTES);
    nodes->buckets = malloc(NR_BUCKETS * sizeof(uint32_t));
    nodes->chain = malloc(FUSE_NODES_MAX * sizeof(uint32_t));
    nodes->free = malloc(FUSE_NODES_MAX * sizeof(uint32_t));
    rc = -ENOMEM;
    if (!nodes->buckets || !nodes->chain || !nodes->free)
        goto fail;
    for (uint32_t i = 0; i < NR_BUCKETS; i++)
        nodes->buckets[i] = NONE;
    rc = -EPROTONOSUPPORT;
    if (nodes->table->magic == 0)
        nodes_begin(nodes);
    else if (nodes->table->magic != TABLE_MAGIC ||
             nodes->table->version != TABLE_VERSION)
        goto fail;
    else
        nodes_adopt(nodes);
    *out = nodes;
    return 0;

fail:
    fuse_nodes_unmap(nodes);
    return rc;
}

void fuse_nodes_unmap(struct fuse_nodes *nodes)
{
    if (!nodes)
        return;
    munmap(nodes->table, fuse_nodes_bytes());
    free(nodes->buckets);
    free(nodes->chain);
    free(nodes->free);
    free(nodes);
}

struct fuse_node *fuse_nodes_by_id(struct fuse_nodes *nodes, uint64_t id)
{
    uint64_t at = (id & INDEX_MASK) - FIRST_INDEX;

    if (at >= FUSE_NODES_MAX || nodes->records[at].id != id)
        return NULL;
    return &nodes->records[at];
}

uint32_t fuse_nodes_used(const struct fuse_nodes *nodes)
{
    uint64_t used = nodes->table->used;

    return used < FUSE_NODES_MAX ? (uint32_t)used : FUSE_NODES_MAX;
}

struct fuse_node *fuse_nodes_at(struct fuse_nodes *nodes, uint32_t at)
{
    return nodes->records[at].id ? &nodes->records[at] : NULL;
}

struct fuse_node *fuse_nodes_by_name(struct fuse_nodes *nodes, const uint8_t *name,
                                     uint32_t name_len)
{
    uint32_t at = nodes->buckets[bucket_of(name, name_len)];

    for (; at != NONE; at = nodes->chain[at]) {
        struct fuse_node *node = &nodes->records[at];
        if (node->name_len == name_len && memcmp(node->name, name, name_len) == 0)
            return node;
    }
    return NULL;
}

struct fuse_node *fuse_nodes_add(struct fuse_nodes *nodes, const uint8_t *name,
                                 uint32_t name_len)
{
    struct fuse_node *node;
    uint32_t at;

    if (nodes->nr_free == 0 || name_len == 0 || name_len > XSEG_NAME_MAX)
        return NULL;
    at = nodes->free[--nodes->nr_free];
    if (nodes->table->used <= at)
        nodes->table->used = at + 1;
    node = &nodes->records[at];
    memset(node, 0, sizeof(*node));
    memcpy(node->name, name, name_len);
    node->name_len = name_len;
    node->id = nodes->table->generation++ << INDEX_BITS | (at + FIRST_INDEX);
    index_add(nodes, at);
    return node;
}

void fuse_nodes_forget(struct fuse_nodes *nodes, struct fuse_node *node, uint64_t count)
{
    uint32_t at = fuse_nodes_index(nodes, node);

    node->lookups = count < node->lookups ? node->lookups - count : 0;
    if (node->lookups || node->readers || node->writers)
        return;
    index_remove(nodes, at);
    memset(node, 0, sizeof(*node));
    nodes->free[nodes->nr_free++] = at;
}
