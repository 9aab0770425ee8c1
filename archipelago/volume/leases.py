# SPDX-License-Identifier: Apache-2.0
"""Leases of this instance: take, give back, break.

A lease is held once per volume and counted: an open volume holds it, and so does every
change while it runs.  `archipelago.volume.renewer` keeps them alive.  Any thread; who
takes or gives back a volume's lease has the lock of its name.

Source: C. Gray and D. Cheriton, "Leases" (SOSP 1989); the rules of granting are the
blocker's (``docs/format/store.md``), what follows from them is in
``docs/design/0003-survival-and-fencing.md``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from archipelago.errors import ArchipelagoError, BlockNotFound, LeaseLost
from archipelago.ids import ObjectId, lease_id
from archipelago.info import LeaseInfo
from archipelago.objects import Store
from archipelago.volume.leaserecord import (
    NS,
    asker,
    describe,
    is_held,
    is_standing,
    may_be_held,
    refusal,
)
from archipelago.volume.locks import NameLocks
from xseg.constants import LeaseFlag, ObjectKind
from xseg.payload import Lease

log = logging.getLogger(__name__)


def boottime_ns() -> int:
    """CLOCK_BOOTTIME [ns]: goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass
class Held:
    """A lease that this process holds.

    Attributes:
        name: of the volume, for people.
        lease: as granted last.
        before: what was stored before it was taken.
        users: who counts on it here.
        granted_ns: `boottime_ns` before the request that was granted last.
        locked: the administrator's: not given back with the last user.
        gone: it is not ours any more, for good.
        stopped: the volume's I/O was given up; vlmcd is told until it is closed.
        kept: its one user is whoever takes it next, see `Leases.keep`.
        inherited: it was ours already, and not given back: what was answered under its
            fence and not flushed may wait for who opens the volume.
        guard: held while a request about this lease is under way, so that a late
            renewal cannot take back what was given back.
    """

    name: str
    lease: Lease
    before: Lease
    users: int
    granted_ns: int
    locked: bool
    gone: bool = False
    stopped: bool = False
    kept: bool = False
    inherited: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)


class Leases:
    """The leases that one instance holds.

    Args:
        store: where leases are kept.
        owner: uuid of the instance, 16 bytes; its own lease shows that it is there.
        ttl: life of a lease without renewal [s].
        host: name of this machine, for people.
        pid: of the process with which the instance ends; None: this one.

    Attributes:
        ask: what this instance asks for.
    """

    def __init__(
        self,
        store: Store,
        owner: bytes,
        ttl: float,
        host: str | None = None,
        pid: int | None = None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._guard = threading.Lock()
        self._held: dict[bytes, Held] = {}
        #: Held while a lease is taken: two that take one at once would count as one.
        self._taking = NameLocks()
        self.ttl_ns = int(ttl * NS)
        self.ask = asker(owner, ttl, host, pid)

    @contextlib.contextmanager
    def hold(self, uuid: bytes, name: str, *, if_free: bool = False) -> Iterator[Lease]:
        """Hold a volume's lease for the time of a ``with`` block.

        Args:
            uuid: of the volume.
            name: for people.
            if_free: not if another instance ended without giving it back, either.

        Raises:
            LeaseHeld: another instance has it.
        """
        flags = LeaseFlag.IF_FREE if if_free else LeaseFlag(0)
        lease = self._acquire(uuid, name, replace(self.ask, flags=flags))
        try:
            yield lease
        finally:
            self.release(uuid)

    def acquire(self, uuid: bytes, name: str, *, fence: int = 0) -> Lease:
        """Take a volume's lease, or count once more if it is held already.

        Args:
            uuid: of the volume.
            name: for people.
            fence: only take back the lease that has this fence; 0: any.

        Raises:
            LeaseHeld: another instance has it.
            LeaseLost: it was lost, and the volume is still open; or the lease of that
                fence is not ours any more.
        """
        return self._acquire(uuid, name, replace(self.ask, fence=fence))

    def unclean(self, uuid: bytes, fence: int) -> bool:
        """True if whoever wrote last to a volume may still be writing.

        Only two cases are clean: its lease was given back by who recorded its fence in
        the header, or it is ours and the header has our fence.

        Args:
            uuid: a volume whose lease is held.
            fence: in its header.
        """
        held = self._get(uuid)
        if held is None or held.lease.fence == fence:
            return held is None
        before = held.before
        given_back = before.expires_ns == 0 and held.lease.fence == before.fence + 1
        return not given_back or before.fence != fence

    def deadline_ns(self, uuid: bytes) -> int:
        """Until when a lease may be counted on, by `boottime_ns`; 0 if not held."""
        held = self._get(uuid)
        return 0 if held is None else deadline_of(held)

    def since(self, uuid: bytes) -> int:
        """The fence from which on a lease has been ours alone; 0 if not held."""
        held = self._get(uuid)
        return 0 if held is None else held.lease.since

    def settle(self, uuid: bytes) -> None:
        """Note that nothing waits any more for the fence of a lease that is held.

        A lease that is inherited is given back only after that: whoever takes it then
        has another fence, and finds no marks.  Until then it may run out, or be
        inherited once more.
        """
        held = self._get(uuid)
        if held is not None:
            held.inherited = False

    def release(self, uuid: bytes) -> None:
        """Count back; the last one gives the lease back, unless it is locked.

        If the store fails, the lease runs out by itself: what was to be done under it
        is done.
        """
        try:
            self.give_back(uuid)
        except ArchipelagoError as error:
            log.warning("a lease is not given back and runs out: %s", error)

    def give_back(self, uuid: bytes) -> None:
        """As `release`, for who wants to know.

        Raises:
            ArchipelagoError: the store failed; the lease runs out by itself.
        """
        self._count_back(uuid, give_back=True)

    def abandon(self, uuid: bytes) -> None:
        """Count back, but let the lease run out: somebody may still write under it.

        Who takes it next takes over, as from a dead holder.
        """
        self._count_back(uuid, give_back=False)

    def leave(self, uuid: bytes) -> None:
        """Count back, and hold it for whoever takes it next: writes wait for it."""
        with self._guard:
            held = self._held.get(uuid)
            if held is not None and held.users == 1 and not held.gone:
                held.kept = held.inherited = True
                held.stopped = False
                return
        self.abandon(uuid)

    def forget(self, uuid: bytes, others: Sequence[ObjectId] = ()) -> None:
        """Delete the lease object of a volume that is removed, held or not.

        Args:
            uuid: of the volume.
            others: objects to delete along with it.
        """
        held = self._pop(uuid)
        with held.guard if held is not None else contextlib.nullcontext():
            if held is not None:
                held.gone = True
            self._store.delete_all([*others, lease_id(uuid)])

    def lock(self, uuid: bytes, name: str) -> None:
        """Take the lease for the administrator: it outlives this process.

        Raises:
            LeaseHeld: another instance has it.
        """
        asked = replace(self.ask, flags=LeaseFlag.LOCK)
        held = self._get(uuid)
        if held is None:
            self._acquire(uuid, name, asked)
            self.release(uuid)
            return
        with held.guard:
            started = boottime_ns()
            asked = replace(asked, fence=held.lease.fence)
            granted, lease = self._store.acquire(lease_id(uuid), asked)
            if not granted:
                raise refusal(name, lease)
            held.lease, held.granted_ns, held.locked = lease, started, True

    def unlock(self, uuid: bytes) -> bool:
        """Undo `lock`; False if this instance has not locked it.

        While the volume is open here the lease stays, until it is closed; like any
        other it then ends with this process.
        """
        held = self._get(uuid)
        if held is not None:
            return self._unlock_held(uuid, held)
        stored = self.peek(uuid)
        if stored is None or not stored.flags & LeaseFlag.LOCK:
            return False
        return self._store.release(lease_id(uuid), self.ask)

    def _unlock_held(self, uuid: bytes, held: Held) -> bool:
        with held.guard:
            if not held.locked:
                return False
            started = boottime_ns()
            asked = replace(self.ask, fence=held.lease.fence, flags=LeaseFlag.UNLOCK)
            granted, lease = self._store.acquire(lease_id(uuid), asked)
            if granted:
                held.lease, held.granted_ns = lease, started
            # If not, somebody broke it, and the lock with it.
            held.locked = False
            return True

    def break_(self, uuid: bytes) -> None:
        """Break whoever's lease it is.  Its holder can change nothing from now on.

        If that is this instance, vlmcd is told even while the store does not answer:
        nobody renews the lease any more.
        """
        held = self._get(uuid)
        with held.guard if held is not None else contextlib.nullcontext():
            if held is not None:
                held.gone = held.stopped = True
            with contextlib.suppress(BlockNotFound):
                self._store.release(lease_id(uuid), self.ask, force=True)

    def peek(self, uuid: bytes) -> Lease | None:
        """Read who holds a volume's lease; None if nobody does."""
        lease = self._stored(uuid)
        return lease if is_held(lease) else None

    def standing(self, uuid: bytes) -> Lease | None:
        """As `peek`, but also what seems to have run out: its holder may not know.

        Whose clock is right nobody can tell, and who breaks a lease means the holder.
        """
        lease = self._stored(uuid)
        return lease if is_standing(lease) else None

    def left(self, uuid: bytes) -> int:
        """Fence of a lease that this instance has not given back; 0: there is none.

        It may have run out: it is still ours until another instance asks for it.
        """
        lease = self._stored(uuid)
        return lease.fence if lease.expires_ns and self.is_own(lease) else 0

    def keep(self, uuid: bytes, fence: int) -> None:
        """Hold a lease that is `left` for whoever takes it next, and gives it back.

        Nothing is done if it is held: who holds it gives it back.

        Raises:
            LeaseLost: it is not ours any more.
        """
        # Who was granted it may have died before it was durable.
        ask = replace(self.ask, fence=fence, flags=LeaseFlag.INHERIT)
        with self._taking.hold(uuid.hex()):
            if self._get(uuid) is None:
                self._take(uuid, uuid.hex(), ask, kept=True)

    def describe(self, uuid: bytes) -> LeaseInfo | None:
        """Say who holds a volume's lease, for people."""
        lease = self.peek(uuid)
        return None if lease is None else describe(lease)

    def is_own(self, lease: Lease) -> bool:
        """True if a lease is this instance's."""
        return lease.owner == self.ask.owner

    def is_presence(self, uuid: bytes) -> bool:
        """True for the lease that shows that this instance is there."""
        return uuid == self._owner

    def others(self) -> set[str]:
        """The other instances that may be at work on the store, by uuid in hex.

        What one uses must not be reclaimed, and no fence guards that: so it counts
        until a minute after the time that it wrote, however late that is.
        """
        found = {e.object.id for e in self._store.list(ObjectKind.LEASE)}
        targets = [ObjectId(ObjectKind.LEASE, name) for name in found]
        raws = self._store.read_all(targets, Lease.LAYOUT.size)
        leases = [Lease.unpack(raw) for raw in raws if raw]
        return {
            lease.owner
            for lease in leases
            if may_be_held(lease) and not self.is_own(lease)
        }

    def prove(self, uuid: bytes) -> bool:
        """Ask the store whether a lease that is held here is still ours.

        Raises:
            ArchipelagoError: the store does not answer.
        """
        held = self._get(uuid)
        if held is None or held.gone:
            return False
        with held.guard:
            started = boottime_ns()
            asked = replace(self.ask, fence=held.lease.fence)
            granted, lease = self._store.acquire(lease_id(uuid), asked)
            if granted:
                held.lease, held.granted_ns = lease, started
            return granted

    def prove_present(self) -> None:
        """Raise unless others can see this instance: what it made is not reclaimed.

        Raises:
            ArchipelagoError: the store does not answer.
        """
        granted, lease = self._store.acquire(lease_id(self._owner), self.ask)
        if not granted:
            raise refusal("the instance", lease)

    # ---- for the renewer -------------------------------------------------------------

    def all(self) -> list[tuple[bytes, Held]]:
        """What is held, by uuid."""
        with self._guard:
            return list(self._held.items())

    def while_held(self, uuid: bytes, act: Callable[[Held], None]) -> None:
        """Call `act`, which must not block, while a lease is held; else do not."""
        with self._guard:
            held = self._held.get(uuid)
            if held is not None:
                act(held)

    def stop_using(self, uuid: bytes) -> None:
        """Note that a volume's I/O was given up: vlmcd is to be told."""
        held = self._get(uuid)
        if held is not None:
            held.stopped = True

    # ---- within ----------------------------------------------------------------------

    def _get(self, uuid: bytes) -> Held | None:
        with self._guard:
            return self._held.get(uuid)

    def _pop(self, uuid: bytes) -> Held | None:
        with self._guard:
            return self._held.pop(uuid, None)

    def _stored(self, uuid: bytes) -> Lease:
        """The stored record; one without fence if there is none."""
        try:
            return Lease.unpack(self._store.read(lease_id(uuid), 0, Lease.LAYOUT.size))
        except BlockNotFound:
            return Lease()

    def _acquire(self, uuid: bytes, name: str, ask: Lease) -> Lease:
        with self._taking.hold(uuid.hex()):
            while (held := self._count_up(uuid, name, ask.fence)) is not None:
                if held.gone or ask.fence not in (0, held.lease.fence):
                    raise _lost(name)
                if held.users:
                    return held.lease
                with held.guard:
                    pass  # it is being given back just now
            return self._take(uuid, name, ask)

    def _take(self, uuid: bytes, name: str, ask: Lease, *, kept: bool = False) -> Lease:
        """Ask the store for a lease that is not held here."""
        before = self._stored(uuid)
        started = boottime_ns()
        granted, lease = self._store.acquire(lease_id(uuid), ask)
        if not granted:
            raise _lost(name) if ask.fence else refusal(name, lease)
        locked = bool(lease.flags & LeaseFlag.LOCK)
        held = Held(name, lease, before, 1, started, locked)
        held.inherited = lease.fence == before.fence and not self.is_presence(uuid)
        held.kept = kept
        with self._guard:
            self._held[uuid] = held
        return lease

    def _count_up(self, uuid: bytes, name: str, fence: int) -> Held | None:
        """Count one user more, unless the lease is gone or being given back."""
        with self._guard:
            held = self._held.get(uuid)
            if held is not None and held.kept and held.gone:
                del self._held[uuid]
                return None
            if held is None or held.gone or fence not in (0, held.lease.fence):
                return held
            if held.kept:
                held.kept, held.name = False, name
            elif held.users:
                held.users += 1
            return held

    def _count_back(self, uuid: bytes, *, give_back: bool) -> None:
        with self._guard:
            held = self._held.get(uuid)
            if held is None:
                return
            held.users -= 1
            if held.users > 0:
                return
        if held.gone:
            # Not ours to give back.  A renewal that hangs must not keep us here.
            self._pop(uuid)
            return
        with held.guard:
            try:
                if give_back and not (held.locked or held.inherited):
                    self._store.release(lease_id(uuid), held.lease)
            finally:
                held.gone = True
                self._pop(uuid)


def _lost(name: str) -> LeaseLost:
    return LeaseLost(f'the lease of "{name}" was lost: close the volume first')


def deadline_of(held: Held) -> int:
    """Until when a lease may be counted on, by `boottime_ns`: nine tenths of it."""
    return held.granted_ns + held.lease.ttl_ns * 9 // 10
