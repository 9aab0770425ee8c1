#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make a fresh Debian 12 or Ubuntu 24.04 ready: system packages, virtual environment, build.
#
#   scripts/setup.sh build   what building and running needs
#   scripts/setup.sh demo    and what the demonstration and the benchmarks use
#   scripts/setup.sh check   and what the tests use
#
# Safe to repeat: what is there is left alone, and nothing is built twice.
set -euo pipefail
cd "$(dirname "$0")/.."

level=${1:-build}
packages=(build-essential cmake ninja-build pkg-config python3-dev python3-venv
    libssl-dev liburing-dev)
case $level in
build) ;;
demo) packages+=(qemu-utils e2fsprogs nbdkit fio) ;;
check) packages+=(qemu-utils e2fsprogs nbdkit libnbd-bin python3-libnbd fio
    clang-format man-db libasan8 libtsan2 libubsan1 xfsprogs zstd
    libvirt-clients libxml2-utils) ;;
*)
    echo "setup: unknown level \"$level\": say build, demo or check" >&2
    exit 2
    ;;
esac

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

install_packages() {
    local missing=() name
    for name in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: these system packages are missing; install them and run it again:" >&2
        echo "    sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.10 or newer found; install one or set PYTHON=" >&2
    exit 1
}

# What the build depends on; a newer file anywhere here means: build again.
sources_changed() {
    local stamp=.venv/built
    [ -e "$stamp" ] || return 0
    [ -n "$(find CMakeLists.txt cmake src setup.py pyproject.toml xseg archipelago \
        \( -name '*.[ch]' -o -name '*.pyx' -o -name '*.pxd' -o -name 'CMakeLists.txt' \
        -o -name '*.map' -o -name '*.cmake' -o -name 'setup.py' -o -name '*.toml' \) \
        -not -path '*/_generated/*' -newer "$stamp" -print -quit)" ]
}

if command -v dpkg-query >/dev/null; then
    install_packages
else
    echo "setup: not a Debian system: make sure that these are there: ${packages[*]}" >&2
fi
if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
if sources_changed; then
    say "building (C library, Cython extensions)"
    .venv/bin/pip install -q --disable-pip-version-check -e '.[dev]'
    # an editable install leaves the manual pages out that a wheel carries
    for page in build/man/*.[1-8]; do
        install -D -m 644 -t ".venv/share/man/man${page##*.}" "$page"
    done
    touch .venv/built
fi
