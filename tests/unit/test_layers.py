# SPDX-License-Identifier: Apache-2.0
"""Dependencies run one way: which part may include or import which."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: C folders and what each may include, besides itself.
C_LAYERS = {
    "include": set(),
    "common": {"include"},
    "xseg": {"include", "common"},
    "reactor": {"include", "common"},
    "blocker": {"include", "common", "reactor"},
    "mapper": {"include", "common", "reactor"},
    "composer": {"include", "common", "reactor"},
    "client": {"include", "common", "reactor"},
    "endpoint": {"include", "common", "reactor", "client"},
    "peer": {
        "include",
        "common",
        "reactor",
        "blocker",
        "mapper",
        "composer",
        "endpoint",
    },
}

#: Python packages and what each may import of the project.
PY_LAYERS = {
    "xseg": set(),
    "kernel": set(),
    "archipelago": {"xseg", "kernel"},
    "vlmc": {"xseg", "archipelago", "kernel"},
    # not installed
    "tests": {"xseg", "kernel", "archipelago", "vlmc"},
    "benchmarks": {"xseg", "kernel", "archipelago", "vlmc", "tests"},
}


@pytest.mark.parametrize("folder", C_LAYERS)
def test_c_folders_include_leftwards_only(folder: str) -> None:
    wrong = []
    for path in (ROOT / "src" / folder).rglob("*.[ch]"):
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            # src/include/xseg holds the public headers: "xseg/port.h" and the like
            public = (ROOT / "src/include" / name).exists()
            layer = "include" if public else name.split("/")[0]
            if layer != folder and layer not in C_LAYERS[folder]:
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not wrong


@pytest.mark.parametrize("package", PY_LAYERS)
def test_python_packages_import_leftwards_only(package: str) -> None:
    wrong = []
    for path in (ROOT / package).rglob("*.py"):
        for name in _imported(path):
            top = name.split(".")[0]
            allowed = PY_LAYERS[package] | {package}
            if top in PY_LAYERS and top not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def _imported(path: Path) -> list[str]:
    """All modules that a file imports, at its top or anywhere else."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


#: Parts of `archipelago` that run inside the server; a client's parts use none of them.
SERVER_SIDE = ("archipelago.volume", "archipelago.control", "archipelago.peers")
CLIENT_SIDE = (
    "images",
    "client.py",
    "info.py",
    "layerfile.py",
    "messenger.py",
    "objects.py",
    "room.py",
    "transfer.py",
    "units.py",
    "volume_handle.py",
    "volume_queue.py",
)


@pytest.mark.parametrize("part", CLIENT_SIDE)
def test_what_clients_run_imports_nothing_of_the_server(part: str) -> None:
    where = ROOT / "archipelago" / part
    files = [where] if where.is_file() else sorted(where.rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in _imported(path)
        if any(f"{name}.".startswith(f"{server}.") for server in SERVER_SIDE)
    ]
    assert not wrong
