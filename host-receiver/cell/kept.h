/* SPDX-License-Identifier: MIT */
/*
 * The number of bytes that one cell has in the evidence that is kept. It is counted by segment, so
 * that the bytes of deleted segments are subtracted. Bytes of earlier runs are not counted. Pure.
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
	uint64_t counted; /* the cell's bytes that are in the parts or were deleted */
};

/*
 * made: bytes of the cell since it began; the new ones among them are in this segment. Segments
 * before first are deleted. Returns the bytes that are kept.
 */
uint64_t kept_update(struct kept *k, uint64_t bytes, uint64_t segment, uint64_t first);
