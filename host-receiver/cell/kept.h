/* SPDX-License-Identifier: MIT */
/*
 * How much of the evidence that is kept is one cell's: its bytes by segment, so that what retention
 * deletes is subtracted. Counted while the receiver runs. Pure.
 */
#pragma once

#include <stdint.h>

/* With more segments the two oldest are counted as one, until the newer of them is deleted. */
#define KEPT_SEGMENTS_MAX 16u

/* Zero it before its first use. */
struct kept {
	struct {
		uint64_t segment, bytes;
	} parts[KEPT_SEGMENTS_MAX]; /* the oldest first */
	unsigned n;
	uint64_t counted; /* of the cell's bytes, those that are in the parts or were deleted */
};

/*
 * The cell has made so many bytes since it began; those that are new are in this segment. Segments
 * before first are deleted. Returns the bytes that are kept.
 */
uint64_t kept_update(struct kept *k, uint64_t bytes, uint64_t segment, uint64_t first);
