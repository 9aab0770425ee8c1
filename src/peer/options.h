/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of what the host of native peers was asked to run.
 */
#ifndef PEER_OPTIONS_H
#define PEER_OPTIONS_H

#include "peer/native.h"

#define NATIVE_NR_ROLES 6u

/** 0, or -EINVAL and one line that names the option and how to mend it. */
int native_options_check(const struct native_options *options, const char **why);

/** Format a reason; valid until the calling thread's next. */
const char *native_reason(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

#endif
