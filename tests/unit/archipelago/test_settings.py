# SPDX-License-Identifier: Apache-2.0
"""Settings: which source wins, what is refused and in which words."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archipelago import paths
from archipelago.errors import ConfigError
from archipelago.settings import expected, load_settings, setting_keys
from archipelago.sources import variable_of

MIB = 1 << 20


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("ARCHIPELAGO_", "XDG_")):
            monkeypatch.delenv(variable)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    # Short, so that sockets fit whatever pytest calls its directories.
    (tmp_path / "h" / "etc" / "default").mkdir(parents=True)
    return tmp_path / "h"


def write_toml(home: Path, text: str) -> Path:
    file = home / "etc" / "archipelago.toml"
    file.write_text(text)
    return file


def write_legacy(home: Path, text: str) -> Path:
    file = home / "etc" / "default" / "archipelago"
    file.write_text(text)
    return file


def check_refused_in_one_line(home: Path, file: Path, words: list[str]) -> None:
    """Settings are refused; the message names the file and has all these words."""
    with pytest.raises(ConfigError) as caught:
        load_settings(home)
    message = str(caught.value)
    assert message.startswith(str(file)), message
    assert "\n" not in message
    for word in words:
        assert word in message
    assert caught.value.exit_code == 2


# Where things are


def test_no_file_at_all_gives_a_file_backend_under_the_home(home: Path) -> None:
    settings = load_settings(home)
    assert settings.backend == "file"
    assert settings.placement == "together"
    assert settings.block_size == 4 * MIB
    assert settings.data_path == home / "store" / "data"
    assert settings.maps_path == home / "store" / "maps"
    assert settings.log_dir == home / "log"
    assert set(settings.origins.values()) == {"default"}
    assert not settings.notes


def test_the_environment_names_the_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIPELAGO_HOME", str(home))
    assert load_settings().locations.home == home
    assert load_settings(home / "other").locations.home == home / "other"


def test_segment_name_follows_the_real_path(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home)
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
    assert load_settings(home).segment_name == f"archipelago-{digest}"
    assert load_settings(link).segment_name == f"archipelago-{digest}"
    assert paths.segment_name(f"{link}/../link/") == f"archipelago-{digest}"


def test_system_and_user_instances(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    system = paths.locate()
    assert (system.kind, system.segment_name) == ("system", "archipelago")
    assert system.config_file == Path("/etc/archipelago/archipelago.toml")
    assert system.legacy_file == Path("/etc/default/archipelago")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    user = paths.locate()
    assert (user.kind, user.segment_name) == ("user", "archipelago-4321")
    assert user.config_file == tmp_path / ".config/archipelago/archipelago.toml"
    assert user.legacy_file is None
    assert user.state_dir == Path("/data/archipelago")
    assert user.run_dir == Path("/tmp/archipelago-4321")


def test_long_homes_get_a_short_socket_directory(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    settings = load_settings(deep)
    assert settings.run_dir == deep / "run"
    assert settings.socket_dir != settings.run_dir
    assert len(os.fsencode(settings.nbd_socket)) <= paths.SOCKET_PATH_MAX
    assert len(os.fsencode(settings.supervisor_socket)) <= paths.SOCKET_PATH_MAX
    assert any("107 bytes" in note for note in settings.notes)
    assert load_settings(deep).socket_dir == settings.socket_dir


def test_stores_follow_the_state_directory(home: Path) -> None:
    settings = load_settings(home, state_dir="/srv/vol")
    assert settings.data_path == Path("/srv/vol/data")
    assert settings.instance_file == Path("/srv/vol/instance")


# Which source wins

SOURCES = ("legacy", "toml", "environment", "command line")


@given(used=st.sets(st.sampled_from(SOURCES)))
def test_the_higher_source_wins(
    used: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("p")
    (home / "etc" / "default").mkdir(parents=True)
    ports = {source: 100 + i for i, source in enumerate(SOURCES)}
    overrides = {}
    with pytest.MonkeyPatch.context() as patch:
        if "legacy" in used:
            write_legacy(home, f"SEGMENT_PORTS={ports['legacy']}\n")
        if "toml" in used:
            write_toml(home, f"[segment]\nports = {ports['toml']}\n")
        if "environment" in used:
            patch.setenv("ARCHIPELAGO_SEGMENT_PORTS", str(ports["environment"]))
        if "command line" in used:
            overrides = {"segment.ports": str(ports["command line"])}
        settings = load_settings(home, **overrides)
    highest = next((s for s in reversed(SOURCES) if s in used), None)
    assert settings.segment.ports == (ports[highest] if highest else 1024)
    origin = settings.origins["segment.ports"]
    assert {
        "legacy": "SEGMENT_PORTS" in origin,
        "toml": origin.endswith("archipelago.toml"),
        "environment": origin == "environment ARCHIPELAGO_SEGMENT_PORTS",
        "command line": origin == "command line",
        None: origin == "default",
    }[highest]


def test_every_setting_has_a_variable_and_a_description() -> None:
    keys = list(setting_keys())
    assert len({variable_of(key) for key in keys}) == len(keys)
    assert "ARCHIPELAGO_HOME" not in {variable_of(key) for key in keys}
    for key in keys:
        assert expected(key), key


def test_toml_sets_everything(home: Path) -> None:
    write_toml(
        home,
        """
        placement = "apart"
        backend = "mem"
        data_path = "/srv/data"
        maps_path = "/srv/maps/../m"
        engine = "threads"
        direct = true
        block_size = "64K"
        lease_ttl = 2.5
        [segment]
        ports = 128
        requests = 1024
        heap = 64
        [nbd]
        socket = "/run/x.sock"
        listen = "::1"
        port = 10810
        [log]
        level = 2
        mapperd = 3
        """,
    )
    settings = load_settings(home)
    assert settings.placement == "apart"
    assert settings.maps_path == Path("/srv/m")
    assert settings.block_size == 64 << 10
    assert settings.segment.heap == 64 * MIB  # a bare number is in MiB
    assert settings.nbd_socket == Path("/run/x.sock")
    assert settings.log_level("mapperd") == 3
    assert settings.log_level("vlmcd") == 2


def test_overrides_take_tables_as_well(home: Path) -> None:
    assert load_settings(home, nbd={"listen": "127.0.0.1"}).nbd.listen == "127.0.0.1"


def test_settings_are_frozen(home: Path) -> None:
    settings = load_settings(home)
    with pytest.raises(ValueError, match="frozen"):
        settings.engine = "threads"


def test_an_empty_variable_is_as_good_as_none(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIPELAGO_ENGINE", "")
    assert load_settings(home).engine == "auto"


def test_a_mistyped_variable_is_noted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIPELAGO_ENIGNE", "threads")
    monkeypatch.setenv("ARCHIPELAGO_SERVICE_HOST", "10.0.0.1")
    notes = load_settings(home).notes
    assert len(notes) == 1
    assert "ARCHIPELAGO_ENIGNE" in notes[0]
    assert "ARCHIPELAGO_ENGINE" in notes[0]


# What is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('plcement = "apart"', ["plcement", "'apart'", "placement", "unknown key"]),
        ("[segmnet]\nports = 64", ["segmnet", "unknown key", "segment"]),
        ("[segment]\nport = 64", ["segment.port", "64", "segment.ports"]),
        ("segment = 5", ["segment = 5", "table [segment]"]),
        ('placement = "beside"', ["placement", "'beside'", '"together"', '"apart"']),
        ("placement = 3", ["placement = 3", '"together"']),
        ('direct = "perhaps"', ["direct", "'perhaps'", "true"]),
        ("direct = 7", ["direct = 7"]),
        ("block_size = 3", ["block_size = 3", "power of two"]),
        ('block_size = "8M"', ["block_size", "'8M'", '"4M"']),
        ('block_size = "many"', ["block_size", "'many'", "not a size"]),
        ("block_size = true", ["block_size = True", "number"]),
        ("block_size = [1]", ["block_size = [1]"]),
        ("lease_ttl = 0", ["lease_ttl = 0", "1 to 3600"]),
        ('lease_ttl = "soon"', ["lease_ttl", "'soon'"]),
        ('data_path = "images"', ["data_path", "'images'", "absolute"]),
        ("data_path = 5", ["data_path = 5"]),
        ('data_path = "/a"\nmaps_path = "/a"', ["/a", "overlap"]),
        ('data_path = "/a"\nmaps_path = "/a/b"', ["/a/b", "overlap"]),
        ('maps_path = "/x/../a"\ndata_path = "/a/b/c"', ["overlap"]),
        ("[segment]\nports = 15", ["segment.ports = 15", "16 to 4096"]),
        ("[segment]\nports = true", ["segment.ports = True", "number"]),
        ("[segment]\nrequests = 1000", ["segment.requests = 1000", "power of two"]),
        ('[segment]\nheap = "17M"', ["segment.heap", "'17M'", "multiple of 4M"]),
        ('[nbd]\nlisten = "0.0.0.0"', ["nbd.listen", "'0.0.0.0'", "TLS"]),
        ('[nbd]\nlisten = "example.org"', ["nbd.listen", "'example.org'", "address"]),
        ("[nbd]\nport = 70000", ["nbd.port = 70000"]),
        ("[log]\nlevel = 4", ["log.level = 4", "0 (errors)"]),
        ("[log]\nmapperd = -1", ["log.mapperd = -1", "3 (debug)"]),
        ("[log]\nblockerd = 1", ["log.blockerd", "mean log.blocker"]),
        ('group = "no-such-group-here"', ["group", "no-such-group-here", "groupadd"]),
        (f'[nbd]\nsocket = "/{"s" * 120}"', ["nbd.socket", "107 bytes"]),
        ("placement == 1", ["not valid TOML", "line 1"]),
    ],
)
def test_bad_toml_is_named_in_one_line(home: Path, text: str, words: list[str]) -> None:
    check_refused_in_one_line(home, write_toml(home, text), words)


def test_bad_variable_and_option_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"command line: engine = 'warp'"):
        load_settings(home, engine="warp")
    with pytest.raises(ConfigError, match=r"command line: nbd\.lisen"):
        load_settings(home, **{"nbd.lisen": "::1"})
    monkeypatch.setenv("ARCHIPELAGO_LOG_LEVEL", "loud")
    with pytest.raises(ConfigError, match=r"environment ARCHIPELAGO_LOG_LEVEL: log"):
        load_settings(home)


def test_unreadable_and_undecodable_files(home: Path) -> None:
    file = write_toml(home, "")
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(home)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_settings(home)


# The file of 2013


def test_the_2013_file_is_understood(home: Path) -> None:
    file = write_legacy(
        home,
        """
        # Storage
        STORAGE="files"   # not rados
        export FILED_IMAGES='/srv/archip/images'
        FILED_MAPS=/srv/archip/maps
        PITHOS=/srv/pithos/data
        PITHOSMAPS=/srv/pithos/maps
        RADOS_POOL_MAPS=maps
        VERBOSITY=2
        VERBOSITY_BLOCKERB=0
        VERBOSITY_VLMCD="3"
        SEGMENT_SIZE=256
        """,
    )
    settings = load_settings(home)
    assert settings.backend == "file"
    assert settings.data_path == Path("/srv/archip/images")
    assert settings.maps_path == Path("/srv/archip/maps")
    assert settings.segment.heap == 256 * MIB
    assert settings.log_level("blockerb") == 0
    assert settings.log_level("blockerm") == 2
    assert settings.log_level("vlmcd") == 3
    assert settings.origins["data_path"] == f"{file}:4 FILED_IMAGES"
    assert [note.split(":")[1].split()[0] for note in settings.notes] == [
        "PITHOS",
        "PITHOSMAPS",
        "RADOS_POOL_MAPS",
    ]


def test_the_2013_file_may_be_etc_default_itself(tmp_path: Path) -> None:
    home = tmp_path / "h"
    (home / "etc").mkdir(parents=True)
    (home / "etc" / "default").write_text("VERBOSITY=3\n")
    assert load_settings(home).log.level == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("STORAGE=rados", ["STORAGE", "'rados'", "RADOS", "STORAGE=files"]),
        ("STORAGE=tape", ["STORAGE", "'tape'", "STORAGE=files"]),
        ("RADOS_POOL_BLOCKS=blocks", ["RADOS_POOL_BLOCKS", "'blocks'", "STORAGE"]),
        ("FILED_IMAGE=/x", [":1", "FILED_IMAGE", "'/x'", "FILED_IMAGES"]),
        ("FILED_IMAGES=images", [":1 FILED_IMAGES", "data_path", "absolute"]),
        ("VERBOSITY=9", [":1 VERBOSITY", "log.level", "0 (errors)"]),
        ("\nFILED_MAPS=$(rm -rf /)", [":2", "KEY=VALUE"]),
        ("FILED_MAPS=$HOME/maps", [":1", "not run by a shell"]),
        ("FILED_MAPS=`pwd`", ["not run by a shell"]),
        ("VERBOSITY=1; rm x", ["KEY=VALUE"]),
        ("FILED_MAPS='/a", ["No closing quotation"]),
        ("echo hello", ["KEY=VALUE"]),
    ],
)
def test_a_bad_2013_file_is_named_in_one_line(
    home: Path, text: str, words: list[str]
) -> None:
    check_refused_in_one_line(home, write_legacy(home, text), words)


def test_single_quotes_protect_as_in_a_shell(home: Path) -> None:
    write_legacy(home, "FILED_IMAGES='/srv/a$b'\n")
    assert load_settings(home).data_path == Path("/srv/a$b")


@given(st.text(max_size=80))
def test_no_2013_file_does_anything_but_set_or_be_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    home = tmp_path_factory.mktemp("l")
    (home / "etc" / "default").mkdir(parents=True)
    (home / "etc" / "default" / "archipelago").write_bytes(
        text.encode("utf-8", "surrogatepass")
    )
    try:
        load_settings(home)
    except ConfigError as error:
        assert str(home) in str(error)
