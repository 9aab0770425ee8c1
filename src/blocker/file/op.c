/* SPDX-License-Identifier: Apache-2.0 */
/* Pool of struct file_op: pieces of ios.  Slabs are kept until the store closes. */
#include <stdlib.h>
#include <string.h>

#include "blocker/file/file.h"

#define OPS_PER_SLAB 128u

struct file_op_slab {
    struct file_op_slab *next;
    struct file_op ops[OPS_PER_SLAB];
};

void file_ops_init(struct file_store *store)
{
    list_init(&store->free_ops);
}

void file_ops_fini(struct file_store *store)
{
    while (store->op_slabs) {
        struct file_op_slab *next = store->op_slabs->next;
        free(store->op_slabs);
        store->op_slabs = next;
    }
}

static void grow(struct file_store *store)
{
    struct file_op_slab *slab = malloc(sizeof *slab);
    if (!slab)
        return;
    slab->next = store->op_slabs;
    store->op_slabs = slab;
    for (uint32_t i = 0; i < OPS_PER_SLAB; i++)
        list_push_back(&store->free_ops, &slab->ops[i].link);
}

struct file_op *file_op_get(struct file_store *store, struct blk_io *io)
{
    if (list_empty(&store->free_ops))
        grow(store);
    struct list *link = list_pop_front(&store->free_ops);
    if (!link)
        return NULL;
    struct file_op *op = LIST_ENTRY(link, struct file_op, link);
    op->store = store;
    op->io = io;
    op->file = NULL;
    op->bounce = NULL;
    op->bounce_skip = 0;
    op->lends = false;
    list_init(&op->link);
    return op;
}

void file_op_put(struct file_op *op)
{
    /* First: its neighbour may be the file, and the last user of a file frees it. */
    list_remove(&op->link);
    if (op->file)
        file_fd_put(op->file);
    free(op->bounce);
    list_push_front(&op->store->free_ops, &op->link);
}
