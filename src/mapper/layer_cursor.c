/* SPDX-License-Identifier: Apache-2.0 */
/* Walking the records of a layer (see layer.h). */
#include <errno.h>

#include "mapper/layer.h"

static const struct layer_child *child_at(const struct layer_page *page, uint32_t i)
{
    return (const struct layer_child *)(const void *)page->body + i;
}

static const struct layer_record *record_at(const struct layer_page *page, uint32_t at)
{
    return (const struct layer_record *)(const void *)(page->body + at);
}

/** First block of what is in a page. */
static uint64_t page_block(const struct layer_page *page)
{
    return page->type == LAYER_PAGE_LEAF ? record_at(page, 0)->block
                                         : child_at(page, 0)->block;
}

/** Fetch a page and check that it is what its parent said. */
static int load(struct layer_cursor *c, uint32_t number, uint32_t level,
                const uint64_t *expect)
{
    const struct layer_page *page;
    int rc = c->get(c->ctx, number, level, &page);
    if (rc < 0)
        return rc;
    if (page->type != (level ? LAYER_PAGE_NODE : LAYER_PAGE_LEAF) ||
        page->level != level || (expect && page_block(page) != *expect))
        return -EBADMSG;
    c->path[level].page = page;
    c->path[level].index = 0;
    c->path[level].at = 0;
    return 0;
}

/** Last child whose first block is before `block`, or the first one. */
static uint32_t pick(const struct layer_page *page, uint64_t block)
{
    uint32_t lo = 0, hi = page->nr; /* children before lo start before `block` */
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (child_at(page, mid)->block < block)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo ? lo - 1 : 0;
}

/** Take the child that the node at `level` points to. */
static int descend(struct layer_cursor *c, uint32_t level)
{
    struct layer_child child = *child_at(c->path[level].page, c->path[level].index);
    return load(c, child.page, level - 1, &child.block);
}

/** Make the cursor stand on the leaf record that path[0] names. */
static int stand(struct layer_cursor *c)
{
    c->record = record_at(c->path[0].page, c->path[0].at);
    return 1;
}

/** Move to the first record of the next leaf. */
static int next_leaf(struct layer_cursor *c)
{
    uint32_t level = 1;
    uint64_t last = layer_record_end(c->record);
    uint64_t least = c->record->shape == LAYER_RUN ? last : c->record->block;
    while (level < c->layer->height &&
           c->path[level].index + 1 >= c->path[level].page->nr)
        level++;
    if (level >= c->layer->height) {
        c->record = NULL;
        return 0;
    }
    c->path[level].index++;
    for (; level > 0; level--) {
        int rc = descend(c, level);
        if (rc < 0)
            return rc;
    }
    if (page_block(c->path[0].page) < least)
        return -EBADMSG;
    return stand(c);
}

int layer_cursor_next(struct layer_cursor *c)
{
    if (c->path[0].index + 1 < c->path[0].page->nr) {
        c->path[0].at += c->record->length;
        c->path[0].index++;
        return stand(c);
    }
    return next_leaf(c);
}

int layer_cursor_seek(struct layer_cursor *c, uint64_t block)
{
    c->record = NULL;
    if (c->layer->height == 0 || block >= c->layer->end_block)
        return 0;
    uint32_t level = c->layer->height - 1;
    int rc = load(c, c->layer->root, level, NULL);
    if (rc < 0)
        return rc;
    for (; level > 0; level--) {
        c->path[level].index = pick(c->path[level].page, block);
        rc = descend(c, level);
        if (rc < 0)
            return rc;
    }
    rc = stand(c);
    while (rc > 0 && layer_record_end(c->record) <= block)
        rc = layer_cursor_next(c);
    return rc;
}
