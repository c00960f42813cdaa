/* SPDX-License-Identifier: MIT */
/*
 * The ceilings of a cell (delivery.md section 5), and one event a second for things that a guest
 * can cause as often as it likes. Pure; times are CLOCK_MONOTONIC nanoseconds.
 */
#pragma once

#include "common/util.h"

/*
 * A token bucket that is asked before and charged after: it may become negative by what one read
 * brings, and then is empty until enough time has passed.
 */
struct token_bucket {
	uint64_t rate;	/* tokens a second; at most TOKEN_RATE_MAX */
	uint64_t burst; /* tokens that can be saved up */
	int64_t level;
	uint64_t last_ns; /* when level was right */
};

#define TOKEN_RATE_MAX UINT64_C(1000000000000)

static inline void token_bucket_init(struct token_bucket *b, uint64_t rate, uint64_t burst,
				     uint64_t now_ns)
{
	*b = (struct token_bucket){
		.rate = rate, .burst = burst, .level = (int64_t)burst, .last_ns = now_ns};
}

/* The tokens that came since; time that did not make a whole token is kept. */
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

/* 0: it may be used now; else the time when it will hold a token again. */
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
 * What a cell may use, and why it may not be read now. CEILING_CONNECTIONS never pauses reading:
 * connections above it are closed.
 */
struct ceilings {
	struct token_bucket buckets[CEILING_IN_FLIGHT];
	enum ceiling paused_by; /* _CEILING_MAX: none */
	uint64_t paused_ns;	/* since then, as far as it was not reported yet */
	uint64_t ready_ns;	/* when a bucket holds something again; 0: not known */
	uint64_t hits[_CEILING_MAX];
	struct once_a_second reports[_CEILING_MAX]; /* of milliseconds; of connections */
};

/* A second each; see token_bucket_init() for their bounds. */
struct ceiling_rates {
	unsigned events, bytes, connections;
};

void ceilings_init(struct ceilings *c, const struct ceiling_rates *rates, uint64_t now_ns);
/* Other rates from now on. What was saved up beyond the new bursts is gone; a debt stays. */
void ceilings_change(struct ceilings *c, const struct ceiling_rates *rates, uint64_t now_ns);

/* Events and bytes that were made for the cell. */
void ceilings_charge(struct ceilings *c, uint64_t events, uint64_t bytes, uint64_t now_ns);

/* One more connection. Returns how many refused ones are to be reported now, in *ret_report. */
bool ceilings_connect(struct ceilings *c, uint64_t now_ns, uint64_t *ret_report);

/* Whether the cell may be read now. in_flight: its share of max_inflight is used up. */
bool ceilings_allow(struct ceilings *c, bool in_flight, uint64_t now_ns);

/* There is nothing to read: no ceiling pauses it. */
void ceilings_stop(struct ceilings *c, uint64_t now_ns);

/*
 * What is to be reported of a ceiling by now, or with force all that is left: milliseconds for
 * which it paused the cell, or connections that were closed. 0: nothing.
 */
uint64_t ceilings_report(struct ceilings *c, enum ceiling ceiling, uint64_t now_ns, bool force);

/* When ceilings_allow() or ceilings_report() is to be called again; 0: not by time. */
uint64_t ceilings_due(const struct ceilings *c);
