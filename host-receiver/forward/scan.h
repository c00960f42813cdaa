/* SPDX-License-Identifier: MIT */
/*
 * Finds the parts of a line that the forwarder needs, without parsing all of its JSON: the
 * attributes at the end of the line and the cell at its beginning, found where canonical JSON (RFC
 * 8785) has them. Whatever looks otherwise than the receiver writes it is left to the JSON reader.
 * Pure functions; any thread.
 *
 * Why that is the same as a parse: the line ends with `"}`. The quote closes a string, or the line
 * is no JSON. Going back over bytes that are neither a quote nor a backslash, the next quote opens
 * that string; and so on, attribute by attribute. It never judges whether the rest is JSON: verify
 * does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/wire.h"

/* Texts point into the line; an empty one is absent. */
struct scanned_line {
	struct wire_text id, time, type;
	struct wire_text cell; /* of an entry */
};

/* False: use the JSON reader. *ret is then undefined. */
bool scan_line(const char *line, size_t len, struct scanned_line *ret);
