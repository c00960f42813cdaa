/* SPDX-License-Identifier: MIT */
#include "common/util.h"
#include "guest-agent/turn_watch.h"
#include "tests/unit/unit.h"

/* Times in the test are set back by so much that no pause of the machine counts. */
#define HOUR_NS (3600 * NSEC_PER_SEC)

/* A turn that began two hours ago; its part "slow" took one of them. */
static void slow_turn(struct turn_watch *w)
{
	turn_watch_begin(w);
	turn_watch_part(w, "quick");
	w->lap_ns -= HOUR_NS;
	turn_watch_part(w, "slow");
	turn_watch_part(w, "quick");
	w->woke_ns -= 2 * HOUR_NS;
	turn_watch_end(w);
}

UNIT_TEST(longest_turn_and_its_part)
{
	struct turn_watch w = {.longest_in = "none"};

	slow_turn(&w);
	ck_assert_uint_ge(w.longest_ns, 2 * HOUR_NS);
	ck_assert_str_eq(w.longest_in, "slow");

	/* A shorter one changes nothing. */
	turn_watch_begin(&w);
	turn_watch_part(&w, "other");
	turn_watch_end(&w);
	ck_assert_uint_ge(w.longest_ns, 2 * HOUR_NS);
	ck_assert_str_eq(w.longest_in, "slow");
}

/* Takes processor time; a volatile counter is not optimized away. */
static void compute(void)
{
	for (volatile unsigned i = 0; i < 1000000; i++)
		;
}

UNIT_TEST(what_the_turn_computed)
{
	struct turn_watch w = {.longest_in = "none"};

	compute();
	turn_watch_begin(&w);
	/* The turns begin here. */
	ck_assert_uint_gt(w.cpu_ns, 0);
	turn_watch_end(&w);
	w.most_cpu_ns = w.longest_ns = 0;

	turn_watch_begin(&w);
	compute();
	turn_watch_end(&w);
	ck_assert_uint_gt(w.longest_cpu_ns, 0);
	ck_assert_uint_eq(w.most_cpu_ns, w.longest_cpu_ns);
}
