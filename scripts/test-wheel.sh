#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build a wheel, install it into an empty environment, and use it from another folder:
# proves that the wheel carries the C library and everything else it needs.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive --format=tar HEAD | tar -x -C "$work" --one-top-level=source
python=$(.venv/bin/python -c 'import sys; print(sys._base_executable)')
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "$work/source"
rm -rf "$work/source"
cd "$work"
export ARCHIPELAGO_HOME=$work/home
venv/bin/archipelago start
venv/bin/vlmc create disk --size 64M
venv/bin/vlmc list
venv/bin/archipelago stop
echo "wheel: installs and runs on its own"
