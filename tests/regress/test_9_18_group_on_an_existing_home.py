# SPDX-License-Identifier: Apache-2.0
"""Issue 9, fault 18: `group` set on an existing home kept its members out."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

import pytest

from archipelago.errors import ConfigError
from archipelago.settings import load_settings
from archipelago.supervisor import ground

KEYS = ("run_dir", "log_dir", "state_dir", "data_path", "maps_path")


def other_group() -> grp.struct_group:
    """A group that a directory of ours does not have by itself."""
    own = {os.getegid()}
    allowed = (
        set(os.getgroups()) if os.geteuid() else {g.gr_gid for g in grp.getgrall()}
    )
    for gid in sorted(allowed - own):
        return grp.getgrgid(gid)
    pytest.skip("needs a second group")


def test_the_directories_are_opened_to_the_group(tmp_path: Path) -> None:
    home = tmp_path / "h"
    ground.make_directories(load_settings(home))
    assert stat.S_IMODE((home / "run").stat().st_mode) == 0o700
    group = other_group()
    settings = load_settings(home, group=group.gr_name)
    ground.make_directories(settings)
    for key in KEYS:
        found = getattr(settings, key).stat()
        assert found.st_gid == group.gr_gid
        assert found.st_mode & 0o050 == 0o050, key
    assert settings.maps_path.stat().st_mode & 0o2070 == 0o2070
    assert home.stat().st_mode & 0o050 == 0o050


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's directory")
def test_another_users_directory_is_named_with_the_command(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "h", group=other_group().gr_name)
    settings.log_dir.mkdir(parents=True)
    settings.log_dir.chmod(0o700)
    os.chown(settings.log_dir, 65534, 65534)
    with pytest.raises(ConfigError, match=f"run 'chgrp .* {settings.log_dir} && chmod"):
        ground.make_directories(settings)
