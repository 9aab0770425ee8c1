# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t

cdef extern from "peer/native.h" nogil:
    struct native:
        pass

    enum:
        NATIVE_BLOCKERB
        NATIVE_BLOCKERM
        NATIVE_MAPPERD
        NATIVE_VLMCD
        NATIVE_NBD
        NATIVE_FUSE

    struct native_options:
        const char *segment
        uint32_t roles
        const char *backend
        const char *data_path
        const char *maps_path
        const char *engine
        bint direct
        double io_timeout
        const int *listen_fds
        uint32_t nr_listen_fds
        int attach_fd
        int marks_fd
        uint32_t log_level

    int native_create(
        const native_options *options, native **out, const char **why
    )
    int native_run(native *n)
    void native_stop(native *n)
    void native_retire(native *n)
    void native_destroy(native *n)
    const char *native_default_engine()
