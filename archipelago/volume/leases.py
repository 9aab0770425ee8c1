# SPDX-License-Identifier: Apache-2.0
"""Leases of this instance: take, give back, break.

A lease is held once per volume and counted: an open volume holds it, and so does every
change while it runs.  It is stored when it is taken and when it is given back, and
never in between: it lives as long as the presence of this run
(`archipelago.volume.presence`).  Any thread; a caller that takes or gives back a
volume's lease has the lock of its name.

Source: C. Gray and D. Cheriton, "Leases" (SOSP 1989); the rules of granting are the
blocker's (``docs/format/store.md``), what follows from them is in
``docs/design/0003-survival-and-fencing.md``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from archipelago.errors import (
    ArchipelagoError,
    BlockNotFound,
    DigestMismatch,
    LeaseLost,
    MapCorrupt,
)
from archipelago.ids import ObjectId, lease_id
from archipelago.info import LeaseInfo
from archipelago.objects import Store
from archipelago.volume.leaserecord import (
    describe,
    is_held,
    is_locked,
    is_standing,
    refusal,
)
from archipelago.volume.locks import NameLocks
from archipelago.volume.presence import Presences
from xseg.constants import LeaseFlag, ObjectKind
from xseg.errors import DataCorrupt
from xseg.payload import Lease, Presence

log = logging.getLogger(__name__)

_DAMAGED = (DigestMismatch, DataCorrupt)


@dataclass
class Held:
    """A lease that this process holds.

    Attributes:
        name: of the volume, for people.
        lease: as granted last.
        before: what was stored before it was taken.
        users: how many count on it here.
        locked: the administrator's: not given back with the last user.
        gone: it is not ours any more, for good.
        stopped: the volume's I/O was given up; vlmcd is told until it is closed.
        kept: its one user is the next that takes it, see `Leases.keep`.
        inherited: it was ours already, and not given back: what was answered under its
            fence and not flushed may wait for the next to open the volume.
        guard: held while a request about this lease is under way, so that a late
            answer cannot take back what was given back.
    """

    name: str
    lease: Lease
    before: Lease
    users: int
    locked: bool
    gone: bool = False
    stopped: bool = False
    kept: bool = False
    inherited: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)


class Leases:
    """The leases that one run of an instance holds.

    Args:
        store: where leases are kept.
        presences: this run's presence, with which its leases live.

    Attributes:
        ask: what this run asks for.
    """

    def __init__(self, store: Store, presences: Presences) -> None:
        self._store = store
        self._presences = presences
        self._guard = threading.Lock()
        self._held: dict[bytes, Held] = {}
        self._unsettled: set[bytes] = set()
        #: Held while a lease is taken: two that take one at once would count as one.
        self._taking = NameLocks()
        run = presences.ask
        self.ask = Lease(
            owner=presences.instance, nonce=run.nonce, pid=run.pid, host=run.host
        )

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
        """True if the last holder of a volume may still be writing.

        Only two cases are clean: its lease was given back by a holder that recorded its
        fence in the header, or it is ours and the header has our fence.

        Args:
            uuid: a volume whose lease is held.
            fence: in its header.
        """
        held = self._get(uuid)
        if held is None or held.lease.fence == fence:
            return held is None
        before = held.before
        given_back = before.is_free and held.lease.fence == before.fence + 1
        return not given_back or before.fence != fence

    def since(self, uuid: bytes) -> int:
        """The fence from which on a lease has been ours alone; 0 if not held."""
        held = self._get(uuid)
        return 0 if held is None else held.lease.since

    def settle(self, uuid: bytes) -> None:
        """Note that nothing waits any more for the fence of a lease that is held.

        A lease that is inherited is given back only after that: its next holder has
        another fence, and finds no marks.  Until then it may be inherited once more.
        """
        held = self._get(uuid)
        if held is not None:
            held.inherited = False

    def take_unsettled(self) -> set[bytes]:
        """Take the volumes (uuid) whose inherited leases were not given back."""
        unsettled, self._unsettled = self._unsettled, set()
        return unsettled

    def release(self, uuid: bytes) -> None:
        """Count back; the last one gives the lease back, unless it is locked.

        If the store fails, the lease ends with this run: what was to be done under it
        is done.
        """
        try:
            self.give_back(uuid)
        except ArchipelagoError as error:
            log.warning("a lease is not given back until this run ends: %s", error)

    def give_back(self, uuid: bytes) -> None:
        """As `release`, for a caller that wants to know.

        Raises:
            ArchipelagoError: the store failed; the lease ends with this run.
        """
        self._count_back(uuid, give_back=True)

    def abandon(self, uuid: bytes) -> None:
        """Count back, but do not give the lease back: a peer may still write under it.

        The next to take it takes over, as from a dead holder.
        """
        self._count_back(uuid, give_back=False)

    def leave(self, uuid: bytes) -> None:
        """Count back, and hold it for the next that takes it: writes wait for it."""
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
            asked = replace(asked, fence=held.lease.fence)
            granted, lease = self._store.acquire(lease_id(uuid), asked)
            if not granted:
                raise refusal(name, lease)
            held.lease, held.locked = lease, True

    def unlock(self, uuid: bytes) -> bool:
        """Undo `lock`; False if this instance has not locked it.

        While the volume is open here the lease stays, until it is closed; like any
        other it then ends with this run.
        """
        held = self._get(uuid)
        if held is not None:
            return self._unlock_held(uuid, held)
        stored = self._stored(uuid)
        if stored.is_free or not is_locked(stored):
            return False
        return self._store.release(lease_id(uuid), self.ask)

    def _unlock_held(self, uuid: bytes, held: Held) -> bool:
        with held.guard:
            if not held.locked:
                return False
            asked = replace(self.ask, fence=held.lease.fence, flags=LeaseFlag.UNLOCK)
            granted, lease = self._store.acquire(lease_id(uuid), asked)
            if granted:
                held.lease = lease
            # If not, it was broken, and the lock with it.
            held.locked = False
            return True

    def break_(self, uuid: bytes, fence: int = 0) -> None:
        """Break a lease.  Its holder can change nothing from now on.

        If that is this instance, vlmcd is told even while the store does not answer.

        Args:
            uuid: of the volume.
            fence: in its header: a damaged record is written anew with one far above.
        """
        held = self._get(uuid)
        with held.guard if held is not None else contextlib.nullcontext():
            if held is not None:
                held.gone = held.stopped = True
            asked = replace(self.ask, fence=fence)
            with contextlib.suppress(BlockNotFound):
                self._store.release(lease_id(uuid), asked, force=True)

    def peek(self, uuid: bytes) -> Lease | None:
        """Read the lease of a volume that is held; None if it is not.

        Raises:
            MapCorrupt: its record is damaged.
        """
        lease = self._stored(uuid)
        presence, damage = self._holder(lease)
        return lease if damage or is_held(lease, presence) else None

    def standing(self, uuid: bytes) -> Lease | None:
        """As `peek`, but also what seems to have run out: its holder may not know.

        Which clock is right cannot be told, and breaking a lease means the holder.
        """
        lease = self._stored(uuid)
        presence, damage = self._holder(lease)
        return lease if damage or is_standing(lease, presence) else None

    def _holder(self, lease: Lease) -> tuple[Presence | None, str]:
        """The presence of a lease's owner, and what is damaged of it."""
        if lease.is_free:
            return None, ""
        try:
            return self._presences.get(lease.owner), ""
        except _DAMAGED as error:
            return None, f"the presence of its holder is damaged: {error}"

    def left(self, uuid: bytes) -> int:
        """Fence of a lease that this run has not given back; 0: there is none.

        The presence may have run out: it is still ours until another run asks for it.
        """
        lease = self._stored(uuid)
        return lease.fence if self._is_this_runs(lease) else 0

    def unheld(self) -> list[bytes]:
        """The volumes (uuid) whose leases are `left`, and that no caller here holds.

        A lock stays: the administrator undoes it.  Reads every lease of the store.
        """
        found = [entry.object.id for entry in self._store.list(ObjectKind.LEASE)]
        targets = [ObjectId(ObjectKind.LEASE, each) for each in found]
        uuids = []
        for each, raw in zip(
            found, self._store.read_all(targets, Lease.LAYOUT.size), strict=True
        ):
            try:
                lease = Lease.unpack(raw) if raw else Lease()
            except _DAMAGED:
                continue  # `vlmc unlock -f` mends it
            if self._is_this_runs(lease) and not is_locked(lease):
                uuids.append(each[:16])
        return [uuid for uuid in uuids if self._get(uuid) is None]

    def keep(self, uuid: bytes, fence: int) -> None:
        """Hold a lease that is `left` for the next that takes it, and gives it back.

        Nothing is done if it is held: its holder gives it back.

        Raises:
            LeaseLost: it is not ours any more.
        """
        # The process that was granted it may have died before it was durable.
        ask = replace(self.ask, fence=fence, flags=LeaseFlag.INHERIT)
        with self._taking.hold(uuid.hex()):
            if self._get(uuid) is None:
                self._take(uuid, uuid.hex(), ask, kept=True)

    def describe(self, uuid: bytes) -> LeaseInfo | None:
        """Say who holds a volume's lease, for people; damage is told, not raised."""
        try:
            lease = self._stored(uuid)
        except MapCorrupt as error:
            return LeaseInfo("", "", 0, 0, None, False, str(error))
        presence, damage = self._holder(lease)
        if not damage and not is_held(lease, presence):
            return None
        return replace(describe(lease, presence), damage=damage)

    def is_own(self, lease: Lease) -> bool:
        """True if a lease is this instance's, also of an earlier run of it."""
        return lease.owner == self.ask.owner

    def _is_this_runs(self, lease: Lease) -> bool:
        return (lease.owner, lease.nonce) == (self.ask.owner, self.ask.nonce)

    def prove(self, uuid: bytes) -> bool:
        """Ask the store whether a lease that is held here is still ours.

        Raises:
            ArchipelagoError: the store does not answer.
        """
        held = self._get(uuid)
        if held is None or held.gone:
            return False
        with held.guard:
            return self._store.acquire(lease_id(uuid), self.proof(held))[0]

    def proof(self, held: Held) -> Lease:
        """What to ask for a lease that is held: granted if it is still ours."""
        return replace(self.ask, fence=held.lease.fence)

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
        """The stored record; one without fence if there is none.

        Raises:
            MapCorrupt: it is damaged.
        """
        try:
            return Lease.unpack(self._store.read(lease_id(uuid), 0, Lease.LAYOUT.size))
        except BlockNotFound:
            return Lease()
        except _DAMAGED as error:
            raise MapCorrupt(
                f"its lease (leases/{uuid.hex()}) is damaged: vlmc unlock -f mends it"
            ) from error

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
        granted, lease = self._store.acquire(lease_id(uuid), ask)
        if not granted:
            raise _lost(name) if ask.fence else refusal(name, lease)
        held = Held(name, lease, before, 1, is_locked(lease))
        held.inherited = lease.fence == before.fence
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
            # Not ours to give back.  A request that hangs must not keep us here.
            self._pop(uuid)
            return
        with held.guard:
            try:
                if give_back and held.inherited and not held.locked:
                    self._unsettled.add(uuid)
                elif give_back and not held.locked:
                    self._store.release(lease_id(uuid), held.lease)
            finally:
                held.gone = True
                self._pop(uuid)


def _lost(name: str) -> LeaseLost:
    return LeaseLost(f'the lease of "{name}" was lost: close the volume first')
