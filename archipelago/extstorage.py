# SPDX-License-Identifier: Apache-2.0
"""The provider of Ganeti's external storage interface: disks of instances are volumes.

Ganeti runs one program for each action, with no arguments and a clean environment.
What is meant comes in variables, sizes in MiB.  The programs of ``ganeti/extstorage/``
run `main` with the name of the action.  An action that was done before is done: Ganeti
repeats what it is not sure of.

Source: ganeti-extstorage-interface(7) and lib/storage/extstorage.py of Ganeti 3.0.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archipelago import mapping
from archipelago.client import Client, connect
from archipelago.errors import (
    ArchipelagoError,
    LeaseHeld,
    UsageError,
    VolumeExists,
    VolumeNotFound,
)
from archipelago.info import VolumeInfo
from archipelago.settings import load_settings

__all__ = ["main"]

_MIB = 1 << 20
#: Values of a parameter that mean that there is none.
_NONE = frozenset({"", "null", "none"})

Environment = Mapping[str, str]
#: What is kept of one volume.
Note = dict[str, str]


def main(argv: list[str], environ: Environment = os.environ) -> int:
    """Do one action.

    Args:
        argv: the action, and what came after it on the command line.
        environ: the variables of the interface.

    Returns:
        0, or 1 after one line on standard error.
    """
    action, rest = argv[0], argv[1:]
    if rest and rest[0] in ("-h", "--help"):
        print(_usage(action))
        return 0
    if action not in _VARIABLES or (rest and action != "verify"):
        print(_usage(action), file=sys.stderr)
        return 1
    name = environ.get("VOL_NAME", "")
    try:
        if action == "verify":
            _verify(rest, environ)
        else:
            _ACTIONS[action](_wanted(environ, "VOL_NAME"), environ)
    except ArchipelagoError as error:
        print(f"archipelago: {action} {name}: {error}", file=sys.stderr)
        return 1
    return 0


def _usage(action: str) -> str:
    if action not in _VARIABLES:
        return f"usage: ACTION, one of {', '.join(_VARIABLES)}"
    checks = " CHECK..." if action == "verify" else ""
    variables = ", ".join(_VARIABLES[action])
    return (
        f"usage: {action}{checks}\n"
        f"For Ganeti, which says what is meant in the environment: {variables}"
    )


# ---- what the environment says -------------------------------------------------------


def _wanted(environ: Environment, variable: str) -> str:
    value = environ.get(variable, "")
    if not value:
        raise UsageError(f"{variable} is not set: Ganeti sets it for this action")
    return value


def _parameter(environ: Environment, variable: str) -> str | None:
    value = environ.get(variable, "")
    return None if value.lower() in _NONE else value


def _number(environ: Environment, variable: str) -> int:
    value = _wanted(environ, variable)
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise UsageError(f"{variable} is {value!r}: a whole number above 0 is wanted")
    return int(value)


def _bytes(environ: Environment, variable: str) -> int:
    """A size that Ganeti gives in MiB [bytes]."""
    return _number(environ, variable) * _MIB


def _origin(client: Client, environ: Environment) -> VolumeInfo | None:
    """The snapshot that a new volume begins as.

    Raises:
        UsageError: it is not what the parameters say.
        VolumeNotFound: there is none of that name.
    """
    name = _parameter(environ, "EXTP_ORIGIN")
    if name is None:
        return None
    found = client.info(name, usage=False)
    if not found.read_only:
        raise UsageError(
            f'origin "{name}" is a volume: take a snapshot of it and name that'
        )
    if _parameter(environ, "EXTP_ORIGIN_SIZE") is not None:
        size = _number(environ, "EXTP_ORIGIN_SIZE")
        if size != found.size:
            raise UsageError(
                f'origin "{name}" has {found.size} bytes, and origin_size says {size}'
            )
    return found


# ---- actions -------------------------------------------------------------------------


def _create(name: str, environ: Environment) -> None:
    size = _bytes(environ, "VOL_SIZE")
    with connect() as client:
        origin = _origin(client, environ)
        if origin is not None and origin.size > size:
            raise UsageError(
                f'origin "{origin.name}" has {origin.size} bytes: a disk of '
                f"{size // _MIB} MiB is too small for it"
            )
        snap = None if origin is None else origin.name
        try:
            client.create(name, size, snap=snap)
        except VolumeExists:
            there = client.info(name, usage=False)
            if (there.size, there.parent, there.read_only) != (size, snap, False):
                raise
    _note(name, environ)


def _attach(name: str, environ: Environment) -> None:
    with connect() as client:
        print(_map(client, name).device)
        # For disks whose access is "userspace": QEMU needs no block device.
        print(f"kvm:{client.url(name)}")
    _note(name, environ)


def _map(client: Client, name: str) -> mapping.Mapping:
    """Map a disk for writing; if that cannot be, as it can be.

    A snapshot is mapped to be read, for exports.  So is a volume that another node has,
    until this one opens it: Ganeti attaches a disk before it may be used here.
    """
    folder = mapping.instance_mount()
    there = _find(folder, name)
    if there is not None:
        return mapping.map_volume(folder, name, read_only=there.read_only)
    if client.info(name, usage=False).read_only:
        return mapping.map_volume(folder, name, read_only=True)
    try:
        return mapping.map_volume(folder, name, read_only=False)
    except LeaseHeld:
        return mapping.map_volume(folder, name, read_only=True)


def _find(folder: Path, name: str) -> mapping.Mapping | None:
    return next((m for m in mapping.mappings(folder) if m.volume == name), None)


def _detach(name: str, environ: Environment) -> None:
    folder = mapping.instance_mount()
    if _find(folder, name) is not None:
        mapping.unmap_volume(folder, name)


def _open(name: str, environ: Environment) -> None:
    """Make sure that this node may write.

    Raises:
        LeaseHeld: another node has the volume.
        UsageError: Ganeti asks for the disk on two nodes at once.
    """
    if environ.get("VOL_OPEN_EXCLUSIVE", "True").lower() in ("false", "0"):
        raise UsageError(
            "a disk is written on one node at a time, so instances cannot be migrated "
            "live: use gnt-instance failover"
        )
    with connect() as client:
        if client.info(name, usage=False).read_only:
            return
    folder = mapping.instance_mount()
    there = _find(folder, name)
    if there is not None and there.read_only:
        mapping.unmap_volume(folder, name)
    mapping.map_volume(folder, name, read_only=False)


def _close(name: str, environ: Environment) -> None:
    """Give the volume back: another node may open it.  The device stays, to be read."""
    folder = mapping.instance_mount()
    there = _find(folder, name)
    if there is None or there.read_only:
        return
    mapping.unmap_volume(folder, name)
    mapping.map_volume(folder, name, read_only=True)


def _remove(name: str, environ: Environment) -> None:
    _detach(name, environ)
    with connect() as client, contextlib.suppress(VolumeNotFound):
        client.remove(name, wait=True)
    _forget(name)


def _grow(name: str, environ: Environment) -> None:
    size = _bytes(environ, "VOL_NEW_SIZE")
    with connect() as client:
        if client.info(name, usage=False).size < size:
            client.resize(name, size)
    folder = mapping.instance_mount()
    there = _find(folder, name)
    if there is not None:  # tell the device
        mapping.map_volume(folder, name, read_only=there.read_only)


def _snapshot(name: str, environ: Environment) -> None:
    snapshot = _wanted(environ, "VOL_SNAPSHOT_NAME")
    with connect() as client:
        size = client.info(name, usage=False).size
        asked = _parameter(environ, "VOL_SNAPSHOT_SIZE")
        if asked is not None and _bytes(environ, "VOL_SNAPSHOT_SIZE") < size:
            raise UsageError(
                f"VOL_SNAPSHOT_SIZE is {asked} MiB: a snapshot is as large as its "
                f"volume, {size} bytes"
            )
        client.snapshot(name, snapshot)


def _setinfo(name: str, environ: Environment) -> None:
    with connect() as client:
        client.info(name, usage=False)
    _note(name, environ)


def _verify(checks: list[str], environ: Environment) -> None:
    """Check the external parameters; all of them are looked at, whatever is named."""
    if not checks:
        raise UsageError('name what to check, as in "verify parameters"')
    with connect() as client:
        _origin(client, environ)


# ---- what Ganeti calls a volume ------------------------------------------------------


def _note(name: str, environ: Environment) -> None:
    """Keep what Ganeti says of a volume, so that it can be told without Ganeti.

    By volume the disk's name, its uuid and its metadata: one JSON file in this node's
    state directory.
    """
    said = {
        key: environ[variable]
        for key, variable in (
            ("name", "VOL_CNAME"),
            ("uuid", "VOL_UUID"),
            ("metadata", "VOL_METADATA"),
        )
        if environ.get(variable)
    }
    if said:
        _change_notes(name, lambda before: {**before, **said})


def _forget(name: str) -> None:
    _change_notes(name, lambda before: {})


def _change_notes(name: str, change: Callable[[Note], Note]) -> None:
    """Replace what is kept of a volume, durably; one process at a time.

    Raises:
        ArchipelagoError: the file cannot be read or written.
    """
    path = load_settings().state_dir / "ganeti.json"
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            notes = _notes(path)
            before = notes.pop(name, {})
            after = change(before)
            if after == before:
                return
            if after:
                notes[name] = after
            new = path.with_suffix(".new")
            with new.open("w") as file:
                json.dump(notes, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ArchipelagoError(f"cannot note it in {path}: {error.strerror}") from error


def _notes(path: Path) -> dict[str, Note]:
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ArchipelagoError(f"{path} is damaged, move it away: {error}") from error
    if not isinstance(found, dict):
        raise ArchipelagoError(f"{path} is damaged, move it away: no JSON object")
    return found


_ACTIONS: dict[str, Callable[[str, Environment], None]] = {
    "create": _create,
    "attach": _attach,
    "detach": _detach,
    "remove": _remove,
    "grow": _grow,
    "setinfo": _setinfo,
    "snapshot": _snapshot,
    "open": _open,
    "close": _close,
}

_ALL = ("VOL_NAME", "VOL_CNAME", "VOL_UUID")
_VARIABLES: dict[str, tuple[str, ...]] = {
    "create": (*_ALL, "VOL_SIZE", "EXTP_ORIGIN", "EXTP_ORIGIN_SIZE"),
    "attach": _ALL,
    "detach": _ALL,
    "remove": _ALL,
    "grow": (*_ALL, "VOL_SIZE", "VOL_NEW_SIZE"),
    "setinfo": (*_ALL, "VOL_METADATA"),
    "verify": ("EXTP_ORIGIN", "EXTP_ORIGIN_SIZE"),
    "snapshot": (*_ALL, "VOL_SNAPSHOT_NAME", "VOL_SNAPSHOT_SIZE"),
    "open": (*_ALL, "VOL_OPEN_EXCLUSIVE"),
    "close": _ALL,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
