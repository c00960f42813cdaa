/* SPDX-License-Identifier: MIT */
/*
 * Strict reading of the lines of notes and proofs (C2SP formats). Static inline; safe on any
 * thread.
 */
#pragma once

#include "common/util.h"
#include "host-receiver/evidence/tree.h"

struct text_cursor {
	const char *at, *end;
};

/* The next line without its '\n'. False: no whole line is left. */
static inline bool text_take_line(struct text_cursor *c, const char **ret, size_t *ret_len)
{
	const char *newline = memchr(c->at, '\n', (size_t)(c->end - c->at));

	if (!newline)
		return false;
	*ret = c->at;
	*ret_len = (size_t)(newline - c->at);
	c->at = newline + 1;
	return true;
}

/* A number of entries: decimal, no leading zeros, at most TREE_SIZE_MAX. */
static inline bool text_read_size(const char *text, size_t len, uint64_t *ret)
{
	char digits[24];

	if (len == 0 || len >= sizeof(digits) || (len > 1 && text[0] == '0'))
		return false;
	memcpy(digits, text, len);
	digits[len] = '\0';
	return strlen(digits) == len && parse_u64(digits, 0, TREE_SIZE_MAX, ret) == 0;
}
