# SPDX-License-Identifier: Apache-2.0
from xseg.c.segment cimport xseg_segment

cdef object segment_statistics(const xseg_segment *seg, str name)
cdef list port_statistics(const xseg_segment *seg)
cdef list request_infos(const xseg_segment *seg)
