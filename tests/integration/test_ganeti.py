# SPDX-License-Identifier: Apache-2.0
"""The Ganeti provider, run as Ganeti runs it: by action, in a clean environment."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archipelago.extstorage import main
from kernel.probe import State, probe
from tests.helpers.instance import Instance, running_instance

PROVIDER = Path(__file__).parents[2] / "ganeti" / "extstorage"
MIB = 1 << 20
DISK = "0b9a1f4e-6c2e-4f1a-8d5b-1f6f3d1c7a11.ext.disk0"
#: Files that Ganeti 3.0 looks for; the last three may be missing.
ACTIONS = (
    "create", "attach", "detach", "remove", "grow", "setinfo", "verify",
    "snapshot", "open", "close",
)  # fmt: skip

_LACKING = [
    f"{feature.name}: {feature.found}"
    for feature in probe()
    if feature.name in ("fuse", "loop") and feature.state is not State.READY
]
devices = [
    pytest.mark.requires_root,
    pytest.mark.skipif(os.geteuid() != 0, reason="block devices need root"),
    pytest.mark.skipif(bool(_LACKING), reason="; ".join(_LACKING)),
]


@dataclass
class Ganeti:
    """Runs actions against one instance."""

    instance: Instance
    defaults: Path

    def action(
        self, name: str, *args: str, volume: str = DISK, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an action to its end, whatever comes of it."""
        env = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "LC_ALL": "C",
            "GANETI_DEFAULTS": str(self.defaults),
            "VOL_NAME": volume,
            **variables,
        }
        return subprocess.run(
            [PROVIDER / name, *args],
            env=env,
            cwd=PROVIDER,
            capture_output=True,
            text=True,
        )

    def do(self, name: str, *, volume: str = DISK, **variables: str) -> str:
        """Run an action that must go well; what it prints."""
        done = self.action(name, volume=volume, **variables)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done.stdout

    def refuse(self, name: str, *, volume: str = DISK, **variables: str) -> str:
        """Run an action that must be refused; its one line of error."""
        done = self.action(name, volume=volume, **variables)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"archipelago: {name} {volume}: ")
        return done.stderr


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as running:
        yield running


@pytest.fixture
def ganeti(instance: Instance, tmp_path: Path) -> Iterator[Ganeti]:
    defaults = tmp_path / "archipelago-ganeti"
    defaults.write_text(f"PYTHON={sys.executable}\nARCHIPELAGO_HOME={instance.home}\n")
    yield Ganeti(instance, defaults)
    for shown in json.loads(instance.vlmc("--json", "showmapped")):
        instance.vlmc("unmap", shown["volume"])
    for volume in instance.connect_and_list():
        instance.vlmc("rm", volume)


def notes(instance: Instance) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(
        (instance.home / "store" / "ganeti.json").read_text()
    )
    return found


def test_ganeti_finds_all_files() -> None:
    for name in ACTIONS:
        mode = (PROVIDER / name).stat().st_mode
        assert stat.S_ISREG(mode) and mode & stat.S_IXUSR
    lines = (PROVIDER / "parameters.list").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["origin", "origin_size"]


@pytest.mark.parametrize("name", ACTIONS)
def test_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-h", "--help"):
        assert main([name, flag], {}) == 0
        assert capsys.readouterr().out.startswith(f"usage: {name}")
    if name != "verify":
        assert main([name, "one"], {"VOL_NAME": "v"}) == 1
        wrong = capsys.readouterr()
        assert wrong.out == "" and wrong.err.startswith(f"usage: {name}")


def test_without_variables_nothing_is_done(ganeti: Ganeti) -> None:
    assert "VOL_NAME is not set" in ganeti.refuse("create", volume="")
    assert "VOL_SIZE is not set" in ganeti.refuse("create")
    for size in ("0", "-1", "1.5", "ten", "٣"):
        assert "VOL_SIZE" in ganeti.refuse("create", VOL_SIZE=size)
    assert "no volume" in ganeti.refuse("grow", VOL_SIZE="1", VOL_NEW_SIZE="2")
    assert ganeti.instance.connect_and_list() == []


def test_create_snapshot_grow_remove(ganeti: Ganeti) -> None:
    instance = ganeti.instance
    for _ in range(2):  # Ganeti repeats what it is not sure of
        ganeti.do("create", VOL_SIZE="64", VOL_CNAME="root", VOL_UUID="u-1")
    assert "exists already" in ganeti.refuse("create", VOL_SIZE="65")
    ganeti.do("setinfo", VOL_METADATA="originstname+web1", VOL_CNAME="root")
    assert notes(instance)[DISK] == {
        "name": "root", "uuid": "u-1", "metadata": "originstname+web1",
    }  # fmt: skip
    for _ in range(2):
        # the original grew by VOL_SIZE, which is the old one
        ganeti.do("grow", VOL_SIZE="64", VOL_NEW_SIZE="128")
    with instance.connect() as client:
        assert client.info(DISK).size == 128 * MIB
    snapshot = f"{DISK}.snap"
    small = ganeti.refuse(
        "snapshot", VOL_SNAPSHOT_NAME=snapshot, VOL_SNAPSHOT_SIZE="64"
    )
    assert "VOL_SNAPSHOT_SIZE is 64 MiB" in small
    ganeti.do("snapshot", VOL_SNAPSHOT_NAME=snapshot, VOL_SNAPSHOT_SIZE="128")
    assert "exists already" in ganeti.refuse("snapshot", VOL_SNAPSHOT_NAME=snapshot)
    for _ in range(2):
        ganeti.do("remove")
    assert instance.connect_and_list() == [snapshot]
    assert DISK not in notes(instance)


def test_a_disk_begins_as_a_snapshot(ganeti: Ganeti) -> None:
    with ganeti.instance.connect() as client:
        client.create("image", 8 * MIB)
        with client.open("image") as volume:
            volume.pwrite(b"debian", 0)
        client.snapshot("image", "golden")
        assert "is a volume" in ganeti.refuse(
            "create", VOL_SIZE="16", EXTP_ORIGIN="image"
        )
        assert "no volume" in ganeti.refuse("create", VOL_SIZE="16", EXTP_ORIGIN="gone")
        assert "too small" in ganeti.refuse(
            "create", VOL_SIZE="4", EXTP_ORIGIN="golden"
        )
        wrong = {"EXTP_ORIGIN": "golden", "EXTP_ORIGIN_SIZE": "7"}
        assert "origin_size says 7" in ganeti.refuse("create", VOL_SIZE="16", **wrong)
        assert ganeti.action("verify", "parameters", **wrong).returncode == 1
        right = {"EXTP_ORIGIN": "golden", "EXTP_ORIGIN_SIZE": str(8 * MIB)}
        assert ganeti.action("verify", "parameters", **right).returncode == 0
        assert ganeti.action("verify", **right).returncode == 1
        ganeti.do("create", VOL_SIZE="16", **right)
        assert client.info(DISK).size == 16 * MIB
        with client.open(DISK, read_only=True) as volume:
            assert volume.pread(6, 0) == b"debian"
        ganeti.do("create", volume="empty", VOL_SIZE="4", EXTP_ORIGIN="null")


def test_no_live_migration(ganeti: Ganeti) -> None:
    ganeti.do("create", VOL_SIZE="4")
    refused = ganeti.refuse("open", VOL_OPEN_EXCLUSIVE="False")
    assert "gnt-instance failover" in refused


class TestDevices:
    """With block devices, which need root, FUSE and loop."""

    pytestmark = devices

    def test_attach_prints_the_device_and_the_uri(self, ganeti: Ganeti) -> None:
        ganeti.do("create", VOL_SIZE="16")
        first, uri, end = ganeti.do("attach").split("\n")
        assert Path(first).is_block_device() and end == ""
        assert uri.startswith(f"kvm:nbd+unix:///{DISK}?socket=/")
        assert ganeti.do("attach") == f"{first}\n{uri}\n"
        subprocess.run(["qemu-img", "info", uri[4:]], check=True, capture_output=True)
        ganeti.do("grow", VOL_SIZE="16", VOL_NEW_SIZE="32")
        size = subprocess.run(
            ["blockdev", "--getsize64", first], check=True, capture_output=True
        )
        assert int(size.stdout) == 32 * MIB
        with open(first, "r+b", buffering=0) as file:
            assert "open in" in ganeti.refuse("detach")
            file.write(b"d" * 4096)
        for _ in range(2):
            ganeti.do("detach")
        assert not os.path.lexists(first)
        with ganeti.instance.connect() as client:
            with client.open(DISK, read_only=True) as volume:
                assert volume.pread(4096, 0) == b"d" * 4096

    def test_an_export_attaches_a_snapshot(self, ganeti: Ganeti) -> None:
        ganeti.do("create", VOL_SIZE="16")
        ganeti.do("attach")
        ganeti.do("snapshot", VOL_SNAPSHOT_NAME="kept")
        device = ganeti.do("attach", volume="kept").split("\n")[0]
        with open(device, "rb") as file:
            assert file.read(4096) == bytes(4096)
        with pytest.raises(OSError), open(device, "r+b", buffering=0) as file:
            file.write(b"x" * 4096)
        ganeti.do("open", volume="kept")
        ganeti.do("remove", volume="kept")
        ganeti.do("remove")

    def test_failover(self, ganeti: Ganeti) -> None:
        """The other node is an instance of its own on the same store."""
        one = ganeti.instance
        with running_instance(
            data_path=str(one.home / "store" / "data"),
            maps_path=str(one.home / "store" / "maps"),
        ) as two:
            defaults = ganeti.defaults.with_name("two")
            defaults.write_text(
                f"PYTHON={sys.executable}\nARCHIPELAGO_HOME={two.home}\n"
                f"ARCHIPELAGO_DATA_PATH={one.home}/store/data\n"
                f"ARCHIPELAGO_MAPS_PATH={one.home}/store/maps\n"
            )
            other = Ganeti(two, defaults)
            ganeti.do("create", VOL_SIZE="16")
            device = ganeti.do("attach").split("\n")[0]
            ganeti.do("open", VOL_OPEN_EXCLUSIVE="True")
            Path(device).write_bytes(b"one" + bytes(4093))
            # Ganeti attaches a disk on both nodes; one of them may write.
            there = other.do("attach").split("\n")[0]
            assert "in use" in other.refuse("open")
            with pytest.raises(OSError), open(there, "r+b", buffering=0) as file:
                file.write(b"x" * 4096)
            ganeti.do("close")
            other.do("open")
            there = other.do("attach").split("\n")[0]
            with open(there, "r+b", buffering=0) as file:
                assert file.read(3) == b"one"
                file.seek(0)
                file.write(b"two" + bytes(4093))
            ganeti.do("detach")
            other.do("detach")
            device = ganeti.do("attach").split("\n")[0]
            with open(device, "rb") as file:
                assert file.read(3) == b"two"
            ganeti.do("remove")


#: What Ganeti's storage code needs of Debian, unpacked and not installed.
PACKAGES = (
    "ganeti-3.0", "python3-bitarray", "python3-openssl", "python3-psutil",
    "python3-pycurl", "python3-pyinotify", "python3-pyparsing", "python3-simplejson",
)  # fmt: skip


@pytest.fixture(scope="module")
def ganeti_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Ganeti's Python code, as Debian packages it."""
    where = tmp_path_factory.mktemp("ganeti")
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt-get, to fetch Ganeti")
    done = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=where, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"Ganeti cannot be fetched: {done.stderr.strip()[-200:]}")
    for package in where.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, where / "root"], check=True)
    return where / "root"


class TestGanetiItself:
    """Ganeti's own code runs the provider."""

    pytestmark = devices

    def test_a_disk_of_ganeti(
        self, ganeti: Ganeti, ganeti_modules: Path, tmp_path: Path
    ) -> None:
        with ganeti.instance.connect() as client:
            client.create("image", 8 * MIB)
            with client.open("image") as volume:
                volume.pwrite(b"golden", 0)
            client.snapshot("image", "golden")
        provider = tmp_path / "providers" / "archipelago"
        shutil.copytree(PROVIDER, provider, symlinks=True)
        # Ganeti clears the environment, and there is only one /etc/default.
        text = (provider / "provider").read_text()
        (provider / "provider").write_text(
            text.replace("/etc/default/archipelago-ganeti", str(ganeti.defaults))
        )
        (tmp_path / "logs").mkdir()
        share = ganeti_modules / "usr" / "share" / "ganeti" / "3.0"
        lib = ganeti_modules / "usr" / "lib" / "python3" / "dist-packages"
        done = subprocess.run(
            [
                "/usr/bin/python3",
                Path(__file__).with_name("ganeti_driver.py"),
                tmp_path / "providers",
                tmp_path / "logs",
                DISK,
            ],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{share}:{lib}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads(done.stdout.splitlines()[-1])
        assert seen["valid"] and seen["attached"] and seen["gone"]
        assert (seen["begins"], seen["kept"]) == ("golden", "ganeti")
        assert seen["size"] == 128 * MIB
        assert seen["uri"].startswith(f"nbd+unix:///{DISK}?socket=/")
        assert seen["snapshot"] == f"{DISK}.snap"
        assert sorted(ganeti.instance.connect_and_list()) == sorted(
            [seen["snapshot"], "golden", "image"]
        )
