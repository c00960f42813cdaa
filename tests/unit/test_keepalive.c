/* SPDX-License-Identifier: MIT */
/* When a guest counts as silent: host-receiver/cell/keepalive.h. */
#include "common/util.h"
#include "host-receiver/cell/keepalive.h"
#include "tests/unit/unit.h"

#define MS NSEC_PER_MSEC
#define T0 (1000u * MS) /* when the cell was added */

static struct keepalive k;

static void setup(void)
{
	keepalive_init(&k, 100, 300, T0);
}

static void check_silent(const char *reason, unsigned window_ms)
{
	unsigned ms;

	k.silent = true;
	ck_assert_str_eq(keepalive_reason(&k, &ms), reason);
	ck_assert_uint_eq(ms, window_ms);
	ck_assert_uint_eq(keepalive_due(&k), 0);
}

UNIT_TEST(a_guest_that_never_connects)
{
	ck_assert_uint_eq(keepalive_due(&k), T0 + 300 * MS);
	check_silent("never_connected", 300);
	keepalive_connected(&k, T0 + 400 * MS);
	ck_assert_uint_eq(keepalive_frame(&k, T0 + 450 * MS), 50 * MS);
	ck_assert(!k.silent);
}

UNIT_TEST(a_guest_that_stops_sending)
{
	keepalive_connected(&k, T0 + 10 * MS);
	ck_assert_uint_eq(keepalive_due(&k), T0 + 110 * MS);
	ck_assert_uint_eq(keepalive_frame(&k, T0 + 20 * MS), 0);
	ck_assert_uint_eq(keepalive_due(&k), T0 + 120 * MS);
	check_silent("no_frames", 100);
	ck_assert_uint_eq(keepalive_frame(&k, T0 + 150 * MS), 130 * MS);
	ck_assert_uint_eq(keepalive_due(&k), T0 + 250 * MS);
}

UNIT_TEST(a_guest_that_said_bye)
{
	keepalive_connected(&k, T0);
	keepalive_frame(&k, T0);
	k.said_bye = true;
	check_silent("after_bye", 100);
	keepalive_frame(&k, T0 + 1 * MS);
	check_silent("no_frames", 100);
}

UNIT_TEST(time_in_which_it_is_not_read_does_not_count)
{
	keepalive_connected(&k, T0);
	keepalive_frame(&k, T0 + 50 * MS);
	keepalive_reading(&k, false, T0 + 60 * MS);
	keepalive_reading(&k, false, T0 + 500 * MS);
	ck_assert_uint_eq(keepalive_due(&k), 0);
	keepalive_reading(&k, true, T0 + 560 * MS);
	/* 500 ms were not read, and 100 ms are left from the last frame on. */
	ck_assert_uint_eq(keepalive_due(&k), T0 + 650 * MS);
	/* A new connection begins anew. */
	keepalive_reading(&k, false, T0 + 600 * MS);
	keepalive_connected(&k, T0 + 700 * MS);
	ck_assert_uint_eq(keepalive_due(&k), T0 + 800 * MS);
}

UNIT_TEST(either_time_can_be_off)
{
	keepalive_init(&k, 0, 0, T0);
	ck_assert_uint_eq(keepalive_due(&k), 0);
	keepalive_connected(&k, T0 + 1 * MS);
	ck_assert_uint_eq(keepalive_due(&k), 0);
}

UNIT_SUITE(.setup = setup);
