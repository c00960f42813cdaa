/* SPDX-License-Identifier: MIT */
/* Ceilings of a cell: what a bucket gives, what pauses, and what is reported of it. */
#include "host-receiver/cell/limiter.h"

#include "tests/unit/unit.h"

#define SECOND NSEC_PER_SEC

UNIT_TEST(a_bucket_gives_its_rate_and_its_burst)
{
	for (unsigned rate = 1; rate <= 100000; rate *= 10) {
		uint64_t now = 5 * SECOND, taken = 0;
		struct token_bucket b;

		token_bucket_init(&b, rate, 2 * rate, now);
		for (; token_bucket_ready_ns(&b, now) == 0; taken++)
			token_bucket_charge(&b, 1);
		ck_assert_uint_eq(taken, 2 * rate);
		ck_assert_uint_eq(token_bucket_ready_ns(&b, now), now + SECOND / rate);
		ck_assert_uint_ne(token_bucket_ready_ns(&b, now + SECOND / rate - 1), 0);
		ck_assert_uint_eq(token_bucket_ready_ns(&b, now + SECOND / rate), 0);
		/* A hundred seconds, asked more often than it gives. */
		token_bucket_init(&b, rate, 2 * rate, now);
		taken = 0;
		for (uint64_t t = 0; t < 100 * 3 * rate; t++)
			if (token_bucket_ready_ns(&b, now + t * SECOND / (3 * rate)) == 0) {
				token_bucket_charge(&b, 1);
				taken++;
			}
		ck_assert_uint_ge(taken, 101 * rate);
		ck_assert_uint_le(taken, 102 * rate + 1);
		/* However long it slept, no more than its burst. */
		now += 100000 * SECOND;
		for (taken = 0; token_bucket_ready_ns(&b, now) == 0; taken++)
			token_bucket_charge(&b, 1);
		ck_assert_uint_eq(taken, 2 * rate);
	}
}

UNIT_TEST(a_debt_is_paid_in_time)
{
	struct token_bucket b;

	token_bucket_init(&b, 1000, 2000, SECOND);
	token_bucket_charge(&b, 7000); /* 5000 below */
	ck_assert_uint_eq(token_bucket_ready_ns(&b, SECOND), 6 * SECOND + SECOND / 1000);
	ck_assert_uint_ne(token_bucket_ready_ns(&b, 6 * SECOND), 0);
	ck_assert_uint_eq(token_bucket_ready_ns(&b, 6 * SECOND + SECOND / 1000), 0);
	token_bucket_charge(&b, UINT64_MAX);
	token_bucket_charge(&b, UINT64_MAX); /* no wrap */
	ck_assert_uint_ne(token_bucket_ready_ns(&b, 7 * SECOND), 0);
}

UNIT_TEST(the_emptiest_bucket_pauses_and_says_for_how_long)
{
	struct ceilings c;
	uint64_t now = 9 * SECOND;

	ceilings_init(&c, &(struct ceiling_rates){100, 1000, 10}, now);
	ck_assert(ceilings_allow(&c, false, now));
	ck_assert_uint_eq(ceilings_due(&c), 0);
	ceilings_charge(&c, 200, 8000, now);
	/* The events are back in 10 ms, the first byte in 1 ms. */
	ck_assert(!ceilings_allow(&c, false, now));
	ck_assert_int_eq(c.paused_by, CEILING_EVENTS);
	ck_assert_uint_eq(ceilings_due(&c), now + SECOND / 100);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_EVENTS, now, false), 0);
	now += SECOND / 100;
	ck_assert(ceilings_allow(&c, false, now));
	ck_assert_uint_eq(c.hits[CEILING_EVENTS], 1);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_EVENTS, now, false), 10);
	/* Bytes: a long pause is reported while it lasts, once a second. */
	ceilings_charge(&c, 0, 5000, now);
	ck_assert(!ceilings_allow(&c, false, now));
	ck_assert_int_eq(c.paused_by, CEILING_BYTES);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_BYTES, now + SECOND - 1, false), 0);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_BYTES, now + SECOND, false), 1000);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_BYTES, now + SECOND + 1, false), 0);
	ck_assert(!ceilings_allow(&c, true, now + SECOND + SECOND / 2));
	ck_assert_uint_eq(c.hits[CEILING_BYTES], 1); /* still the same pause */
	ceilings_stop(&c, now + SECOND + SECOND / 2);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_BYTES, now + 2 * SECOND, true), 500);
}

UNIT_TEST(a_full_share_in_flight_pauses_without_a_clock)
{
	struct ceilings c;

	ceilings_init(&c, &(struct ceiling_rates){100, 100000, 10}, SECOND);
	ck_assert(!ceilings_allow(&c, true, SECOND));
	ck_assert_int_eq(c.paused_by, CEILING_IN_FLIGHT);
	ck_assert_str_eq(ceiling_name(c.paused_by), "in_flight");
	ck_assert_uint_eq(ceilings_due(&c), 2 * SECOND); /* to report it */
	ck_assert(ceilings_allow(&c, false, SECOND + 30 * NSEC_PER_MSEC));
	ck_assert_uint_eq(ceilings_report(&c, CEILING_IN_FLIGHT, SECOND + SECOND / 2, false), 30);
	ck_assert_uint_eq(ceilings_due(&c), 0);
}

UNIT_TEST(connections_above_the_rate_are_counted)
{
	struct ceilings c;
	uint64_t report, refused = 0, now = SECOND;

	ceilings_init(&c, &(struct ceiling_rates){100, 100000, 10}, now);
	for (int i = 0; i < 20; i++)
		ck_assert(ceilings_connect(&c, now, &report) && report == 0);
	ck_assert(!ceilings_connect(&c, now, &report));
	ck_assert_uint_eq(report, 1);
	for (int i = 0; i < 9; i++) {
		ck_assert(!ceilings_connect(&c, now, &report));
		refused += report;
	}
	ck_assert_uint_eq(refused, 0);
	ck_assert_uint_eq(ceilings_due(&c), now + SECOND);
	ck_assert_uint_eq(ceilings_report(&c, CEILING_CONNECTIONS, now + SECOND, false), 9);
	ck_assert_uint_eq(c.hits[CEILING_CONNECTIONS], 10);
	ck_assert(ceilings_connect(&c, now + SECOND / 10, &report));
}

UNIT_TEST(other_rates_keep_debts_and_cut_what_was_saved)
{
	const struct ceiling_rates more = {1000, 10000, 100}, less = {10, 1000, 1};
	struct ceilings c;
	uint64_t report, now = SECOND;

	ceilings_init(&c, &(struct ceiling_rates){100, 1000, 10}, now);
	ceilings_charge(&c, 300, 0, now);
	ck_assert(!ceilings_allow(&c, false, now));
	/* 101 events at 1000 a second. */
	ceilings_change(&c, &more, now);
	ck_assert(!ceilings_allow(&c, false, now + SECOND / 10));
	ck_assert(ceilings_allow(&c, false, now + SECOND / 10 + NSEC_PER_MSEC));
	now += 60 * SECOND;
	ceilings_change(&c, &less, now);
	ck_assert_int_eq(c.buckets[CEILING_EVENTS].level, 20);
	for (int i = 0; i < 2; i++)
		ck_assert(ceilings_connect(&c, now, &report));
	ck_assert(!ceilings_connect(&c, now, &report));
}
