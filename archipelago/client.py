# SPDX-License-Identifier: Apache-2.0
"""The client: everything that can be asked of a running instance.

A `Client` may be used by any number of threads; each speaks through a port of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import operator
import os
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archipelago import paths
from archipelago.errors import (
    ArchipelagoError,
    LeaseHeld,
    NotRunning,
    UsageError,
    VolumeBusy,
    from_errno,
    from_reply,
)
from archipelago.ids import check_name, uuid_text
from archipelago.info import StoreUsage, VolumeInfo
from archipelago.messenger import Messenger, Reply, SerialMessenger
from archipelago.silence import Silence
from archipelago.users import VolumeUser, users_text
from archipelago.words import verb
from xseg import Request, Segment
from xseg.closing import Closing
from xseg.constants import PORT_CONTROL, PORT_VLMCD, Flag, Op
from xseg.errors import NotFound, XsegError
from xseg.payload import Failure, unpack_volumes
from xseg.payload import VolumeInfo as OpenVolume
from xseg.payload import VolumeUser as Record
from xseg.units import parse_size

if TYPE_CHECKING:
    from typing import SupportsIndex

    from archipelago.supervisor.client import Facts
    from archipelago.volume_handle import Volume

__all__ = ["Client", "CloneResult", "connect"]

#: Room for the answer to most requests, and for a listing [bytes].
_ROOM = 64 << 10
_LIST_ROOM = 1 << 20
#: How long to wait for a peer that is being started again [s]: longer than the
#: supervisor's longest pause before that.
_PATIENCE = 10.0
#: A peer died, or ended, in the middle: what was asked for may have happened.
_CUT_OFF = {errno.EOWNERDEAD, errno.EPIPE, errno.ECANCELED}
#: How often a forced removal is tried: clients may open the volume again in between.
_FORCED_ATTEMPTS = 5
_NO_FLAGS = Flag(0)
#: Index of the argument of an answer to OPEN that holds the fence of `open_handle`.
_ARG_SINCE = 2
#: Argument of CLOSE's answer with an error: 1, all is flushed.
_ARG_FLUSHED = 0
#: Entries of one page of a listing: they fit into the room however long the names are.
_LIST_PAGE = 600


@dataclass(frozen=True)
class CloneResult:
    """What came of asking for clones.

    Attributes:
        created: the names that exist now.
        failed: for each of the others, why.
    """

    created: list[str] = field(default_factory=list)
    failed: dict[str, ArchipelagoError] = field(default_factory=dict)


def connect(home: str | os.PathLike[str] | None = None) -> Client:
    """Connect to a running instance.

    Args:
        home: directory of the instance; None follows ``ARCHIPELAGO_HOME``, then the
            system's or the user's places.

    Raises:
        NotRunning: no instance runs there.
    """
    locations = paths.locate(home)
    name = locations.segment_name
    try:
        segment = Segment.attach(name, owner=locations.owner)
    except NotFound:
        where = locations.home
        option = f" --home {where}" if home is not None else ""
        raise NotRunning(
            f"no instance runs {f'under {where}' if where else 'here'} (there is no "
            f'segment {name}): start it with "archipelago start{option}"'
        ) from None
    except XsegError as error:
        raise NotRunning(f"cannot join the instance: {error.strerror}") from error
    return Client(segment, home)


class Client(Closing):
    """A connection to one instance.

    Args:
        segment: its segment, closed with the client.
        home: directory of the instance, for its settings.
    """

    def __init__(
        self, segment: Segment, home: str | os.PathLike[str] | None = None
    ) -> None:
        self._segment = segment
        self._home = home
        self._settings: Facts | None = None
        explains = Silence(segment, paths.locate(home))
        self._messenger = Messenger(
            segment, "client", _PATIENCE, persistent=True, explains=explains
        )
        self._opener = SerialMessenger(
            segment, "client-open", _PATIENCE, persistent=True, explains=explains
        )
        owner = paths.locate(home).owner
        for messenger in (self._messenger, self._opener):
            messenger.attach = lambda: Segment.attach(segment.name, owner=owner)
        _clients.add(self)

    def close(self) -> None:
        """Disconnect.  Volumes that are still open are closed.  Twice is harmless."""
        if self._segment.closed:
            return
        self._messenger.close()
        self._opener.close()
        self._segment.close()

    @property
    def segment(self) -> Segment:
        """The segment of the instance."""
        return self._segment

    @property
    def messenger(self) -> Messenger:
        """Sends requests to any peer of the instance."""
        return self._messenger

    @property
    def settings(self) -> Facts:
        """What the running instance says of its settings, when first asked for."""
        if self._settings is None:
            from archipelago.supervisor.client import facts

            self._settings = facts(paths.locate(self._home))
        return self._settings

    # ---- what exists -----------------------------------------------------------------

    def create(
        self,
        name: str,
        size: SupportsIndex | str | None = None,
        *,
        snap: str | None = None,
        block_size: SupportsIndex | str | None = None,
    ) -> VolumeInfo:
        """Create a volume, empty or as a clone of a snapshot.

        Args:
            name: a new name, 1 to 255 bytes.
            size: [bytes], or text such as "10G"; may be left out for a clone.
            snap: the snapshot to clone.
            block_size: a power of two from 64 KiB to 4 MiB [bytes]; None takes the
                instance's setting.  A clone has its snapshot's.

        Raises:
            VolumeExists: the name is taken.
            VolumeNotFound: no such snapshot.
        """
        wanted = None if size is None else _bytes(size)
        if snap is not None:
            if block_size is not None:
                raise UsageError(
                    "a clone has the blocks of its snapshot: leave the block size out"
                )
            result = self.clone(snap, [name], size=wanted)
            for error in result.failed.values():
                raise error
            return self.info(name, usage=False)
        if wanted is None:
            raise UsageError(
                f'say how large "{name}" is to be, or which snapshot it clones'
            )
        arguments = {"size": wanted}
        if block_size is not None:
            arguments["block_size"] = _bytes(block_size)
        return self._info(self._control(Op.CREATE, name, arguments))

    def create_from_layer(
        self,
        name: str,
        size: int,
        layer: bytes | None,
        block_size: int,
        *,
        read_only: bool,
    ) -> VolumeInfo:
        """Create a volume or snapshot over a layer that was written before.

        Args:
            name: a new name.
            size: [bytes].
            layer: uuid of a durable layer; None for nothing but zeros.
            block_size: of the layer [bytes].
            read_only: make a snapshot.
        """
        arguments = {
            "size": size,
            "block_size": block_size,
            "layer": None if layer is None else uuid_text(layer),
            "read_only": read_only,
        }
        return self._info(self._control(Op.CREATE, name, arguments))

    def clone(
        self,
        snap: str,
        names: Iterable[str],
        *,
        size: SupportsIndex | str | None = None,
    ) -> CloneResult:
        """Make many clones of one snapshot at once.

        Args:
            snap: the snapshot.
            names: new names.
            size: of each, at least the snapshot's; None: the same.

        Returns:
            Which were created; a name that is taken does not hinder the others.

        Raises:
            VolumeNotFound: no such snapshot.
            NotSnapshot: `snap` is a volume.
        """
        arguments = {"names": list(names)}
        if size is not None:
            arguments["size"] = _bytes(size)  # type: ignore[assignment]
        answer = self._control(Op.CLONE, snap, arguments)
        failed = {
            name: from_reply(-errno.EIO, told, f'cannot create "{name}"')
            for name, told in answer["failed"].items()
        }
        return CloneResult(list(answer["created"]), failed)

    def snapshot(self, volume: str, snapshot: str) -> VolumeInfo:
        """Take a snapshot.  The volume may be in use; what was answered is in it.

        Raises:
            VolumeExists: the snapshot's name is taken.
            ReadOnlySnapshot: `volume` is a snapshot.
        """
        check_name(snapshot)
        arguments = {"snapshot": snapshot}
        return self._info(self._control(Op.SNAPSHOT, volume, arguments, PORT_VLMCD))

    def remove(self, name: str, *, force: bool = False, wait: bool = False) -> None:
        """Remove a volume or snapshot; what was made from it stays.

        A client that has just disconnected is waited for.

        Args:
            name: its name.
            force: cut off the clients that use it: their I/O ends with errors.
            wait: wait until no client of this instance uses it.

        Raises:
            VolumeBusy: it is in use; the message names its clients.
        """
        attempts = _FORCED_ATTEMPTS if force else 1
        while True:
            try:
                flags = Flag.FORCE if force else Flag(0)
                self._control(Op.DELETE, name, {}, PORT_VLMCD, flags=flags)
                return
            except LeaseHeld:
                raise
            except VolumeBusy as error:
                attempts -= 1
                if wait or attempts > 0:
                    continue  # vlmcd has waited for a while before it said so
                users = self.users(name)
                if not users:
                    raise
                cure = "disconnect that"
                if any(user.client.startswith("fuse") for user in users):
                    cure = "take that away (vlmc unmap, vlmc unmount)"
                raise VolumeBusy(
                    f'"{name}" is in use by {users_text(users)}: {cure}, wait for it '
                    "(remove --wait) or cut it off (remove --force)"
                ) from error

    def users(self, name: str) -> list[VolumeUser]:
        """Say what has a volume open in this instance; empty if nothing has."""
        size = Record.LAYOUT.size
        reply = self._messenger.call(
            PORT_VLMCD,
            Op.INFO,
            name=check_name(name),
            room=_ROOM,
            take=lambda rq, result: max(result, 0) * size,
        )
        if reply.result == -errno.ENOENT:
            return []
        if reply.result < 0:
            raise from_errno(reply.result, f'cannot tell what uses "{name}"')
        records = [
            Record.unpack(reply.data[at : at + size])
            for at in range(0, reply.result * size, size)
        ]
        return [VolumeUser.from_record(record) for record in records]

    def open_volumes(self) -> list[str]:
        """Name the volumes that are open in this instance."""
        reply = self._messenger.call(
            PORT_VLMCD,
            Op.LIST,
            room=_LIST_ROOM,
            take=lambda rq, result: max(result, 0) * OpenVolume.LAYOUT.size,
        )
        if reply.result < 0:
            raise from_errno(reply.result, "cannot tell which volumes are open")
        return [volume.name for volume in unpack_volumes(reply.data, reply.result)]

    def rename(self, old: str, new: str) -> VolumeInfo:
        """Give a volume or snapshot another name.  It may be in use.

        Raises:
            VolumeExists: the new name is taken.
        """
        check_name(new)
        return self._info(self._control(Op.RENAME, old, {"name": new}, PORT_VLMCD))

    def resize(self, name: str, size: SupportsIndex | str) -> VolumeInfo:
        """Change the size of a volume.  It may be in use.

        Args:
            name: the volume.
            size: [bytes], or text such as "10G".

        Raises:
            ReadOnlySnapshot: it is a snapshot.
        """
        arguments = {"size": _bytes(size)}
        return self._info(self._control(Op.TRUNCATE, name, arguments, PORT_VLMCD))

    # ---- what is known ---------------------------------------------------------------

    def info(self, name: str, usage: bool = True) -> VolumeInfo:
        """Describe a volume or snapshot.

        Args:
            name: its name.
            usage: count its bytes too, which reads its whole map.
        """
        return self._info(self._control(Op.INFO, name, {"usage": usage}))

    def list(
        self, prefix: str = "", usage: bool = False, *, leases: bool = True
    ) -> list[VolumeInfo]:
        """List volumes and snapshots, sorted by name.

        Args:
            prefix: only names that start so.
            usage: count the bytes of each.
            leases: say who has each; without, a long listing is faster.
        """
        found: list[VolumeInfo] = []
        while True:
            answer = self._control(
                Op.LIST,
                None,
                {
                    "prefix": prefix,
                    "marker": found[-1].name if found else "",
                    "limit": _LIST_PAGE,
                    "usage": usage,
                    "leases": leases,
                },
                room=_LIST_ROOM,
            )
            found += [self._info(members) for members in answer["volumes"]]
            if not answer["more"] or not answer["volumes"]:
                return found

    def exists(self, name: str) -> bool:
        """True if there is a volume or snapshot of that name."""
        try:
            self.info(name, usage=False)
        except FileNotFoundError:
            return False
        return True

    def df(self) -> StoreUsage:
        """Say how full the store is."""
        return StoreUsage.from_json(self._control(Op.USAGE, None, {}))

    def url(self, name: str) -> str:
        """The address under which NBD clients find a volume."""
        from urllib.parse import quote

        check_name(name)
        socket = quote(os.fspath(self.settings.nbd_socket), safe="/")
        return f"nbd+unix:///{quote(name, safe='')}?socket={socket}"

    def ping(self) -> None:
        """Return if the instance answers.

        Raises:
            NotRunning: it does not.
        """
        for port in (PORT_CONTROL, PORT_VLMCD):
            reply = self._messenger.call(port, Op.PING)
            if reply.result < 0:
                raise from_errno(reply.result, "the instance does not answer")

    # ---- use -------------------------------------------------------------------------

    def open(self, name: str, read_only: bool = False) -> Volume:
        """Open a volume or snapshot for reading and writing.

        Args:
            name: its name.
            read_only: refuse writes, and do not take the lease.  Snapshots are always
                read-only.

        Raises:
            VolumeNotFound: there is none.
            LeaseHeld: another instance has it open.
        """
        from archipelago.volume_handle import Volume

        return Volume(self, name, read_only)

    def hold(self, name: str) -> None:
        """Keep a volume open until `unhold`, whoever else opens and closes it."""
        self.open_handle(name, Flag.HOLD)

    def unhold(self, name: str) -> None:
        """Undo `hold`.

        Raises:
            UsageError: it is not held.
        """
        reply = self._opener.call(PORT_VLMCD, Op.CLOSE, name=name, flags=Flag.HOLD)
        if reply.result == -errno.ENOENT:
            self.info(name, usage=False)
            raise UsageError(f'"{name}" is not held open: there is nothing to close')
        if reply.result < 0:
            raise from_errno(reply.result, _closed_how(reply, f'"{name}"'))

    def lock(self, name: str) -> VolumeInfo:
        """Keep a volume for this instance, across restarts, until `unlock`.

        Raises:
            LeaseHeld: another instance has it.
        """
        return self._info(self._control(Op.ACQUIRE, name, {}))

    def unlock(self, name: str, force: bool = False) -> VolumeInfo:
        """Undo `lock`.

        Args:
            name: the volume.
            force: break whatever lease another instance holds on it; that one can
                write no more from then on.
        """
        return self._info(self._control(Op.RELEASE, name, {"force": force}))

    def wait_reclaimed(self) -> int:
        """Give back the storage of what was removed now, not soon.

        Returns:
            How many objects were deleted.
        """
        return int(self._control(Op.SYNC, None, {"reclaim": True})["reclaimed"])

    def open_handle(self, name: str, flags: Flag) -> tuple[int, bytes, int]:
        """Open a volume in vlmcd; `close_handle` undoes it.

        Returns:
            Its handle, its ``struct xseg_volume_info``, and the fence from which on
            this instance alone has had its lease.
        """
        check_name(name)
        reply = self._opener.call(PORT_VLMCD, Op.OPEN, name=name, flags=flags)
        if reply.result < 0:
            raise from_reply(reply.result, _refusal(reply), f'cannot open "{name}"')
        return reply.handle, reply.inline, reply.args[_ARG_SINCE]

    def close_handle(self, handle: int) -> None:
        """Close a handle of `open_handle`; the last close of a volume flushes it.

        That vlmcd does not know it is no error: then it has restarted, perhaps because
        of this, or the volume is lost.

        Raises:
            ArchipelagoError: its last flush failed; or only its lease was not given
                back, and runs out.  The handle is closed all the same.
        """
        reply = self._opener.call(PORT_VLMCD, Op.CLOSE, handle=handle)
        if reply.result < 0 and reply.result != -errno.ESTALE:
            raise from_errno(reply.result, _closed_how(reply, "the volume"))

    def _control(
        self,
        op: Op,
        name: str | None,
        arguments: dict[str, Any],
        port: int = PORT_CONTROL,
        room: int = _ROOM,
        flags: Flag = _NO_FLAGS,
    ) -> dict[str, Any]:
        """Ask the control half, or vlmcd on the way to it."""
        if name is not None:
            check_name(name)
        raw = json.dumps(arguments, ensure_ascii=False).encode("utf-8", "strict")
        reply = self._messenger.call(
            port,
            op,
            name=name,
            data=raw,
            room=max(room, 2 * len(raw) + _ROOM),
            flags=flags,
            take=_answer_length,
        )
        answer = _json(reply)
        if reply.result < 0:
            what = f"cannot {verb(op)}" + (f' "{name}"' if name else "")
            if name is not None and -reply.result in _CUT_OFF:
                what = f"{what} for certain: look whether it happened, then try again"
            raise from_reply(reply.result, answer or _refusal(reply), what)
        return answer

    def _info(self, members: dict[str, Any]) -> VolumeInfo:
        return VolumeInfo.from_json(members)


#: Clients that may still be open when the interpreter ends.
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_clients() -> None:
    """Close what a script has left open, while that is still possible."""
    for client in list(_clients):
        if not client.segment.closed:
            warnings.warn(
                f"a client of {client.segment.name} was not closed",
                ResourceWarning,
                stacklevel=1,
                source=client,
            )
            with contextlib.suppress(Exception):
                client.close()


def _answer_length(rq: Request, result: int) -> int:
    return rq.arg(0)


def _closed_how(reply: Reply, which: str) -> str:
    """Say what is wrong with a volume that was closed with an error."""
    if reply.args[_ARG_FLUSHED]:
        return (
            f"{which} is closed and flushed, nothing is lost, but it was not given "
            "back: its lease runs out by itself"
        )
    return f"{which} was not closed well"


def _refusal(reply: Reply) -> dict[str, Any]:
    """What the inline bytes of an answer say of a refusal, as JSON would."""
    failure = Failure.unpack(reply.inline)
    if failure is None:
        return {}
    return {"msgid": failure.msgid, "message": failure.message}


def _json(reply: Reply) -> dict[str, Any]:
    if not reply.data:
        return {}
    try:
        answer = json.loads(reply.data)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _bytes(size: SupportsIndex | str) -> int:
    """Read a size [bytes]: a number of bytes, or text with a suffix."""
    if isinstance(size, str):
        try:
            return parse_size(size)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise UsageError(
            f"a size is a number of bytes or text such as 10G, not {size!r}"
        )
    return operator.index(size)
