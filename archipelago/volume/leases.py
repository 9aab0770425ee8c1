# SPDX-License-Identifier: Apache-2.0
"""Leases of this instance: take, renew, give back.

A lease is held once per volume and counted: an open volume holds it, and so does every
change while it runs.  A thread renews all of them at a third of their life; one that
cannot be renewed in time is lost, and whoever depends on it is told before it can
expire.

Source: C. Gray and D. Cheriton, "Leases" (SOSP 1989); the rules of granting are the
blocker's (``docs/design/0001-core.md``).
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from archipelago.errors import (
    ArchipelagoError,
    BlockNotFound,
    LeaseHeld,
    LeaseLost,
)
from archipelago.ids import ObjectId, lease_id
from archipelago.info import LeaseInfo
from archipelago.volume.store import Store
from xseg.constants import LeaseFlag, ObjectKind
from xseg.payload import Lease

log = logging.getLogger(__name__)

_NS = 1_000_000_000
_NEVER = (1 << 64) - 1


@dataclass
class _Held:
    """A lease that this process holds."""

    name: str
    lease: Lease
    users: int
    #: time.monotonic() at which it must be renewed or counts as lost [s]
    deadline: float
    locked: bool
    gone: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)


class Leases:
    """The leases that one instance holds.

    Args:
        store: where leases are kept.
        owner: uuid of the instance, 16 bytes.
        ttl: life of a lease without renewal [s].
        lost: called with the uuid of a volume whose lease is lost.
        host: name of this machine, for people.
    """

    def __init__(
        self,
        store: Store,
        owner: bytes,
        ttl: float,
        lost: Callable[[bytes], None],
        host: str | None = None,
    ) -> None:
        self._store = store
        self._ttl = ttl
        self._lost = lost
        self._guard = threading.Lock()
        self._held: dict[bytes, _Held] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        pid = os.getpid()
        self._ask = Lease(
            ttl_ns=int(ttl * _NS),
            pid=pid,
            pid_start=_process_start(pid),
            boot_id=_boot_id(),
            owner=owner.hex(),
            host=_host(host),
        )

    def start(self) -> None:
        """Start the renewing thread."""
        self._thread = threading.Thread(
            target=self._run, name="archipelago-leases", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing.

        Leases of volumes that are still open stay: this instance takes them back when
        it comes again, others when they see that its process is gone.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def renew_all(self) -> None:
        """Renew what is held; tell who depends on what is lost."""
        with self._guard:
            todo = list(self._held.items())
        for uuid, held in todo:
            self._renew(uuid, held)

    @contextlib.contextmanager
    def hold(self, uuid: bytes, name: str) -> Iterator[Lease]:
        """Hold a volume's lease for the time of a ``with`` block.

        Raises:
            LeaseHeld: another instance has it.
        """
        lease = self.acquire(uuid, name)
        try:
            yield lease
        finally:
            self.release(uuid)

    def acquire(self, uuid: bytes, name: str) -> Lease:
        """Take a volume's lease, or count once more if it is held already.

        The caller holds the lock of the volume's name.

        Raises:
            LeaseHeld: another instance has it.
        """
        return self._acquire(uuid, name, self._ask)

    def release(self, uuid: bytes) -> None:
        """Count back; the last one gives the lease back, unless it is locked."""
        with self._guard:
            held = self._held.get(uuid)
        if held is None:
            return
        held.users -= 1
        if held.users > 0:
            return
        try:
            self._drop(uuid, held)
        except ArchipelagoError as error:
            # It expires by itself; what was to be done under it is done.
            log.info('the lease of "%s" was not given back: %s', held.name, error)

    def forget(self, uuid: bytes, others: Sequence[ObjectId] = ()) -> None:
        """Delete the lease object of a volume that is removed, held or not.

        Args:
            uuid: of the volume.
            others: objects to delete along with it.
        """
        with self._guard:
            held = self._held.pop(uuid, None)
        with held.guard if held is not None else contextlib.nullcontext():
            if held is not None:
                held.gone = True
            self._store.delete_all([*others, lease_id(uuid)])

    def lock(self, uuid: bytes, name: str) -> None:
        """Take the lease for the administrator: it outlives this process.

        Raises:
            LeaseHeld: another instance has it.
        """
        asked = Lease(
            ttl_ns=self._ask.ttl_ns,
            pid=self._ask.pid,
            pid_start=self._ask.pid_start,
            boot_id=self._ask.boot_id,
            owner=self._ask.owner,
            host=self._ask.host,
            flags=LeaseFlag.LOCK,
        )
        with self._guard:
            held = self._held.get(uuid)
        if held is not None:
            with held.guard:
                granted, lease = self._store.acquire(lease_id(uuid), asked)
                if not granted:
                    raise refusal(name, lease)
                held.lease, held.locked = lease, True
            return
        self._acquire(uuid, name, asked)
        self.release(uuid)

    def unlock(self, uuid: bytes) -> bool:
        """Undo `lock`; False if this instance has not locked it.

        While the volume is open here the lease stays, until it is closed.
        """
        with self._guard:
            held = self._held.get(uuid)
        if held is not None:
            was, held.locked = held.locked, False
            return was
        stored = self.peek(uuid)
        if stored is None or not stored.flags & LeaseFlag.LOCK:
            return False
        return self._store.release(lease_id(uuid), self._ask)

    def break_(self, uuid: bytes) -> None:
        """Break whoever's lease it is.  Its holder can change nothing from now on."""
        with contextlib.suppress(BlockNotFound):
            self._store.release(lease_id(uuid), self._ask, force=True)

    def peek(self, uuid: bytes) -> Lease | None:
        """Read who holds a volume's lease; None if nobody does."""
        lease = self.last(uuid)
        return lease if lease is not None and _is_held(lease) else None

    def last(self, uuid: bytes) -> Lease | None:
        """Read the lease that was not given back, even if its holder is dead."""
        try:
            raw = self._store.read(lease_id(uuid), 0, Lease.LAYOUT.size)
        except BlockNotFound:
            return None
        lease = Lease.unpack(raw)
        return lease if lease.expires_ns else None

    def describe(self, uuid: bytes) -> LeaseInfo | None:
        """Say who holds a volume's lease, for people."""
        lease = self.peek(uuid)
        return None if lease is None else describe(lease)

    def is_own(self, lease: Lease) -> bool:
        """True if a lease is this instance's."""
        return lease.owner == self._ask.owner

    def others_live(self) -> bool:
        """True if another instance holds any lease of the store."""
        for entry in self._store.list(ObjectKind.LEASE):
            lease = self.peek(entry.object.id[:16])
            if lease is not None and not self.is_own(lease):
                return True
        return False

    def _acquire(self, uuid: bytes, name: str, ask: Lease) -> Lease:
        with self._guard:
            held = self._held.get(uuid)
            if held is not None:
                if held.gone:
                    raise LeaseLost(
                        f'the lease of "{name}" was lost: close the volume first'
                    )
                held.users += 1
                return held.lease
        started = time.monotonic()
        granted, lease = self._store.acquire(lease_id(uuid), ask)
        if not granted:
            raise refusal(name, lease)
        held = _Held(
            name,
            lease,
            users=1,
            deadline=started + self._ttl,
            locked=bool(lease.flags & LeaseFlag.LOCK),
        )
        with self._guard:
            self._held[uuid] = held
        return lease

    def _drop(self, uuid: bytes, held: _Held) -> None:
        with held.guard:
            with self._guard:
                self._held.pop(uuid, None)
            if held.gone:
                return
            held.gone = True
            if not held.locked:
                self._store.release(lease_id(uuid), held.lease)

    def _run(self) -> None:
        while not self._stop.wait(self._ttl / 3):
            self.renew_all()

    def _renew(self, uuid: bytes, held: _Held) -> None:
        with held.guard:
            if held.gone:
                return
            started = time.monotonic()
            try:
                granted, lease = self._store.acquire(lease_id(uuid), self._ask)
                granted = granted and lease.fence == held.lease.fence
            except ArchipelagoError as error:
                # Perhaps the blocker is being restarted; stop well before the end.
                if time.monotonic() < held.deadline - self._ttl / 4:
                    log.warning('the lease of "%s" waits: %s', held.name, error)
                    return
                granted = False
            if granted:
                held.lease, held.deadline = lease, started + self._ttl
                return
            held.gone = True
        log.error('the lease of "%s" is lost: its I/O ends with errors', held.name)
        self._lost(uuid)


def refusal(name: str, lease: Lease) -> LeaseHeld:
    """Make the error that says who holds a lease."""
    verb = "locked" if lease.flags & LeaseFlag.LOCK else "in use"
    return LeaseHeld(
        f'"{name}" is {verb} by {lease.host or "an unknown host"} (instance '
        f"{lease.owner}, pid {lease.pid}): close it there, or break the lease with "
        f'"vlmc unlock -f {name}"'
    )


def describe(lease: Lease) -> LeaseInfo:
    """Turn a lease into what people read."""
    return LeaseInfo(
        owner=lease.owner,
        host=lease.host,
        pid=lease.pid,
        fence=lease.fence,
        expires=None if lease.expires_ns == _NEVER else utc_text(lease.expires_ns),
        locked=bool(lease.flags & LeaseFlag.LOCK),
    )


def utc_text(since_1970_ns: int) -> str:
    """Write a time as ISO 8601 in UTC, to the microsecond."""
    moment = datetime.datetime.fromtimestamp(
        since_1970_ns // _NS, tz=datetime.timezone.utc
    ).replace(microsecond=since_1970_ns % _NS // 1000)
    return moment.isoformat().replace("+00:00", "Z")


def _is_held(lease: Lease) -> bool:
    """The blocker's rule, for looking only: not free, not expired, not known dead."""
    if lease.expires_ns == 0:
        return False
    if lease.flags & LeaseFlag.LOCK:
        return True
    if lease.expires_ns <= time.time_ns():
        return False
    if not lease.pid or not lease.boot_id or lease.boot_id != _boot_id():
        return True
    return _process_start(lease.pid) == lease.pid_start


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _process_start(pid: int) -> int:
    """Start time of a process [clock ticks since boot], 0 if it is gone.

    Source: proc(5), field 22 of ``stat``, counted from behind the command's name.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _host(name: str | None) -> str:
    raw = (name or socket.gethostname()).encode()[:63]
    return raw.decode(errors="ignore").replace("\0", "")
