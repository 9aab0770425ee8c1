# SPDX-License-Identifier: Apache-2.0
"""What every capability works with: store, names, maps, leases, open volumes."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from archipelago._map import Header
from archipelago.errors import ArchipelagoError, VolumeBusy
from archipelago.messenger import Messenger
from archipelago.volume.headers import Headers
from archipelago.volume.leases import Leases
from archipelago.volume.locks import NameLocks
from archipelago.volume.maps import Maps
from archipelago.volume.reclaim import Reclaimer
from archipelago.volume.store import Store
from xseg.constants import BLOCK_MAX_BYTES, PORT_VLMCD

log = logging.getLogger(__name__)


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
    """

    header: Header
    handle: int
    read_only: bool
    fence: int
    opener: Life
    broken: str = ""

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
    """

    messenger: Messenger
    instance: bytes
    lease_ttl: float
    host: str | None = None
    limits: Limits = field(default_factory=Limits)
    block_size: int = BLOCK_MAX_BYTES

    def __post_init__(self) -> None:
        self.store = Store(self.messenger)
        self.headers = Headers(self.store)
        self.maps = Maps(self.messenger)
        self.locks = NameLocks()
        self.table = OpenTable()
        self.leases = Leases(
            self.store, self.instance, self.lease_ttl, self._lease_lost, self.host
        )
        self.reclaimer = Reclaimer(self.store, self.headers, self.leases)
        self._growing: set[str] = set()
        self._growing_guard = threading.Lock()

    def composer_life(self) -> Life:
        """Tell one life of vlmcd from the next: what an earlier one opened is stale."""
        for port in self.messenger.segment.ports():
            if port.id == PORT_VLMCD and port.alive:
                return port.owner_pid, port.bound_ns
        return None

    def compact_soon(self, header: Header) -> None:
        """Note a map whose stack may be worth merging in the background."""
        if len(header.stack) > self.limits.stack_soft:
            with self._growing_guard:
                self._growing.add(header.name)

    def take_growing(self) -> list[str]:
        """Take the names noted by `compact_soon`."""
        with self._growing_guard:
            names = sorted(self._growing)
            self._growing.clear()
        return names

    def give_up(self, opened: OpenMap, why: str) -> None:
        """Forget the native map of a volume: its I/O ends with errors from now on.

        Nothing that was answered is lost.  What has not been flushed is: better than to
        let it land where a snapshot or another instance would see it.
        """
        opened.broken = why
        log.error('"%s" is stopped: %s', opened.header.name, why)
        try:
            self.maps.close(opened.handle)
        except (ArchipelagoError, OSError) as error:
            log.error('the map of "%s" cannot be closed: %s', opened.header.name, error)

    def _lease_lost(self, uuid: bytes) -> None:
        for opened in self.table.all():
            if opened.header.uuid == uuid and not opened.read_only:
                self.give_up(opened, "its lease was taken by somebody else")
