# SPDX-License-Identifier: Apache-2.0
"""What `vlmc xml` prints is what libvirt's schemas allow."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kernel.probe import State, probe
from tests.helpers.instance import Instance, running_instance

_READY = {feature.name: feature.state is State.READY for feature in probe()}
DOMAIN = """<domain type='qemu'>
<name>guest</name>
<memory unit='MiB'>128</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<devices>
{disk}
</devices>
</domain>
"""


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running_instance() as running:
        running.vlmc("create", 'it\'s <one> & "all"', "--size", "4M")
        running.vlmc("create", "disk", "--size", "4M")
        running.vlmc("snapshot", "disk", "snap")
        yield running


def validated(text: str, scratch: Path) -> ElementTree.Element:
    """The element, after libvirt's own check of a domain that has it."""
    if shutil.which("virt-xml-validate") is None or shutil.which("xmllint") is None:
        pytest.skip("needs virt-xml-validate")
    file = scratch / "guest.xml"
    file.write_text(DOMAIN.format(disk=text))
    done = subprocess.run(
        ["virt-xml-validate", file, "domain"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    disk = ElementTree.parse(file).find("devices/disk")
    assert disk is not None
    return disk


@pytest.mark.parametrize("name", ["disk", "snap", 'it\'s <one> & "all"'])
def test_by_nbd(instance: Instance, tmp_path: Path, name: str) -> None:
    disk = validated(instance.vlmc("xml", name), tmp_path)
    source, host = disk.find("source"), disk.find("source/host")
    assert source is not None and host is not None
    assert source.attrib == {"protocol": "nbd", "name": name}
    assert Path(host.attrib["socket"]).is_socket()
    assert (disk.find("readonly") is not None) == (name == "snap")
    shown = json.loads(instance.vlmc("--json", "xml", name))
    assert shown["name"] == name and shown["xml"].startswith("<disk")


@pytest.mark.requires_root
@pytest.mark.skipif(
    not (_READY.get("fuse") and _READY.get("loop")), reason="needs FUSE and loop"
)
def test_by_device(instance: Instance, tmp_path: Path) -> None:
    refused = instance.command("vlmc", "xml", "--by", "device", "disk")
    assert refused.returncode == 2 and "map it first (vlmc map disk)" in refused.stderr
    device = instance.vlmc("map", "disk").strip()
    try:
        disk = validated(
            instance.vlmc("xml", "--by", "device", "--target", "vdb", "disk"), tmp_path
        )
    finally:
        instance.vlmc("unmap", "disk")
    source, target = disk.find("source"), disk.find("target")
    assert source is not None and source.attrib == {"dev": device}
    assert target is not None and target.attrib["dev"] == "vdb"


def test_what_is_not_there(instance: Instance) -> None:
    strange = instance.command("vlmc", "xml", "disk", "--target", "../vda")
    assert strange.returncode == 2 and "no disk of a guest" in strange.stderr
    refused = instance.command("vlmc", "xml", "nosuch")
    assert (
        refused.returncode == 3 and 'no volume or snapshot "nosuch"' in refused.stderr
    )
