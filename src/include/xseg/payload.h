/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each op carries: the contract between peers.
 *
 * Conventions.  "name" is the target name, UTF-8, in inline_data with its length
 * [bytes] in arg[4] (XSEG_ARG_NAME_LEN).  "data" is data_off/data_len.  A reply's
 * result is 0 unless said otherwise, or -errno.  Inline replies overwrite inline_data.
 *
 * To a blocker (BLOCKERB takes CONTENT and EXTENT, BLOCKERM the rest; `object` names
 * the target; -EINVAL for a kind it does not serve):
 *
 *  op       in                                     out
 *  READ     object, offset, size, data >= size,    result = bytes.  CONTENT and EXTENT
 *           [LIVE: an extent's epoch is current;   answer `size`, zero-filled past the
 *           FUA: a header as it is]                end; others stop at the end. -ENOENT.
 *                                                  FUA: what a HEADER is, or that it is
 *                                                  not there, is durable, whoever did it
 *  WRITE    EXTENT, LAYER or CANDIDATES, offset,   result = size.  FUA: durable.
 *           size, data, [FUA]                      Creates the object.  -ESTALE: a
 *                                                  sealed extent
 *  ZERO,    EXTENT, offset, size, [FORCE: sealed   space given back; absent is fine.
 *   DISCARD or not, without a hold]                -ESTALE as WRITE
 *  FLUSH    object (EXTENT: all of that epoch;     all acknowledged before is durable,
 *           LAYER; JOURNAL; NONE: everything)      the object's name too, also what a
 *                                                  process that died had not synced.
 *                                                  With an error, arg[0] = 1: answered
 *                                                  writes are lost for good; 0: they are
 *                                                  not durable yet
 *  FLUSH    HEADER, any id                         what all headers are now is durable,
 *                                                  whoever made, replaced or removed them
 *  CREATE   object, data (size bytes), CONTENT     put if absent, whole and durable
 *           and LAYER: arg[0] = generation of      or not at all.  -EEXIST: it was there;
 *           the change that needs it               in the same step its generation is
 *           [NOSYNC: durable after FLUSH NONE]     raised to that of the change
 *  COPY     CONTENT, inline struct xseg_object     CREATE, of a range of an extent, inside
 *           of an extent, offset, size (without    the store.  -EBADMSG: those bytes have
 *           trailing zeros), arg[0] = generation   another digest.  -ENOENT
 *           of the change, [NOSYNC]
 *  UPDATE   HEADER or GENERATION, data, arg[0] =   replaced, whole and durable.
 *           version it must replace                -ESTALE if version or fence is older
 *  APPEND   JOURNAL, data, offset = its length     appended and durable; creates it at
 *           now, arg[0] = fence                    offset 0.  -ESTALE: the lease has a
 *                                                  newer fence, or there is none and
 *                                                  ours is above 0; or no journal at
 *                                                  another offset.  -ERANGE: it has
 *                                                  another length.  Size 0: only
 *                                                  the fence is compared
 *  INFO     object                                 inline struct xseg_object_info
 *  LIST     object.kind, inline struct             result = entries in data (struct
 *           xseg_opaque: the cursor (length 0      xseg_list_entry); inline the next
 *           starts), data.  HEADER and CONTENT:    cursor, length 0 at the end.  -EINVAL
 *           only ids whose first byte is arg[0]    without a byte in between
 *           or more and less than arg[1] (0: 256)
 *  CHANGES  HEADER, data for 256 stamps (u64)      result = 256.  Stamp i speaks of the
 *                                                  headers whose id begins with byte i:
 *                                                  two answers with one stamp, and none
 *                                                  was made, replaced or removed between
 *                                                  them.  0: not known
 *  DELETE   object; HEADER: arg[0] = its version,  durable.  -ENOENT.  -ESTALE: another
 *           or 0; CONTENT and LAYER: arg[0] =      version, or a newer generation.
 *           newest generation to remove, 0: any    Excludes a raise by CREATE
 *  ACQUIRE  LEASE; inline struct xseg_lease with   inline struct xseg_lease granted, or
 *           owner, nonce, host and pid [fence:     the holder's with -EBUSY.  To its
 *           only the lease of that fence]          holder: the same, same fence.  -ESTALE:
 *                                                  it is not the asker's with that fence.
 *                                                  The holder's presence is judged in the
 *                                                  same step
 *  RELEASE  LEASE, inline struct xseg_lease,       -ESTALE if not the holder's.  FORCE
 *           [FORCE]                                breaks it; the fence never goes back.  A
 *                                                  damaged record is written anew, with a
 *                                                  fence far above the asker's
 *  RELEASE  EXTENT                                 this blocker's hold and open files are
 *                                                  given up; none is fine
 *  RELEASE  EXTENT, FORCE, inline struct           sealed, durably: what holders of old
 *           xseg_opaque: the token of its old      write from now on, nobody reads
 *           holder (length 0: not known)
 *  ACQUIRE  PRESENCE; inline struct xseg_presence  inline struct xseg_presence granted.
 *           with incarnation, host, generation     -EBUSY: another incarnation of the
 *           and ttl_ns                             instance is there, and its record
 *  RELEASE  PRESENCE, inline struct xseg_presence  given back, durably.  -ESTALE: it is
 *                                                  another incarnation's.  -ENOENT
 *  NOTIFY   LEASE (any)                            answered when a lease that was granted
 *                                                  through this port is another's or
 *                                                  broken: object = which, inline struct
 *                                                  xseg_lease as it is now.  Not for
 *                                                  what was released or deleted through
 *                                                  this port.  One may wait; a second one
 *                                                  ends the first with -ECANCELED
 *  PING                                            0
 *
 * To MAPPERD (native; handle from its OPEN):
 *
 *  OPEN     data = header bytes, [RDONLY]          handle = map handle; journals of the
 *                                                  stack are read.  -EBADMSG
 *  UPDATE   handle, MORE                           appends held back from now on, none in
 *                                                  flight; inline struct xseg_journal_info
 *  UPDATE   handle, data = header bytes            map now follows that header (new
 *                                                  journal, epoch, stack or size); -EINVAL
 *                                                  changes nothing, appends go on
 *  CLOSE    handle, [FORCE]                        forgotten; marks that were not flushed
 *                                                  wait for an OPEN with the same epoch
 *                                                  and fence; with FORCE they are dropped
 *  MAPR     handle, offset, size, [data]           result = n struct xseg_run in data, or
 *                                                  inline if data_off is 0 (at most
 *                                                  XSEG_INLINE_RUNS): in order, without
 *                                                  gaps, a prefix of the range if short
 *  MAPW     handle, offset, size (whole sectors),  range now present in the current
 *           arg[0] = flush generation, [ZERO]      extent (or ZERO).  -EAGAIN: the mark
 *                                                  log is full: flush, then again
 *  FLUSH    handle, arg[0] = generation            marks up to and with it are durable,
 *                                                  and the fence was the newest after
 *                                                  this was sent.  -ESTALE.  -EAGAIN:
 *                                                  waits for a checkpoint, again later
 *  INFO     handle                                 inline struct xseg_map_info
 *  LIST     data                                   result = n struct xseg_object in data,
 *                                                  LEASE(uuid) of volumes with marks that
 *                                                  died processes left, and no open map
 *  DELETE   object LEASE(uuid)                     such marks are given up; none is fine
 *  PING                                            0
 *
 * To VLMCD (composer; handle from its OPEN):
 *
 *  OPEN     name, [RDONLY], [HOLD]; [behind the    handle, inline struct xseg_volume_info,
 *           name in inline_data a text of arg[3]   arg[2] as in CONTROL's answer, arg[3] =
 *           bytes that names the user for people,  number of this open
 *           arg[0] = its pid]
 *  CLOSE    handle, [arg[3] = number of the open]; -ESTALE: no such handle, or it is lost.
 *           or name and HOLD
 *                                                  Closed also with an error; arg[0] =
 *                                                  1: and flushed, but CONTROL did not
 *                                                  give the lease back: it runs out
 *  READ     handle, offset, size, data             result = size
 *  WRITE    the same, [FUA]                        result = size
 *  ZERO,    handle, offset, size, [FUA]            result = size; reads zeros after
 *   DISCARD
 *  CLOSE    handle, arg[3], NOSYNC                 the user is leaving: its CLOSE follows
 *                                                  soon, and DELETE waits for it
 *  FLUSH    handle                                 all answered before is durable
 *  MAPR     handle, offset, size, data             as the mapper's
 *  INFO     handle                                 inline struct xseg_volume_info
 *  INFO     name, data                             result = n struct xseg_volume_user in
 *                                                  data.  -ENOENT: it is not open
 *  LIST                                            data = struct xseg_volume_info[],
 *                                                  result = open volumes
 *  SNAPSHOT, TRUNCATE, RENAME, DELETE              forwarded to CONTROL with the volume
 *                                                  drained and flushed; as there.  DELETE
 *                                                  waits a while for users that leave;
 *                                                  with FORCE all are cut off first
 *  ACQUIRE  object PRESENCE, arg[1] = deadline     from CONTROL: the instance is renewed:
 *                                                  CLOCK_BOOTTIME [ns] until which all its
 *                                                  leases may be counted on
 *  RELEASE  object LEASE(uuid)                     from CONTROL: the lease is lost.
 *                                                  -ENOENT: not open for writing
 *  PING                                            0
 *
 * To CONTROL, packed:
 *
 *  OPEN     name, [RDONLY]; again after a death:   inline struct xseg_volume_info; arg[1],
 *           object LEASE(uuid), arg[0] = fence of  arg[2] as below.  With the uuid the
 *           before (0: read-only)                  volume is found under another name, too
 *  CLOSE    name
 *  both, refused                                   inline struct xseg_failure
 *  LIST     [name: only those behind it], size 0,  result = n names in data, sorted: each its
 *           data                                   length (one byte) and its bytes; arg[0] =
 *                                                  bytes used, arg[1] = 1: there are more
 *
 * To CONTROL, the others: name = the volume; data holds a JSON object of arguments in its first
 * `size` bytes and has room for the answer: a JSON object in the first arg[0] bytes.  With
 * a negative result it is {"msgid", "message", ...}.  docs/format/control.md lists the
 * members.  SNAPSHOT, TRUNCATE and RENAME also give inline struct
 * xseg_volume_info of the open volume as it now is, even when they fail after changing
 * the epoch (inline_valid != 0).  OPEN also gives arg[1] = CLOCK_BOOTTIME [ns] until
 * which the leases of the instance may be counted on, and arg[2] = the fence from which on
 * this instance alone has had that of the volume; both 0 if the volume needs none.
 */
#ifndef XSEG_PAYLOAD_H
#define XSEG_PAYLOAD_H

#include <assert.h>
#include <stdint.h>

#include "xseg/process.h"
#include "xseg/request.h"

/** Unit of presence: a volume is mapped in sectors of this many bytes. */
#define XSEG_SECTOR_BYTES    4096u
#define XSEG_BLOCK_MIN_BYTES (64u << 10)
#define XSEG_BLOCK_MAX_BYTES (4u << 20)

/** Index into arg[] of the length of the name in inline_data. */
#define XSEG_ARG_NAME_LEN 4
/** Of vlmcd's OPEN: length of the user's text; answered with the number of the open. */
#define XSEG_ARG_OPEN 3

/** Where the bytes of a run come from. */
enum xseg_reference_kind {
    XSEG_REF_ZERO = 0,
    XSEG_REF_CONTENT = 1, /* id = SHA-256; byte 0 of the content is the block's first */
    XSEG_REF_EXTENT = 2,  /* id = uuid + epoch: object offset equals volume offset */
};

/** One run of a volume with one source.  64 bytes. */
struct xseg_run {
    uint64_t offset;     /* [bytes] in the volume, sector aligned */
    uint64_t size;       /* [bytes], whole sectors */
    uint32_t kind;       /* enum xseg_reference_kind */
    uint32_t flags;      /* XSEG_RUN_* */
    uint64_t object_off; /* [bytes] where the run starts in its object; 0 for ZERO */
    uint8_t id[32];      /* as struct xseg_object; zeros for ZERO */
};
static_assert(sizeof(struct xseg_run) == 64, "run");
#define XSEG_INLINE_RUNS (XSEG_INLINE_BYTES / sizeof(struct xseg_run))

/** The run lies in the current epoch's extent: writable in place. */
#define XSEG_RUN_OWNED 1u
/** ZERO because no layer provides it (a hole), not because it was discarded. */
#define XSEG_RUN_HOLE 2u
/** In place of OWNED in a map that is open read-only: it lies in the extent of the present
 *  epoch, which whoever holds the volume may be writing to, or losing. */
#define XSEG_RUN_LIVE 4u

enum xseg_volume_flag {
    XSEG_VOL_READONLY = 1u << 0, /* a snapshot */
    XSEG_VOL_TAIL =
        1u << 1, /* shrunk inside a sector: zero its tail on open for write */
    XSEG_VOL_HELD = 1u << 2, /* open by the administrator (vlmc open) */
    XSEG_VOL_RDONLY_OPEN = 1u << 3,
};

/** An open volume.  320 bytes, so that it fits inline. */
struct xseg_volume_info {
    uint8_t uuid[16];
    uint64_t size_bytes;
    uint64_t epoch; /* writes go to EXTENT(uuid, epoch) */
    uint64_t fence;
    uint64_t map_handle; /* mapper's handle; 0 if the volume is not open there */
    uint32_t block_bytes;
    uint32_t flags;        /* enum xseg_volume_flag */
    uint32_t users;        /* opens that count */
    uint32_t inline_valid; /* 1: this record is filled */
    uint8_t name_len;      /* [bytes] */
    uint8_t name[XSEG_NAME_MAX];
};
static_assert(sizeof(struct xseg_volume_info) == 320, "volume info");

enum xseg_user_flag {
    XSEG_USER_READONLY = 1u << 0, /* it may only read */
    XSEG_USER_HELD = 1u << 1,     /* the administrator, with HOLD */
    XSEG_USER_LEAVING = 1u << 2,  /* its CLOSE follows soon */
};

/** Why CONTROL refused an OPEN or CLOSE, inline in the answer.  336 bytes. */
struct xseg_failure {
    uint64_t magic;       /* XSEG_FAILURE_MAGIC; anything else: nothing is said */
    uint16_t msgid_len;   /* [bytes] */
    uint16_t message_len; /* [bytes] */
    uint8_t text[324];    /* msgid, then message; UTF-8, cut to fit */
};
static_assert(sizeof(struct xseg_failure) == XSEG_INLINE_BYTES, "failure");
#define XSEG_FAILURE_MAGIC UINT64_C(0x6572756c69616658) /* "Xfailure" */

/** What uses an open volume: one for each open.  88 bytes. */
struct xseg_volume_user {
    uint64_t since_ns; /* CLOCK_REALTIME */
    uint32_t pid;      /* of the user; 0: not known, or none */
    uint32_t flags;    /* enum xseg_user_flag */
    uint32_t port;     /* through which it was opened; 0: none */
    uint32_t text_len; /* [bytes] */
    uint8_t text[64];  /* UTF-8, for people: "nbd", "nbd 127.0.0.1:40312", "client" */
};
static_assert(sizeof(struct xseg_volume_user) == 88, "volume user");

struct xseg_object_info {
    uint64_t size_bytes;      /* of the object; for NONE: capacity of the store */
    uint64_t allocated_bytes; /* on disk; for NONE: free bytes of the store */
    uint64_t modified_ns;     /* CLOCK_REALTIME */
    uint64_t version;         /* HEADER, LEASE: as stored; CONTENT, LAYER: generation */
    char backend[16];         /* "file", "mem"; NONE only */
    char engine[16];          /* "io_uring", "threads"; NONE only */
    uint32_t direct;          /* 1: O_DIRECT; NONE only */
    uint32_t store;           /* XSEG_STORE_*; NONE only */
};

/** Bytes that mean something only to the backend that gave them: a cursor of LIST, or the
 *  token by which a backend shuts a node out. */
#define XSEG_OPAQUE_MAX 64u
struct xseg_opaque {
    uint32_t length; /* [bytes] */
    uint32_t reserved;
    uint8_t bytes[XSEG_OPAQUE_MAX];
};
static_assert(sizeof(struct xseg_opaque) == 72, "opaque");
/** Longest cursor of LIST [bytes]. */
#define XSEG_CURSOR_MAX 32u

/** What a store is like; INFO of NONE. */
#define XSEG_STORE_SHARED     1u /* several nodes may use it */
#define XSEG_STORE_PERSISTENT 2u /* it outlives its process */

struct xseg_list_entry {
    struct xseg_object object;
    uint64_t size_bytes;
    uint64_t allocated_bytes;
    uint64_t modified_ns;
    uint64_t version; /* HEADER: as stored, 0 if only READ tells; CONTENT, LAYER:
                         generation; others: 0 */
};
static_assert(sizeof(struct xseg_list_entry) == 72, "list entry");

/** Stamps of one CHANGES: one for each first byte of an id. */
#define XSEG_NR_STAMPS 256

/** Bytes of the random number that names one run of an instance. */
#define XSEG_NONCE_BYTES 16

/** The one heartbeat of an instance.  Its object's id is the instance's uuid. */
struct xseg_presence {
    uint8_t nonce[XSEG_NONCE_BYTES]; /* of this run; zeros: none was ever here */
    uint64_t ttl_ns;     /* its life without renewal: as asked, or what is left [ns] */
    uint64_t expires_ns; /* CLOCK_REALTIME; 0: given back */
    uint64_t since_ns;   /* CLOCK_REALTIME when this run began; set by the blocker */
    uint64_t generation; /* the oldest that the instance still uses; 0: none is known */
    struct xseg_process process; /* with which the run ends */
    char host[64];               /* for people, NUL padded */
};
static_assert(sizeof(struct xseg_presence) == 152, "presence");

/** The right to change one volume.  It is never renewed: it is held while it is locked, or
 *  while the presence of its owner with the same nonce is not over. */
struct xseg_lease {
    uint64_t fence; /* grows with every new holder */
    uint64_t
        since; /* the fence from which on it has been this owner's alone; 0: of none */
    uint8_t owner[16];               /* uuid of the holder's instance */
    uint8_t nonce[XSEG_NONCE_BYTES]; /* of the run that holds it; zeros: given back */
    uint32_t pid;                    /* of the holder, for people */
    uint32_t flags;                  /* XSEG_LEASE_* */
    char host[64];                   /* for people, NUL padded */
};
static_assert(sizeof(struct xseg_lease) == 120, "lease");
/** Taken by an administrator (vlmc lock): held whatever becomes of its owner. */
#define XSEG_LEASE_LOCK 1u
/** Of ACQUIRE only, never stored: refuse a lease that another holder has not given back,
 *  even if that holder is over.  For work in the background. */
#define XSEG_LEASE_IF_FREE 2u
/** Of ACQUIRE that names its fence only, never stored: XSEG_LEASE_LOCK ends, the lease
 *  stays. */
#define XSEG_LEASE_UNLOCK 4u
/** Of ACQUIRE that names its fence only, never stored: make it durable like a new lease.
 *  The asker has read that fence, and the process that was granted it may have died before
 *  it was durable. */
#define XSEG_LEASE_INHERIT 8u

/** Where the journal stands. */
struct xseg_journal_info {
    uint64_t number;
    uint64_t length_bytes;
    uint64_t nr_marks; /* runs recorded in it */
};

struct xseg_map_info {
    struct xseg_journal_info journal;
    uint64_t present_sectors; /* of the current extent since its epoch began */
    uint64_t dirty_marks;     /* not yet flushed */
    uint64_t cached_blocks;   /* resolved blocks in memory */
    uint64_t pages_read;      /* layer pages fetched for this map */
    uint64_t stack_depth;
    uint64_t needs_checkpoint; /* 1: the journal ends in a torn record and takes no more
                                  marks until UPDATE brings a new one */
};

/**
 * Every stored HEADER starts with these 32 bytes (little endian), so that a blocker can
 * compare versions and fences without knowing the rest.
 */
struct xseg_versioned {
    uint64_t magic;
    uint64_t version; /* UPDATE stores old + 1 */
    uint64_t fence;
    uint64_t length; /* [bytes] of the whole object */
};
static_assert(sizeof(struct xseg_versioned) == 32, "versioned prefix");

#endif
