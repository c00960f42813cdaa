/* SPDX-License-Identifier: MIT */
/* Deficit round robin: equal shares, no flow in front of another's backlog, nothing idle. */
#include "host-receiver/cell/fair.h"

#include "common/util.h"
#include "tests/unit/unit.h"

#define FLOWS 5

/* Serve whose turn it is until so many bytes were given out; each flow's reads have its size. */
static void serve(struct fair_queue *q, struct fair_flow *flows, const size_t *sizes,
		  uint64_t *given, uint64_t all)
{
	for (uint64_t total = 0; total < all;) {
		struct fair_flow *f = fair_turn(q);
		const size_t i = (size_t)(f - flows);

		ck_assert_ptr_nonnull(f);
		fair_served(q, f, sizes[i], true);
		given[i] += sizes[i];
		total += sizes[i];
	}
}

UNIT_TEST(all_get_the_same_whatever_their_reads_make)
{
	static const size_t sizes[FLOWS] = {400, 700, 9000, FAIR_QUANTUM, 5 * FAIR_QUANTUM + 1};
	struct fair_flow flows[FLOWS] = {0};
	struct fair_queue q = {0};
	uint64_t given[FLOWS] = {0};

	for (int i = 0; i < FLOWS; i++)
		fair_add(&q, &flows[i], false);
	serve(&q, flows, sizes, given, UINT64_C(500) * FAIR_QUANTUM);
	for (int i = 0; i < FLOWS; i++) {
		/* None is further from its share than one read and one turn. */
		ck_assert_uint_ge(given[i] + sizes[4] + FAIR_QUANTUM, 100 * FAIR_QUANTUM);
		ck_assert_uint_le(given[i], 100 * FAIR_QUANTUM + sizes[4] + FAIR_QUANTUM);
	}
}

UNIT_TEST(one_alone_gets_everything)
{
	struct fair_queue q = {0};
	struct fair_flow f = {0};

	ck_assert_ptr_null(fair_turn(&q));
	fair_add(&q, &f, false);
	fair_add(&q, &f, false); /* queued already */
	for (int i = 0; i < 1000; i++) {
		ck_assert_ptr_eq(fair_turn(&q), &f);
		fair_served(&q, &f, 3 * FAIR_QUANTUM, true);
	}
	fair_served(&q, &f, 1, false);
	ck_assert(!fair_queued(&f));
	ck_assert_ptr_null(fair_turn(&q));
}

UNIT_TEST(a_quiet_one_goes_first_once)
{
	struct fair_flow loud[FLOWS] = {0}, quiet = {0};
	struct fair_queue q = {0};

	for (int i = 0; i < FLOWS; i++)
		fair_add(&q, &loud[i], false);
	fair_served(&q, fair_turn(&q), 10 * FAIR_QUANTUM, true);
	fair_add(&q, &quiet, true);
	ck_assert_ptr_eq(fair_quiet(&q), &quiet);
	/* It has more: then it is as loud as the others, and behind them. */
	fair_served(&q, &quiet, 100, true);
	ck_assert_ptr_null(fair_quiet(&q));
	ck_assert_ptr_eq(q.backlog.last, &quiet);
	ck_assert(fair_turn(&q) != &quiet);
	fair_remove(&q, &quiet);
	fair_add(&q, &quiet, true);
	fair_served(&q, &quiet, 100, false);
	ck_assert(!fair_queued(&quiet));
}

UNIT_TEST(a_debt_is_not_shed_by_leaving)
{
	struct fair_flow a = {0}, b = {0};
	struct fair_queue q = {0};
	uint64_t turns_of_b = 0;

	fair_add(&q, &a, false);
	fair_add(&q, &b, false);
	ck_assert_ptr_eq(fair_turn(&q), &a);
	fair_served(&q, &a, 11 * FAIR_QUANTUM, false);
	fair_add(&q, &a, false);
	while (fair_turn(&q) == &b) {
		fair_served(&q, &b, FAIR_QUANTUM, true);
		turns_of_b++;
	}
	ck_assert_uint_eq(turns_of_b, 11);
	/* What it has left of a turn is not kept. */
	fair_remove(&q, &a);
	ck_assert_int_le(a.deficit, 0);
	fair_remove(&q, &a);
	fair_remove(&q, &b);
	ck_assert_ptr_null(fair_turn(&q));
}

/* A flow with a backlog is served for a quantum, and then the other one once. */
static unsigned times_quiet(size_t bytes, unsigned rounds)
{
	struct fair_flow loud = {0}, other = {0};
	struct fair_queue q = {0};
	unsigned quiet = 0;

	fair_add(&q, &loud, false);
	for (unsigned i = 0; i < rounds; i++) {
		ck_assert_ptr_nonnull(fair_turn(&q));
		fair_served(&q, &loud, FAIR_QUANTUM, true);
		fair_add(&q, &other, true);
		quiet += fair_quiet(&q) == &other;
		fair_served(&q, &other, bytes, false);
	}
	return quiet;
}

UNIT_TEST(a_flow_below_its_share_stays_quiet)
{
	ck_assert_uint_eq(times_quiet(600, 10000), 10000);
	ck_assert_uint_eq(times_quiet(FAIR_QUANTUM, 10000), 10000);
	/* More than its share: first its turn is overdrawn, and then it is as loud as the other. */
	ck_assert_uint_le(times_quiet(FAIR_QUANTUM * 3, 10000), 10000 / 2);
	ck_assert_uint_ge(times_quiet(FAIR_QUANTUM * 3, 10000), 1);
}

UNIT_TEST(no_debt_remains_without_a_backlog)
{
	struct fair_flow f = {0}, loud = {0};
	struct fair_queue q = {0};

	fair_add(&q, &f, true);
	fair_served(&q, &f, 100 * FAIR_QUANTUM, false);
	fair_add(&q, &f, true);
	ck_assert_ptr_eq(fair_quiet(&q), &f);
	fair_served(&q, &f, 100 * FAIR_QUANTUM, false);
	/* Beside somebody with a backlog it counts. */
	fair_add(&q, &loud, false);
	fair_add(&q, &f, true);
	ck_assert_ptr_null(fair_quiet(&q));
}
