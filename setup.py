# SPDX-License-Identifier: Apache-2.0
"""Build the C libraries with CMake and the Cython extensions over them.

``pip install .`` runs `BuildExt`, which

1. configures and builds the shared libraries into the build directory,
2. copies them to ``xseg/_lib/`` (of the wheel, or of the tree when editable),
3. compiles every ``_*.pyx`` of `xseg` and `archipelago`, linked to those copies by
   a run path relative to the extension, so that an installation can be moved.

Environment:
    ARCHIPELAGO_SANITIZE: sanitizers for all native code, "address,undefined".
    XSEG_DEBUG: "1" adds line tracing and bounds checks to the extensions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

ROOT = Path(__file__).resolve().parent
DEBUG = os.environ.get("XSEG_DEBUG", "") == "1"
SANITIZE = os.environ.get("ARCHIPELAGO_SANITIZE", "")


@dataclass(frozen=True)
class Library:
    """A shared library that CMake builds and the wheel carries."""

    target: str
    soname: str


XSEG = Library("xseg", "libxseg.so.0")
NATIVE = Library("archipelago_native", "libarchipelago.so")
LIBRARIES = (XSEG, NATIVE)

#: Extensions that compile plain C of the tree and use a system library besides.
EXTRA_SOURCES = {"xseg._digest": ["src/common/digest.c"]}
EXTRA_LIBRARIES = {"xseg._digest": ["crypto"]}


def job_count() -> int:
    """Processors this build may use."""
    return len(os.sched_getaffinity(0))


def extension(source: Path) -> Extension:
    """Describe the extension of one ``_noun.pyx``."""
    package = source.parent.name
    name = f"{package}.{source.stem}"
    compile_args = ["-O2", "-g", "-D_GNU_SOURCE", "-std=gnu11"]
    link_args = []
    if SANITIZE:
        compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
        link_args += [f"-fsanitize={SANITIZE}"]
    macros: list[tuple[str, str | None]] = []
    if DEBUG:
        macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
    rpath = "$ORIGIN/_lib" if package == "xseg" else "$ORIGIN/../xseg/_lib"
    return Extension(
        name,
        sources=[str(source.relative_to(ROOT)), *EXTRA_SOURCES.get(name, [])],
        include_dirs=["src/include", "src"],
        libraries=EXTRA_LIBRARIES.get(name, []),
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=[*link_args, f"-Wl,-rpath,{rpath}"],
        depends=[str(p.relative_to(ROOT)) for p in (ROOT / "src").rglob("*.h")],
    )


def needed(name: str) -> tuple[Library, ...]:
    """Return the libraries of this tree that an extension links."""
    if name == "xseg._native" or name.startswith("archipelago."):
        return (NATIVE, XSEG)
    return (XSEG,)


def extensions() -> list[Extension]:
    """Find every extension of the tree."""
    found = [
        extension(source)
        for package in ("xseg", "archipelago")
        for source in sorted((ROOT / package).glob("_*.pyx"))
    ]
    return cythonize(  # type: ignore[no-any-return]
        found,
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        include_path=[str(ROOT)],
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "embedsignature": False,
            "boundscheck": DEBUG,
            "wraparound": False,
            "linetrace": DEBUG,
            "freethreading_compatible": False,
        },
    )


class BuildExt(build_ext):
    """Build the native libraries first, then the extensions."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = job_count()

    def run(self) -> None:
        self.check_tools()
        self.notice_changed_flags()
        libraries = self.build_libraries()
        for ext in self.extensions:
            ext.extra_link_args = [
                *ext.extra_link_args,
                *(str(libraries[library]) for library in needed(ext.name)),
            ]
        super().run()

    def check_tools(self) -> None:
        """Say in one line what is missing and which Debian package has it."""
        compiler = os.environ.get("CC", "cc").split()[0]
        for tool, package in (
            ("cmake", "cmake"),
            (compiler, "gcc"),
            ("pkg-config", "pkg-config"),
        ):
            if shutil.which(tool) is None:
                raise SetupError(
                    f"archipelago needs {tool} to build: apt install {package}"
                )
        if subprocess.run(["pkg-config", "--exists", "libcrypto"]).returncode:
            raise SetupError(
                "archipelago needs the headers of OpenSSL's libcrypto to build: "
                "apt install libssl-dev"
            )

    def notice_changed_flags(self) -> None:
        """Build everything anew when it was built with other flags before."""
        stamp = Path(self.build_temp) / "flags"
        flags = f"debug={DEBUG} sanitize={SANITIZE}\n"
        if stamp.exists() and stamp.read_text() != flags:
            self.force = True
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(flags)

    def build_libraries(self) -> dict[Library, Path]:
        """Run CMake and copy its libraries into the package; return the copies."""
        tree = Path(self.build_temp).resolve() / "cmake"
        command = [
            "cmake",
            f"-S{ROOT}",
            f"-B{tree}",
            "-DARCHIPELAGO_TESTS=OFF",
            f"-DARCHIPELAGO_SANITIZE={SANITIZE}",
            "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
            "-DCMAKE_INSTALL_RPATH=$ORIGIN",
        ]
        if not (tree / "CMakeCache.txt").exists() and shutil.which("ninja"):
            command.append("-GNinja")
        self.call(command, "configure")
        targets = [library.target for library in LIBRARIES]
        jobs = str(self.parallel if isinstance(self.parallel, int) else job_count())
        self.call(
            ["cmake", "--build", str(tree), "-j", jobs, "--target", *targets], "build"
        )

        package = Path("xseg" if self.inplace else Path(self.build_lib) / "xseg")
        into = (ROOT / package if self.inplace else package.resolve()) / "_lib"
        into.mkdir(parents=True, exist_ok=True)
        copies = {}
        for library in LIBRARIES:
            built = next(tree.rglob(library.soname), None)
            if built is None:
                raise SetupError(f"CMake built no {library.soname} under {tree}")
            copies[library] = into / library.soname
            # Replace by rename: a running process keeps the file it has mapped.
            fresh = into / f".{library.soname}.new"
            shutil.copy2(built, fresh)
            os.replace(fresh, copies[library])
        return copies

    def call(self, command: list[str], what: str) -> None:
        print("+", *command, flush=True)
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(
                f"cannot {what} the native libraries: {error} (its messages are above)"
            ) from None


if sys.platform != "linux":
    raise SetupError("archipelago runs on Linux only: it needs futex and io_uring")


def manual_pages() -> list[tuple[str, list[str]]]:
    """Turn docs/man into pages for share/man; returns setuptools' data_files."""
    out = ROOT / "build" / "man"
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted((ROOT / "docs" / "man").glob("*.[1-8].md"))
    converter = ROOT / "docs" / "man" / "md2man.py"
    subprocess.run([sys.executable, converter, *sources, out], check=True)
    sections: dict[str, list[str]] = {}
    for source in sources:
        page = out / source.stem
        section = f"share/man/man{page.suffix[1:]}"
        sections.setdefault(section, []).append(str(page.relative_to(ROOT)))
    return sorted(sections.items())


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExt},
    data_files=manual_pages(),
)
