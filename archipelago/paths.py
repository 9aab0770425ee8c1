# SPDX-License-Identifier: Apache-2.0
"""Where one instance lives: its directories, and the names derived from them.

There are three kinds of instance: the system's (root, no home), a user's (XDG
directories) and one under a home of its own.  Everything here follows from the home,
the user and the environment alone, without reading any file, so that commands that
only need the segment's name start fast.

Source: XDG Base Directory Specification 0.8; Filesystem Hierarchy Standard 3.0;
unix(7) for the length of socket paths.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Longest path of a unix socket [bytes]: sizeof(sun_path) less the terminator.
SOCKET_PATH_MAX = 107
#: Longest name of a socket that we put into a run directory [bytes].
_SOCKET_NAME_MAX = len("/supervisor.sock")

#: The environment variable that names an instance's home.
HOME_VARIABLE = "ARCHIPELAGO_HOME"


@dataclass(frozen=True)
class Locations:
    """The places of one instance.

    Attributes:
        kind: whose instance it is.
        home: real path of its home; None for the system's and the user's.
        config_file: the TOML file that is read if it exists.
        legacy_file: the KEY=VALUE file that is read if it exists.
        state_dir: default place of the stores.
        run_dir: default place of pid file and sockets.
        log_dir: default place of logs.
        segment_name: name of the shared memory segment.
        tag: short name, unique on this machine, fit for a directory's name.
    """

    kind: Literal["system", "user", "home"]
    home: Path | None
    config_file: Path
    legacy_file: Path | None
    state_dir: Path
    run_dir: Path
    log_dir: Path
    segment_name: str
    tag: str

    @property
    def owner(self) -> int:
        """The user whose segment a client of this instance trusts, besides root."""
        if self.kind == "user":
            return os.geteuid()
        return _owner(self.run_dir if self.home is None else self.home)


def locate(home: str | os.PathLike[str] | None = None) -> Locations:
    """Find the instance that `home`, or the environment, speaks of.

    Args:
        home: directory of the instance; None follows ``ARCHIPELAGO_HOME``, and
            without it the system's or the user's instance is meant.
    """
    chosen = os.fspath(home) if home is not None else os.environ.get(HOME_VARIABLE)
    if chosen:
        return _home(Path(os.path.realpath(os.path.expanduser(chosen))))
    if os.geteuid() == 0:
        return _system()
    return _user()


def segment_name(home: str | os.PathLike[str] | None = None) -> str:
    """Name the segment of an instance, without reading its configuration."""
    return locate(home).segment_name


def _home(home: Path) -> Locations:
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
    defaults = home / "etc" / "default"
    return Locations(
        kind="home",
        home=home,
        config_file=home / "etc" / "archipelago.toml",
        legacy_file=(
            defaults if os.path.isfile(defaults) else defaults / "archipelago"
        ),
        state_dir=home / "store",
        run_dir=home / "run",
        log_dir=home / "log",
        segment_name=f"archipelago-{digest}",
        tag=f"archipelago-{digest}",
    )


def _system() -> Locations:
    return Locations(
        kind="system",
        home=None,
        config_file=Path("/etc/archipelago/archipelago.toml"),
        legacy_file=Path("/etc/default/archipelago"),
        state_dir=Path("/var/lib/archipelago"),
        run_dir=Path("/run/archipelago"),
        log_dir=Path("/var/log/archipelago"),
        segment_name="archipelago",
        tag="archipelago",
    )


def _user() -> Locations:
    uid = os.geteuid()
    user = Path(os.path.expanduser("~"))
    return Locations(
        kind="user",
        home=None,
        config_file=_xdg("XDG_CONFIG_HOME", user / ".config") / "archipelago.toml",
        # /etc/default/archipelago speaks of the system's stores, not of this user's.
        legacy_file=None,
        state_dir=_xdg("XDG_DATA_HOME", user / ".local/share"),
        run_dir=runtime_dir(uid, "archipelago"),
        log_dir=_xdg("XDG_STATE_HOME", user / ".local/state") / "log",
        segment_name=f"archipelago-{uid}",
        tag=f"archipelago-{uid}",
    )


def _xdg(variable: str, default: Path) -> Path:
    """Resolve one XDG base directory; the specification ignores relative paths."""
    value = os.environ.get(variable, "")
    base = Path(value) if value.startswith("/") else default
    return base / "archipelago"


def runtime_dir(uid: int, tag: str) -> Path:
    """A short directory for a user's sockets: below ``/run/user``, or ``/tmp``."""
    run = Path(f"/run/user/{uid}")
    try:
        if run.stat().st_uid == uid:
            return run / tag
    except OSError:
        pass
    return Path(f"/tmp/archipelago-{uid}" if tag == "archipelago" else f"/tmp/{tag}")


def socket_dir(run_dir: Path, tag: str) -> Path:
    """The directory of an instance's sockets.

    It is the run directory, unless a socket's path there would not fit into a unix
    socket address: then a short one that belongs to the run directory's user.
    """
    longest = len(os.fsencode(run_dir)) + _SOCKET_NAME_MAX
    if longest <= SOCKET_PATH_MAX:
        return run_dir
    return runtime_dir(_owner(run_dir), tag)


def _owner(path: Path) -> int:
    """User of a path, or of the nearest parent that exists."""
    for candidate in (path, *path.parents):
        try:
            return candidate.stat().st_uid
        except OSError:
            continue
    return os.geteuid()
