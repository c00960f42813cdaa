/* SPDX-License-Identifier: MIT */
/* What a cell decides without I/O: its options, its limits, the numbers that are missing. */
#include <check.h>

#include "common/util.h"
#include "host-receiver/cell/gap.h"
#include "host-receiver/cell/limiter.h"
#include "host-receiver/cell/options.h"
#include "host-receiver/cell/state.h"
#include "tests/unit/unit.h"

#define HASH "sha256:0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789"

/* ---- options ---- */

START_TEST(options_good)
{
	static const char *const good[][2] = {
		{"uds", "/run/v"},
		{"uds", "relative"},
		{"cell-id", "a"},
		{"cell-id", "A.b_c:d-9"},
		{"run-id", "1"},
		{"spec-hash", HASH},
		{"keepalive", "0"},
		{"keepalive", "86400000"},
		{"connect-within", "0"},
		{"rate", "1"},
		{"rate", "1000000000"},
		{"peer-uid", "0"},
		{"peer-uid", "4294967294"},
		{"socket-owner", "0:0"},
		{"socket-owner", "4294967294:1"},
		{"socket-mode", "0"},
		{"socket-mode", "0777"},
		{"socket-mode", "600"},
		{"witness-before", "1"},
		{"witness-after", "86400000"},
	};
	struct cell_options o;
	char why[CELL_WHY_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		cell_options_defaults(&o);
		ck_assert_msg(cell_options_set(&o, good[i][0], good[i][1], why) == 0, "%s %s: %s",
			      good[i][0], good[i][1], why);
	}
	cell_options_defaults(&o);
	ck_assert_int_eq(cell_options_set(&o, "socket-owner", "12:34", why), 0);
	ck_assert(o.set_owner && o.socket_uid == 12 && o.socket_gid == 34);
	ck_assert_int_eq(cell_options_set(&o, "socket-mode", "640", why), 0);
	ck_assert_uint_eq(o.socket_mode, 0640);
	ck_assert_int_eq(cell_options_set(&o, "peer-uid", "7", why), 0);
	ck_assert(o.check_peer_uid && o.peer_uid == 7);
}
END_TEST

START_TEST(options_bad)
{
	static const char *const bad[][2] = {
		{"uds", ""},
		{"cell-id", ""},
		{"cell-id", "a b"},
		{"cell-id", "a/b"},
		{"cell-id", "\xc3\xa4"},
		{"run-id", "a\n"},
		{"spec-hash", ""},
		{"spec-hash", "sha256:"},
		{"spec-hash", "sha512:00"},
		{"spec-hash", HASH "0"},
		{"keepalive", "-1"},
		{"keepalive", "86400001"},
		{"keepalive", "1s"},
		{"keepalive", ""},
		{"rate", "0"},
		{"rate", "1000000001"},
		{"peer-uid", "4294967295"},
		{"peer-uid", "root"},
		{"socket-owner", "1"},
		{"socket-owner", "1:"},
		{"socket-owner", ":1"},
		{"socket-owner", "a:b"},
		{"socket-owner", "4294967295:0"},
		{"socket-mode", ""},
		{"socket-mode", "8"},
		{"socket-mode", "1777"},
		{"socket-mode", "01777"},
		{"witness-before", "0"},
		{"witness-after", "x"},
	};
	struct cell_options o;
	char why[CELL_WHY_MAX], named[32];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cell_options_defaults(&o);
		*why = '\0';
		ck_assert_msg(cell_options_set(&o, bad[i][0], bad[i][1], why) == -EINVAL, "%s %s",
			      bad[i][0], bad[i][1]);
		snprintf(named, sizeof(named), "--%s", bad[i][0]);
		ck_assert_msg(strstr(why, named) && strstr(why, "expected"), "%s", why);
	}
}
END_TEST

START_TEST(options_limits)
{
	char id[CELL_ID_MAX + 2];
	struct cell_options o;
	char why[CELL_WHY_MAX];

	for (int by = -1; by <= 1; by++) {
		memset(id, 'x', sizeof(id));
		id[(int)CELL_ID_MAX + by] = '\0';
		cell_options_defaults(&o);
		ck_assert((cell_options_set(&o, "cell-id", id, why) == 0) == (by <= 0));
	}
	cell_options_defaults(&o);
	ck_assert_int_eq(cell_options_check(&o, why), -EINVAL);
	ck_assert_str_eq(why, "--uds is missing");
	/* Every name is known, and no other. */
	for (size_t i = 0; cell_option_names[i]; i++)
		ck_assert_msg(strstr(cell_options_help, cell_option_names[i]), "%s has no help",
			      cell_option_names[i]);
}
END_TEST

START_TEST(options_from_json)
{
	static const char *const bad[][2] = {
		{"{\"nonsense\":\"1\"}", "no such cell option"},
		{"{\"rate\":1}", "expected a string"},
		{"{\"rate\":\"x\"}", "--rate"},
		{"{\"rate\":\"5\"}", "--uds is missing"},
		{"{\"fc-api\":\"/a\",\"uds\":\"/v\",\"cell-id\":\"c\",\"run-id\":\"r\",\"spec-hash\":\"" HASH
		 "\"}",
		 "--fc-api needs --fc-metrics"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *object = json_loads(bad[i][0], 0, NULL);
		struct cell_options o;
		char why[CELL_WHY_MAX];

		cell_options_defaults(&o);
		ck_assert_int_eq(cell_options_from_json(&o, object, why), -EINVAL);
		ck_assert_msg(strstr(why, bad[i][1]), "%s", why);
		json_decref(object);
	}
}
END_TEST

/* ---- limits ---- */

/* How many of n frames, one each step, pass. */
static unsigned passing(struct token_bucket *b, unsigned rate, uint64_t *now_ns, unsigned n,
			uint64_t step_ns)
{
	unsigned passed = 0;

	for (unsigned i = 0; i < n; i++, *now_ns += step_ns)
		passed += token_bucket_take(b, rate, *now_ns);
	return passed;
}

START_TEST(rate)
{
	struct token_bucket b = {0};
	uint64_t now_ns = 5 * NSEC_PER_SEC;

	/* Twice the rate at once, then the rate. */
	ck_assert_uint_eq(passing(&b, 100, &now_ns, 500, 0), 200);
	ck_assert_uint_eq(passing(&b, 100, &now_ns, 10000, NSEC_PER_MSEC), 1000 - 1);
	/* A pause saves up no more than the burst. */
	now_ns += 3600 * NSEC_PER_SEC;
	ck_assert_uint_eq(passing(&b, 100, &now_ns, 500, 0), 200);
	/* The largest rate there is. */
	b = (struct token_bucket){0};
	ck_assert_uint_eq(passing(&b, 1000000000, &now_ns, 100000, 1), 100000);
}
END_TEST

START_TEST(once)
{
	struct once_a_second o = {0};
	const uint64_t t = 10 * NSEC_PER_SEC;

	ck_assert_uint_eq(once_a_second_add(&o, 1, t), 1);
	ck_assert_uint_eq(once_a_second_add(&o, 1, t + 1), 0);
	ck_assert_uint_eq(once_a_second_add(&o, 5, t + 2), 0);
	ck_assert_uint_eq(once_a_second_take(&o, t + NSEC_PER_SEC - 1, false), 0);
	ck_assert_uint_eq(once_a_second_take(&o, t + NSEC_PER_SEC, false), 6);
	ck_assert_uint_eq(once_a_second_take(&o, t + 5 * NSEC_PER_SEC, false), 0);
	ck_assert_uint_eq(once_a_second_add(&o, 1, t + 6 * NSEC_PER_SEC), 1);
	ck_assert_uint_eq(once_a_second_add(&o, 1, t + 6 * NSEC_PER_SEC), 0);
	ck_assert_uint_eq(once_a_second_take(&o, t + 6 * NSEC_PER_SEC, true), 1);
}
END_TEST

/* ---- gaps ---- */

static struct gap_tracker tracker;
static struct gap gap;

static bool observe(uint64_t seq)
{
	const struct declaration d = {.source = WIRE_PROCESS_SPAWNED, .seq = seq};

	return gap_tracker_frame(&tracker, &d, &gap);
}

static bool say_hello(const char *session, uint64_t next)
{
	struct declaration d = {.source = WIRE_TELEMETRY_HELLO};

	declaration_add_text(&d, WIRE_KEY_SESSION, wire_text(session));
	declaration_add_uint(&d, WIRE_KEY_NEXT_SEQ, next);
	return gap_tracker_frame(&tracker, &d, &gap);
}

static bool beat(uint64_t next)
{
	struct declaration d = {.source = WIRE_TELEMETRY_HEARTBEAT};

	declaration_add_uint(&d, WIRE_KEY_NEXT_SEQ, next);
	return gap_tracker_frame(&tracker, &d, &gap);
}

START_TEST(gaps)
{
	tracker = (struct gap_tracker){0};
	ck_assert(!say_hello("a", 1));
	ck_assert(!observe(1));
	ck_assert(!observe(2));
	ck_assert(observe(5));
	ck_assert(gap.first == 3 && gap.last == 4);
	/* Numbers that come again, or that there are none of. */
	ck_assert(!observe(5));
	ck_assert(!observe(1));
	ck_assert(!observe(0));
	/* What was lost at the end shows in the next heartbeat. */
	ck_assert(!beat(6));
	ck_assert(beat(10));
	ck_assert(gap.first == 6 && gap.last == 9);
	ck_assert(!observe(10));
	/* The same session on another connection: nothing is forgotten. */
	ck_assert(say_hello("a", 14));
	ck_assert(gap.first == 11 && gap.last == 13);
	/* Another session begins with its own numbers. */
	ck_assert(!say_hello("b", 3));
	ck_assert(!observe(3));
	ck_assert(observe(UINT64_MAX));
	ck_assert(gap.first == 4 && gap.last == UINT64_MAX - 1);
	ck_assert(!observe(UINT64_MAX));
}
END_TEST

/* An agent of version 1 has neither session nor numbers. */
START_TEST(no_numbers)
{
	tracker = (struct gap_tracker){0};
	for (int i = 0; i < 3; i++)
		ck_assert(!observe(0));
	ck_assert(!observe(7));
	ck_assert(observe(9));
	ck_assert(gap.first == 8 && gap.last == 8);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("cell");

	tcase_add_test(tc, options_good);
	tcase_add_test(tc, options_bad);
	tcase_add_test(tc, options_limits);
	tcase_add_test(tc, options_from_json);
	tcase_add_test(tc, rate);
	tcase_add_test(tc, once);
	tcase_add_test(tc, gaps);
	tcase_add_test(tc, no_numbers);
	return unit_run("cell", &tc, 1);
}
