/* SPDX-License-Identifier: MIT */
/*
 * The kernel's flat keyed files (Documentation/admin-guide/cgroup-v2.rst, "Interface Files"): each
 * line is "KEY VALUE", here with unsigned 64-bit values. Blank lines and extra white space are
 * accepted. No allocation; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "host-receiver/event/json_writer.h"

#define FLAT_KEYED_KEYS_MAX 256u
#define FLAT_KEYED_KEY_MAX  64u

struct flat_keyed {
	size_t n;
	struct {
		struct wire_text key; /* borrowed from the text */
		uint64_t value;
	} pairs[FLAT_KEYED_KEYS_MAX]; /* in the byte order of the keys */
};

/*
 * Returns 0; or -EBADMSG (no unsigned 64-bit number, no key), -E2BIG (more than
 * FLAT_KEYED_KEYS_MAX), with the line, from 1, and what was wrong with it (static). text is
 * borrowed as long as *ret is used.
 */
int flat_keyed_parse(const char *text, size_t len, struct flat_keyed *ret, unsigned *ret_line,
		     const char **ret_what);

/* As a canonical JSON object. */
void flat_keyed_write(const struct flat_keyed *pairs, struct json_writer *w);
