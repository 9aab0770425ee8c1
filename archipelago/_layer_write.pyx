# SPDX-License-Identifier: Apache-2.0
"""New layers of maps, written by the mapper's own C.

The control half of mapperd builds them when it imports an image and when it merges
stack entries.  Format: ``docs/format/layer.md``.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EINVAL, EIO
from libc.stdint cimport int64_t, uint8_t, uint64_t

from archipelago._format cimport fail, put_id
from archipelago.c.mapper cimport (
    layer_writer_create,
    layer_writer_destroy,
    layer_writer_finish,
    layer_writer_run,
    map_ref,
    map_ref_content,
    map_ref_extent,
    map_ref_zero,
)


cdef class LayerWriter:
    """Builds a layer in one pass over ascending blocks.

    Args:
        uuid: 16 bytes, fresh.
        block_size: A power of two from 64 KiB to 4 MiB [bytes].
        write: Called as ``write(offset, data)`` with up to 1 MiB at a time, ascending,
            and with the first page last.
    """

    def __cinit__(self, uuid, block_size, write):
        cdef uint8_t id[16]
        put_id(id, uuid, "uuid of a layer")
        self.write = write
        cdef int rc = layer_writer_create(
            id, block_size, write_chunk, <void *>self, &self.writer
        )
        if rc == -EINVAL:
            raise ValueError(
                f"block size {block_size} is not a power of two from 64 KiB to 4 MiB"
            )
        if rc < 0:
            fail(rc, "layer writer")

    def __dealloc__(self):
        layer_writer_destroy(self.writer)

    cdef int check(self, int64_t rc) except -1:
        if rc >= 0:
            return 0
        error, self.error = self.error, None
        if error is not None:
            raise error
        fail(rc, "layer being written")
        return -1

    def add_content(self, block, sha256):
        """Whole block `block` is the content of that name (32 bytes)."""
        cdef const unsigned char[::1] digest = sha256
        cdef map_ref ref
        if digest.shape[0] != 32:
            raise ValueError(f"a SHA-256 has 32 bytes, not {digest.shape[0]}")
        ref = map_ref_content(&digest[0])
        self.check(layer_writer_run(self.writer, block, 1, &ref))

    def add_zero(self, block, nr):
        """`nr` whole blocks from `block` on are zeros."""
        cdef map_ref ref = map_ref_zero()
        self.check(layer_writer_run(self.writer, block, nr, &ref))

    def add_extent(self, block, nr, uuid, epoch):
        """`nr` whole blocks from `block` on are in EXTENT(uuid, epoch)."""
        cdef uint8_t id[16]
        cdef map_ref ref
        put_id(id, uuid, "uuid of an extent")
        ref = map_ref_extent(id, epoch)
        self.check(layer_writer_run(self.writer, block, nr, &ref))

    def finish(self):
        """Write what is left and the superblock.

        Returns:
            The layer's length [bytes].  Nothing can be added after it.
        """
        cdef int64_t rc = layer_writer_finish(self.writer)
        self.check(rc)
        return rc


cdef int write_chunk(void *ctx, uint64_t offset, const void *data,
                     size_t length) noexcept with gil:
    cdef LayerWriter writer = <LayerWriter>ctx
    try:
        writer.write(offset, PyBytes_FromStringAndSize(<const char *>data, length))
        return 0
    except BaseException as error:
        writer.error = error
        return -EIO
