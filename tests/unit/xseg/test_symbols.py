# SPDX-License-Identifier: Apache-2.0
"""What libxseg.so gives away: programs are linked to these names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import xseg

LIBRARY = Path(xseg.__file__).parent / "_lib" / "libxseg.so.0"
SYMBOLS = """
    bell_arm bell_disarm bell_fd buffer_alloc buffer_free check heap_off heap_ptr
    heap_usage op_name port_accept port_bind port_id port_life port_pending port_reap
    port_reserve port_segment port_share_bell port_stats port_unbind port_wait
    process_alive process_life process_self process_start reap request_alloc
    request_complete request_free request_state_name request_submit segment_attach
    segment_attach_of segment_create segment_destroy segment_detach segment_header
    segment_name segment_port segment_request version
"""


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm(1)")
def test_the_library_exports_these_symbols_and_no_others() -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=just-symbols", str(LIBRARY)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    found = {name.split("@")[0] for name in listed} - {"XSEG_0"}
    assert found == {f"xseg_{name}" for name in SYMBOLS.split()}
