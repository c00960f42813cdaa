/* SPDX-License-Identifier: MIT */
/*
 * The names of the evidence log's files: evidence-<20-digit number>.jsonl, so that their order by
 * name is their order in time. Static inline; safe on any thread.
 */
#pragma once

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SEGMENT_PREFIX	 "evidence-"
#define SEGMENT_SUFFIX	 ".jsonl"
#define SEGMENT_DIGITS	 20u
#define SEGMENT_NAME_MAX (sizeof(SEGMENT_PREFIX) + SEGMENT_DIGITS + sizeof(SEGMENT_SUFFIX))

/* True, and the number, when name is a segment's. */
static inline bool segment_parse_name(const char *name, uint64_t *ret)
{
	const char *digits = name + sizeof(SEGMENT_PREFIX) - 1;
	uint64_t n = 0;

	if (strlen(name) !=
		    sizeof(SEGMENT_PREFIX) - 1 + SEGMENT_DIGITS + sizeof(SEGMENT_SUFFIX) - 1 ||
	    strncmp(name, SEGMENT_PREFIX, sizeof(SEGMENT_PREFIX) - 1) != 0 ||
	    strcmp(digits + SEGMENT_DIGITS, SEGMENT_SUFFIX) != 0)
		return false;
	for (size_t i = 0; i < SEGMENT_DIGITS; i++) {
		if (digits[i] < '0' || digits[i] > '9' ||
		    __builtin_mul_overflow(n, UINT64_C(10), &n) ||
		    __builtin_add_overflow(n, (uint64_t)(digits[i] - '0'), &n))
			return false;
	}
	*ret = n;
	return true;
}

static inline void segment_format_name(uint64_t number, char out[static SEGMENT_NAME_MAX])
{
	snprintf(out, SEGMENT_NAME_MAX, SEGMENT_PREFIX "%020llu" SEGMENT_SUFFIX,
		 (unsigned long long)number);
}

/* For scandir(3). */
static inline int segment_is_dirent(const struct dirent *entry)
{
	uint64_t number;

	return segment_parse_name(entry->d_name, &number);
}
