/* SPDX-License-Identifier: MIT */
/*
 * Two limits: a token bucket for frames, and one event a second for things that a guest can make
 * happen as often as it likes. Pure; times are CLOCK_MONOTONIC nanoseconds.
 */
#pragma once

#include "common/util.h"

/* `rate` tokens a second, at most twice that saved up. */
struct token_bucket {
	uint64_t tokens_ns; /* saved time: a token is NSEC_PER_SEC / rate of it */
	uint64_t last_ns;
};

static inline bool token_bucket_take(struct token_bucket *b, unsigned rate, uint64_t now_ns)
{
	const uint64_t burst_ns = 2 * NSEC_PER_SEC, cost_ns = MAX(NSEC_PER_SEC / rate, UINT64_C(1));

	b->tokens_ns =
		b->last_ns == 0 ? burst_ns : MIN(b->tokens_ns + (now_ns - b->last_ns), burst_ns);
	b->last_ns = now_ns;
	if (b->tokens_ns < cost_ns)
		return false;
	b->tokens_ns -= cost_ns;
	return true;
}

/* The first of a kind is reported at once, those of the second after it together. */
struct once_a_second {
	uint64_t count;	 /* not reported yet */
	uint64_t due_ns; /* when the next may be reported; 0: now */
};

/* What is due to be reported by now, or with force all that is left; 0: nothing. */
static inline uint64_t once_a_second_take(struct once_a_second *o, uint64_t now_ns, bool force)
{
	const uint64_t n = o->count;

	if (n == 0 || (now_ns < o->due_ns && !force))
		return 0;
	o->count = 0;
	o->due_ns = now_ns + NSEC_PER_SEC;
	return n;
}

/* Count n. Returns what is to be reported now, or 0: later. */
static inline uint64_t once_a_second_add(struct once_a_second *o, uint64_t n, uint64_t now_ns)
{
	o->count += n;
	return once_a_second_take(o, now_ns, false);
}
