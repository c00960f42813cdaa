/* SPDX-License-Identifier: MIT */
/*
 * Follows the numbers of a cell's observations through a session, so that each loss inside the
 * guest shows as a range (wire.md section 5). Pure.
 */
#pragma once

#include "common/wire.h"

#define SESSION_MAX 64u

struct gap_tracker {
	char session[SESSION_MAX + 1]; /* "" before the first hello */
	uint64_t expected;	       /* 0: not known */
};

struct gap {
	uint64_t first, last;
};

/* Look at an accepted frame. True when numbers are missing, which are then in *ret. */
bool gap_tracker_frame(struct gap_tracker *t, const struct declaration *d, struct gap *ret);
