# SPDX-License-Identifier: Apache-2.0
"""Libraries that are put between a program and libc with LD_PRELOAD."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

_COMPILER = shlex.split(os.environ.get("CC", "cc"))

#: Marks of tests that need such a library.
NEEDS_PRELOAD = [
    pytest.mark.skipif(
        shutil.which(_COMPILER[0]) is None, reason="needs a C compiler for a library"
    ),
    pytest.mark.skipif(
        "libasan" in os.environ.get("LD_PRELOAD", ""),
        reason="the library and the sanitizer want the same place",
    ),
]


def build(library: Path, sources: list[Path], *flags: str) -> None:
    """Compile a library.

    Args:
        library: to be made.
        sources: of C.
        flags: further options of the compiler.
    """
    options = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-Wall"]
    files = [str(source) for source in sources]
    subprocess.run(
        [*_COMPILER, *options, *flags, "-o", str(library), *files, "-ldl"], check=True
    )
