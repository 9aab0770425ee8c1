# SPDX-License-Identifier: Apache-2.0
"""The native peers of this process: start, serve, stop.

The peers belong to one thread, which makes, runs and closes them; `run` keeps it for as
long as they serve, without the interpreter's lock.  A program that handles signals in
Python gives them a second thread and calls `stop` from the first.
"""

import array as _array
import errno as _errno
import os as _os
import warnings as _warnings

from libc.stdint cimport uint32_t

from xseg._errors cimport check
from xseg._segment cimport HANDLE_NATIVE, Segment, count_handle
from xseg.c.native cimport (
    native,
    native_create,
    native_default_engine,
    native_destroy,
    native_options,
    native_retire,
    native_run,
    native_stop,
)

from xseg._errors import error_from as _error_from
from xseg.constants import Role as _Role
from xseg.errors import BusyError as _BusyError
from xseg.errors import ClosedError as _ClosedError
from xseg.errors import InvalidArgument as _InvalidArgument


def default_engine():
    """What an engine of "auto" comes to on this machine: "io_uring" or "threads"."""
    return native_default_engine().decode("ascii")


cdef bytes _path(path):
    cdef bytes raw = b"" if path is None else _os.fsencode(path)
    if b"\0" in raw:
        raise _InvalidArgument(_errno.EINVAL, f"path {path!r} contains NUL")
    return raw


cdef bytes _word(str word):
    cdef bytes raw = word.encode("utf-8")
    if b"\0" in raw:
        raise _InvalidArgument(_errno.EINVAL, f"{word!r} contains NUL")
    return raw


cdef class Native:
    """The reactor of one process and the peers on it.

    Args:
        segment: The segment, or its name; the peers attach to it on their own.
        roles: Which peers, `Role` bits.
        backend: "file" or "mem".
        data_path: Root directory of blockerb, for "file".
        maps_path: Root directory of blockerm, for "file".
        engine: "auto", "io_uring" or "threads".
        direct: Open files with O_DIRECT.
        io_timeout: Until an io of a store fails [s]; 0 takes the default.
        listen_fds: Listening sockets of the NBD endpoint; they stay the caller's, open
            until `close`.
        attach_fd: listening socket on which the FUSE endpoint is handed mounts; it
            must stay open until `close`.
        marks_fd: memfd in which the mapper keeps marks that are not flushed, so that
            the next one finds them; stays the caller's.  -1: they end with this one.
        log_level: 0 errors, 1 warnings, 2 information, 3 debugging; to stderr.

    Raises:
        XsegError: The peers cannot start; the message says which and why.
    """

    cdef native *n
    cdef readonly object roles
    cdef bint running
    cdef int retiring       # threads inside `retire`

    def __cinit__(
        self,
        segment,
        roles,
        *,
        str backend not None,
        data_path=None,
        maps_path=None,
        str engine not None="auto",
        bint direct=False,
        double io_timeout=0.0,
        listen_fds=(),
        int attach_fd=-1,
        int marks_fd=-1,
        uint32_t log_level=1,
    ):
        cdef native_options options
        cdef const char *why = NULL
        cdef int rc
        cdef int[::1] fds = _array.array("i", [*listen_fds, -1])
        cdef bytes name, c_backend, c_data, c_maps, c_engine

        self.n = NULL
        self.running = False
        self.roles = _Role(roles)
        if isinstance(segment, Segment):
            (<Segment>segment).get()
            segment = segment.name
        name = _word(segment)
        c_backend = _word(backend)
        c_data = _path(data_path)
        c_maps = _path(maps_path)
        c_engine = _word(engine)
        options.segment = name
        options.roles = int(self.roles)
        options.backend = c_backend
        options.data_path = c_data
        options.maps_path = c_maps
        options.engine = c_engine
        options.direct = direct
        options.io_timeout = io_timeout
        options.listen_fds = &fds[0]
        options.nr_listen_fds = <uint32_t>(fds.shape[0] - 1)
        options.attach_fd = attach_fd
        options.marks_fd = marks_fd
        options.log_level = log_level
        with nogil:
            rc = native_create(&options, &self.n, &why)
        if rc < 0:
            self.n = NULL
            text = f"start peers on segment {segment}"
            if why != NULL:
                text += f": {why.decode('utf-8', 'replace')}"
            raise _error_from(rc, text)
        count_handle(HANDLE_NATIVE, 1)

    def run(self):
        """Serve until `stop`, then drain and stop the peers.

        Blocks without the interpreter's lock, so Python signal handlers of this thread
        do not run meanwhile.

        Raises:
            BusyError: Another thread runs it.
            XsegError: The loop itself failed.
        """
        cdef int rc
        if self.n == NULL:
            raise _ClosedError(_errno.EBADF, "the peers are closed")
        if self.running:
            raise _BusyError(_errno.EBUSY, "the peers run already")
        self.running = True
        with nogil:
            rc = native_run(self.n)
        self.running = False
        check(rc, "run peers")

    def stop(self):
        """Ask `run` to return.  Any thread, a signal handler too; twice is harmless."""
        if self.n != NULL:
            native_stop(self.n)

    def retire(self):
        """Stop the endpoint and the composer and keep the other peers serving.

        Blocks until they have closed their volumes, which they do through the control
        half.  Any thread but the one in `run`.
        """
        if self.n == NULL:
            return
        self.retiring += 1
        with nogil:
            native_retire(self.n)
        self.retiring -= 1

    def close(self):
        """Free the peers; twice is harmless.

        Raises:
            BusyError: They run.
        """
        if self.n == NULL:
            return
        if self.running or self.retiring:
            raise _BusyError(_errno.EBUSY, "the peers run: stop them first")
        native_destroy(self.n)
        self.n = NULL
        count_handle(HANDLE_NATIVE, -1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __dealloc__(self):
        if self.n != NULL:
            native_destroy(self.n)
            count_handle(HANDLE_NATIVE, -1)

    def __del__(self):
        if self.n != NULL:
            _warnings.warn("peers were not closed", ResourceWarning, source=self)
