# SPDX-License-Identifier: Apache-2.0
"""The identity of a store: one uuid, kept in both of its halves.

A store is a pair of directories, and only the two that were made together fit each
other.  Each holds the store's uuid in a file ``store``; the instance remembers the uuid
too.  So a disk that is not mounted is told from a store that is new.

The supervisor calls this before it starts any peer.  Format and steps:
``docs/format/store.md``.

Invariant: both halves get the file, or a start that is repeated goes on where the last
one ended.  `JOINING_FILE` in the data half says that the maps half may lack its own.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archipelago.durable import sync_directory
from archipelago.errors import ConfigError, NoSpace, VolumeExists, from_errno
from archipelago.settings import Settings

__all__ = ["check", "establish", "init"]

log = logging.getLogger(__name__)

#: Holds the uuid in each half, and in the state directory what the instance served.
STORE_FILE = "store"
#: Holds the uuid in the data half until the maps half has it too.
JOINING_FILE = "store.joining"
#: Written by the file backend into each half when it first opens it.
FORMAT_FILE = "format"

_MAGIC = "archipelago-store-uuid 1"


class HalfState(enum.Enum):
    """What a directory of the store is."""

    #: There is no store in it, or no directory.
    NEW = "new"
    #: A store of a version that gave none a uuid.
    UNNAMED = "unnamed"
    #: The data half of a store whose maps half is still to be named.
    JOINING = "joining"
    #: The half of a store that is named by its uuid.
    NAMED = "named"


@dataclass(frozen=True)
class Half:
    """One directory of the store, as it was found.

    Attributes:
        key: the setting that names it.
        path: where it is.
        state: what it is.
        store: uuid of its store, where it has one.
    """

    key: str
    path: Path
    state: HalfState
    store: str = ""

    def __str__(self) -> str:
        return f"{self.key} '{self.path}'"

    @property
    def owner(self) -> str:
        """Which store it belongs to, in words."""
        return f"store {self.store}" if self.store else "a store"


def check(settings: Settings) -> None:
    """Refuse two halves that are not of one store.  Changes nothing.

    Raises:
        ConfigError: what is wrong and how to mend it.
        ArchipelagoError: a file cannot be read.
    """
    if settings.backend == "file":
        _check_pair(settings, *_look(settings))


def establish(settings: Settings) -> None:
    """Give both halves their uuid, where they lack it.

    The directories exist, and the caller holds the pid lock.

    Raises:
        ConfigError: the halves are not of one store.
        ArchipelagoError: a file cannot be read or written.
    """
    if settings.backend != "file":
        return
    data, maps = _look(settings)
    _check_pair(settings, data, maps)
    try:
        _name(settings, data, maps)
    except NoSpace as error:
        # What is stored can still be read and removed; a later start names the store.
        log.warning("the store is not named: %s", error)


def _name(settings: Settings, data: Half, maps: Half) -> None:
    store = data.store or maps.store or str(uuid.uuid4())
    if data.state is not HalfState.NAMED:
        # Another node may be doing the same: the first one names the store.
        store = _put(data.path / JOINING_FILE, store)
        named = _put(maps.path / STORE_FILE, store)
        if named != store:
            raise _mismatch(
                Half(data.key, data.path, data.state, store),
                Half(maps.key, maps.path, HalfState.NAMED, named),
            )
        _finish(data.path)
    _remember(settings.state_dir / STORE_FILE, store)


def init(settings: Settings) -> str:
    """Make a new store in two directories that hold none.

    The caller made the directories and holds the pid lock.

    Returns:
        Its uuid.

    Raises:
        ConfigError: the backend keeps no store.
        VolumeExists: there is a store in one of them.
    """
    if settings.backend != "file":
        raise ConfigError(
            f"backend = '{settings.backend}' keeps no store: nothing to do"
        )
    for half in _look(settings):
        if half.state is not HalfState.NEW:
            raise VolumeExists(
                f"{half} holds {half.owner}: name an empty directory for a new one"
            )
    with _told(settings.state_dir / STORE_FILE) as path:
        path.unlink(missing_ok=True)
    establish(settings)
    return _look(settings)[0].store


def _check_pair(settings: Settings, data: Half, maps: Half) -> None:
    """Decide whether the two may be used together."""
    states = {data.state, maps.state}
    if states == {HalfState.NEW}:
        served = _read(settings.state_dir / STORE_FILE)
        if served:
            raise ConfigError(
                f"{data} and {maps} are empty, but this instance served store "
                f"{served}: mount its disks; 'archipelago init' begins a new store"
            )
        return
    if data.state is HalfState.JOINING:
        if maps.state is HalfState.NAMED and maps.store != data.store:
            raise _mismatch(data, maps)
        return
    if HalfState.NEW in states:
        empty, full = (data, maps) if data.state is HalfState.NEW else (maps, data)
        raise ConfigError(
            f"{empty} is empty, but the other half, {full}, belongs to {full.owner}: "
            f"mount the disk of {empty.key}, or name the directory that belongs to it; "
            "a new store needs two empty directories"
        )
    if states == {HalfState.UNNAMED}:
        return
    if HalfState.UNNAMED in states:
        unnamed, named = (
            (data, maps) if data.state is HalfState.UNNAMED else (maps, data)
        )
        raise ConfigError(
            f"{unnamed} holds a store without a uuid, but the other half, {named}, "
            f"belongs to {named.owner}: name the two halves of one store; if they are, "
            f"'cp {named.path / STORE_FILE} {unnamed.path / STORE_FILE}' says so"
        )
    if data.store != maps.store:
        raise _mismatch(data, maps)


def _mismatch(data: Half, maps: Half) -> ConfigError:
    return ConfigError(
        f"{data} belongs to {data.owner}, but {maps} to {maps.owner}: name the two "
        "halves of one store"
    )


def _look(settings: Settings) -> tuple[Half, Half]:
    """Both halves as they are now: data, maps."""
    return (
        _half("data_path", settings.data_path),
        _half("maps_path", settings.maps_path),
    )


def _half(key: str, path: Path) -> Half:
    store = _read(path / STORE_FILE)
    if store:
        return Half(key, path, HalfState.NAMED, store)
    if key == "data_path":
        store = _read(path / JOINING_FILE)
        if store:
            return Half(key, path, HalfState.JOINING, store)
    with _told(path / FORMAT_FILE) as format_file:
        named = format_file.exists()
    return Half(key, path, HalfState.UNNAMED if named else HalfState.NEW)


def _read(path: Path) -> str:
    """The uuid in a file; empty if there is no such file."""
    try:
        with _told(path):
            text = path.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    lines = text.splitlines()
    try:
        if len(lines) != 2 or lines[0] != _MAGIC:
            raise ValueError
        return str(uuid.UUID(lines[1]))
    except ValueError:
        raise ConfigError(
            f"{path} does not hold the uuid of a store: it is damaged, or of a newer "
            "version; the file of the other half has the uuid as well"
        ) from None


def _put(path: Path, store: str) -> str:
    """Make a file with the uuid unless it is there; returns the uuid it holds."""
    with _told(path):
        aside = _write_aside(path, store)
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
        sync_directory(path.parent)
    return _read(path)


def _finish(data: Path) -> None:
    """Say that the maps half has its uuid, too."""
    with _told(data / STORE_FILE):
        with contextlib.suppress(FileNotFoundError):  # another node was faster
            (data / JOINING_FILE).rename(data / STORE_FILE)
        sync_directory(data)


def _remember(path: Path, store: str) -> None:
    """Note which store the instance serves."""
    if _read(path) != store:
        with _told(path):
            _write_aside(path, store).rename(path)
            sync_directory(path.parent)


def _write_aside(path: Path, store: str) -> Path:
    """Write what a file shall hold beside it: what gets the name is whole."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with aside.open("x", encoding="ascii") as file:
        file.write(f"{_MAGIC}\n{store}\n")
        file.flush()
        os.fsync(file.fileno())
    return aside


@contextlib.contextmanager
def _told(path: Path) -> Iterator[Path]:
    """Let errors of the system name the file; that it is missing is the caller's."""
    try:
        yield path
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        number = error.errno or errno.EIO
        raise from_errno(number, f"cannot read or write {path}") from error
