/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr: a syslog priority prefix "<N>" (sd-daemon(3)) and logfmt pairs. Only the
 * verbs (and the agent's main loop) log; the rooms below return what went wrong. Never a key,
 * never bytes of a guest without log_escape().
 *
 * One write(2) a line, so that lines of several threads do not mix. Safe on any thread after
 * log_set_level().
 */
#pragma once

#include <stddef.h>
#include <syslog.h>

#include "common/util.h"

#define LOG_LINE_MAX 2048u

/* Lines of a lower priority (a larger number) than this are not written. Default LOG_INFO. */
void log_set_level(int priority);

/* "emerg".."debug" or "0".."7" -> priority; -EINVAL. */
int log_level_from_string(const char *s);

/* fmt is logfmt: "msg=\"...\" key=value". A line beyond LOG_LINE_MAX is cut. */
void log_line(int priority, const char *fmt, ...) _printf_(2, 3);

#define log_error(...)	 log_line(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 log_line(LOG_DEBUG, __VA_ARGS__)

/*
 * data as a quoted logfmt value: control bytes, quotes, backslashes and bytes beyond ASCII become
 * \xNN; cut with "..." if out is too small. Always terminated. Returns out.
 */
const char *log_escape(char *out, size_t size, const char *data, size_t len);
