# SPDX-License-Identifier: Apache-2.0
"""What is known of volumes and of the store, as plain values.

The JSON keys are those of ``docs/format/control.md`` and of the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archipelago.errors import MapCorrupt


@dataclass(frozen=True)
class LeaseInfo:
    """Who may change a volume now.

    Attributes:
        owner: uuid of the instance, 32 hexadecimal digits.
        host: name of its machine.
        pid: its mapperd.
        fence: number of this tenure; only grows.
        expires: when the presence of its instance ends unless it is renewed, ISO 8601
            UTC; None if that is not known, or the lease is locked.
        locked: taken by an administrator; does not expire.
        damage: what cannot be read of it, and the cure; empty if all is well.
    """

    owner: str
    host: str
    pid: int
    fence: int
    expires: str | None
    locked: bool
    damage: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the members for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class VolumeInfo:
    """One volume or snapshot.

    Attributes:
        name: its name.
        uuid: 36 characters; stays when it is renamed.
        kind: "volume" or "snapshot"; "damaged" if that is not known.
        size: [bytes].
        block_size: [bytes].
        epoch: counts snapshots and shrinks.
        read_only: true for a snapshot.
        parent: name of what it was made from at that time, or None.
        created: ISO 8601 UTC.
        depth: tables that its map consists of, besides the live journal.
        private_bytes: storage that only it uses [bytes]; None if not counted.
        shared_bytes: bytes that its map takes from shared storage; None if not
            counted.
        lease: who may change it, or None.
        broken: the lease that was broken just now, by `unlock` with force.
        damaged: why its header or map could not be read when that was tried last; None
            if it could.
    """

    name: str
    uuid: str
    kind: str
    size: int
    block_size: int
    epoch: int
    read_only: bool
    parent: str | None
    created: str
    depth: int
    private_bytes: int | None = None
    shared_bytes: int | None = None
    lease: LeaseInfo | None = None
    broken: LeaseInfo | None = None
    damaged: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the members for JSON; what is not known is left out."""
        members = asdict(self)
        for key in ("private_bytes", "shared_bytes", "broken", "damaged"):
            if members[key] is None:
                del members[key]
        return members

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> VolumeInfo:
        """Read what `to_json` wrote; unknown members are ignored.

        Raises:
            MapCorrupt: if a member is missing.
        """
        try:
            lease, broken = members.get("lease"), members.get("broken")
            return cls(
                name=members["name"],
                uuid=members["uuid"],
                kind=members["kind"],
                size=members["size"],
                block_size=members["block_size"],
                epoch=members["epoch"],
                read_only=members["read_only"],
                parent=members["parent"],
                created=members["created"],
                depth=members["depth"],
                private_bytes=members.get("private_bytes"),
                shared_bytes=members.get("shared_bytes"),
                lease=None if lease is None else LeaseInfo(**lease),
                broken=None if broken is None else LeaseInfo(**broken),
                damaged=members.get("damaged"),
            )
        except (KeyError, TypeError) as error:
            raise MapCorrupt(f"the answer about a volume lacks {error}") from error


@dataclass(frozen=True)
class StoreUsage:
    """How full the store is.  All in bytes.

    Attributes:
        capacity_bytes: of the storage below.
        free_bytes: of it.
        logical_bytes: sum of the sizes of all volumes and snapshots.
        stored_bytes: what they occupy: private, content and metadata.
        private_bytes: of it, written by volumes.
        content_bytes: of it, content-addressed blocks.
        age_seconds: how long ago the last three were counted [s]; the others are as of
            now.
    """

    capacity_bytes: int
    free_bytes: int
    logical_bytes: int
    stored_bytes: int
    private_bytes: int
    content_bytes: int
    age_seconds: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the members for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> StoreUsage:
        """Read what `to_json` wrote."""
        known = cls.__dataclass_fields__
        return cls(**{key: int(members[key]) for key in known if key in members})
