/* SPDX-License-Identifier: MIT */
/*
 * Times as they stand in evidence and on command lines, in milliseconds since 1970 (UTC). Pure
 * functions; safe on any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TIMESTAMP_TEXT_MAX 32u

/* "2026-11-21T10:00:24.024Z": RFC 3339 in UTC, with 0..9 digits of a second's fraction. */
int timestamp_parse(const char *text, size_t len, int64_t *ret_ms);

/*
 * A time on a command line: an RFC 3339 time in UTC; a date alone, which means its first instant;
 * or an age, a number and s, m, h or d, which is subtracted from now_ms. 0 or -EINVAL.
 */
int timestamp_parse_argument(const char *text, int64_t now_ms, int64_t *ret_ms);

/* "90s", "15m", "36h", "7d". 0 or -EINVAL. */
int timestamp_parse_duration(const char *text, int64_t *ret_ms);

/* As evidence writes it. Returns out. */
const char *timestamp_format(int64_t ms, char out[static TIMESTAMP_TEXT_MAX]);
