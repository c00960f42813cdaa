/* SPDX-License-Identifier: MIT */
/*
 * Reads the lines of sources, with their facts, on the calling thread. It is for single segments,
 * where starting threads is not worth the time.
 */
#pragma once

#include "host-receiver/evidence/input.h"
#include "host-receiver/judge/facts.h"

#define WALKER_WHY_MAX 512u

struct walker;

/* ring: verifies; borrowed. NULL: nothing is verified. Returns NULL when there is no memory. */
struct walker *walker_new(const struct keyring *ring);
void walker_free(struct walker *walker);

/* Begin another source. Returns 0, or a negative errno with a sentence in why. */
int walker_open(struct walker *walker, const char *path, char why[WALKER_WHY_MAX]);

/*
 * Returns 1 and the next line with its facts, 0 at the end, or a negative errno with a sentence in
 * why. Both are borrowed until the next call. A line that is too long has the facts of an empty
 * one.
 */
int walker_next(struct walker *walker, struct input_line *ret_line, struct line_facts *ret,
		char why[WALKER_WHY_MAX]);
