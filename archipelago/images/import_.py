# SPDX-License-Identifier: Apache-2.0
"""Import: a disk image becomes content blocks, a layer over them, and a header.

Threads read, hash and store blocks side by side; hashing and reading run without the
interpreter's lock.  A block that the store has already is not stored again.  The
volume comes into being last, so a failure leaves none.  Blocks that were stored by
then stay: nothing deletes content blocks yet.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from archipelago._layer_write import LayerWriter
from archipelago.errors import (
    ArchipelagoError,
    UsageError,
    VolumeExists,
    from_errno,
)
from archipelago.ids import (
    BlockId,
    ObjectId,
    check_name,
    content_id,
    layer_id,
    new_uuid,
)
from archipelago.images.source import Source, open_source
from archipelago.layerfile import LayerFile
from archipelago.objects import Store
from archipelago.room import take_buffer
from archipelago.units import check_block_size
from xseg import Buffer, block_id, stripped_bytes
from xseg.constants import PORT_BLOCKERB, Flag, ObjectKind, Op
from xseg.errors import PortUnbound

if TYPE_CHECKING:
    from archipelago.client import Client
    from archipelago.info import VolumeInfo

#: What a blocker that died answers, or that is being started again; and how long to
#: wait between two tries [s].
_LOST = (-errno.EPIPE, -errno.EOWNERDEAD, -errno.ECANCELED)
_PAUSE = 0.01
#: Most threads of one import.
_THREADS_MOST = 16

Progress = Callable[[int, "int | None"], None]


def import_image(
    client: Client,
    source: str | os.PathLike[str] | int,
    name: str,
    volume: bool = False,
    block_size: int | None = None,
    progress: Progress | None = None,
    image_format: str | None = None,
) -> VolumeInfo:
    """Import a disk image.

    Exactly one file is opened: an image that names another is refused.

    Args:
        client: the connection.
        source: path of the image, a descriptor, or "-" for standard input.
        name: a new name.
        volume: make a volume; otherwise a snapshot.
        block_size: a power of two from 64 KiB to 4 MiB [bytes]; None: the instance's.
        progress: called now and then with what is done and how much there is [bytes];
            the latter is None while it is not known.
        image_format: "raw", "qcow2", "vmdk", "vdi", "vhdx" or "vhd"; None: what the
            image's first and last bytes say.

    Raises:
        VolumeExists: the name is taken.
        UsageError: the image is empty, names another file, or cannot be read right.
        NoSpace: the store is full.
    """
    check_name(name)
    blocks = client.settings.block_size if block_size is None else block_size
    check_block_size(blocks)
    if client.exists(name):
        raise VolumeExists(f'"{name}" exists already: choose another name')
    with open_source(source, blocks, image_format) as image:
        found = _Ingest(client, image, blocks, progress).run()
        size = image.total_bytes
    if not size:
        raise UsageError("the image is empty: there is nothing to import")
    store = Store(client.messenger)
    store.flush_all(ObjectKind.CONTENT)
    if not found:
        return client.create_from_layer(name, size, None, blocks, read_only=not volume)
    layer = _write_layer(store, blocks, found)
    try:
        return client.create_from_layer(name, size, layer, blocks, read_only=not volume)
    except ArchipelagoError as error:
        # Others may come after the deed; then the volume needs its layer.
        if isinstance(error, VolumeExists) or not client.exists(name):
            store.delete(layer_id(layer))
        raise


def _write_layer(store: Store, block_size: int, found: dict[int, BlockId]) -> bytes:
    """Write a durable layer that names these blocks; returns its uuid."""
    uuid = new_uuid()
    out = LayerFile(store, layer_id(uuid))
    writer = LayerWriter(uuid, block_size, out.write)
    for number in sorted(found):
        writer.add_content(number, found[number])
    writer.finish()
    out.finish()
    return uuid


class _Ingest:
    """Threads that read, hash and store the blocks of one image."""

    def __init__(
        self,
        client: Client,
        image: Source,
        block_size: int,
        progress: Progress | None,
    ) -> None:
        self._client = client
        self._image = image
        self._block_size = block_size
        self._progress = progress
        self._guard = threading.Lock()
        self._found: dict[int, BlockId] = {}
        self._stored: set[BlockId] = set()
        self._error: BaseException | None = None
        self._ticks = threading.Semaphore(0)

    def run(self) -> dict[int, BlockId]:
        """Do it all; returns the digest of each block that is not zero."""
        # Two more than processors, as some wait for the disk.
        wanted = min((os.cpu_count() or 1) + 2, _THREADS_MOST)
        threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(wanted)
        ]
        try:
            for thread in threads:
                thread.start()
            self._watch(threads)
        except BaseException as error:
            # A signal: the threads end before their image and their port go.
            self._error = self._error or error
            self._image.cancel()
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._error is not None:
            raise self._error
        return self._found

    def _watch(self, threads: list[threading.Thread]) -> None:
        """Report progress from the caller's thread until all have ended."""
        while any(thread.is_alive() for thread in threads):
            self._ticks.acquire(timeout=0.1)
            if self._progress is not None:
                self._progress(self._image.done_bytes, self._image.total_bytes)
        if self._progress is not None and self._error is None:
            self._progress(self._image.done_bytes, self._image.total_bytes)

    def _work(self) -> None:
        try:
            while self._error is None and self._next():
                pass
        except BaseException as error:
            # One thread's trouble ends the import: the others may wait for bytes.
            self._error = self._error or error
            self._image.cancel()
        finally:
            self._ticks.release()

    def _next(self) -> bool:
        """Take one block of the image; false at its end.

        Its buffer is taken when there is something to read: an import that waits for
        its image holds none.  Views are released at once: an error's traceback would
        keep them, and with them the buffer.
        """
        with contextlib.ExitStack() as held:
            with self._image.turn():
                buffer = held.enter_context(
                    take_buffer(
                        self._client.segment,
                        self._block_size,
                        self._client.messenger.patience,
                        lambda: self._error is None,
                    )
                )
                with memoryview(buffer) as room:
                    place = self._image.fill(room)
            if place is None:
                return False
            number, size = place
            with memoryview(buffer) as block:
                with block[:size] as piece:
                    length = stripped_bytes(piece)
                with block[:length] as piece:
                    digest = BlockId(block_id(piece)) if length else None
            if digest is not None:
                self._take(buffer, length, number, digest)
        return True

    def _take(self, buffer: Buffer, length: int, number: int, digest: BlockId) -> None:
        """Note what a block of the image is, and store it if that was not done."""
        with self._guard:
            self._found[number] = digest
            known = digest in self._stored
        if not known:
            self._store(buffer, length, digest)
            with self._guard:
                self._stored.add(digest)

    def _store(self, buffer: Buffer, length: int, digest: BlockId) -> None:
        """Put a block, unless it is there, from where it lies."""
        target = content_id(digest)
        started = time.monotonic()
        while True:
            result = self._put(buffer, length, target)
            patient = time.monotonic() - started < self._client.messenger.patience
            if result not in _LOST or not patient or self._error is not None:
                break
            time.sleep(_PAUSE)
        if result < 0 and result != -errno.EEXIST:
            raise from_errno(result, f"cannot store {target}", block=True)

    def _put(self, buffer: Buffer, length: int, target: ObjectId) -> int:
        """Ask once; twice is harmless."""
        with self._client.messenger.port.request() as rq:
            rq.op = Op.CREATE
            rq.flags = Flag.NOSYNC
            rq.size = length
            rq.set_object(target.kind, target.id)
            rq.set_data(buffer, 0, length)
            try:
                return self._client.messenger.port.call(rq, PORT_BLOCKERB)
            except PortUnbound:
                return -errno.EPIPE
