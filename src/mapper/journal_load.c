/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a journal into a table, chunk by chunk. */
#include <errno.h>
#include <string.h>

#include "mapper/journal_load.h"
#include "mapper/peer.h"

/** About a millisecond of work: between two chunks the reactor serves others. */
#define CHUNK_BYTES (128u << 10)

static void load_read_chunk(struct journal_load *load);

static int load_apply(void *ctx, const struct journal_mark *mark)
{
    return map_table_apply(ctx, mark);
}

static void load_finish(struct journal_load *load, int rc)
{
    if (rc == 0)
        rc = journal_reader_end(&load->reader, load->current ? load->length : 0);
    if (rc == 0 && !load->current && load->reader.valid_bytes != load->length)
        rc = -EBADMSG;
    load->done(load, rc);
}

static void load_chunk_done(struct map_io *io)
{
    struct journal_load *load = LIST_ENTRY(io, struct journal_load, io);
    int64_t got = io->result;
    int rc = 0;
    if (got == -ENOENT && load->current && load->reader.fed_bytes == 0)
        got = 0; /* nothing was ever appended, or it was lost: reader_end knows */
    if (got > 0)
        rc = journal_reader_feed(&load->reader, map_io_data(io), (size_t)got,
                                 load_apply, load->table);
    map_io_end(io);
    if (got < 0)
        rc = got == -ENOENT ? -EBADMSG : (int)got;
    if (rc < 0 || got == 0 || (load->current && (uint64_t)got < io->size) ||
        (!load->current && load->reader.fed_bytes >= load->length))
        load_finish(load, rc);
    else
        load_read_chunk(load);
}

static void load_read_chunk(struct journal_load *load)
{
    uint64_t at = load->reader.fed_bytes;
    struct map_io *io = &load->io;
    io->offset = at;
    io->size = CHUNK_BYTES;
    if (!load->current && io->size > load->length - at)
        io->size = load->length - at;
    map_io_start(io->m, io);
}

void journal_load_start(struct mapper *m, struct journal_load *load,
                        const uint8_t uuid[16], uint64_t number,
                        struct map_table *table)
{
    struct map_io *io = &load->io;
    memset(io, 0, sizeof *io);
    struct journal_identity journal = journal_identity(uuid, number);
    journal_reader_init(&load->reader, &journal);
    io->m = m;
    io->op = XSEG_OP_READ;
    io->again = true;
    io->object.kind = XSEG_OBJ_JOURNAL;
    memcpy(io->object.id, uuid, 16);
    memcpy(io->object.id + 16, &number, sizeof number);
    io->done = load_chunk_done;
    load->table = table;
    load_read_chunk(load);
}
