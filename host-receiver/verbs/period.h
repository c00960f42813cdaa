/* SPDX-License-Identifier: MIT */
/*
 * --since and --until: the period of time that a verb looks at. Each verb has two rows of its own
 * in its option table, because what the period means differs; their values are parsed here.
 */
#pragma once

#include "common/options.h"

/* Milliseconds since 1970, both inclusive. Durations like "36h" count back from now_ms. */
struct period {
	int64_t since_ms, until_ms, now_ms;
};

/* No limits; now_ms is the time of the call. */
void period_init(struct period *p);
/* Whether a time lies in the period. */
bool period_has(const struct period *p, int64_t time_ms);
/* Whether an option has limited it. */
bool period_is_limited(const struct period *p);

/* For the macros below. why gets the expected form after -EINVAL. */
int period_set_since(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX]);
int period_set_until(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX]);

/* For an option row: member is the struct period in the verb's struct. */
#define PERIOD_SETS_SINCE(type, member)                                                            \
	.kind = OPTION_CALL, .set = period_set_since,                                              \
	.offset = OPTION_FIELD(struct period, type, member)
#define PERIOD_SETS_UNTIL(type, member)                                                            \
	.kind = OPTION_CALL, .set = period_set_until,                                              \
	.offset = OPTION_FIELD(struct period, type, member)
