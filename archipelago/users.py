# SPDX-License-Identifier: Apache-2.0
"""What uses an open volume: NBD clients, clients of the segment, the administrator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from xseg.constants import UserFlag
from xseg.payload import VolumeUser as Record

__all__ = ["VolumeUser", "users_text"]


@dataclass(frozen=True)
class VolumeUser:
    """One open of a volume.

    Attributes:
        client: what it is: "nbd", "nbd ADDRESS:PORT", "client", "vlmc open".
        pid: its process; None if that is not known.
        since: when it opened the volume, ISO 8601 in UTC; None if not known.
        read_only: it may only read.
    """

    client: str
    pid: int | None
    since: str | None
    read_only: bool

    @classmethod
    def from_record(cls, record: Record) -> VolumeUser:
        """Read what vlmcd says."""
        since = None
        if record.since_ns:
            when = datetime.fromtimestamp(record.since_ns // 10**9, timezone.utc)
            since = when.isoformat().replace("+00:00", "Z")
        read_only = bool(record.flags & UserFlag.READONLY)
        return cls(record.text, record.pid or None, since, read_only)

    def to_json(self) -> dict[str, Any]:
        """Return the members for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        facts = [f"pid {self.pid}"] if self.pid else []
        facts += [f"since {self.since}"] if self.since else []
        facts += ["read-only"] if self.read_only else []
        return self.client + (f" ({', '.join(facts)})" if facts else "")


def users_text(users: Sequence[VolumeUser], most: int = 4) -> str:
    """Name users in one line: the first ones, and how many more there are."""
    named = ", ".join(str(user) for user in users[:most])
    more = len(users) - most
    return f"{named} and {more} more" if more > 0 else named
