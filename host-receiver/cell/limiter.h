/* SPDX-License-Identifier: MIT */
/*
 * The ceilings of a cell (delivery.md section 5), and a limit of one report a second for things
 * that a guest can cause as often as it likes. Pure; times are CLOCK_MONOTONIC nanoseconds.
 */
#pragma once

#include "common/util.h"

/*
 * A token bucket that is checked before a read and charged after it. It may become negative by the
 * cost of one read; then it is empty until enough time has passed.
 */
struct token_bucket {
	uint64_t rate;	/* tokens a second; at most TOKEN_RATE_MAX */
	uint64_t burst; /* tokens that can be saved up */
	int64_t level;
	uint64_t last_ns; /* the time for which level is valid */
};

#define TOKEN_RATE_MAX UINT64_C(1000000000000)

static inline void token_bucket_init(struct token_bucket *b, uint64_t rate, uint64_t burst,
				     uint64_t now_ns)
{
	*b = (struct token_bucket){
		.rate = rate, .burst = burst, .level = (int64_t)burst, .last_ns = now_ns};
}

/*
 * Add the tokens for the time since the last call. Time that is too short for a whole token is kept
 * for the next call.
 */
static inline void token_bucket_refill(struct token_bucket *b, uint64_t now_ns)
{
	const __uint128_t due = (__uint128_t)(now_ns - b->last_ns) * b->rate / NSEC_PER_SEC;
	const uint64_t room = b->burst - (uint64_t)b->level; /* also of a negative level */

	if (now_ns <= b->last_ns)
		return;
	if (due >= room) {
		b->level = (int64_t)b->burst;
		b->last_ns = now_ns;
		return;
	}
	b->level += (int64_t)due;
	b->last_ns += (uint64_t)((due * NSEC_PER_SEC + b->rate - 1) / b->rate);
}

static inline void token_bucket_charge(struct token_bucket *b, uint64_t n)
{
	b->level -= (int64_t)MIN(n, (uint64_t)INT64_MAX / 4);
}

/* 0: it may be used now; else the time at which it will hold a token again. */
static inline uint64_t token_bucket_ready_ns(struct token_bucket *b, uint64_t now_ns)
{
	uint64_t missing;

	token_bucket_refill(b, now_ns);
	if (b->level > 0)
		return 0;
	missing = (uint64_t)(1 - b->level);
	return b->last_ns +
	       (uint64_t)(((__uint128_t)missing * NSEC_PER_SEC + b->rate - 1) / b->rate);
}

/*
 * The first report of a kind is made at once. All further ones of the next second are made together
 * after it.
 */
struct once_a_second {
	uint64_t count;	 /* not reported yet */
	uint64_t due_ns; /* when the next report may be made; 0: now */
};

/* The amount to report now, or with force all that is left; 0: nothing. */
static inline uint64_t once_a_second_take(struct once_a_second *o, uint64_t now_ns, bool force)
{
	const uint64_t n = o->count;

	if (n == 0 || (now_ns < o->due_ns && !force))
		return 0;
	o->count = 0;
	o->due_ns = now_ns + NSEC_PER_SEC;
	return n;
}

/* Count n. Returns the amount to report now, or 0: later. */
static inline uint64_t once_a_second_add(struct once_a_second *o, uint64_t n, uint64_t now_ns)
{
	o->count += n;
	return once_a_second_take(o, now_ns, false);
}

/* The ceilings of a cell, in the order of the specification. */
enum ceiling {
	CEILING_EVENTS,
	CEILING_BYTES,
	CEILING_CONNECTIONS,
	CEILING_IN_FLIGHT,
	_CEILING_MAX,
};
/* Static, as in the evidence: "events", "bytes", "connections", "in_flight". */
const char *ceiling_name(enum ceiling ceiling);

/*
 * The use of a cell's ceilings, and the ceiling that pauses its reading. CEILING_CONNECTIONS never
 * pauses reading: connections above it are closed.
 */
struct ceilings {
	struct token_bucket buckets[CEILING_IN_FLIGHT];
	enum ceiling paused_by; /* _CEILING_MAX: none */
	uint64_t paused_ns;	/* the pause that is not reported yet began at this time */
	uint64_t ready_ns;	/* when a bucket holds something again; 0: not known */
	uint64_t hits[_CEILING_MAX];
	struct once_a_second reports[_CEILING_MAX]; /* of milliseconds; of connections */
};

/* Per second; see token_bucket_init() for their bounds. */
struct ceiling_rates {
	unsigned events, bytes, connections;
};

void ceilings_init(struct ceilings *c, const struct ceiling_rates *rates, uint64_t now_ns);
/* Change the rates. Tokens beyond the new bursts are lost; a debt stays. */
void ceilings_change(struct ceilings *c, const struct ceiling_rates *rates, uint64_t now_ns);

/* Charge events and bytes that were made for the cell. */
void ceilings_charge(struct ceilings *c, uint64_t events, uint64_t bytes, uint64_t now_ns);

/*
 * Count one more connection. Returns whether it is allowed; *ret_report: the number of refused ones
 * to report now.
 */
bool ceilings_connect(struct ceilings *c, uint64_t now_ns, uint64_t *ret_report);

/* Whether the cell may be read now. in_flight: its share of max_inflight is used up. */
bool ceilings_allow(struct ceilings *c, bool in_flight, uint64_t now_ns);

/* There is nothing to read, so no ceiling pauses the cell. */
void ceilings_stop(struct ceilings *c, uint64_t now_ns);

/*
 * The amount of a ceiling to report now, or with force all that is left: milliseconds for which it
 * paused the cell, or connections that were closed. 0: nothing.
 */
uint64_t ceilings_report(struct ceilings *c, enum ceiling ceiling, uint64_t now_ns, bool force);

/* When to call ceilings_allow() or ceilings_report() again; 0: no time is set. */
uint64_t ceilings_due(const struct ceilings *c);
