/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One volume in the mapper, as most tests need it: a rig, a header, and short words for
 * what is done to them.
 */
#ifndef TESTS_MAPPER_VOLUME_H
#define TESTS_MAPPER_VOLUME_H

#include "rig.h"
#include "tables.h"

#define MIB (UINT64_C(1) << 20)

extern struct rig rig;
/** Of the volume, as the control half would have stored it. */
extern struct map_header header;

/** Open the map of `header`; returns its handle. */
uint64_t open_map(uint32_t flags);
/** A volume of 64 MiB without a stack; marks end with the mapper. */
void begin(void);
/** The same, with other options. */
void begin_with(const struct mapper_options *options);
void end(void);
/** The current journal as the blocker has it, or NULL. */
struct fake_object *journal(void);
/** Move the journal onto the stack of the header. */
void freeze_header(const struct xseg_journal_info *info, bool new_epoch);
/** The one run that covers [sector, sector + nr). */
struct xseg_run only_run(uint64_t handle, uint64_t sector, uint64_t nr);
/** Records appended so far. */
uint64_t appends(void);
/** Store the layer that `w` wrote into `blob`, as that of a stack entry; ends both. */
void put_layer(struct map_entry *entry, struct layer_writer *w, struct blob *blob);
/** A layer of one EXTENT run over the first `nr` blocks, on top of the stack. */
void push_layer(uint8_t uuid, uint64_t first, uint64_t nr);

#endif
