# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint16_t, uint8_t, uint32_t, uint64_t

from xseg.c.request cimport xseg_object

cdef extern from "xseg/payload.h" nogil:
    enum:
        XSEG_SECTOR_BYTES
        XSEG_BLOCK_MIN_BYTES
        XSEG_BLOCK_MAX_BYTES
        XSEG_ARG_NAME_LEN

    struct xseg_run:
        uint64_t offset
        uint64_t size
        uint32_t kind
        uint32_t flags
        uint64_t object_off
        uint8_t id[32]

    struct xseg_volume_info:
        uint8_t uuid[16]
        uint64_t size_bytes
        uint64_t epoch
        uint64_t fence
        uint64_t map_handle
        uint32_t block_bytes
        uint32_t flags
        uint32_t users
        uint32_t inline_valid
        uint8_t name_len
        uint8_t name[255]

    struct xseg_failure:
        uint64_t magic
        uint16_t msgid_len
        uint16_t message_len
        uint8_t text[324]

    struct xseg_volume_user:
        uint64_t since_ns
        uint32_t pid
        uint32_t flags
        uint32_t port
        uint32_t text_len
        uint8_t text[64]

    struct xseg_object_info:
        uint64_t size_bytes
        uint64_t allocated_bytes
        uint64_t modified_ns
        uint64_t version
        char backend[16]
        char engine[16]
        uint32_t direct

    struct xseg_list_entry:
        xseg_object object
        uint64_t size_bytes
        uint64_t allocated_bytes
        uint64_t modified_ns

    struct xseg_lease:
        uint64_t fence
        uint64_t since
        uint8_t owner[16]
        uint8_t nonce[16]
        uint32_t pid
        uint32_t flags
        char host[64]

    struct xseg_journal_info:
        uint64_t number
        uint64_t length_bytes
        uint64_t nr_marks

    struct xseg_map_info:
        xseg_journal_info journal
        uint64_t present_sectors
        uint64_t dirty_marks
        uint64_t cached_blocks
        uint64_t pages_read
        uint64_t stack_depth
        uint64_t needs_checkpoint

    struct xseg_versioned:
        uint64_t magic
        uint64_t version
        uint64_t fence
        uint64_t length
