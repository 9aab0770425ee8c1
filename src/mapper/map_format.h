/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies on disk for maps: header, journal and layer, byte for byte.
 *
 * Everything is little endian and naturally aligned; reserved bytes are zero.  Each
 * unit that is read alone carries a CRC-32C of itself, computed with the checksum field
 * as zero. docs/format/{header,journal,layer}.md have the same as tables.
 */
#ifndef MAPPER_MAP_FORMAT_H
#define MAPPER_MAP_FORMAT_H

#include <assert.h>
#include <stdint.h>

#include "xseg/payload.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "stored structures are read in place");

#define MAP_UUID_BYTES   16u
#define MAP_DIGEST_BYTES 32u
/** Largest volume [bytes]. */
#define MAP_SIZE_MAX (UINT64_C(1) << 60)
/** Sectors of the largest block, and words of its bitmap. */
#define MAP_BLOCK_SECTORS_MAX (XSEG_BLOCK_MAX_BYTES / XSEG_SECTOR_BYTES)
#define MAP_BLOCK_WORDS_MAX   (MAP_BLOCK_SECTORS_MAX / 64u)

/* ---- header ---- */

#define MAP_HEADER_MAGIC       UINT64_C(0x3130524448504341) /* "ACPHDR01" */
#define MAP_HEADER_FORMAT      2u /* 1, without journal_least_bytes, is read too */
#define MAP_HEADER_MAX_BYTES   65536u
#define MAP_HEADER_MAX_ENTRIES 512u
/** Flags that a header may store. */
#define MAP_HEADER_FLAGS ((uint32_t)(XSEG_VOL_READONLY | XSEG_VOL_TAIL))

enum map_entry_type {
    MAP_ENTRY_LAYER = 1,
    MAP_ENTRY_JOURNAL = 2,
};
/** This map alone refers to the entry: removing the map removes it. */
#define MAP_ENTRY_OWNED 1u
#define MAP_NO_LIMIT    UINT64_MAX
/** A frozen journal is loaded whole, so it may not be longer than this [bytes]. */
#define MAP_JOURNAL_MAX_BYTES (UINT64_C(1) << 30)

/** One table of the stack; the same in memory and on disk. */
struct map_entry {
    uint32_t type;           /* enum map_entry_type */
    uint32_t flags;          /* MAP_ENTRY_OWNED */
    uint8_t id[16];          /* LAYER: its uuid; JOURNAL: the volume's */
    uint64_t number;         /* JOURNAL: its number; LAYER: 0 */
    uint64_t length_bytes;   /* JOURNAL: frozen here; LAYER: of the whole object */
    uint8_t extent_uuid[16]; /* JOURNAL: extent its marks refer to; LAYER: zeros */
    uint64_t extent_epoch;
    uint64_t limit_bytes; /* provides nothing at or beyond it; MAP_NO_LIMIT */
};
static_assert(sizeof(struct map_entry) == 72, "stack entry");

struct map_header_disk {
    struct xseg_versioned versioned;
    uint32_t crc32c; /* of the whole object */
    uint32_t format; /* MAP_HEADER_FORMAT */
    uint8_t uuid[16];
    uint64_t size_bytes;
    uint32_t block_bytes;
    uint32_t flags; /* enum xseg_volume_flag: READONLY, TAIL */
    uint64_t epoch;
    uint64_t created_ns; /* CLOCK_REALTIME */
    uint64_t journal;    /* number of the current journal */
    uint32_t nr_entries;
    uint16_t name_len; /* [bytes]; the four names follow the entries, in this order */
    uint16_t parent_len;
    uint16_t moving_to_len;
    uint16_t moved_from_len;
    uint32_t reserved0;
    uint64_t journal_least_bytes; /* so much of the current journal was durable */
    uint8_t reserved1[8];
    /* struct map_entry entries[nr_entries], then the names */
};
static_assert(sizeof(struct map_header_disk) == 128, "header");

/* ---- journal ---- */

#define JOURNAL_RECORD_MAGIC     0x324c4e4au /* "JNL2" */
#define JOURNAL_RECORD_MAGIC_1   0x314c4e4au /* "JNL1": its checksum has no seed */
#define JOURNAL_RECORD_MAX_BYTES (1u << 20)
#define JOURNAL_TEAR_BYTES       512u /* a power cut leaves each of these old or new */

enum journal_mark_kind {
    JOURNAL_PRESENT = 1, /* the sectors are in the epoch's extent */
    JOURNAL_ZERO = 2,    /* the sectors are zeros */
};

/** A run of sectors that changed. */
struct journal_mark {
    uint64_t start; /* first sector in the volume */
    uint32_t nr;    /* sectors, at least 1 */
    uint32_t kind;  /* enum journal_mark_kind */
};
static_assert(sizeof(struct journal_mark) == 16, "journal mark");

/**
 * What the checksum of a record begins with, though it is not stored: a record counts
 * only in the journal, and at the place, for which it was written.
 */
struct journal_seed {
    uint8_t uuid[16];  /* of the volume */
    uint64_t number;   /* of the journal */
    uint64_t position; /* of the record in the journal [bytes] */
};
static_assert(sizeof(struct journal_seed) == 32, "journal seed");

/** One append is one record, so that a whole record after a damaged one proves damage.
 */
struct journal_record {
    uint32_t magic;
    uint32_t crc32c;   /* of the seed and the whole record */
    uint32_t length;   /* [bytes] of the whole record */
    uint32_t nr_marks; /* 0 only in a first record, which begins a journal */
    uint64_t sequence; /* 0, 1, 2, ... within a journal */
    uint64_t fence;    /* of the writer; never falls within a journal */
    /* struct journal_mark marks[nr_marks] */
};
static_assert(sizeof(struct journal_record) == 32, "journal record");
#define JOURNAL_RECORD_MAX_MARKS                                                       \
    ((JOURNAL_RECORD_MAX_BYTES - sizeof(struct journal_record)) /                      \
     sizeof(struct journal_mark))

/* ---- layer ---- */

#define LAYER_PAGE_BYTES  4096u
#define LAYER_PAGE_MAGIC  0x31474150u                  /* "PAG1" */
#define LAYER_SUPER_MAGIC UINT64_C(0x315259414c504341) /* "ACPLAYR1" */
#define LAYER_FORMAT      1u
#define LAYER_MAX_HEIGHT  8u
#define LAYER_MAX_EXTENTS 65536u

enum layer_page_type {
    LAYER_PAGE_SUPER = 1,
    LAYER_PAGE_EXTENTS = 2,
    LAYER_PAGE_LEAF = 3,
    LAYER_PAGE_NODE = 4,
};

struct layer_page {
    uint32_t magic;
    uint32_t crc32c;  /* of the page */
    uint8_t layer[8]; /* first half of the layer's uuid */
    uint32_t number;  /* of this page in the layer */
    uint16_t type;    /* enum layer_page_type */
    uint16_t nr;      /* extents, records or children in it */
    uint16_t used;    /* [bytes] of body in use */
    uint16_t level;   /* 0 for a leaf, 1 and up for nodes */
    uint32_t reserved;
    uint8_t body[LAYER_PAGE_BYTES - 32];
};
static_assert(sizeof(struct layer_page) == LAYER_PAGE_BYTES, "layer page");
#define LAYER_BODY_BYTES ((uint32_t)sizeof(((struct layer_page *)0)->body))

struct layer_extent {
    uint8_t uuid[16];
    uint64_t epoch;
};
static_assert(sizeof(struct layer_extent) == 24, "layer extent");

/** Body of page 0; extents that fit follow it, the others have pages of their own. */
struct layer_super_disk {
    uint64_t magic;
    uint32_t format;
    uint32_t block_bytes;
    uint8_t uuid[16];
    uint32_t nr_pages;
    uint32_t root; /* page, 0 for an empty layer */
    uint32_t
        height; /* levels of pages, 0 for an empty layer, 1 if the root is a leaf */
    uint32_t nr_extents;
    uint32_t extents_page; /* first of the extent pages, 0 if page 0 holds all */
    uint32_t reserved0;
    uint64_t nr_records;
    uint64_t first_block;
    uint64_t end_block; /* one past the last block provided */
    uint64_t zero_sectors;
    uint64_t extent_sectors;
    uint64_t content_sectors;
    uint8_t reserved1[24];
};
static_assert(sizeof(struct layer_super_disk) == 128, "layer superblock");
#define LAYER_SUPER_EXTENTS                                                            \
    ((uint32_t)((LAYER_BODY_BYTES - sizeof(struct layer_super_disk)) /                 \
                sizeof(struct layer_extent)))
#define LAYER_PAGE_EXTENTS_MAX                                                         \
    ((uint32_t)(LAYER_BODY_BYTES / sizeof(struct layer_extent)))

enum layer_shape {
    LAYER_RUN = 1,     /* count whole blocks */
    LAYER_SECTORS = 2, /* count pairs of struct layer_span, padded to 8 bytes */
    LAYER_BITMAP = 3,  /* count 64-bit words, bit i of word j is sector 64 j + i */
};

struct layer_span {
    uint16_t start; /* sector inside the block */
    uint16_t nr;
};

/**
 * What one source provides of a block (or, RUN, of consecutive blocks).  Records are
 * sorted by block; of several for one block the first that provides a sector wins, and
 * one that provides the whole block is the last.
 */
struct layer_record {
    uint64_t block;
    uint32_t count;  /* see enum layer_shape */
    uint32_t extent; /* EXTENT: index in the layer's table of extents; otherwise 0 */
    uint8_t shape;   /* enum layer_shape */
    uint8_t kind;    /* enum xseg_reference_kind */
    uint16_t length; /* [bytes] of the whole record, a multiple of 8 */
    uint32_t reserved;
    /* CONTENT: digest[32]; then the spans or words */
};
static_assert(sizeof(struct layer_record) == 24, "layer record");

struct layer_child {
    uint64_t block; /* of the first record below */
    uint32_t page;
    uint32_t reserved;
};
static_assert(sizeof(struct layer_child) == 16, "layer child");
#define LAYER_PAGE_CHILDREN_MAX                                                        \
    ((uint32_t)(LAYER_BODY_BYTES / sizeof(struct layer_child)))

#endif
