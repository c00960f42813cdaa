/* SPDX-License-Identifier: MIT */
/*
 * Memory that runs out: reallocarray(3), with which tables grow, in the place of libc's. Included
 * by the test's own file only.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static unsigned scarce_first, scarce_calls;

/* This call of reallocarray(3) and all later ones fail; 1: the next one, 0: none. */
static inline void scarce_from(unsigned call)
{
	scarce_first = call;
	scarce_calls = 0;
}

/* Ends it. Returns whether a call has failed. */
static inline bool scarce_end(void)
{
	const bool failed = scarce_first > 0 && scarce_calls >= scarce_first;

	scarce_from(0);
	return failed;
}

void *reallocarray(void *p, size_t n, size_t size)
{
	size_t total;

	scarce_calls++;
	if ((scarce_first > 0 && scarce_calls >= scarce_first) ||
	    __builtin_mul_overflow(n, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, total);
}
