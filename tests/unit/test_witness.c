/* SPDX-License-Identifier: MIT */
/* The cross-witness: which declarations are judged, when, and how. Time is a number here. */
#include <check.h>

#include "common/util.h"
#include "host-receiver/cell/witness.h"
#include "tests/unit/unit.h"

#define INTERVAL_MS 100u
#define MS	    NSEC_PER_MSEC

static struct witness w;

static void begin(void)
{
	witness_init(&w, INTERVAL_MS, INTERVAL_MS, 2 * INTERVAL_MS);
}

static void read_at(enum probe_kind kind, uint64_t at_ms, uint64_t packets)
{
	const struct probe_reading reading = {.taken_ns = at_ms * MS, .packets = packets};

	witness_read(&w, kind, &reading);
}

/* What is declared and unwitnessed by now, in all. */
static uint64_t judged(void)
{
	struct witness_verdict verdict;
	uint64_t n = 0;

	while (witness_judge(&w, &verdict))
		n += verdict.declared;
	return n;
}

UNIT_TEST(nothing_moves)
{
	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	witness_declared(&w, 1010 * MS);
	read_at(PROBE_TAP_LINK, 1100, 5);
	ck_assert_uint_eq(judged(), 0);
	read_at(PROBE_TAP_LINK, 1200, 5);
	ck_assert_uint_eq(judged(), 0);
	/* Behind 1010 + 200. */
	read_at(PROBE_TAP_LINK, 1300, 5);
	ck_assert_uint_eq(judged(), 1);
	read_at(PROBE_TAP_LINK, 1400, 5);
	ck_assert_uint_eq(judged(), 0);
}

/* When the counter moves, in milliseconds, and whether it answers to a declaration at 1010. */
UNIT_TEST(windows)
{
	static const struct {
		uint64_t moves_at;
		bool answers;
	} table[] = {
		{800, false}, /* seen at 900: more than 100 before */
		{950, true},  /* seen at 1000 */
		{1005, true},  {1050, true}, {1150, true}, {1205, true}, /* within 200 behind it */
		{1350, false}, /* seen at 1400, begun at 1300 */
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		uint64_t n = 0;

		begin();
		for (uint64_t at = 700; at <= 1600; at += 100) {
			if (at == 1100)
				witness_declared(&w, 1010 * MS);
			read_at(PROBE_TAP_LINK, at, at > table[i].moves_at ? 6 : 5);
			n += judged();
		}
		ck_assert_msg(n == !table[i].answers, "moved at %u: %u",
			      (unsigned)table[i].moves_at, (unsigned)n);
	}
}

/* Either is enough; both must have been read. */
UNIT_TEST(two_witnesses)
{
	struct witness_verdict verdict;

	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	read_at(PROBE_NFTABLES, 1000, 7);
	witness_declared(&w, 1010 * MS);
	read_at(PROBE_TAP_LINK, 1300, 5);
	ck_assert(!witness_judge(&w, &verdict));
	read_at(PROBE_NFTABLES, 1300, 7);
	ck_assert(witness_judge(&w, &verdict));
	ck_assert_uint_eq(verdict.declared, 1);
	ck_assert_uint_eq(verdict.since_ns, 1010 * MS);
	ck_assert_uint_eq(verdict.witnesses, 1u << PROBE_TAP_LINK | 1u << PROBE_NFTABLES);

	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	read_at(PROBE_NFTABLES, 1000, 7);
	witness_declared(&w, 1010 * MS);
	read_at(PROBE_TAP_LINK, 1300, 5);
	read_at(PROBE_NFTABLES, 1300, 8);
	ck_assert(!witness_judge(&w, &verdict));
}

UNIT_TEST(witnesses_that_fail)
{
	struct witness_verdict verdict;

	/* None yet. */
	begin();
	witness_declared(&w, 1010 * MS);
	read_at(PROBE_TAP_LINK, 1020, 5);
	read_at(PROBE_TAP_LINK, 1400, 5);
	ck_assert_uint_eq(judged(), 0);

	/* The other goes on. */
	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	read_at(PROBE_NFTABLES, 1000, 7);
	witness_declared(&w, 1010 * MS);
	witness_failed(&w, PROBE_NFTABLES);
	read_at(PROBE_TAP_LINK, 1300, 5);
	ck_assert(witness_judge(&w, &verdict));
	ck_assert_uint_eq(verdict.witnesses, 1u << PROBE_TAP_LINK);

	/* One that comes back does not know what it missed. */
	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	witness_declared(&w, 1010 * MS);
	witness_failed(&w, PROBE_TAP_LINK);
	read_at(PROBE_TAP_LINK, 1300, 9);
	read_at(PROBE_TAP_LINK, 1400, 9);
	ck_assert_uint_eq(judged(), 0);
}

/* A guest that never stops declaring is judged all the same, and all of it. */
UNIT_TEST(a_stream_of_declarations)
{
	uint64_t declared = 0, told = 0;

	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	for (uint64_t at = 1001; at <= 11000; at++) {
		witness_declared(&w, at * MS);
		declared++;
		if (at % INTERVAL_MS == 0)
			read_at(PROBE_TAP_LINK, at, 5);
		told += judged();
	}
	ck_assert_uint_gt(told, declared - 5 * INTERVAL_MS);
	for (uint64_t at = 11100; at <= 12000; at += INTERVAL_MS)
		read_at(PROBE_TAP_LINK, at, 5);
	ck_assert_uint_eq(told + judged(), declared);
}

/* More intervals in the window than there are groups: late, but nothing is lost. */
UNIT_TEST(a_long_window)
{
	uint64_t told = 0;

	witness_init(&w, INTERVAL_MS, INTERVAL_MS, 100 * INTERVAL_MS);
	read_at(PROBE_TAP_LINK, 1000, 5);
	for (uint64_t i = 1; i <= 400; i++) {
		if (i <= 50)
			witness_declared(&w, (1000 + i * INTERVAL_MS) * MS);
		read_at(PROBE_TAP_LINK, 1000 + i * INTERVAL_MS, 5);
		told += judged();
		ck_assert_uint_le(w.n_groups, WITNESS_GROUPS);
	}
	ck_assert_uint_eq(told, 50);
}

static bool expects(const char *family, const char *address, const char *result)
{
	struct declaration d = {.source = WIRE_NET_CONNECT_ATTEMPTED, .n_details = 2};

	d.details[0] = (struct wire_detail){
		.key = WIRE_KEY_FAMILY, .type = WIRE_TYPE_TEXT, .text = wire_text(family)};
	d.details[1] = (struct wire_detail){
		.key = WIRE_KEY_ADDRESS, .type = WIRE_TYPE_TEXT, .text = wire_text(address)};
	if (result)
		d.details[d.n_details++] = (struct wire_detail){
			.key = WIRE_KEY_RESULT, .type = WIRE_TYPE_TEXT, .text = wire_text(result)};
	return witness_expects_packets(&d);
}

UNIT_TEST(what_sends_packets)
{
	ck_assert(expects("inet", "10.0.0.1", NULL));
	ck_assert(expects("inet", "10.0.0.1", "ok"));
	ck_assert(expects("inet", "10.0.0.1", "EINPROGRESS"));
	ck_assert(expects("inet", "10.0.0.1", "ECONNREFUSED"));
	ck_assert(expects("inet6", "2001:db8::1", NULL));
	ck_assert(expects("inet6", "::ffff:10.0.0.1", NULL));
	ck_assert(!expects("inet", "127.0.0.1", NULL));
	ck_assert(!expects("inet", "127.255.255.254", NULL));
	ck_assert(!expects("inet", "0.0.0.0", NULL));
	ck_assert(!expects("inet6", "::1", NULL));
	ck_assert(!expects("inet6", "::", NULL));
	ck_assert(!expects("inet6", "::ffff:127.0.0.1", NULL));
	ck_assert(!expects("vsock", "2", NULL));
	ck_assert(!expects("inet", "10.0.0.1", "ENETUNREACH"));
	ck_assert(!expects("inet", "10.0.0.1", "EPERM"));
	ck_assert(!expects("inet", "nonsense", NULL));
	ck_assert(!expects("inet", "10.0.0.1.10.0.0.1.10.0.0.1.10.0.0.1.10.0.0.1.10.0.0.1.10.0.0.1",
			   NULL));
}

/* Groups that were made before the last witness was lost are forgotten, not judged by a later one.
 */
UNIT_TEST(groups_go_with_the_last_witness)
{
	struct witness_verdict verdict;

	begin();
	read_at(PROBE_TAP_LINK, 1000, 5);
	read_at(PROBE_NFTABLES, 1000, 7);
	witness_declared(&w, 1010 * MS);
	ck_assert_uint_eq(w.n_groups, 1);
	witness_failed(&w, PROBE_TAP_LINK);
	ck_assert_uint_eq(w.n_groups, 1); /* the other one is there still */
	witness_failed(&w, PROBE_NFTABLES);
	ck_assert_uint_eq(w.n_groups, 0);
	read_at(PROBE_NFTABLES, 1300, 7);
	read_at(PROBE_NFTABLES, 1400, 7);
	ck_assert(!witness_judge(&w, &verdict));
	/* And a new one is judged by the new readings. */
	witness_declared(&w, 1410 * MS);
	read_at(PROBE_NFTABLES, 1700, 7);
	ck_assert(witness_judge(&w, &verdict));
	ck_assert_uint_eq(verdict.declared, 1);
	ck_assert_uint_eq(verdict.witnesses, 1u << PROBE_NFTABLES);
}

/* Only a connect sends packets, whatever details another source has. */
UNIT_TEST(only_connects_are_witnessed)
{
	for (int source = 0; source < _WIRE_SOURCE_MAX; source++) {
		struct declaration d = {.source = (enum wire_source)source};

		declaration_add_text(&d, WIRE_KEY_FAMILY, wire_text("inet"));
		declaration_add_text(&d, WIRE_KEY_ADDRESS, wire_text("192.0.2.1"));
		declaration_add_text(&d, WIRE_KEY_RESULT, wire_text("ok"));
		ck_assert_msg(witness_expects_packets(&d) == (source == WIRE_NET_CONNECT_ATTEMPTED),
			      "%s", wire_source_name(d.source));
	}
}
