/* SPDX-License-Identifier: MIT */
/*
 * UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
 * Pure functions; safe on any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the well-formed character at data (1..4), or 0 if there is none. len >= 1. */
size_t utf8_char(const char *data, size_t len);

bool utf8_valid(const char *data, size_t len);

/*
 * Copy data to out, each byte that is not part of a well-formed character replaced by U+FFFD.
 * Stops before a character that would not fit. Returns the bytes written (<= size); writes no NUL.
 */
size_t utf8_sanitize(const char *data, size_t len, char *out, size_t size);

/* The longest prefix of data that is <= max bytes and ends at a character boundary. */
size_t utf8_cut(const char *data, size_t len, size_t max);
