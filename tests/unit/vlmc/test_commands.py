# SPDX-License-Identifier: Apache-2.0
"""Every command of ``vlmc`` against a real instance: data, exit codes, words."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.helpers.instance import BIN, Instance
from vlmc.cli import cli

pytestmark = pytest.mark.slow

MIB = 1 << 20
GIB = 1 << 30
SHORT = {
    "name", "uuid", "kind", "size", "block_size", "epoch", "read_only", "parent",
    "created", "depth",
}  # fmt: skip
LISTED = SHORT | {"clients"}
FULL = LISTED | {"private_bytes", "shared_bytes", "lease"}


def vlmc(*args: str, exit_code: int = 0) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(cli, list(args))
    assert result.exit_code == exit_code, result.stderr
    if exit_code:
        assert result.stderr.startswith("vlmc")
    else:
        assert result.stderr == ""  # no terminal, no talk
    return result


def read(*args: str) -> Any:
    return json.loads(vlmc(*args, "--json").stdout)


def names() -> list[str]:
    return [volume["name"] for volume in read("list")["volumes"]]


def refused(*args: str, exit_code: int, words: str) -> None:
    """Nothing on standard output, one line on standard error, nothing changed."""
    before = read("list")
    for json_option in ([], ["--json"]):
        result = vlmc(*args, *json_option, exit_code=exit_code)
        assert result.stdout == ""
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert read("list") == before


@pytest.mark.parametrize(
    ("text", "size"), [("10G", 10 * GIB), ("512M", 512 * MIB), ("3", 3 * MIB)]
)
def test_create_empty(instance: Instance, text: str, size: int) -> None:
    assert vlmc("create", "v", "--size", text).stdout == ""
    info = read("info", "v")
    assert set(info) == FULL
    assert (info["name"], info["kind"], info["size"]) == ("v", "volume", size)
    assert (info["block_size"], info["parent"]) == (4 * MIB, None)
    assert info["read_only"] is False
    refused("create", "v", "--size", "1G", exit_code=4, words='"v"')


def test_create_reports_the_volume_as_json(instance: Instance) -> None:
    created = read("create", "v", "--size", "4096B", "--block-size", "64K")
    assert set(created) == SHORT
    assert (created["size"], created["block_size"]) == (4096, 64 << 10)


def test_create_from_a_snapshot(instance: Instance) -> None:
    vlmc("create", "v", "--size", "1G", "--block-size", "1M")
    assert read("snapshot", "v", "s")["kind"] == "snapshot"
    same = read("create", "same", "--snap", "s")
    larger = read("create", "larger", "--snap", "s", "--size", "2G")
    assert (same["size"], larger["size"]) == (GIB, 2 * GIB)
    assert same["parent"] == "s"
    assert same["block_size"] == MIB
    refused("create", "x", "--snap", "s", "--size", "512M", exit_code=2, words="s")
    refused("create", "x", "--snap", "none", exit_code=3, words='"none"')
    refused("create", "x", "--snap", "v", exit_code=2, words='"v"')


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["create", "", "--size", "1"], "name"),
        (["create", "n" * 256, "--size", "1"], "255"),
        (["create", "v", "--size", "0"], "0 bytes"),
        (["create", "v", "--size", "65P"], "64 PiB"),
        (["create", "v", "--size", "1", "--block-size", "8M"], "block"),
        (["create", "v", "--size", "1", "--block-size", "100K"], "block"),
        (["import", "/dev/null", "v", "--block-size", "1K"], "block"),
    ],
)
def test_impossible_volumes(instance: Instance, args: list[str], words: str) -> None:
    refused(*args, exit_code=2, words=words)


def test_clone_many(instance: Instance) -> None:
    vlmc("create", "v", "--size", "1G")
    vlmc("snapshot", "v", "s")
    assert read("clone", "s", "a", "b") == {"created": ["a", "b"], "failed": {}}
    result = vlmc("clone", "s", "b", "c", "--size", "2G", "--json", exit_code=4)
    answer = json.loads(result.stdout)
    assert answer["created"] == ["c"]
    assert list(answer["failed"]) == ["b"]
    assert result.stderr.count("\n") == 1
    assert read("info", "c")["size"] == 2 * GIB
    refused("clone", "v", "x", exit_code=2, words='"v"')
    refused("clone", "none", "x", exit_code=3, words='"none"')


def test_remove(instance: Instance) -> None:
    for name in ("a", "b", "c"):
        vlmc("create", name, "--size", "1G")
    result = vlmc("rm", "a", "none", "b", "--json", exit_code=3)
    assert json.loads(result.stdout) == {"removed": ["a", "b"]}
    assert '"none"' in result.stderr
    assert names() == ["c"]
    with instance.connect() as client, client.open("c"):
        refused_now = vlmc("remove", "c", exit_code=5)
        assert '"c"' in refused_now.stderr
    vlmc("remove", "c")
    assert names() == []


def test_list(instance: Instance) -> None:
    assert read("list") == {"volumes": []}
    for name in ("b2", "a", "b1"):
        vlmc("create", name, "--size", "1G")
    listed = read("ls")["volumes"]
    assert [v["name"] for v in listed] == ["a", "b1", "b2"]
    assert all(set(v) == LISTED for v in listed)
    assert [v["name"] for v in read("list", "b")["volumes"]] == ["b1", "b2"]
    lines = vlmc("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "SIZE", "DEPTH", "PARENT", "CREATED"]
    assert lines[1].split()[:4] == ["a", "volume", "1", "GiB"]


def test_info(instance: Instance) -> None:
    vlmc("create", "v", "--size", "1G")
    with instance.connect() as client, client.open("v") as volume:
        volume.pwrite(b"x" * MIB, 0)
        volume.flush()
        lease = read("info", "v")["lease"]
        assert re.search(
            rf"in use by   pid {lease['pid']} on \S+ \(instance {lease['owner']}, "
            rf"fence {lease['fence']}, until 2\S+Z\)",
            vlmc("info", "v").stdout,
        )
    assert read("info", "v")["lease"] is None
    assert read("info", "v")["private_bytes"] >= MIB
    text = vlmc("info", "v").stdout
    assert "size        1 GiB (1073741824 bytes)" in text
    refused("info", "none", exit_code=3, words='"none"')


def test_rename_and_resize(instance: Instance) -> None:
    vlmc("create", "v", "--size", "1G")
    vlmc("snapshot", "v", "s")
    assert read("rename", "v", "w")["name"] == "w"
    assert names() == ["s", "w"]
    refused("rename", "w", "s", exit_code=4, words='"s"')
    refused("rename", "v", "x", exit_code=3, words='"v"')
    assert read("resize", "w", "--size", "3G")["size"] == 3 * GIB
    assert read("resize", "w", "-s", "100")["size"] == 100 * MIB
    refused("resize", "s", "-s", "1G", exit_code=6, words='"s"')
    refused("resize", "none", "-s", "1G", exit_code=3, words='"none"')


def test_open_and_close(instance: Instance) -> None:
    vlmc("create", "v", "--size", "1G")
    lease = read("open", "v")["lease"]
    assert lease["pid"] > 0
    vlmc("open", "v")  # succeeds if it is open already
    assert "v (held by" in instance.command("archipelago", "stop").stderr
    refused("remove", "v", exit_code=5, words='"v"')
    vlmc("close", "v")
    refused("close", "v", exit_code=2, words='"v"')
    refused("open", "none", exit_code=3, words='"none"')
    refused("close", "none", exit_code=3, words='"none"')


def test_lock_and_unlock(instance: Instance) -> None:
    vlmc("create", "v", "--size", "1G")
    assert read("lock", "v")["lease"]["locked"] is True
    assert "locked" in vlmc("info", "v").stdout
    unlocked = read("unlock", "v")["lease"]
    assert unlocked is None or not unlocked["locked"]
    refused("lock", "none", exit_code=3, words='"none"')


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A sparse image: some data, a hole, data again, and an odd size."""
    file = tmp_path / "image.raw"
    noise = random.Random(7)
    with file.open("wb") as out:
        out.write(noise.randbytes(3 * MIB + 100))
        out.seek(64 * MIB)
        out.write(noise.randbytes(5 * MIB))
        out.truncate(100 * MIB + 512)
    return file


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_import_and_export(instance: Instance, image: Path, tmp_path: Path) -> None:
    golden = read("import", str(image), "golden")
    assert set(golden) == SHORT
    assert (golden["kind"], golden["size"]) == ("snapshot", image.stat().st_size)
    before = read("df")["stored_bytes"]
    volume = read("import", str(image), "copy", "--volume", "--block-size", "4M")
    assert (volume["kind"], volume["read_only"]) == ("volume", False)
    assert read("df")["stored_bytes"] - before < 2 * MIB  # its blocks were there
    out = tmp_path / "out.raw"
    for name in ("golden", "copy"):
        assert read("export", name, str(out)) == {"name": name, "file": str(out)}
        assert digest(out) == digest(image)
        assert out.stat().st_blocks * 512 < 20 * MIB
    refused("import", str(image), "golden", exit_code=4, words='"golden"')
    refused("import", str(tmp_path / "no"), "x", exit_code=3, words="no: No such file")
    refused("export", "none", str(out), exit_code=3, words='"none"')
    refused(
        "export",
        "golden",
        str(tmp_path / "no" / "f"),
        exit_code=3,
        words="No such file",
    )


def test_import_from_and_export_to_pipes(instance: Instance, image: Path) -> None:
    with image.open("rb") as data:
        subprocess.run(
            [str(BIN / "vlmc"), "import", "-", "piped"],
            stdin=data,
            env=instance.env,
            check=True,
        )
    done = subprocess.run(
        [str(BIN / "vlmc"), "export", "piped", "-"],
        env=instance.env,
        capture_output=True,
        check=True,
    )
    assert hashlib.sha256(done.stdout).hexdigest() == digest(image)


@pytest.mark.requires_qemu
def test_import_of_qcow2(instance: Instance, image: Path, tmp_path: Path) -> None:
    qcow2, out = tmp_path / "image.qcow2", tmp_path / "out.raw"
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", str(image), str(qcow2)], check=True
    )
    vlmc("import", str(qcow2), "golden")
    vlmc("export", "golden", str(out))
    assert digest(out) == digest(image)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_ended_leaves_nothing(
    instance: Instance, tmp_path: Path, number: signal.Signals
) -> None:
    vlmc("create", "v", "--size", "1G")
    with instance.connect() as client, client.open("v") as volume:
        for offset in range(0, GIB, 64 * MIB):
            volume.pwrite(b"data", offset)
    out = tmp_path / "out"
    with subprocess.Popen(
        [str(BIN / "vlmc"), "export", "v", str(out)],
        env=instance.env,
        stderr=subprocess.PIPE,
        # Whoever runs the tests may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as export:
        while export.poll() is None and not list(tmp_path.iterdir()):
            pass
        export.send_signal(number)
        _, said = export.communicate(timeout=60)
    # It may have been faster: then it ends well, or the interpreter was met at its end.
    assert export.returncode in (0, 128 + number, -number), said
    ended = export.returncode == 128 + number
    assert [p.name for p in tmp_path.iterdir()] == ["out"] * (not ended)
    assert said.strip() == b""
    if ended:
        vlmc("remove", "v")  # nothing of it is open


@pytest.mark.requires_nbd
def test_url(instance: Instance) -> None:
    name = "ünï & cödé?#%"
    vlmc("create", name, "--size", "10M")
    url = vlmc("url", name).stdout.strip()
    assert url.startswith("nbd+unix:///")
    assert url.endswith(f"?socket={instance.home}/run/nbd.sock")
    assert read("url", name) == {"name": name, "url": url}
    found = json.loads(subprocess.check_output(["nbdinfo", "--json", url]))
    assert found["exports"][0]["export-size"] == 10 * MIB
    refused("url", "none", exit_code=3, words='"none"')


def test_df(instance: Instance) -> None:
    vlmc("create", "v", "--size", "16T")
    usage = read("df")
    assert set(usage) == {
        "capacity_bytes", "free_bytes", "logical_bytes", "stored_bytes",
        "private_bytes", "content_bytes", "age_seconds",
    }  # fmt: skip
    assert usage["logical_bytes"] == 16 << 40
    assert usage["free_bytes"] <= usage["capacity_bytes"]
    assert "addressed by volumes  16 TiB" in vlmc("df").stdout


def test_names_are_completed(instance: Instance) -> None:
    for name in ("alpha", "alps", "beta"):
        vlmc("create", name, "--size", "1G")
    for words, expected in {
        "vlmc info al": ["alpha", "alps"],
        "vlmc remove alpha b": ["beta"],
        "vlmc create x --snap a": ["alpha", "alps"],
    }.items():
        done = subprocess.run(
            [str(BIN / "vlmc")],
            env={
                **instance.env,
                "_VLMC_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            },
            capture_output=True,
            text=True,
        )
        assert [line.split(",")[1] for line in done.stdout.split()] == expected


def test_a_terminal_is_talked_to(instance: Instance) -> None:
    import pty

    reading, writing = pty.openpty()
    done = subprocess.run(
        [str(BIN / "vlmc"), "create", "v", "--size", "10G"],
        env=instance.env,
        stdout=subprocess.PIPE,
        stderr=writing,
        timeout=60,
    )
    os.close(writing)
    assert done.stdout == b""
    assert os.read(reading, 1000).strip() == b"created v, 10 GiB"
    os.close(reading)
