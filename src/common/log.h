/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines of native code: one line each to stderr, off the hot path.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

enum log_level { LOG_ERROR = 0, LOG_WARNING = 1, LOG_INFO = 2, LOG_DEBUG = 3 };

/** Lines above this level are dropped.  Set once at start, before threads. */
void log_set_level(enum log_level level);

/** Write "YYYY-mm-ddTHH:MM:SSZ level tag: text" to stderr.  Thread-safe. */
void log_line(enum log_level level, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
