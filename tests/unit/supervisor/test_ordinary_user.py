# SPDX-License-Identifier: Apache-2.0
"""Everything works for an ordinary user: with a home, and in the user's own places."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.requires_root]

UID = 65534
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def module_paths() -> str:
    """Where another interpreter of this version finds what we are made of."""
    places: dict[str, None] = {}
    for name in ("archipelago", "click", "pydantic", "rich", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        depth = 1 if spec.submodule_search_locations else 0
        places[str(Path(spec.origin).parents[depth])] = None
    return os.pathsep.join(places)


def as_user(env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    # By way of a shell: what setpriv itself executes is looked up with root's rights.
    shell = ["sh", "-c", 'exec "$0" "$@"']
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    return subprocess.run(
        [*user, *shell, *command],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def user(tmp_path: Path) -> Iterator[tuple[Run, Path]]:
    """Run commands as user 65534; its directory is removed at the end."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    base = Path(tempfile.mkdtemp(prefix="arch-", dir="/tmp"))
    os.chown(base, UID, UID)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(base / "u"),
        "PYTHONPATH": module_paths(),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    probe = "import archipelago.settings, xseg; xseg.Segment"
    # The interpreter of a virtual environment may lie where only root can look.
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/bin")):
        if python and as_user(env, python, "-c", probe).returncode == 0:
            break
    else:
        shutil.rmtree(base)
        pytest.skip("no interpreter that user 65534 may run has our modules")

    def run(
        module: str, *args: str, exit_code: int = 0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        done = as_user({**env, **more}, python, "-m", module, *args)
        assert done.returncode == exit_code, done.stderr
        return done

    yield run, base
    shutil.rmtree(base)


def try_out(run: Run, **env: str) -> Any:
    """Start, use and stop; returns the status while it ran."""
    run("archipelago.cli", "start", **env)
    try:
        run("vlmc", "create", "v", "--size", "1G", **env)
        run("vlmc", "snapshot", "v", "s", **env)
        run("vlmc", "clone", "s", "c", **env)
        listed = json.loads(run("vlmc", "list", "--json", **env).stdout)
        assert [volume["name"] for volume in listed["volumes"]] == ["c", "s", "v"]
        status = json.loads(run("archipelago.cli", "status", "--json", **env).stdout)
        shm = Path("/dev/shm") / status["segment"]
        assert shm.stat().st_uid == UID
        assert shm.stat().st_mode & 0o777 == 0o600
        assert Path(status["nbd"][0]).stat().st_mode & 0o777 == 0o600
    finally:
        run("archipelago.cli", "stop", "-f", **env)
    assert not shm.exists()
    return status


@pytest.mark.parametrize("placement", ["together", "apart"])
def test_with_a_home(user: tuple[Run, Path], placement: str) -> None:
    run, base = user
    home = str(base / "h")
    status = try_out(run, ARCHIPELAGO_HOME=home, ARCHIPELAGO_PLACEMENT=placement)
    assert status["home"] == home
    assert Path(home).stat().st_mode & 0o077 == 0


def test_with_nothing_at_all(user: tuple[Run, Path]) -> None:
    run, base = user
    if Path(f"/tmp/archipelago-{UID}").exists():
        pytest.skip(f"user {UID} has an instance of its own here")
    try:
        status = try_out(run)
    finally:
        shutil.rmtree(f"/tmp/archipelago-{UID}", ignore_errors=True)
    assert status["home"] is None
    assert status["segment"] == f"archipelago-{UID}"
    assert (base / "u/.local/share/archipelago/data").is_dir()
    assert (base / "u/.local/state/archipelago/log/supervisor.log").is_file()


def test_a_directory_of_somebody_else_is_refused(user: tuple[Run, Path]) -> None:
    run, base = user
    taken = base / "h" / "run"
    taken.mkdir(parents=True)
    os.chown(base / "h", UID, UID)
    os.chown(taken, 12345, 12345)
    taken.chmod(0o777)
    done = run("archipelago.cli", "--home", str(base / "h"), "start", exit_code=2)
    assert f"{taken}: belongs to user 12345" in done.stderr
    os.chown(taken, UID, UID)
    done = run("archipelago.cli", "--home", str(base / "h"), "start", exit_code=2)
    assert "everybody may write there" in done.stderr


def test_a_place_that_cannot_be_written(user: tuple[Run, Path]) -> None:
    run, _ = user
    done = run("archipelago.cli", "--home", "/proc/h", "start", exit_code=2)
    assert "/proc/h" in done.stderr
    assert "ARCHIPELAGO_HOME" in done.stderr
    assert done.stderr.count("\n") == 1
