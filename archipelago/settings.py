# SPDX-License-Identifier: Apache-2.0
"""The settings of one instance: their names, types, bounds and defaults.

`load_settings` gathers the layers (see `archipelago.sources`), the higher winning:

    command line > environment > archipelago.toml > KEY=VALUE file of 2013 > defaults

and returns one frozen, checked `Settings`.  Whatever is wrong is a `ConfigError` that
names where the value came from, the key, the value and what is expected.
"""

from __future__ import annotations

import grp
import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from archipelago import paths, sources
from archipelago.errors import ConfigError
from archipelago.units import parse_size

__all__ = ["ROLES", "Settings", "load_settings", "setting_keys"]

#: The peers of an instance, in the order in which they start.
ROLES = ("blockerb", "blockerm", "mapperd", "vlmcd")

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def _no_bool(value: object) -> object:
    """Refuse true and false where a number is meant: Python counts with them."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _size(value: object) -> object:
    """Read a size [bytes] as the commands do: a suffix, or a bare number of MiB."""
    _no_bool(value)
    return parse_size(str(value)) if isinstance(value, (int, str)) else value


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("it is not a power of two")
    return value


def _watchdog(value: float) -> float:
    if 0 < value < 10:
        raise ValueError("so short a silence is no proof on a busy machine")
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError("the path is not absolute")
    return Path(os.path.normpath(value))


def _loopback(value: str) -> str:
    if value in ("", "localhost"):
        return value
    try:
        loopback = ipaddress.ip_address(value).is_loopback
    except ValueError:
        raise ValueError("it is not an address") from None
    if not loopback:
        raise ValueError(
            "beyond loopback NBD needs TLS, which this version does not offer"
        )
    return value


Number = Annotated[int, BeforeValidator(_no_bool)]
Level = Annotated[
    int,
    BeforeValidator(_no_bool),
    Field(
        ge=0, le=3, description="0 (errors), 1 (warnings), 2 (information) or 3 (debug)"
    ),
]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentSettings(_Group):
    """How large the shared memory segment is."""

    ports: Annotated[Number, Field(ge=16, le=4096, description="ports, 16 to 4096")] = (
        1024
    )
    requests: Annotated[
        Number,
        AfterValidator(_power_of_two),
        Field(
            # The peers keep about 300: no client can starve them.
            ge=512,
            le=65536,
            description="request descriptors, a power of two from 512 to 65536",
        ),
    ] = 8192
    heap: Annotated[
        int,
        BeforeValidator(_size),
        Field(
            ge=16 * MIB,
            le=64 * GIB,
            multiple_of=4 * MIB,
            description='buffers: a size from "16M" to "64G", a multiple of 4M',
        ),
    ] = 128 * MIB


class NbdSettings(_Group):
    """Where NBD clients connect."""

    socket: Annotated[
        AbsolutePath | None,
        Field(description="absolute path of the unix socket, at most 107 bytes"),
    ] = None
    listen: Annotated[
        str,
        AfterValidator(_loopback),
        Field(
            description='a loopback address such as "127.0.0.1" or "::1" to listen on '
            'TCP as well, or "" for none'
        ),
    ] = ""
    port: Annotated[Number, Field(ge=1, le=65535, description="TCP port")] = 10809


class LogSettings(_Group):
    """How much the peers write to their logs."""

    level: Level = 1
    blockerb: Level | None = None
    blockerm: Level | None = None
    mapperd: Level | None = None
    vlmcd: Level | None = None


class Settings(_Group):
    """Everything that can be set, checked.  Sizes are in bytes, times in seconds."""

    placement: Annotated[
        Literal["together", "apart"],
        Field(
            description='"together" (all peers in one process) or "apart" (a process '
            "for each)"
        ),
    ] = "together"
    backend: Annotated[
        Literal["file", "mem"],
        Field(description='"file", or "mem" (in memory only: gone at every restart)'),
    ] = "file"
    data_path: Annotated[
        AbsolutePath, Field(description="absolute path of the directory of data blocks")
    ]
    maps_path: Annotated[
        AbsolutePath, Field(description="absolute path of the directory of maps")
    ]
    engine: Annotated[
        Literal["auto", "io_uring", "threads"],
        Field(description='"auto", "io_uring" or "threads": how files are read'),
    ] = "auto"
    direct: Annotated[
        bool, Field(description="true: O_DIRECT, past the page cache; or false")
    ] = False
    io_timeout: Annotated[
        float,
        BeforeValidator(_no_bool),
        Field(
            ge=1,
            le=86400,
            description="until a request of a store that hangs fails, 1 to 86400 "
            "seconds",
        ),
    ] = 60.0
    block_size: Annotated[
        int,
        BeforeValidator(_size),
        AfterValidator(_power_of_two),
        Field(
            ge=64 * KIB,
            le=4 * MIB,
            description='block of new volumes: a power of two from "64K" to "4M"',
        ),
    ] = 4 * MIB
    lease_ttl: Annotated[
        float,
        BeforeValidator(_no_bool),
        Field(ge=1, le=3600, description="life of a lease, 1 to 3600 seconds"),
    ] = 10.0
    watchdog: Annotated[
        float,
        BeforeValidator(_no_bool),
        AfterValidator(_watchdog),
        Field(
            ge=0,
            le=3600,
            description="silence after which a peer that hangs is replaced, 10 to 3600 "
            "seconds, or 0 for never",
        ),
    ] = 60.0
    group: Annotated[
        str,
        Field(
            description='group that may use segment, sockets and store, or "" for none '
            "but the user"
        ),
    ] = ""
    state_dir: Annotated[
        AbsolutePath, Field(description="absolute path of what must survive a reboot")
    ]
    run_dir: Annotated[
        AbsolutePath, Field(description="absolute path of the pid file and the sockets")
    ]
    log_dir: Annotated[AbsolutePath, Field(description="absolute path of the logs")]
    segment: SegmentSettings = SegmentSettings()
    nbd: NbdSettings = NbdSettings()
    log: LogSettings = LogSettings()

    _locations: paths.Locations = PrivateAttr()
    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        data, maps = self.data_path, self.maps_path
        if data == maps or data in maps.parents or maps in data.parents:
            raise ValueError(
                f"data_path {data} and maps_path {maps} overlap; give each a directory "
                "of its own"
            )
        return self

    @property
    def locations(self) -> paths.Locations:
        """Which instance these settings are of."""
        return self._locations

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each setting came from, by its dotted key."""
        return self._origins

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read and has no effect, one sentence each."""
        return self._notes

    @property
    def segment_name(self) -> str:
        """Name of the segment, unique to the instance on this machine."""
        return self._locations.segment_name

    @property
    def socket_dir(self) -> Path:
        """Directory of the sockets; short enough for a socket's address."""
        return paths.socket_dir(self.run_dir, self._locations.tag)

    @property
    def nbd_socket(self) -> Path:
        """Path of the unix socket on which NBD is served."""
        return self.nbd.socket or self.socket_dir / "nbd.sock"

    @property
    def supervisor_socket(self) -> Path:
        """Path of the unix socket on which the supervisor is commanded."""
        return self.socket_dir / "supervisor.sock"

    @property
    def pid_file(self) -> Path:
        """File that the running supervisor keeps locked."""
        return self.run_dir / "supervisor.pid"

    @property
    def instance_file(self) -> Path:
        """File with the uuid of this instance, the owner of its leases."""
        return self.state_dir / "instance"

    @property
    def gid(self) -> int | None:
        """Group that owns what is shared, or None."""
        return grp.getgrnam(self.group).gr_gid if self.group else None

    def log_level(self, role: str) -> int:
        """Verbosity of one peer, 0 to 3."""
        own = getattr(self.log, role)
        return self.log.level if own is None else int(own)


def setting_keys(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Every setting's dotted key, in the order of the file."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from setting_keys(kind, f"{name}.")
        else:
            yield prefix + name


def expected(key: str) -> str:
    """What a setting may be, as its description says."""
    model: type[BaseModel] = Settings
    *tables, name = key.split(".")
    for table in tables:
        kind = model.model_fields[table].annotation
        assert isinstance(kind, type)
        model = kind
    field = model.model_fields[name]
    if field.description:
        return field.description
    for item in _metadata(field.annotation):
        if getattr(item, "description", None):
            return str(item.description)
    return ""


def _metadata(annotation: Any) -> Iterator[Any]:
    """What `Annotated` members of a union carry."""
    yield from getattr(annotation, "__metadata__", ())
    for member in getattr(annotation, "__args__", ()):
        yield from _metadata(member)


def load_settings(
    home: str | os.PathLike[str] | None = None, /, **overrides: Any
) -> Settings:
    """Gather and check the settings of an instance.

    Args:
        home: directory of the instance; None follows ``ARCHIPELAGO_HOME``, then the
            system's or the user's places.
        overrides: settings that win over all others, by key: ``placement="apart"``,
            ``nbd={"listen": "::1"}`` or ``**{"nbd.listen": "::1"}``.  Bare sizes are
            in MiB, as everywhere in settings.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value is wrong.
    """
    where = paths.locate(home)
    keys = frozenset(setting_keys())
    layer = _defaults(where)
    notes: list[str] = []
    if where.legacy_file is not None:
        layer.update(sources.read_legacy(where.legacy_file, notes))
    layer.update(sources.read_toml(where.config_file, keys))
    layer.update(sources.read_environment(keys, notes))
    layer.update(sources.read_overrides(overrides, keys))
    # Without a word on the stores they lie below the state directory.
    for key, name in (("data_path", "data"), ("maps_path", "maps")):
        if key not in layer:
            state = layer["state_dir"]
            layer[key] = sources.Item(os.path.join(str(state.value), name), "default")
    return _check(layer, where, notes)


def _defaults(where: paths.Locations) -> dict[str, sources.Item]:
    """The defaults that depend on the instance; the others are in the model."""
    items = {
        key: sources.Item(str(getattr(where, key)), "default")
        for key in ("state_dir", "run_dir", "log_dir")
    }
    if where.kind == "system" and _group_exists("archipelago"):
        items["group"] = sources.Item("archipelago", "default")
    return items


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _check(
    layer: Mapping[str, sources.Item], where: paths.Locations, notes: list[str]
) -> Settings:
    tree: dict[str, Any] = {}
    for key, item in layer.items():
        table, _, name = key.rpartition(".")
        (tree.setdefault(table, {}) if table else tree)[name] = item.value
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, layer) from None
    settings._locations = where
    settings._origins = {
        key: layer[key].origin if key in layer else "default" for key in setting_keys()
    }
    _check_group(settings)
    _check_socket(settings)
    if settings.socket_dir != settings.run_dir:
        notes.append(
            f"sockets are in {settings.socket_dir}: paths under {settings.run_dir} are "
            f"longer than the {paths.SOCKET_PATH_MAX} bytes of a unix socket's address"
        )
    settings._notes = tuple(notes)
    return settings


def _explain(error: ValidationError, layer: Mapping[str, sources.Item]) -> ConfigError:
    """Turn pydantic's first complaint into our one line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    location = [str(part) for part in first["loc"]]
    for length in (2, 1):
        key = ".".join(location[:length])
        if key in layer:
            item = layer[key]
            return ConfigError(
                f"{item.origin}: {key} = {item.shown()}: {message}; expected "
                f"{expected(key)}"
            )
    origins = {layer[key].origin for key in ("data_path", "maps_path")}
    return ConfigError(f"{', '.join(sorted(origins))}: {message}")


def _check_group(settings: Settings) -> None:
    if settings.group and not _group_exists(settings.group):
        origin = settings.origins["group"]
        raise ConfigError(
            f"{origin}: group = {settings.group!r}: no such group; create it with "
            f"'groupadd --system {settings.group}', or name another"
        )


def _check_socket(settings: Settings) -> None:
    length = len(os.fsencode(settings.nbd_socket))
    if length > paths.SOCKET_PATH_MAX:
        origin = settings.origins["nbd.socket"]
        raise ConfigError(
            f"{origin}: nbd.socket = '{settings.nbd_socket}': {length} bytes are too "
            f"long for a unix socket; expected {expected('nbd.socket')}"
        )
