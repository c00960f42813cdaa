/* SPDX-License-Identifier: MIT */
/* Numbers, sessions and the guest's totals: what is missing, repeated, out of order, or a lie. */
#include "host-receiver/cell/gap.h"

#include "common/util.h"
#include "host-receiver/cell/guest_totals.h"
#include "tests/unit/unit.h"

#define A "00000000000000aa"
#define B "00000000000000bb"
#define C "00000000000000cc"

struct guest {
	struct sessions memory;
	struct numbering numbering;
};

static void connect_again(struct guest *g)
{
	g->numbering = (struct numbering){0};
}

/* A gap of the reason, or none with first 0. */
static void expect(struct gap gap, uint64_t first, uint64_t last, enum gap_reason reason)
{
	ck_assert_uint_eq(gap.first, first);
	ck_assert_uint_eq(gap.last, last);
	if (first != 0)
		ck_assert_str_eq(gap_reason_name(gap.reason), gap_reason_name(reason));
}

static struct gap hello_of(struct guest *g, struct hello_numbers hello, enum number_verdict want)
{
	struct gap gap = {.first = 77};

	ck_assert_int_eq(numbering_hello(&g->numbering, &g->memory, &hello, &gap), want);
	return gap;
}

static struct gap hello(struct guest *g, const char *session, uint64_t next, uint64_t assigned)
{
	return hello_of(g,
			(struct hello_numbers){.session = wire_text(session),
					       .next_seq = next,
					       .assigned = assigned},
			NUMBER_FINE);
}

static struct gap frame(struct guest *g, uint64_t seq, enum number_verdict want)
{
	struct gap gap = {.first = 77};

	ck_assert_msg(numbering_frame(&g->numbering, seq, &gap) == want, "seq %" PRIu64, seq);
	return gap;
}

static void frames(struct guest *g, uint64_t first, uint64_t last, enum number_verdict want)
{
	for (uint64_t seq = first; seq <= last; seq++)
		expect(frame(g, seq, want), 0, 0, 0);
}

UNIT_TEST(gaps_are_what_was_numbered_and_did_not_come)
{
	struct guest g = {0};
	struct gap gap;

	expect(hello(&g, A, 1, 1), 0, 0, 0);
	frames(&g, 1, 6, NUMBER_FINE);
	expect(frame(&g, 9, NUMBER_FINE), 7, 8, GAP_JUMP);
	numbering_reach(&g.numbering, 14, &gap);
	expect(gap, 10, 13, GAP_JUMP);
	numbering_reach(&g.numbering, 14, &gap);
	expect(gap, 0, 0, 0);
	numbering_reach(&g.numbering, 3, &gap); /* an old heartbeat says nothing */
	expect(gap, 0, 0, 0);
	frames(&g, 14, 20, NUMBER_FINE);
	ck_assert_uint_eq(g.numbering.session->next, 21);
}

UNIT_TEST(a_session_that_starts_above_one_is_a_gap)
{
	struct guest g = {0};

	expect(hello(&g, A, 5, 5), 1, 4, GAP_SESSION_START);
	frames(&g, 5, 6, NUMBER_FINE);
	connect_again(&g);
	expect(hello_of(&g,
			(struct hello_numbers){.session = wire_text(B),
					       .next_seq = 12,
					       .assigned = 12,
					       .boot_elsewhere = true},
			NUMBER_FINE),
	       1, 11, GAP_INHERITED);
	frames(&g, 12, 13, NUMBER_FINE);
	/* From 1 on nothing is missing, whatever boot it names. */
	connect_again(&g);
	expect(hello_of(&g,
			(struct hello_numbers){.session = wire_text(C),
					       .next_seq = 1,
					       .assigned = 1,
					       .boot_elsewhere = true},
			NUMBER_FINE),
	       0, 0, 0);
}

UNIT_TEST(repeats_are_dropped_once_and_in_order)
{
	struct guest g = {0};

	hello(&g, A, 1, 1);
	frames(&g, 1, 10, NUMBER_FINE);
	connect_again(&g);
	expect(hello(&g, A, 4, 16), 0, 0, 0);
	frames(&g, 4, 6, NUMBER_REPEAT);
	expect(frame(&g, 6, NUMBER_BACKWARDS), 0, 0, 0); /* a repeat only once */
	expect(frame(&g, 3, NUMBER_FINE), 0, 0, 0);	 /* noted already */
	frames(&g, 8, 10, NUMBER_REPEAT);
	expect(frame(&g, 9, NUMBER_FINE), 0, 0, 0);
	frames(&g, 11, 15, NUMBER_FINE);
	expect(frame(&g, 12, NUMBER_FINE), 0, 0, 0); /* came on this connection: no repeat */
	ck_assert_uint_eq(g.numbering.session->next, 16);
	/* What lies below next_seq is no repeat: it is out of order. */
	connect_again(&g);
	hello(&g, A, 14, 16);
	expect(frame(&g, 13, NUMBER_BACKWARDS), 0, 0, 0);
	frames(&g, 14, 15, NUMBER_REPEAT);
	frames(&g, 16, 16, NUMBER_FINE);
}

UNIT_TEST(frames_lost_between_two_connections_are_a_gap)
{
	struct guest g = {0};

	hello(&g, A, 1, 1);
	frames(&g, 1, 10, NUMBER_FINE);
	connect_again(&g);
	expect(hello(&g, A, 14, 20), 11, 13, GAP_JUMP);
	frames(&g, 14, 19, NUMBER_FINE);
}

UNIT_TEST(a_guest_that_was_set_back_loses_nothing)
{
	struct guest g = {0};

	hello(&g, A, 1, 1);
	frames(&g, 1, 50, NUMBER_FINE);
	g.numbering.session->settled = 50;
	connect_again(&g);
	/* Its highest number was 30: 31 to 50 will be assigned once more. */
	expect(hello(&g, A, 28, 31), 31, 50, GAP_HOST_AHEAD);
	frames(&g, 28, 40, NUMBER_FINE); /* evidence, none is a repeat */
	ck_assert_uint_eq(g.numbering.session->settled, 50);
	/* Exactly as far as the host is: nothing was set back. */
	connect_again(&g);
	expect(hello(&g, A, 30, 41), 0, 0, 0);
	frames(&g, 30, 40, NUMBER_REPEAT);
}

UNIT_TEST(a_connection_has_one_session)
{
	struct guest g = {0};

	expect(frame(&g, 5, NUMBER_NO_HELLO), 0, 0, 0);
	expect(frame(&g, 6, NUMBER_FINE), 0, 0, 0);
	hello(&g, A, 1, 1);
	frames(&g, 1, 3, NUMBER_FINE);
	expect(hello(&g, A, 1, 4), 0, 0, 0); /* a source changed */
	frames(&g, 4, 4, NUMBER_FINE);
	expect(hello_of(&g, (struct hello_numbers){.session = wire_text(B), .next_seq = 1},
			NUMBER_SECOND_SESSION),
	       0, 0, 0);
	ck_assert_ptr_null(sessions_find(&g.memory, wire_text(B)));
	frames(&g, 5, 5, NUMBER_FINE);
}

UNIT_TEST(a_refused_frame_has_the_next_number)
{
	struct guest g = {0};
	struct gap gap;

	numbering_refused(&g.numbering, &gap); /* before a hello nothing is known */
	expect(gap, 0, 0, 0);
	hello(&g, A, 1, 1);
	frames(&g, 1, 4, NUMBER_FINE);
	numbering_refused(&g.numbering, &gap);
	expect(gap, 5, 5, GAP_REFUSED);
	/* The agent does not know yet that 5 is settled, and sends it again. */
	connect_again(&g);
	hello(&g, A, 4, 8);
	frames(&g, 4, 4, NUMBER_REPEAT);
	numbering_refused(&g.numbering, &gap);
	expect(gap, 0, 0, 0);
	connect_again(&g);
	hello(&g, A, 6, 8);
	frames(&g, 6, 7, NUMBER_FINE);
}

UNIT_TEST(the_largest_number_is_a_number)
{
	struct guest g = {0};
	struct gap gap;

	expect(hello(&g, A, WIRE_SEQ_MAX, WIRE_SEQ_MAX), 1, WIRE_SEQ_MAX - 1, GAP_SESSION_START);
	frames(&g, WIRE_SEQ_MAX, WIRE_SEQ_MAX, NUMBER_FINE);
	numbering_refused(&g.numbering, &gap);
	expect(gap, 0, 0, 0);
	expect(frame(&g, WIRE_SEQ_MAX, NUMBER_BACKWARDS), 0, 0, 0);
	expect(frame(&g, 1, NUMBER_FINE), 0, 0, 0);
	ck_assert_uint_eq(g.numbering.session->next, WIRE_SEQ_MAX + 1);
	connect_again(&g);
	expect(hello(&g, A, WIRE_SEQ_MAX, WIRE_SEQ_MAX), WIRE_SEQ_MAX, WIRE_SEQ_MAX,
	       GAP_HOST_AHEAD);
	frames(&g, WIRE_SEQ_MAX, WIRE_SEQ_MAX, NUMBER_FINE);
	/* One number, and the next one is the largest. */
	connect_again(&g);
	hello(&g, B, 1, 1);
	expect(frame(&g, WIRE_SEQ_MAX, NUMBER_FINE), 1, WIRE_SEQ_MAX - 1, GAP_JUMP);
}

UNIT_TEST(two_sessions_are_remembered_by_their_exact_names)
{
	struct sessions s = {0};
	struct session *a = sessions_add(&s, wire_text(A), 4), *b, *c;

	ck_assert_ptr_null(sessions_find(&s, wire_text(B)));
	ck_assert_ptr_null(sessions_find(&s, (struct wire_text){.data = A, .len = 15}));
	ck_assert_ptr_null(sessions_find(&s, (struct wire_text){.data = A "0", .len = 17}));
	ck_assert_ptr_null(sessions_find(&s, (struct wire_text){.data = "", .len = 0}));
	ck_assert_ptr_eq(sessions_find(&s, wire_text(A)), a);
	b = sessions_add(&s, wire_text(B), 1);
	ck_assert_ptr_ne(a, b);
	ck_assert_ptr_eq(sessions_newest(&s), b);
	ck_assert_uint_eq(s.evicted, 0);
	c = sessions_add(&s, wire_text(C), 1);
	ck_assert_ptr_eq(c, a); /* in the place of the oldest */
	ck_assert_uint_eq(s.evicted, 1);
	ck_assert_ptr_null(sessions_find(&s, wire_text(A)));
	ck_assert_ptr_eq(sessions_find(&s, wire_text(B)), b);
	ck_assert_ptr_eq(sessions_find_id(&s, c->id), c);
	ck_assert_ptr_null(sessions_find_id(&s, 1));
	ck_assert_ptr_null(sessions_find_id(&s, 0));
}

UNIT_TEST(numbers_from_the_log_are_durable)
{
	struct guest g = {0};

	sessions_load(&g.memory, wire_text(A), 11);
	sessions_load(&g.memory, wire_text(A), 7); /* never backwards */
	sessions_load(&g.memory, wire_text("short"), 3);
	sessions_load(&g.memory, wire_text(B), 0);
	ck_assert_ptr_null(sessions_find(&g.memory, wire_text(B)));
	ck_assert_uint_eq(sessions_find(&g.memory, wire_text(A))->settled, 10);
	expect(hello(&g, A, 9, 15), 0, 0, 0);
	frames(&g, 9, 10, NUMBER_REPEAT);
	frames(&g, 11, 14, NUMBER_FINE);
}

static const char *totals(struct guest_totals *t, uint64_t observed, uint64_t dropped)
{
	struct declaration d = {.source = WIRE_TELEMETRY_HEARTBEAT};

	declaration_add_uint(&d, WIRE_KEY_OBSERVED, observed);
	declaration_add_uint(&d, WIRE_KEY_DROPPED, dropped);
	return guest_totals_note(t, &d);
}

UNIT_TEST(a_total_that_shrinks_is_a_lie_and_changes_nothing)
{
	struct guest_totals t = {0};

	ck_assert_ptr_null(totals(&t, 9000, 5000));
	ck_assert_str_eq(totals(&t, 9001, 0), "dropped");
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], 5000);
	ck_assert_uint_eq(t.grown[GUEST_OBSERVED], 9001);
	ck_assert_ptr_null(totals(&t, 9002, 5001));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], 5001);
	/* An agent that was started again counts from 0; one that reconnects does not. */
	t.fresh = true;
	ck_assert_ptr_null(totals(&t, 10, 3));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], 5004);
	t.fresh = true;
	ck_assert_ptr_null(totals(&t, 12, 4));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], 5005);
	ck_assert_ptr_null(totals(&t, UINT64_MAX, UINT64_MAX));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], UINT64_MAX);
	t.fresh = true;
	ck_assert_ptr_null(totals(&t, 1, 1));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], UINT64_MAX); /* no wrap */
}

UNIT_TEST(totals_of_another_run_are_not_counted_again)
{
	struct guest_totals t = {.baseline = true};

	ck_assert_ptr_null(totals(&t, 9000, 5000));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], 5000);
	ck_assert_uint_eq(t.counted[GUEST_DROPPED], 0);
	ck_assert_ptr_null(totals(&t, 9003, 5003));
	ck_assert_uint_eq(t.grown[GUEST_DROPPED], 5003);
	ck_assert_uint_eq(t.counted[GUEST_DROPPED], 3);
	ck_assert_ptr_null(totals(&t, UINT64_MAX, UINT64_MAX));
	ck_assert_uint_eq(t.counted[GUEST_DROPPED], UINT64_MAX - 5000);
}
