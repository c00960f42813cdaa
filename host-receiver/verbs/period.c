/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/period.h"

#include "common/util.h"
#include "host-receiver/evidence/timestamp.h"

void period_init(struct period *p)
{
	*p = (struct period){
		.since_ms = INT64_MIN,
		.until_ms = INT64_MAX,
		.now_ms = (int64_t)(clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC),
	};
}

bool period_has(const struct period *p, int64_t time_ms)
{
	return time_ms >= p->since_ms && time_ms <= p->until_ms;
}

bool period_is_limited(const struct period *p)
{
	return p->since_ms != INT64_MIN || p->until_ms != INT64_MAX;
}

static int parse(const struct period *p, const char *value, int64_t *ret, char *why)
{
	if (timestamp_parse_argument(value, p->now_ms, ret) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX,
		 "expected a time like 2026-11-21T10:00:00Z, a date, or how long ago: 36h");
	return -EINVAL;
}

/* The struct period inside the verb's struct. */
static struct period *period_of(void *target, const struct option_row *row)
{
	return (struct period *)(void *)((char *)target + row->offset);
}

int period_set_since(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX])
{
	struct period *p = period_of(target, row);

	return parse(p, value, &p->since_ms, why);
}

int period_set_until(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX])
{
	struct period *p = period_of(target, row);

	return parse(p, value, &p->until_ms, why);
}
