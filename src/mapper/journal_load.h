/* SPDX-License-Identifier: Apache-2.0 */
/* A journal read into a table. */
#ifndef MAPPER_JOURNAL_LOAD_H
#define MAPPER_JOURNAL_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "mapper/io.h"
#include "mapper/journal.h"
#include "mapper/table.h"

/** A journal on its way into a table. */
struct journal_load {
    struct map_io io;
    struct journal_reader reader;
    struct map_table *table;
    bool current;    /* read to the end; a torn tail is left out */
    uint64_t length; /* frozen: its length; current: its least one [bytes] */
    void (*done)(struct journal_load *load, int rc);
};

/**
 * Read JOURNAL(uuid, number) into `table`.  Set `current`, `length` and `done`
 * before. `done` gets 0, -EBADMSG, -ENOMEM or what the blocker said, and ends with
 * journal_reader_fini(&load->reader).
 */
void journal_load_start(struct mapper *m, struct journal_load *load,
                        const uint8_t uuid[16], uint64_t number,
                        struct map_table *table);

#endif
