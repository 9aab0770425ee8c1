/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a layer: page checks, superblock, and a cursor over its records.
 *
 * A layer is a static B-tree of 4 KiB pages.  Pages come from a callback (the page
 * cache of the mapper, or a Python function), which hands over only pages that
 * layer_page_check has passed, so records are read in place without further checks of
 * their own bounds. Used by one thread at a time.
 */
#ifndef MAPPER_LAYER_H
#define MAPPER_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mapper/map_format.h"
#include "mapper/ref.h"

/** A layer's superblock, and its extents once they are read. */
struct layer {
    uint8_t uuid[16];
    uint32_t block_bytes;
    uint32_t sectors; /* per block */
    uint32_t nr_pages;
    uint32_t root;
    uint32_t height;
    uint32_t nr_extents;
    uint32_t nr_extents_read; /* the table is usable when it equals nr_extents */
    uint32_t extents_page;
    uint64_t nr_records;
    uint64_t first_block, end_block;
    uint64_t zero_sectors, extent_sectors, content_sectors;
    struct layer_extent *extents; /* nr_extents, malloc'ed */
};

/**
 * Read the superblock (page 0).
 *
 * @param page  LAYER_PAGE_BYTES.
 * @param out   filled on success; layer_fini gives it back.
 * Returns 0; -EBADMSG; -EPROTONOSUPPORT; -ENOMEM; *why says what is wrong.
 */
int layer_init(struct layer *out, const void *page, const char **why);
void layer_fini(struct layer *layer);

/**
 * The extent page to feed next (layer_add_extents), or 0 when the table is complete.
 */
uint32_t layer_next_extents_page(const struct layer *layer);
/** Take the extents of a checked page.  0, or -EBADMSG if it is not the one expected.
 */
int layer_add_extents(struct layer *layer, const struct layer_page *page);

/**
 * Check a page: its checksum, its place, and the bounds and order of what is in it.
 *
 * @param page    LAYER_PAGE_BYTES, aligned to 8.
 * @param number  the page number it was read from, not 0.
 * Returns 0 or -EBADMSG.
 */
int layer_page_check(const struct layer *layer, const void *page, uint32_t number);

/** Set a page's checksum. */
void layer_page_seal(struct layer_page *page);

/**
 * Hand over a checked page.
 *
 * @param level  0 for leaves; a source that keeps one page per level may use it.
 * @param out    the page; valid until the cursor asks for another page of that level.
 * Returns 0, or -errno which ends the walk (-EAGAIN: not here yet).
 */
typedef int layer_get_fn(void *ctx, uint32_t number, uint32_t level,
                         const struct layer_page **out);

/** Walks records in order.  Set layer, get and ctx; seek before anything else. */
struct layer_cursor {
    const struct layer *layer;
    layer_get_fn *get;
    void *ctx;
    const struct layer_record *record; /* NULL past the end */
    struct {
        const struct layer_page *page;
        uint32_t index; /* node: child taken; leaf: record */
        uint32_t at;    /* leaf: byte offset of the record in the body */
    } path[LAYER_MAX_HEIGHT];
};

/**
 * Go to the first record that provides something of a block >= `block`.
 * Returns 1; 0 if there is none (record is NULL); -errno of the callback, -EBADMSG.
 */
int layer_cursor_seek(struct layer_cursor *c, uint64_t block);

/** Go to the next record.  As seek. */
int layer_cursor_next(struct layer_cursor *c);

/** One past the last block that a record speaks of. */
static inline uint64_t layer_record_end(const struct layer_record *record)
{
    return record->block + (record->shape == LAYER_RUN ? record->count : 1);
}

/** The record's reference. */
struct map_ref layer_record_ref(const struct layer *layer,
                                const struct layer_record *record);

/** Add the sectors that the record provides of a block it speaks of to `bits`. */
void layer_record_bits(const struct layer *layer, const struct layer_record *record,
                       uint64_t *bits);

#endif
