/* SPDX-License-Identifier: MIT */
/*
 * Acknowledgements, their absence, resets and set-back machines, with a queue and a clock that the
 * test moves. What a host sees of it over a socket is in tests/integration/test_agent_channel.py.
 */
#include "guest-agent/delivery.h"

#include "common/util.h"
#include "guest-agent/observation.h"
#include "tests/unit/unit.h"

#define MS NSEC_PER_MSEC

struct world {
	struct event_queue *q;
	struct delivery d;
	uint64_t now_ns;
	struct delivery_greeting hello;
	char session[WIRE_SESSION_SIZE + 1]; /* of the newest hello */
};

static void setup_version(struct world *w, uint16_t version)
{
	*w = (struct world){.q = event_queue_new(64, version), .now_ns = 1000 * MS};
	ck_assert_ptr_nonnull(w->q);
	delivery_init(&w->d, w->q, version);
}

static void setup(struct world *w)
{
	setup_version(w, WIRE_VERSION_2);
}

static void observe(struct world *w, unsigned n)
{
	static pid_t pid = 1;
	struct observation o;

	for (; n > 0; n--) {
		observation_init(&o, WIRE_PROCESS_SPAWNED, pid++, "c", 1, w->now_ns);
		declaration_add_uint(&o.d, WIRE_KEY_PPID, 1);
		event_queue_observe(w->q, &o.d);
	}
}

/* Hand at most n frames to the socket; returns how many there were. */
static unsigned hand_over(struct world *w, unsigned n)
{
	struct iovec iov;
	unsigned sent = 0;

	for (; sent < n && event_queue_peek(w->q, &iov, 1) == 1; sent++)
		event_queue_sent(w->q, iov.iov_len);
	return sent;
}

static void connect_host(struct world *w)
{
	w->hello = delivery_connected(&w->d, w->now_ns);
	memcpy(w->session, w->hello.session, sizeof(w->session));
}

/* An agent with n events that is connected and has handed over `sent` of them. */
static void begin(struct world *w, unsigned n, unsigned sent, char first[WIRE_SESSION_SIZE + 1])
{
	setup(w);
	observe(w, n);
	connect_host(w);
	memcpy(first, w->session, WIRE_SESSION_SIZE + 1);
	hand_over(w, sent);
}

static enum delivery_verdict settle(struct world *w, uint64_t n)
{
	return delivery_settled(&w->d, n, w->now_ns);
}

static uint64_t given_up(const struct world *w)
{
	return event_queue_totals(w->q)->dropped[DROP_CHANNEL];
}

UNIT_TEST(sent_frames_are_kept_until_they_are_settled)
{
	struct world w;

	setup(&w);
	observe(&w, 3);
	connect_host(&w);
	ck_assert(w.hello.acks);
	ck_assert_uint_eq(w.hello.next_seq, 1);
	ck_assert_uint_eq(w.hello.assigned, 4);
	ck_assert_int_eq(settle(&w, 0), DELIVERY_GO_ON);
	hand_over(&w, 3);
	ck_assert_int_eq(settle(&w, 2), DELIVERY_PROGRESSED);
	ck_assert_int_eq(settle(&w, 1), DELIVERY_GO_ON);
	delivery_lost(&w.d, false);
	connect_host(&w);
	ck_assert_uint_eq(w.hello.next_seq, 3);
	ck_assert_uint_eq(hand_over(&w, 9), 1);
	ck_assert(delivery_awaits(&w.d));
	ck_assert_int_eq(settle(&w, 3), DELIVERY_PROGRESSED);
	ck_assert(!delivery_awaits(&w.d));
	event_queue_free(w.q);
}

/* The time-outs at the limit and one below. */
UNIT_TEST(a_host_that_never_acknowledges)
{
	char first[WIRE_SESSION_SIZE + 1];
	struct world w;

	begin(&w, 2, 2, first);
	/* A host that takes nothing proves nothing: only 5 s count of each pause. */
	w.now_ns += 3600 * 1000 * MS;
	ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_GO_ON);
	for (unsigned ms = DELIVERY_TAKING_MS; ms < DELIVERY_PATIENCE_MS - 1000; ms += 1000) {
		w.now_ns += 1000 * MS;
		ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_GO_ON);
	}
	w.now_ns += 1000 * MS - 1;
	ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_GO_ON);
	ck_assert_uint_eq(event_queue_first_seq(w.q), 1);
	w.now_ns += 1;
	ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_SAY_SO);
	ck_assert(!delivery_greeting(&w.d).acks);
	ck_assert_str_eq(delivery_greeting(&w.d).session, first);
	ck_assert_uint_eq(event_queue_first_seq(w.q), 3);
	ck_assert(!delivery_awaits(&w.d));
	ck_assert_uint_eq(given_up(&w), 0);

	/* Another connection can be another host: it gets 5 s. */
	delivery_lost(&w.d, false);
	connect_host(&w);
	ck_assert(w.hello.acks);
	w.now_ns += DELIVERY_PATIENCE_NEXT_MS * MS - 1;
	ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_GO_ON);
	w.now_ns += 1;
	ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_SAY_SO);
	/* And if it acknowledges after all, it is believed. */
	ck_assert_int_eq(settle(&w, 0), DELIVERY_SAY_SO);
	ck_assert(delivery_greeting(&w.d).acks);
	event_queue_free(w.q);
}

UNIT_TEST(once_acknowledged_always_acknowledged)
{
	struct world w;

	setup(&w);
	connect_host(&w);
	settle(&w, 0);
	delivery_lost(&w.d, false);
	connect_host(&w);
	observe(&w, 1);
	hand_over(&w, 1);
	for (int i = 0; i < 100; i++) {
		w.now_ns += 1000 * MS;
		ck_assert_int_eq(delivery_taken(&w.d, w.now_ns), DELIVERY_GO_ON);
	}
	ck_assert(delivery_greeting(&w.d).acks);
	ck_assert(delivery_awaits(&w.d));
	event_queue_free(w.q);
}

UNIT_TEST(version_1_is_settled_when_sent)
{
	struct world w;

	setup_version(&w, WIRE_VERSION_1);
	observe(&w, 2);
	connect_host(&w);
	hand_over(&w, 1);
	ck_assert_int_eq(settle(&w, 1000), DELIVERY_GO_ON);
	delivery_lost(&w.d, false);
	connect_host(&w);
	ck_assert_uint_eq(hand_over(&w, 9), 1);
	event_queue_free(w.q);
}

/* A frame on which the host chokes: five connections in a row, and it is given up. */
UNIT_TEST(a_poisoned_frame_is_given_up)
{
	struct world w;

	setup(&w);
	observe(&w, 3);
	for (unsigned i = 1; i <= DELIVERY_FRUITLESS_MAX; i++) {
		ck_assert_uint_eq(given_up(&w), 0);
		connect_host(&w);
		settle(&w, 0);
		hand_over(&w, 1);
		delivery_lost(&w.d, false);
	}
	ck_assert_uint_eq(given_up(&w), 1);
	connect_host(&w);
	ck_assert_uint_eq(w.hello.next_seq, 2);
	/* Progress on one connection, and the count begins anew. */
	for (unsigned i = 1; i < DELIVERY_FRUITLESS_MAX; i++) {
		hand_over(&w, 1);
		delivery_lost(&w.d, false);
		connect_host(&w);
	}
	hand_over(&w, 2);
	ck_assert_int_eq(settle(&w, 2), DELIVERY_PROGRESSED);
	for (unsigned i = 0; i < DELIVERY_FRUITLESS_MAX; i++) {
		delivery_lost(&w.d, false);
		ck_assert_uint_eq(given_up(&w), 1);
		connect_host(&w);
		hand_over(&w, 2);
	}
	delivery_lost(&w.d, false);
	ck_assert_uint_eq(given_up(&w), 2);
	event_queue_free(w.q);
}

/* This machine was set back: the host has numbers that were never sent. */
UNIT_TEST(a_number_above_the_highest_begins_a_new_session)
{
	static const uint64_t above[] = {4, 5, INT64_MAX, UINT64_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(above); i++) {
		char first[WIRE_SESSION_SIZE + 1];
		struct world w;

		begin(&w, 5, 3, first);
		ck_assert_int_eq(settle(&w, 1), DELIVERY_PROGRESSED);
		ck_assert_int_eq(settle(&w, above[i]), DELIVERY_RECONNECT);
		connect_host(&w);
		ck_assert_str_ne(w.session, first);
		ck_assert_uint_eq(w.hello.next_seq, 1);
		ck_assert_uint_eq(w.hello.assigned, 5);
		ck_assert_uint_eq(hand_over(&w, 9), 4);
		ck_assert_int_eq(settle(&w, 4), DELIVERY_PROGRESSED);
		ck_assert_uint_eq(given_up(&w), 0);
		event_queue_free(w.q);
	}
}

static void heartbeat(struct world *w)
{
	struct declaration d = {
		.source = WIRE_TELEMETRY_HEARTBEAT,
		.guest_pid = 1,
		.guest_comm = wire_text("c"),
		.guest_monotonic_ns = w->now_ns,
	};

	ck_assert_int_eq(event_queue_put_telemetry(w->q, &d), 0);
}

/* The queue holds 64 events: the numbers of the others are announced, and the host settles them. */
UNIT_TEST(numbers_of_dropped_events_are_settled_once_announced)
{
	struct world w;
	char first[WIRE_SESSION_SIZE + 1];
	uint64_t last;

	setup(&w);
	observe(&w, 100);
	last = event_queue_next_seq(w.q) - 1;
	ck_assert_uint_eq(last, 100);
	connect_host(&w);
	memcpy(first, w.session, sizeof(first));
	heartbeat(&w);
	ck_assert_uint_lt(hand_over(&w, 100), 65);
	ck_assert_int_eq(settle(&w, last), DELIVERY_PROGRESSED);
	ck_assert(!event_queue_awaits_settling(w.q));

	/* The same by a hello: the host has the gap before anything else was sent. */
	observe(&w, 100);
	hand_over(&w, 100);
	settle(&w, event_queue_highest_sent(w.q));
	ck_assert_uint_lt(event_queue_highest_sent(w.q), event_queue_next_seq(w.q) - 1);
	delivery_lost(&w.d, false);
	connect_host(&w);
	ck_assert_str_eq(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 201);
	ck_assert_int_eq(settle(&w, 200), DELIVERY_PROGRESSED);
	ck_assert_int_eq(settle(&w, 201), DELIVERY_RECONNECT);
	event_queue_free(w.q);
}

/* The old session's hello admits all that its heartbeats announced. */
UNIT_TEST(finishing_admits_what_was_announced)
{
	struct world w;
	char first[WIRE_SESSION_SIZE + 1];

	setup(&w);
	observe(&w, 100);
	connect_host(&w);
	memcpy(first, w.session, sizeof(first));
	heartbeat(&w);
	hand_over(&w, 100);
	settle(&w, 1);
	delivery_lost(&w.d, true);
	connect_host(&w);
	ck_assert_str_eq(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 2);
	ck_assert_uint_eq(w.hello.assigned, 101);
	hand_over(&w, 100);
	ck_assert_int_eq(settle(&w, 100), DELIVERY_RECONNECT);
	connect_host(&w);
	ck_assert_str_ne(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 1);
	ck_assert_uint_eq(given_up(&w), 0);
	event_queue_free(w.q);
}

/* Five observed, three handed over, one of them settled; then the machine is restored. */
static void reset_world(struct world *w, char first[static WIRE_SESSION_SIZE + 1])
{
	setup(w);
	observe(w, 5);
	connect_host(w);
	memcpy(first, w->session, WIRE_SESSION_SIZE + 1);
	hand_over(w, 3);
	settle(w, 1);
	delivery_lost(&w->d, true);
}

UNIT_TEST(after_a_reset_the_old_session_is_finished_first)
{
	char first[WIRE_SESSION_SIZE + 1];
	struct world w;

	reset_world(&w, first);
	ck_assert_uint_eq(delivery_deadline_ns(&w.d), 0);
	connect_host(&w);
	ck_assert_str_eq(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 2);
	ck_assert_uint_eq(w.hello.assigned, 4);
	observe(&w, 1);
	ck_assert_msg(hand_over(&w, 9) == 2, "only what was handed over before the reset");
	/* An ordinary end, and a second reset, change nothing. */
	delivery_lost(&w.d, false);
	connect_host(&w);
	ck_assert_str_eq(w.session, first);
	hand_over(&w, 9);
	delivery_lost(&w.d, true);
	connect_host(&w);
	ck_assert_str_eq(w.session, first);
	hand_over(&w, 9);
	ck_assert_int_eq(settle(&w, 2), DELIVERY_PROGRESSED);
	ck_assert_int_eq(settle(&w, 3), DELIVERY_RECONNECT);
	connect_host(&w);
	ck_assert_str_ne(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 1);
	ck_assert_uint_eq(w.hello.assigned, 4);
	ck_assert_uint_eq(hand_over(&w, 9), 3);
	ck_assert_uint_eq(given_up(&w), 0);
	event_queue_free(w.q);
}

UNIT_TEST(finishing_gives_up_without_progress)
{
	char first[WIRE_SESSION_SIZE + 1];
	struct world w;

	reset_world(&w, first);
	/* While no host is there, no time passes. */
	w.now_ns += 60 * 1000 * MS;
	ck_assert_int_eq(delivery_tick(&w.d, w.now_ns), DELIVERY_GO_ON);
	connect_host(&w);
	hand_over(&w, 9);
	w.now_ns += (DELIVERY_FINISH_MS - 1) * MS;
	ck_assert_int_eq(delivery_tick(&w.d, w.now_ns), DELIVERY_GO_ON);
	ck_assert_int_eq(settle(&w, 2), DELIVERY_PROGRESSED);
	w.now_ns += DELIVERY_FINISH_MS * MS - 1;
	ck_assert_int_eq(delivery_tick(&w.d, w.now_ns), DELIVERY_GO_ON);
	w.now_ns += 1;
	ck_assert_uint_eq(delivery_deadline_ns(&w.d), w.now_ns);
	ck_assert_int_eq(delivery_tick(&w.d, w.now_ns), DELIVERY_RECONNECT);
	ck_assert_uint_eq(given_up(&w), 1);
	ck_assert(event_queue_receipt_pending(w.q));
	connect_host(&w);
	ck_assert_str_ne(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 1);
	ck_assert_uint_eq(hand_over(&w, 9), 2);
	event_queue_free(w.q);
}

UNIT_TEST(a_reset_with_nothing_open_is_a_new_session_at_once)
{
	char first[WIRE_SESSION_SIZE + 1];
	struct world w;

	begin(&w, 2, 1, first);
	settle(&w, 1);
	delivery_lost(&w.d, true);
	connect_host(&w);
	ck_assert_str_ne(w.session, first);
	ck_assert_uint_eq(w.hello.next_seq, 1);
	ck_assert_uint_eq(hand_over(&w, 9), 1);
	event_queue_free(w.q);
}

/* A host of which nobody knows whether it acknowledges got them: they are no loss. */
UNIT_TEST(a_reset_before_the_first_acknowledgement)
{
	struct world w;

	setup(&w);
	observe(&w, 2);
	connect_host(&w);
	hand_over(&w, 2);
	delivery_lost(&w.d, true);
	connect_host(&w);
	ck_assert_uint_eq(hand_over(&w, 9), 2);
	w.now_ns += DELIVERY_FINISH_MS * MS;
	ck_assert_int_eq(delivery_tick(&w.d, w.now_ns), DELIVERY_RECONNECT);
	ck_assert_uint_eq(given_up(&w), 0);
	connect_host(&w);
	ck_assert_uint_eq(w.hello.assigned, 1);
	event_queue_free(w.q);
}

UNIT_TEST(sessions_have_names_of_their_own)
{
	struct world a, b;

	setup(&a);
	setup(&b);
	ck_assert_uint_eq(strlen(a.d.session), WIRE_SESSION_SIZE);
	ck_assert_str_ne(a.d.session, b.d.session);
	event_queue_free(a.q);
	event_queue_free(b.q);
}
