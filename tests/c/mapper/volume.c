/* SPDX-License-Identifier: Apache-2.0 */
/* One volume in the mapper (see volume.h). */
#include "volume.h"

#include "check.h"

struct rig rig;
struct map_header header;

uint64_t open_map(uint32_t flags)
{
    int64_t handle = rig_open(&rig, &header, flags);
    CHECK(handle > 0);
    return (uint64_t)handle;
}

void begin(void)
{
    begin_with(NULL);
}

void begin_with(const struct mapper_options *options)
{
    rig_start(&rig, 1, options);
    header_init(&header, 7, 64 * MIB);
}

void end(void)
{
    map_header_fini(&header);
    rig_end(&rig);
}

struct fake_object *journal(void)
{
    struct xseg_object name = fake_journal_name(header.uuid, header.journal);
    return fake_find(&rig.fake, &name);
}

void freeze_header(const struct xseg_journal_info *info, bool new_epoch)
{
    if (info->length_bytes) {
        struct map_entry *e = header_push(&header, MAP_ENTRY_JOURNAL);
        memcpy(e->id, header.uuid, 16);
        memcpy(e->extent_uuid, header.uuid, 16);
        e->number = info->number;
        e->length_bytes = info->length_bytes;
        e->extent_epoch = header.epoch;
    }
    header.version++;
    header.journal++;
    header.epoch += new_epoch;
}

struct xseg_run only_run(uint64_t handle, uint64_t sector, uint64_t nr)
{
    struct xseg_run *runs, run;
    CHECK_EQ(rig_runs(&rig, handle, sector, nr, 0, &runs), 1);
    run = runs[0];
    free(runs);
    return run;
}

uint64_t appends(void)
{
    return rig.fake.nr_ops[XSEG_OP_APPEND];
}

void put_layer(struct map_entry *entry, struct layer_writer *w, struct blob *blob)
{
    CHECK_EQ(layer_writer_finish(w), blob->size);
    layer_writer_destroy(w);
    struct xseg_object name = fake_layer_name(entry->id);
    fake_put(&rig.fake, &name, 0, blob->bytes, blob->size);
    entry->length_bytes = blob->size;
    blob_fini(blob);
}

void push_layer(uint8_t uuid, uint64_t first, uint64_t nr)
{
    struct blob blob = {0};
    struct layer_writer *w;
    struct map_entry *e = header_push(&header, MAP_ENTRY_LAYER);
    memset(e->id, uuid, sizeof e->id);
    struct map_ref ref = map_ref_extent(e->id, 1);
    CHECK_EQ(layer_writer_create(e->id, header.block_bytes, blob_write, &blob, &w), 0);
    for (uint64_t b = first; b < first + nr; b += 2) /* a record for each */
        CHECK_EQ(layer_writer_run(w, b, 1, &ref), 0);
    put_layer(e, w, &blob);
}
