# SPDX-License-Identifier: Apache-2.0
"""What every capability works with: store, names, maps, leases, open volumes."""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import threading
from dataclasses import dataclass, field

from archipelago._header import Header, pack_header
from archipelago.errors import (
    ArchipelagoError,
    NotRunning,
    VolumeBusy,
)
from archipelago.ids import ObjectId, extent_id, journal_id, lease_id
from archipelago.messenger import Messenger
from archipelago.objects import Store
from archipelago.volume.census import Census
from archipelago.volume.generations import Generations
from archipelago.volume.headers import Headers
from archipelago.volume.incarnation import incarnation
from archipelago.volume.index import HeaderIndex
from archipelago.volume.leases import Leases
from archipelago.volume.locks import NameLocks
from archipelago.volume.maps import Maps
from archipelago.volume.presence import Presences
from archipelago.volume.reclaim import Reclaimer
from archipelago.volume.renewer import Renewer
from xseg.constants import BLOCK_MAX_BYTES, PORT_VLMCD, Op

log = logging.getLogger(__name__)

#: How long the end waits for maps of lost volumes to be closed [s].
_STOP_PATIENCE = 1.0


@dataclass(frozen=True)
class Limits:
    """When to do what in the background.

    Attributes:
        checkpoint_bytes: journals longer than that are frozen [bytes].
        stack_soft: more entries than that are merged in the background.
        stack_hard: more entries than that are merged before a clone shares them.
        stack_most: more entries than that are merged before anything is added.
    """

    checkpoint_bytes: int = 4 << 20
    stack_soft: int = 8
    stack_hard: int = 16
    stack_most: int = 256


#: One life of vlmcd: its process and when it bound its port; None if it does not run.
Life = tuple[int, int] | None


@dataclass
class OpenMap:
    """A volume that is open in the native mapper.

    Attributes:
        header: as stored now.
        handle: the mapper's.
        read_only: open without the lease.
        fence: of the lease; 0 without.
        opener: which life of vlmcd has it open.
        broken: why its map was given up, or empty.
        left: answered writes wait for who opens it next under its fence.
    """

    header: Header
    handle: int
    read_only: bool
    fence: int
    opener: Life
    broken: str = ""
    left: bool = False

    def check(self) -> None:
        """Raise if the map was given up after a failure."""
        if self.broken:
            raise VolumeBusy(
                f'"{self.header.name}" was stopped: {self.broken}; close it, then open '
                "it again"
            )


class OpenTable:
    """The open volumes by name.  Entries change under the lock of their name."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._maps: dict[str, OpenMap] = {}

    def get(self, name: str) -> OpenMap | None:
        """Find the open volume of that name."""
        with self._guard:
            return self._maps.get(name)

    def add(self, opened: OpenMap) -> None:
        """Enter an open volume under its header's name."""
        with self._guard:
            self._maps[opened.header.name] = opened

    def remove(self, name: str) -> None:
        """Take a name out."""
        with self._guard:
            self._maps.pop(name, None)

    def all(self) -> list[OpenMap]:
        """List the open volumes."""
        with self._guard:
            return list(self._maps.values())


def own_extent(header: Header) -> ObjectId:
    """Name the extent that a volume writes to."""
    return extent_id(header.uuid, header.epoch)


@dataclass
class Context:
    """One control half at work.

    Attributes:
        messenger: sends all requests.
        instance: uuid of the instance, 16 bytes.
        lease_ttl: life of a lease [s].
        host: name of this machine, for people.
        limits: when to work in the background.
        block_size: of volumes that are created without a word on it [bytes].
        holder_pid: see `ControlService`.
        nonce: the same.
    """

    messenger: Messenger
    instance: bytes
    lease_ttl: float
    host: str | None = None
    limits: Limits = field(default_factory=Limits)
    block_size: int = BLOCK_MAX_BYTES
    holder_pid: int | None = None
    nonce: bytes | None = None

    def __post_init__(self) -> None:
        self.store = Store(self.messenger)
        self.headers = Headers(self.store)
        self.index = HeaderIndex(self.store, self.headers)
        self.census = Census(self.store)
        self.maps = Maps(self.messenger)
        self.locks = NameLocks()
        self.table = OpenTable()
        self.presences = Presences(
            self.store,
            self.instance,
            incarnation(self.lease_ttl, self.host, self.holder_pid, self.nonce),
        )
        self.leases = Leases(self.store, self.presences)
        self.renewer = Renewer(
            self.messenger, self.leases, self.presences, self._lease_lost
        )
        self.generations = Generations(self.store)
        self.generations.renew = self._renew_readers
        self.reclaimer = Reclaimer(
            self.store, self.headers, self.index, self.generations, self.presences
        )
        self._lost: queue.SimpleQueue[OpenMap | None] = queue.SimpleQueue()
        self._burying = threading.Thread(
            target=self._bury, name="archipelago-lost", daemon=True
        )
        self._growing: set[str] = set()
        self.work_noted = threading.Event()
        self._left: set[bytes] = set()
        self._noted_guard = threading.Lock()

    def composer_life(self) -> Life:
        """Tell one life of vlmcd from the next: what an earlier one opened is stale."""
        for port in self.messenger.segment.ports():
            if port.id == PORT_VLMCD and port.alive:
                return port.owner_pid, port.bound_ns
        return None

    def compact_soon(self, header: Header) -> None:
        """Note a map whose stack may be worth merging in the background."""
        if len(header.stack) > self.limits.stack_soft:
            with self._noted_guard:
                self._growing.add(header.name)
            self.work_noted.set()

    def take_growing(self) -> list[str]:
        """Take the names noted by `compact_soon`."""
        self.work_noted.clear()
        with self._noted_guard:
            names = sorted(self._growing)
            self._growing.clear()
        return names

    def start(self) -> None:
        """Keep the presence from now on."""
        self.renewer.start()
        self._burying.start()

    def stop(self) -> None:
        """Stop keeping the presence; nothing may be asked any more."""
        self.census.stop()
        self.renewer.stop()
        self._lost.put(None)
        if self._burying.is_alive():
            self._burying.join(self.messenger.patience + _STOP_PATIENCE)

    def give_up(self, opened: OpenMap, why: str) -> None:
        """Stop a volume: its I/O ends with errors from now on, until it is closed.

        Nothing that was answered is lost if it is opened again in the same epoch and
        under the same fence; else what was not flushed is: better than to let it land
        where a snapshot or another instance would see it.
        """
        opened.broken = why
        log.error('"%s" is stopped: %s', opened.header.name, why)
        if not opened.read_only:
            self.renewer.say_stopped(opened.header.uuid)
        self._dismantle(opened)

    def _renew_readers(self) -> None:
        """Let maps that are open for reading follow their headers.

        Nothing else keeps what they refer to: whoever removes a snapshot or changes a
        volume elsewhere does not know of readers here.
        """
        for opened in self.table.all():
            if not opened.read_only or opened.broken:
                continue
            with self.locks.hold(opened.header.name):
                if self.table.get(opened.header.name) is opened:
                    self._renew_reader(opened)

    def _renew_reader(self, opened: OpenMap) -> None:
        before = opened.header
        name = self.index.name_now(before.name, before.uuid)
        now = self.headers.find(name)
        if now is None or now.uuid != before.uuid:
            self.give_up(opened, "it was removed by another instance")
            return
        if (now.version, now.name) == (before.version, before.name):
            return
        try:
            self.maps.follow(opened.handle, pack_header(now))
        except ArchipelagoError as error:
            self.give_up(opened, f"another instance changed it: {error}")
            return
        if now.name == before.name:
            opened.header = now

    def tell_lost(self, uuid: bytes) -> None:
        """Tell vlmcd that a volume is lost, if it runs; returns when it knows."""
        if self.composer_life() is None:
            return
        with contextlib.suppress(NotRunning):
            self.messenger.call(PORT_VLMCD, Op.RELEASE, target=lease_id(uuid))

    def load(self, header: Header) -> int:
        """Load the map of a volume whose lease is held; returns its handle.

        Whatever its journal holds is durable then.  A process that died between the
        write of a record and its sync has left one that this map counts on from now on.
        """
        handle = self.maps.open(pack_header(header), read_only=False)
        try:
            journal = self.maps.info(handle).journal
            if journal.length_bytes > header.journal_least:
                self.store.flush(journal_id(header.uuid, journal.number))
        except BaseException:
            with contextlib.suppress(ArchipelagoError):
                self.maps.close(handle)
            raise
        return handle

    def let_go(self, opened: OpenMap) -> None:
        """Forget the map of an open volume, and give up the right to its extent.

        What was answered and not flushed waits for who opens it next (`OpenMap.left`),
        unless its data cannot become durable.

        Raises:
            ArchipelagoError: somebody may still write to the extent.
        """
        if opened.read_only:
            self.maps.close(opened.handle)
            return
        uuid = opened.header.uuid
        try:
            unflushed = self._worth_keeping(opened)
            self.maps.close(opened.handle, drop=not unflushed)
            # A map that was fenced has dropped what it had.
            if unflushed and uuid in self.maps.left():
                opened.left = True
                with self._noted_guard:
                    self._left.add(uuid)
        finally:
            self._release_extent(opened)

    def take_left(self) -> set[bytes]:
        """Take the volumes (uuid) of which `let_go` left answered writes."""
        with self._noted_guard:
            left, self._left = self._left, set()
        return left

    def _worth_keeping(self, opened: OpenMap) -> bool:
        """True if marks of a map were not flushed, and their data may be durable yet.

        Only the blocker's word that the data is lost drops answered writes: after a
        failed sync the next one may say nothing of the loss.  A blocker that has no
        descriptor or no time left has said nothing of the kind.
        """
        name = opened.header.name
        try:
            if not self.maps.info(opened.handle).dirty_marks:
                return False
        except ArchipelagoError as error:
            return error.number != errno.ESTALE  # the map was closed before
        if opened.broken:
            return True
        try:
            kept = self.store.flush_unless_lost(own_extent(opened.header))
        except ArchipelagoError as error:
            log.warning('"%s": its last flush waits: %s', name, error)
            return True
        if not kept:
            log.error('"%s": its unflushed writes are lost: a sync failed', name)
        return kept

    def _release_extent(self, opened: OpenMap) -> None:
        try:
            self.store.release_extent(own_extent(opened.header))
        except NotRunning:
            # The process that had it has ended, and its hold with it.
            log.info('nobody holds the extent of "%s"', opened.header.name)

    def _lease_lost(self, uuid: bytes, why: str) -> None:
        """Called by the renewer, after it told vlmcd; must not wait for anything."""
        for opened in self.table.all():
            if opened.header.uuid == uuid and not opened.read_only:
                opened.broken = opened.broken or why
                self._lost.put(opened)

    def _bury(self) -> None:
        while (opened := self._lost.get()) is not None:
            self._dismantle(opened)

    def _dismantle(self, opened: OpenMap) -> None:
        try:
            self.let_go(opened)
        except (ArchipelagoError, OSError) as error:
            log.error('"%s" is not cleared away: %s', opened.header.name, error)
