# SPDX-License-Identifier: Apache-2.0
"""Where settings come from: each source read into a flat table of dotted keys.

Every value carries its origin, the words in which an error or ``config show`` speaks
of it.  Nothing is checked here but the keys; `archipelago.settings` checks the values.

The KEY=VALUE file is the one of 2013, which a shell used to read.  It is parsed, never
executed: a line that would need a shell is refused.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archipelago.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "Item",
    "read_environment",
    "read_legacy",
    "read_overrides",
    "read_toml",
    "variable_of",
]

#: Variables of ours that are not settings.
_OTHER_VARIABLES = frozenset({"ARCHIPELAGO_HOME", "ARCHIPELAGO_DEBUG"})
_PREFIX = "ARCHIPELAGO_"

#: Keys of the 2013 file and the setting each one is.
_LEGACY = {
    "FILED_IMAGES": "data_path",
    "FILED_MAPS": "maps_path",
    "VERBOSITY": "log.level",
    "VERBOSITY_BLOCKERB": "log.blockerb",
    "VERBOSITY_BLOCKERM": "log.blockerm",
    "VERBOSITY_MAPPERD": "log.mapperd",
    "VERBOSITY_VLMCD": "log.vlmcd",
    "SEGMENT_PORTS": "segment.ports",
    "SEGMENT_SIZE": "segment.heap",
}
#: Keys of that file that ask for nothing we could do, and why.
_LEGACY_IDLE = {
    "PITHOS": "this version does not serve Pithos objects",
    "PITHOSMAPS": "this version does not serve Pithos objects",
    "RADOS_POOL_MAPS": "the storage is files",
    "RADOS_POOL_BLOCKS": "the storage is files",
    "SEGMENT_DYNPORTS": "every port that no peer has is dynamic",
    "SEGMENT_TYPE": "segments are POSIX shared memory",
    "SEGMENT_NAME": "the name follows from the instance",
    "SEGMENT_ALIGNMENT": "buffers are page aligned",
}


@dataclass(frozen=True)
class Item:
    """A value and where it came from."""

    value: Any
    origin: str

    def shown(self) -> str:
        """The value as an error shows it: on one line, and not endless."""
        text = repr(self.value)
        return text if len(text) <= 120 else text[:117] + "..."


def read_toml(path: Path, keys: frozenset[str]) -> dict[str, Item]:
    """Read ``archipelago.toml``; an absent file sets nothing."""
    text = _read(path)
    if text is None:
        return {}
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return _flatten(document, str(path), keys)


def read_overrides(
    overrides: Mapping[str, Any], keys: frozenset[str]
) -> dict[str, Item]:
    """Take what the command line, or a caller, sets."""
    return _flatten(overrides, "command line", keys)


def variable_of(key: str) -> str:
    """The environment variable of a setting: ``segment.heap`` has its own."""
    return _PREFIX + key.upper().replace(".", "_")


def read_environment(keys: Iterable[str], notes: list[str]) -> dict[str, Item]:
    """Take the variables that are settings; note those that look like one.

    An empty one is as good as none.  An unknown variable is no error: container
    platforms invent names with a service's name in front.
    """
    known = {variable_of(key): key for key in keys}
    items = {}
    for variable, value in os.environ.items():
        if not value:
            continue
        if variable in known:
            items[known[variable]] = Item(value, f"environment {variable}")
        elif variable.startswith(_PREFIX) and variable not in _OTHER_VARIABLES:
            close = difflib.get_close_matches(variable, known, 1, 0.85)
            if close:
                notes.append(f"environment {variable} is ignored: not {close[0]}?")
    return items


def read_legacy(path: Path, notes: list[str]) -> dict[str, Item]:
    """Read the KEY=VALUE file of 2013; an absent file sets nothing."""
    text = _read(path)
    if text is None:
        return {}
    items: dict[str, Item] = {}
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        assignment = _assignment(line, f"{path}:{number}")
        if assignment is not None:
            key, value = assignment
            found[key] = value
            if key in _LEGACY:
                items[_LEGACY[key]] = Item(value, f"{path}:{number} {key}")
            elif key not in _LEGACY_IDLE and key != "STORAGE":
                raise ConfigError(
                    f"{path}:{number}: {key} = {value!r}: unknown key"
                    f"{_suggestion(key, [*_LEGACY, *_LEGACY_IDLE, 'STORAGE'])}; mend "
                    "or remove the line"
                )
    _legacy_storage(path, found, items)
    notes.extend(
        f"{path}: {key} has no effect: {_LEGACY_IDLE[key]}"
        for key, value in found.items()
        if key in _LEGACY_IDLE and value
    )
    return items


def _legacy_storage(
    path: Path, found: Mapping[str, str], items: dict[str, Item]
) -> None:
    """STORAGE: files is ours; RADOS is refused, said or implied."""
    storage = found.get("STORAGE", "")
    if storage == "files":
        items["backend"] = Item("file", f"{path} STORAGE")
        return
    if storage:
        reason = (
            "this version cannot serve RADOS"
            if storage == "rados"
            else "no such storage backend"
        )
        raise ConfigError(
            f"{path}: STORAGE = {storage!r}: {reason}; set STORAGE=files, with "
            "FILED_IMAGES and FILED_MAPS naming two directories"
        )
    for key in ("RADOS_POOL_BLOCKS", "RADOS_POOL_MAPS"):
        if found.get(key):
            raise ConfigError(
                f"{path}: {key} = {found[key]!r} without STORAGE asks for RADOS, which "
                "this version cannot serve; set STORAGE=files, with FILED_IMAGES and "
                "FILED_MAPS naming two directories"
            )


def _assignment(line: str, origin: str) -> tuple[str, str] | None:
    """Parse one line of the shell's: an assignment, or nothing."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"{origin}: {line.strip()!r}: {error}") from None
    if words and words[0] == "export":
        words = words[1:]
    if not words:
        return None
    match = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)
    if match is None or len(words) != 1:
        raise ConfigError(
            f"{origin}: {line.strip()!r}: not KEY=VALUE; quote a value with spaces"
        )
    if re.search(r"[$`;&|<>()]", re.sub(r"'[^']*'|(?<!\S)#.*", "", line)):
        raise ConfigError(
            f"{origin}: {line.strip()!r}: the file is not run by a shell; write the "
            "value out, in single quotes if it holds such characters"
        )
    return match[1], match[2]


def _flatten(
    tree: Mapping[str, Any], origin: str, keys: frozenset[str]
) -> dict[str, Item]:
    """Turn tables into dotted keys, refusing those that are no setting's."""
    tables = {key.split(".")[0] for key in keys if "." in key}
    items: dict[str, Item] = {}
    for key, value in tree.items():
        if key in tables:
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{origin}: {key} = {value!r}: expected a table [{key}]"
                )
            entries = {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            entries = {key: value}
        for name, entry in entries.items():
            if name not in keys:
                raise ConfigError(
                    f"{origin}: {name} = {entry!r}: unknown key"
                    f"{_suggestion(name, keys)}; 'archipelago config show' lists all"
                )
            items[name] = Item(entry, origin)
    return items


def _suggestion(key: str, keys: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(keys), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; make it readable, or set "
            "ARCHIPELAGO_HOME to a directory of your own"
        ) from None
