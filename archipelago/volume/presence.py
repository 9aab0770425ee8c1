# SPDX-License-Identifier: Apache-2.0
"""The presence of this instance, and those of the others on its store.

A presence is the one heartbeat of an instance: it names the run (its incarnation),
until when the run may be believed, and the oldest generation that it still uses.  All
leases of the run live as long as it does.  `archipelago.volume.renewer` renews it.  Any
thread.

Source: ``docs/design/0004-presence-and-generations.md``.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace

from archipelago.errors import (
    BlockNotFound,
    ConfigError,
    DigestMismatch,
    LeaseLost,
)
from archipelago.ids import ObjectId, presence_id
from archipelago.objects import Store
from archipelago.volume.incarnation import NS, is_here, may_live
from xseg.constants import ObjectKind
from xseg.errors import DataCorrupt
from xseg.payload import Presence

log = logging.getLogger(__name__)

#: How often a presence that nobody may renew any more is looked at [s].
_LOOK_AGAIN = 0.1


def boottime_ns() -> int:
    """CLOCK_BOOTTIME [ns]: goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Living:
    """An instance that may be at work on the store.

    Attributes:
        instance: its uuid, 16 bytes.
        presence: as stored; None if the record is damaged, so that nothing is known.
    """

    instance: bytes
    presence: Presence | None

    @property
    def generation(self) -> int:
        """The oldest generation that it still uses; 0: none is known."""
        return 0 if self.presence is None else self.presence.generation


class Presences:
    """This instance's presence, and a view of the others.

    Args:
        store: where presences are kept.
        instance: uuid of this instance, 16 bytes.
        ask: what this run says of itself (`incarnation`).
    """

    def __init__(self, store: Store, instance: bytes, ask: Presence) -> None:
        self._store = store
        self.instance = instance
        self.ttl_ns = ask.ttl_ns
        self._guard = threading.Lock()
        self._ask = ask
        #: True if an earlier process of this very run began the presence.
        self.resumed = False
        #: `boottime_ns` before the request whose grant is counted on; 0: there is none.
        self._granted_ns = 0

    @property
    def ask(self) -> Presence:
        """What this run asks for, with the generation that it uses now."""
        return self._ask

    def deadline_ns(self) -> int:
        """Until when leases may be counted on, by `boottime_ns`: 9/10 of a life."""
        return self._granted_ns + self.ttl_ns * 9 // 10

    def could_be_over(self) -> bool:
        """True if others may take what this run holds, by time."""
        return boottime_ns() >= self._granted_ns + self.ttl_ns

    def granted(self, started_ns: int) -> bool:
        """Count on a request that was granted.

        Args:
            started_ns: `boottime_ns` before it.

        Returns:
            False if the deadline of before has passed meanwhile: another instance may
            have taken leases.  Then `trust` counts on it, after a look at each of them.
        """
        with self._guard:
            if self._granted_ns and boottime_ns() >= self.deadline_ns():
                return False
            self._granted_ns = max(self._granted_ns, started_ns)
            return True

    def trust(self, started_ns: int) -> None:
        """Count on a request that was granted, since each lease is known to be ours."""
        with self._guard:
            self._granted_ns = max(self._granted_ns, started_ns)

    def begin(self) -> None:
        """Begin the presence of this run.

        One of an earlier run that ended without giving it back, where the system does
        not tell whether its process lives, is waited for: it runs out, or is renewed.

        Raises:
            ConfigError: another process has this instance's identity.
        """
        before = self._before()
        self.resumed = before is not None and before.nonce == self._ask.nonce
        seen = None
        while True:
            started = boottime_ns()
            granted, there = self._store.begin_presence(self.instance, self._ask)
            if granted:
                self.granted(started)
                return
            renewed = seen not in (None, (there.nonce, there.expires_ns))
            if renewed or is_here(there):
                raise _refusal(self.instance, there)
            if seen is None:
                log.warning(
                    "an earlier run of this instance on %s may live: waiting %.1f s",
                    there.host,
                    there.ttl_ns / NS,
                )
            seen = there.nonce, there.expires_ns
            time.sleep(_LOOK_AGAIN)

    def _before(self) -> Presence | None:
        try:
            return self.get(self.instance)
        except (DigestMismatch, DataCorrupt):
            return None  # beginning the presence mends or refuses it

    def end(self) -> None:
        """Give the presence back: nothing is done under it any more."""
        self._store.end_presence(self.instance, self._ask)

    def prove(self) -> None:
        """Raise unless others can see this instance: what it made is not reclaimed.

        Raises:
            LeaseLost: another process has this instance's identity.
            ArchipelagoError: the store does not answer.
        """
        started = boottime_ns()
        granted, there = self._store.begin_presence(self.instance, self._ask)
        if not granted:
            raise LeaseLost(str(_refusal(self.instance, there)))
        self.granted(started)

    def report_generation(self, generation: int) -> None:
        """Say the oldest generation that this instance still uses, at once.

        Raises:
            LeaseLost: another process has this instance's identity.
            ArchipelagoError: the store does not answer; the next renewal says it.
        """
        with self._guard:
            self._ask = replace(self._ask, generation=generation)
        self.prove()

    def get(self, instance: bytes) -> Presence | None:
        """The stored presence of an instance; None if there is none.

        Raises:
            DigestMismatch, DataCorrupt: it is damaged.
        """
        size = Presence.LAYOUT.size
        try:
            return Presence.unpack(self._store.read(presence_id(instance), 0, size))
        except BlockNotFound:
            return None

    def living(self) -> list[Living]:
        """The instances that may be at work on the store, this one among them.

        What one uses must not be reclaimed: so one counts until a minute after its end,
        in case that clocks are apart, and one whose record is damaged counts until the
        record is mended or removed.
        """
        entries = self._store.list(ObjectKind.PRESENCE)
        targets = [ObjectId(ObjectKind.PRESENCE, entry.object.id) for entry in entries]
        found = (self._living(target) for target in targets)
        return [living for living in found if living is not None]

    def _living(self, target: ObjectId) -> Living | None:
        instance = target.id[:16]
        try:
            presence = self.get(instance)
        except (DigestMismatch, DataCorrupt) as error:
            log.warning("%s is damaged, and counts as alive: %s", target, error)
            return Living(instance, None)
        if presence is None or not may_live(presence):
            return None
        return Living(instance, presence)

    def others(self) -> set[bytes]:
        """The other instances that may be at work on the store, by uuid."""
        return {each.instance for each in self.living()} - {self.instance}


def _refusal(instance: bytes, there: Presence) -> ConfigError:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(there.since_ns // NS))
    return ConfigError(
        f"another process is instance {instance.hex()}: pid {there.pid} on "
        f"{there.host or 'an unknown host'}, since {since}. If the state directory or "
        "the machine was copied, give this one an identity of its own: "
        "archipelago start --new-identity"
    )
