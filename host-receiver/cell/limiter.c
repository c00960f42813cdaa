/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/limiter.h"

const char *ceiling_name(enum ceiling ceiling)
{
	static const char *const names[] = {
		[CEILING_EVENTS] = "events",
		[CEILING_BYTES] = "bytes",
		[CEILING_CONNECTIONS] = "connections",
		[CEILING_IN_FLIGHT] = "in_flight",
	};
	_Static_assert(ARRAY_SIZE(names) == _CEILING_MAX, "a name for each ceiling");

	return names[ceiling];
}

static uint64_t rate_of(const struct ceiling_rates *rates, enum ceiling ceiling)
{
	return ceiling == CEILING_EVENTS  ? rates->events
	       : ceiling == CEILING_BYTES ? rates->bytes
					  : rates->connections;
}

static uint64_t burst_of(const struct ceiling_rates *rates, enum ceiling ceiling)
{
	static const unsigned factors[] = {
		[CEILING_EVENTS] = 2,
		[CEILING_BYTES] = 8,
		[CEILING_CONNECTIONS] = 2,
	};

	return rate_of(rates, ceiling) * factors[ceiling];
}

void ceilings_init(struct ceilings *c, const struct ceiling_rates *rates, uint64_t now_ns)
{
	*c = (struct ceilings){.paused_by = _CEILING_MAX};
	for (enum ceiling i = 0; i < CEILING_IN_FLIGHT; i++)
		token_bucket_init(&c->buckets[i], rate_of(rates, i), burst_of(rates, i), now_ns);
}

void ceilings_change(struct ceilings *c, const struct ceiling_rates *rates, uint64_t now_ns)
{
	for (enum ceiling i = 0; i < CEILING_IN_FLIGHT; i++) {
		struct token_bucket *b = &c->buckets[i];

		token_bucket_refill(b, now_ns);
		b->rate = rate_of(rates, i);
		b->burst = burst_of(rates, i);
		b->level = MIN(b->level, (int64_t)b->burst);
	}
}

void ceilings_charge(struct ceilings *c, uint64_t events, uint64_t bytes, uint64_t now_ns)
{
	token_bucket_refill(&c->buckets[CEILING_EVENTS], now_ns);
	token_bucket_refill(&c->buckets[CEILING_BYTES], now_ns);
	token_bucket_charge(&c->buckets[CEILING_EVENTS], events);
	token_bucket_charge(&c->buckets[CEILING_BYTES], bytes);
}

bool ceilings_connect(struct ceilings *c, uint64_t now_ns, uint64_t *ret_report)
{
	struct token_bucket *b = &c->buckets[CEILING_CONNECTIONS];

	*ret_report = 0;
	if (token_bucket_ready_ns(b, now_ns) == 0) {
		token_bucket_charge(b, 1);
		return true;
	}
	c->hits[CEILING_CONNECTIONS]++;
	*ret_report = once_a_second_add(&c->reports[CEILING_CONNECTIONS], 1, now_ns);
	return false;
}

/* Charge the time since paused_ns to the ceiling that paused the cell. */
static void count_pause(struct ceilings *c, uint64_t now_ns)
{
	uint64_t ms;

	if (c->paused_by == _CEILING_MAX)
		return;
	ms = (now_ns - c->paused_ns) / NSEC_PER_MSEC;
	c->reports[c->paused_by].count += ms;
	c->paused_ns += ms * NSEC_PER_MSEC;
}

bool ceilings_allow(struct ceilings *c, bool in_flight, uint64_t now_ns)
{
	enum ceiling by = in_flight ? CEILING_IN_FLIGHT : _CEILING_MAX;
	uint64_t ready_ns;

	c->ready_ns = 0;
	for (enum ceiling i = CEILING_EVENTS; i <= CEILING_BYTES; i++) {
		ready_ns = token_bucket_ready_ns(&c->buckets[i], now_ns);
		if (ready_ns > c->ready_ns) {
			c->ready_ns = ready_ns;
			by = i;
		}
	}
	if (by == c->paused_by)
		return by == _CEILING_MAX;
	count_pause(c, now_ns);
	if (by != _CEILING_MAX)
		c->hits[by]++;
	c->paused_by = by;
	c->paused_ns = now_ns;
	return by == _CEILING_MAX;
}

void ceilings_stop(struct ceilings *c, uint64_t now_ns)
{
	count_pause(c, now_ns);
	c->paused_by = _CEILING_MAX;
	c->ready_ns = 0;
}

uint64_t ceilings_report(struct ceilings *c, enum ceiling ceiling, uint64_t now_ns, bool force)
{
	if (c->paused_by == ceiling && (force || now_ns >= c->paused_ns + NSEC_PER_SEC))
		count_pause(c, now_ns);
	return once_a_second_take(&c->reports[ceiling], now_ns, force);
}

uint64_t ceilings_due(const struct ceilings *c)
{
	uint64_t due = c->ready_ns ? c->ready_ns : UINT64_MAX, report_ns;

	if (c->paused_by != _CEILING_MAX) {
		report_ns = MAX(c->paused_ns + NSEC_PER_SEC, c->reports[c->paused_by].due_ns);
		due = MIN(due, report_ns);
	}
	for (enum ceiling i = 0; i < _CEILING_MAX; i++)
		if (c->reports[i].count > 0)
			due = MIN(due, c->reports[i].due_ns);
	return due == UINT64_MAX ? 0 : due;
}
