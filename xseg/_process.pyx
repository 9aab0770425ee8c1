# SPDX-License-Identifier: Apache-2.0
"""Does a process still run?  Only proof counts as death (xseg/process.h)."""

from libc.string cimport memcpy

from xseg.c.process cimport (
    xseg_process,
    xseg_process_life,
    xseg_process_self,
    xseg_process_start,
)

from xseg.life import Life as _Life
from xseg.life import ProcessId as _ProcessId


cdef object _process_id(const xseg_process *process):
    return _ProcessId(
        boot_id=<bytes>(<const char *>process.boot_id)[:16],
        pid_namespace=process.pid_namespace,
        pid=process.pid,
        start=process.start,
    )


def process_id(pid=None):
    """Name a process of this pid namespace so that no other can be taken for it.

    Args:
        pid: Its number; None for the calling process.

    Returns:
        A `ProcessId`; fields that cannot be read are zero, and its life is UNKNOWN.
    """
    cdef xseg_process process
    xseg_process_self(&process)
    if pid is not None:
        process.pid = pid
        process.start = xseg_process_start(process.pid)
    return _process_id(&process)


def process_life(process):
    """Is the process of a `ProcessId` alive, dead or unknown?

    The record must have been written on this machine.
    """
    cdef bytes boot_id = process.boot_id
    cdef unsigned char raw[16]
    if len(boot_id) != 16:
        return _Life.UNKNOWN
    memcpy(raw, <const char *>boot_id, 16)
    return _Life(
        <int>xseg_process_life(
            raw, process.pid_namespace, process.pid, process.start
        )
    )
