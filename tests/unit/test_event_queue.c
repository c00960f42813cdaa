/* SPDX-License-Identifier: MIT */
/*
 * The agent's queue: bounded, nothing lost without a receipt, everything in the order of its
 * numbers. What it queued is read back by the host's own decoder.
 */
#include "guest-agent/event_queue.h"

#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "guest-agent/fold.h"
#include "guest-agent/observation.h"
#include "tests/unit/unit.h"

/* What a host makes of a queue's frames: one session, repeats dropped by their number. */
struct reader {
	uint64_t frames, observations, receipts, heartbeats, repeats;
	uint64_t next_seq; /* of the connection's hello; 0: as if it began with a new session */
	uint64_t expected, last_seq, missing;
	uint64_t receipted;
	struct event_loss last;
	struct declaration d; /* the newest frame; its texts are gone */
};

static uint64_t detail(const struct declaration *d, enum wire_key key)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key)
			return d->details[i].uint;
	return 0;
}

static void read_receipt(struct reader *r, const struct declaration *d)
{
	r->receipts++;
	r->receipted += detail(d, WIRE_KEY_QUEUE_FULL) + detail(d, WIRE_KEY_TOO_LARGE) +
			detail(d, WIRE_KEY_CHANNEL);
	r->last = (struct event_loss){
		.count = {[DROP_QUEUE_FULL] = detail(d, WIRE_KEY_QUEUE_FULL),
			  [DROP_TOO_LARGE] = detail(d, WIRE_KEY_TOO_LARGE),
			  [DROP_CHANNEL] = detail(d, WIRE_KEY_CHANNEL),
			  [DROP_KERNEL_OVERRUN] = detail(d, WIRE_KEY_KERNEL_OVERRUN)},
		.family = {[PROBE_PROCESS] = detail(d, WIRE_KEY_PROCESS_LOST),
			   [PROBE_NET] = detail(d, WIRE_KEY_NET_LOST),
			   [PROBE_CAPABILITY] = detail(d, WIRE_KEY_CAPABILITY_LOST),
			   [PROBE_FS] = detail(d, WIRE_KEY_FS_LOST)},
		.first_seq = detail(d, WIRE_KEY_FIRST_SEQ),
		.last_seq = detail(d, WIRE_KEY_LAST_SEQ),
		.first_ns = detail(d, WIRE_KEY_FIRST_NS),
		.last_ns = detail(d, WIRE_KEY_LAST_NS),
	};
}

static void read_frame(struct reader *r, const uint8_t *frame, size_t len)
{
	struct declaration *d = &r->d;
	struct wire_refusal refusal;

	ck_assert_uint_eq(wire_decode_length(frame), len - WIRE_PREFIX_SIZE);
	ck_assert_int_eq(wire_decode(frame + WIRE_PREFIX_SIZE, len - WIRE_PREFIX_SIZE, d, &refusal),
			 WIRE_OK);
	r->frames++;
	r->expected = MAX(r->expected, UINT64_C(1));
	if (!wire_source_is_numbered(d->source)) {
		/*
		 * It was queued after every number that arrived. It can be below the hello's
		 * number: what was observed after it can be lost before the connection began.
		 */
		ck_assert_uint_ge(detail(d, WIRE_KEY_NEXT_SEQ), r->expected);
		r->heartbeats++;
		return;
	}
	ck_assert_uint_gt(d->seq, r->last_seq);
	r->last_seq = d->seq;
	if (d->seq < r->expected) {
		ck_assert_uint_ge(d->seq, r->next_seq);
		r->repeats++;
		return;
	}
	r->missing += d->seq - r->expected;
	r->expected = d->seq + 1;
	if (d->source == WIRE_TELEMETRY_DROPPED)
		read_receipt(r, d);
	else
		r->observations += MAX(detail(d, WIRE_KEY_REPEAT), UINT64_C(1));
}

/* Take at most n frames off the queue, as a channel does. */
static void take(struct event_queue *q, struct reader *r, size_t n)
{
	while (n > 0) {
		struct iovec iov;

		if (event_queue_peek(q, &iov, 1) == 0)
			return;
		read_frame(r, iov.iov_base, iov.iov_len);
		event_queue_sent(q, iov.iov_len);
		n--;
	}
}

/* The connection ends and another one of the same session begins. */
static void reconnect(struct event_queue *q, struct reader *r)
{
	event_queue_rewind(q);
	r->next_seq = event_queue_first_seq(q);
	r->last_seq = r->next_seq - 1;
}

static struct event_queue *new_queue(unsigned capacity, bool keep)
{
	struct event_queue *q = event_queue_new(capacity, WIRE_VERSION_2);

	ck_assert_ptr_nonnull(q);
	event_queue_keep_sent(q, keep);
	return q;
}

/*
 * What is equal within a second becomes one observation. This is the time of an observation in
 * tests of that, which may stand still for longer themselves; 0: it is now.
 */
static uint64_t stopped_ns;

static void observe_as(struct event_queue *q, enum wire_source source, pid_t pid, size_t text_len)
{
	static char text[4 * WIRE_DETAIL_TEXT_MAX];
	struct observation o;

	memset(text, 'x', sizeof(text));
	observation_init(&o, source, pid, "comm", 4, stopped_ns ? stopped_ns++ : monotonic_ns());
	switch (source) {
	case WIRE_PROCESS_EXECUTED: observation_add_bytes(&o, WIRE_KEY_EXE, text, text_len); break;
	case WIRE_NET_CONNECT_ATTEMPTED:
		observation_add_bytes(&o, WIRE_KEY_ADDRESS, text, text_len);
		declaration_add_text(&o.d, WIRE_KEY_FAMILY, wire_text("inet"));
		declaration_add_uint(&o.d, WIRE_KEY_PORT, 80);
		break;
	case WIRE_FS_CHANGED:
		observation_add_bytes(&o, WIRE_KEY_PATH, text, text_len);
		declaration_add_text(&o.d, WIRE_KEY_EVENT, wire_text("modify"));
		break;
	case WIRE_CAPABILITY_DENIED:
		observation_add_bytes(&o, WIRE_KEY_SYSCALL, text, text_len);
		declaration_add_text(&o.d, WIRE_KEY_ERROR, wire_text("EPERM"));
		break;
	default: declaration_add_uint(&o.d, WIRE_KEY_PPID, 1); break;
	}
	event_queue_observe(q, &o.d);
}

/* Each one differs from all others, so that none is folded. */
static void observe(struct event_queue *q, size_t text_len)
{
	static pid_t pid = 1000;

	observe_as(q, WIRE_PROCESS_EXECUTED, pid++, text_len);
}

static uint64_t receipt_ns; /* the time of the last receipt */

static int put_receipt(struct event_queue *q)
{
	struct declaration d = {.source = WIRE_TELEMETRY_DROPPED,
				.guest_comm = wire_text("agent"),
				.guest_monotonic_ns = monotonic_ns()};

	receipt_ns = d.guest_monotonic_ns;
	return event_queue_put_receipt(q, &d);
}

static int put_heartbeat(struct event_queue *q)
{
	struct declaration d = {.source = WIRE_TELEMETRY_HEARTBEAT,
				.guest_comm = wire_text("agent"),
				.guest_monotonic_ns = monotonic_ns()};

	for (enum wire_key key = 0; key < _WIRE_KEY_MAX; key++)
		if ((wire_source_required(d.source) & UINT64_C(1) << key) &&
		    key != WIRE_KEY_NEXT_SEQ)
			declaration_add_uint(&d, key, 0);
	return event_queue_put_telemetry(q, &d);
}

/* One family has its own eighth and the shared half. */
#define ONE_FAMILY (EVENT_QUEUE_MIN / 8 + EVENT_QUEUE_MIN / 2)

UNIT_TEST(holds_its_share_and_no_more)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, false);
	const uint64_t *dropped = event_queue_totals(q)->dropped;

	for (unsigned i = 0; i < ONE_FAMILY; i++) {
		ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 0);
		observe(q, 10);
	}
	ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 0);
	observe(q, 10);
	ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 1);
	ck_assert_uint_eq(event_queue_take_peak(q), ONE_FAMILY);
	ck_assert_uint_eq(event_queue_totals(q)->observed, ONE_FAMILY + 1);
	event_queue_free(q);
}

/* A flood of one family, of many or of large events, leaves the others their places. */
UNIT_TEST(families_have_shares)
{
	static const enum wire_source others[] = {WIRE_PROCESS_SPAWNED, WIRE_CAPABILITY_DENIED,
						  WIRE_FS_CHANGED};
	const unsigned capacity = 800, own = capacity / 8;

	for (size_t len = 10; len <= WIRE_DETAIL_TEXT_MAX; len += WIRE_DETAIL_TEXT_MAX - 10) {
		struct event_queue *q = new_queue(capacity, true);
		const uint64_t *dropped = event_queue_totals(q)->dropped;
		struct reader r = {0};
		uint64_t flood;

		for (unsigned i = 0; i < 4 * capacity; i++)
			observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 1 + (pid_t)i, len);
		flood = dropped[DROP_QUEUE_FULL];
		ck_assert_uint_ge(flood, 3 * capacity);
		for (size_t s = 0; s < ARRAY_SIZE(others); s++)
			for (unsigned i = 0; i < own; i++)
				observe_as(q, others[s], 1 + (pid_t)i, 10);
		ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], flood);
		observe_as(q, WIRE_FS_CHANGED, 9999, 10);
		ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], flood + (len == 10));
		ck_assert_int_eq(put_receipt(q), 0);
		take(q, &r, SIZE_MAX);
		ck_assert_uint_eq(r.last.family[PROBE_NET], flood);
		ck_assert_uint_eq(r.last.family[PROBE_FS], len == 10);
		ck_assert_uint_eq(r.last.family[PROBE_PROCESS], 0);
		event_queue_free(q);
	}
}

UNIT_TEST(a_loss_of_the_kernel_has_a_family)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, true);
	struct reader r = {0};

	event_queue_kernel_lost(q, PROBE_NET, 5);
	event_queue_kernel_lost(q, PROBE_FS, 0);
	/* One that is too large is counted, but is nobody's share. */
	observe_as(q, WIRE_PROCESS_EXECUTED, 1, 4 * WIRE_DETAIL_TEXT_MAX);
	ck_assert_int_eq(put_receipt(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.last.count[DROP_KERNEL_OVERRUN], 5);
	ck_assert_uint_eq(r.last.family[PROBE_NET], 5);
	ck_assert_uint_eq(r.last.family[PROBE_FS], 0);
	ck_assert_uint_eq(r.last.family[PROBE_PROCESS], 0);
	event_queue_free(q);
}

UNIT_TEST(a_loss_is_receipted_once_there_is_room)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, false);
	const uint64_t began_ns = monotonic_ns();
	struct reader r = {0};
	uint64_t last_ns = 0;

	for (unsigned i = 0; i < ONE_FAMILY + 5; i++) {
		last_ns = monotonic_ns();
		observe(q, 10);
	}
	ck_assert(event_queue_receipt_pending(q));
	take(q, &r, 1);
	/* A queued heartbeat does not delay the receipt. */
	ck_assert_int_eq(put_heartbeat(q), 0);
	ck_assert(event_queue_receipt_due(q, monotonic_ns()));
	ck_assert_int_eq(put_receipt(q), 0);
	ck_assert(!event_queue_receipt_pending(q));
	observe(q, 10);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.receipts, 1);
	ck_assert_uint_eq(r.receipted, 5);
	ck_assert_uint_eq(r.missing, 5);
	ck_assert_uint_eq(r.last.first_seq, ONE_FAMILY + 1);
	ck_assert_uint_eq(r.last.last_seq, ONE_FAMILY + 5);
	ck_assert_uint_eq(r.last.family[PROBE_PROCESS], 5);
	ck_assert_uint_gt(r.last.first_ns, began_ns);
	ck_assert_uint_lt(r.last.first_ns, last_ns);
	ck_assert_uint_ge(r.last.last_ns, last_ns);
	ck_assert_uint_eq(event_queue_totals(q)->sent, ONE_FAMILY + 1);

	/* At most ten a second. */
	for (unsigned i = 0; i < ONE_FAMILY + 1; i++)
		observe(q, 10);
	take(q, &r, 1);
	ck_assert(!event_queue_receipt_due(q, receipt_ns + EVENT_QUEUE_RECEIPT_MS * NSEC_PER_MSEC -
						      1));
	ck_assert(event_queue_receipt_due(q, receipt_ns + EVENT_QUEUE_RECEIPT_MS * NSEC_PER_MSEC));
	event_queue_free(q);
}

UNIT_TEST(large_events_are_full_or_too_large)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, false);
	const uint64_t *dropped = event_queue_totals(q)->dropped;
	struct observation o;
	char text[WIRE_DETAIL_TEXT_MAX];

	memset(text, 't', sizeof(text));
	observation_init(&o, WIRE_NET_CONNECT_ATTEMPTED, 1, "c", 1, 0);
	observation_add_bytes(&o, WIRE_KEY_FAMILY, text, sizeof(text));
	observation_add_bytes(&o, WIRE_KEY_ADDRESS, text, sizeof(text));
	observation_add_bytes(&o, WIRE_KEY_EXE, text, sizeof(text));
	observation_add_bytes(&o, WIRE_KEY_VIA, text, sizeof(text));
	event_queue_observe(q, &o.d);
	ck_assert_uint_eq(dropped[DROP_TOO_LARGE], 1);
	ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 0);
	/* Fewer than its share of events, but all of its bytes. */
	for (unsigned i = 0; i < ONE_FAMILY; i++)
		observe(q, WIRE_DETAIL_TEXT_MAX);
	ck_assert_uint_gt(dropped[DROP_QUEUE_FULL], 0);
	ck_assert_uint_eq(dropped[DROP_TOO_LARGE], 1);
	event_queue_free(q);
}

UNIT_TEST(telemetry_has_room_of_its_own)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, false);
	struct reader r = {0};
	unsigned n = 0;

	for (unsigned i = 0; i < 2 * EVENT_QUEUE_MIN; i++)
		observe(q, WIRE_DETAIL_TEXT_MAX);
	ck_assert_int_eq(put_heartbeat(q), 0);
	while (put_heartbeat(q) == 0)
		n++;
	ck_assert_uint_gt(n, 10);
	ck_assert_uint_lt(n, 1000);
	take(q, &r, SIZE_MAX);
	ck_assert(event_queue_all_sent(q));
	ck_assert_int_eq(put_heartbeat(q), 0);
	event_queue_free(q);
}

/* While nothing is settled, heartbeats that were sent take no more and more room. */
UNIT_TEST(heartbeats_go_on_while_nothing_is_settled)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, true);
	struct reader r = {0};

	for (unsigned i = 0; i < 2 * EVENT_QUEUE_MIN; i++)
		observe(q, 10);
	for (unsigned i = 0; i < 10000; i++) {
		ck_assert_int_eq(put_heartbeat(q), 0);
		take(q, &r, SIZE_MAX);
	}
	ck_assert_uint_eq(r.heartbeats, 10000);
	ck_assert_uint_eq(event_queue_first_seq(q), 1);
	event_queue_free(q);
}

/* Sent frames stay, in their order and with their numbers, until they are settled. */
UNIT_TEST(frames_that_are_not_settled_are_sent_again)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};
	struct iovec iov[16];

	for (int i = 0; i < 3; i++)
		observe(q, 100);
	ck_assert_int_eq(put_heartbeat(q), 0);
	for (int i = 0; i < 3; i++)
		observe(q, 100);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.observations, 6);
	ck_assert_uint_eq(event_queue_totals(q)->sent, 6);
	ck_assert(event_queue_all_sent(q));
	ck_assert(event_queue_awaits_settling(q));

	ck_assert(event_queue_settle(q, 2));
	ck_assert_msg(!event_queue_settle(q, 1), "a number lower than before says nothing");
	reconnect(q, &r);
	ck_assert_uint_eq(event_queue_first_seq(q), 3);
	/* The heartbeat between the two is gone: one system call takes what is around the hole. */
	ck_assert_uint_eq(event_queue_peek(q, iov, 16), 4);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.repeats, 4);
	ck_assert_uint_eq(r.heartbeats, 1);
	ck_assert_uint_eq(event_queue_totals(q)->sent, 6);
	ck_assert(event_queue_settle(q, 6));
	ck_assert(!event_queue_awaits_settling(q));
	ck_assert_uint_eq(event_queue_first_seq(q), 7);
	event_queue_free(q);
}

/* The host can settle by its answer to hello what is just being sent again. */
UNIT_TEST(settling_overtakes_sending)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};
	struct iovec iov[8];

	for (int i = 0; i < 6; i++)
		observe(q, 100);
	take(q, &r, 4);
	reconnect(q, &r);
	ck_assert_uint_eq(event_queue_peek(q, iov, 8), 6);
	/* In the middle of 2, the host says that it has 4. */
	event_queue_sent(q, iov[0].iov_len + 9);
	ck_assert(event_queue_settle(q, 4));
	ck_assert_uint_eq(event_queue_peek(q, iov, 8), 5);
	event_queue_sent(q, iov[0].iov_len);
	ck_assert_uint_eq(event_queue_peek(q, iov, 8), 2);
	ck_assert_uint_eq(event_queue_first_seq(q), 5);
	r.last_seq = 4;
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.observations, 6);
	ck_assert_uint_eq(r.missing, 0);
	event_queue_free(q);
}

/* The host settles numbers while the first of them is half sent once more. */
UNIT_TEST(a_frame_that_is_half_sent_stays)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};
	struct iovec iov[8];
	size_t len;

	for (int i = 0; i < 6; i++)
		observe(q, 100);
	take(q, &r, 4);
	reconnect(q, &r);
	ck_assert_uint_eq(event_queue_peek(q, iov, 8), 6);
	len = iov[0].iov_len;
	event_queue_sent(q, 9);
	ck_assert(event_queue_settle(q, 4));
	ck_assert_uint_eq(event_queue_peek(q, iov, 8), 6);
	ck_assert_uint_eq(iov[0].iov_len, len - 9);
	event_queue_sent(q, len - 9);
	ck_assert_uint_eq(event_queue_peek(q, iov, 8), 2);
	event_queue_free(q);
}

UNIT_TEST(a_cut_frame_is_sent_whole_again)
{
	for (int keep = 0; keep < 2; keep++) {
		struct event_queue *q = new_queue(64, keep);
		struct reader r = {0};
		struct iovec iov[4];

		for (int i = 0; i < 3; i++)
			observe(q, 100);
		ck_assert_int_eq(put_heartbeat(q), 0);
		ck_assert_uint_eq(event_queue_peek(q, iov, 4), 4);
		event_queue_sent(q, iov[0].iov_len + 7);
		reconnect(q, &r);
		ck_assert_uint_eq(event_queue_first_seq(q), keep ? 1 : 2);
		r.expected = event_queue_first_seq(q);
		take(q, &r, 3 - !keep);
		ck_assert_uint_eq(r.observations, 3 - !keep);
		ck_assert_uint_eq(r.missing, 0);
		/* A cut heartbeat is not: the next connection has its own. */
		ck_assert_uint_eq(event_queue_peek(q, iov, 4), 1);
		event_queue_sent(q, 5);
		event_queue_rewind(q);
		take(q, &(struct reader){.expected = 4, .last_seq = 0, .next_seq = 1}, SIZE_MAX);
		ck_assert(event_queue_all_sent(q));
		event_queue_free(q);
	}
}

UNIT_TEST(the_oldest_sent_frame_can_be_given_up)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};

	observe(q, 100);
	observe(q, 100);
	ck_assert(!event_queue_drop_oldest_sent(q));
	take(q, &r, 1);
	event_queue_rewind(q);
	ck_assert(event_queue_drop_oldest_sent(q));
	ck_assert_msg(!event_queue_drop_oldest_sent(q), "the next one was never sent");
	ck_assert_uint_eq(event_queue_totals(q)->dropped[DROP_CHANNEL], 1);
	ck_assert_uint_eq(event_queue_first_seq(q), 2);
	ck_assert_int_eq(put_receipt(q), 0);
	r.last_seq = 1;
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.last.count[DROP_CHANNEL], 1);
	ck_assert_uint_eq(r.last.first_seq, 1);
	ck_assert_uint_eq(r.last.last_seq, 1);

	/* A receipt that is given up is owed again. */
	event_queue_settle(q, 2);
	event_queue_rewind(q);
	ck_assert(event_queue_drop_oldest_sent(q));
	ck_assert(event_queue_receipt_pending(q));
	ck_assert_uint_eq(event_queue_totals(q)->dropped[DROP_CHANNEL], 1);
	event_queue_free(q);
}

UNIT_TEST(a_new_session_counts_from_one_with_its_gaps)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, true);
	struct reader r = {0};

	/* 300 settled, so that the numbers get shorter; then 301..310 queued and 311..313 lost. */
	for (uint64_t i = 1; i <= 300; i++) {
		observe(q, 10);
		take(q, &r, 1);
		event_queue_settle(q, i);
	}
	for (unsigned i = 0; i < ONE_FAMILY + 3; i++)
		observe(q, 10);
	take(q, &r, 1); /* 301 */
	event_queue_settle(q, 301);
	ck_assert_int_eq(put_receipt(q), 0); /* 314 */
	ck_assert_int_eq(put_heartbeat(q), 0);
	observe(q, 10); /* 315 */
	event_queue_rewind(q);
	event_queue_new_session(q, event_queue_accounted(q));

	r = (struct reader){0};
	ck_assert_uint_eq(event_queue_first_seq(q), 1);
	ck_assert_uint_eq(event_queue_next_seq(q), 15);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, ONE_FAMILY + 1); /* no heartbeat of the old session */
	ck_assert_uint_eq(r.heartbeats, 0);
	ck_assert_uint_eq(r.last_seq, 14);
	ck_assert_uint_eq(r.missing, 3);
	ck_assert_uint_eq(r.receipted, 3);
	ck_assert_uint_eq(r.last.first_seq, 10);
	ck_assert_uint_eq(r.last.last_seq, 12);
	event_queue_settle(q, 14);
	observe(q, 10);
	take(q, &r, 1);
	ck_assert_uint_eq(r.last_seq, 15);
	event_queue_free(q);
}

/* What the old session's heartbeat announced as lost is no gap of the new one, too. */
UNIT_TEST(a_loss_that_was_announced_stays_in_its_session)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, true);
	struct reader r = {0};

	for (unsigned i = 0; i < ONE_FAMILY + 3; i++)
		observe(q, 10);
	ck_assert_int_eq(put_heartbeat(q), 0); /* next_seq 14 */
	take(q, &r, SIZE_MAX);
	event_queue_settle(q, ONE_FAMILY);
	event_queue_rewind(q);
	event_queue_new_session(q, event_queue_accounted(q));
	observe(q, 10);
	r = (struct reader){0};
	ck_assert_int_eq(put_receipt(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.missing, 0);
	ck_assert_uint_eq(r.receipted, 3);
	ck_assert_uint_eq(r.last.first_seq, 0);
	event_queue_free(q);
}

/* While an old session is finished, only its frames go out. */
UNIT_TEST(a_limit_keeps_the_rest_back)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};

	for (int i = 0; i < 4; i++)
		observe(q, 10);
	take(q, &r, 2);
	reconnect(q, &r);
	event_queue_limit(q, event_queue_highest_sent(q));
	observe(q, 10);
	ck_assert_int_eq(put_heartbeat(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.repeats, 2);
	ck_assert_uint_eq(r.observations, 2);
	event_queue_settle(q, 2);
	event_queue_rewind(q);
	event_queue_new_session(q, 2);
	r = (struct reader){0};
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.last_seq, 3);
	ck_assert_uint_eq(r.missing, 0);
	event_queue_free(q);
}

/* Anything in any order: what arrives plus what is receipted is what was observed. */
static void random_step(struct event_queue *q, struct reader *r, uint64_t *rng)
{
	struct iovec iov;

	switch (unit_random(rng) % 16) {
	default: observe(q, unit_random(rng) % 900); break;
	case 4: observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9); break;
	case 5: observe_as(q, WIRE_FS_CHANGED, 0, unit_random(rng) % 3); break;
	case 6: event_queue_flush_folded(q, UINT64_MAX); break;
	case 7: observe_as(q, WIRE_PROCESS_SPAWNED, (pid_t)(unit_random(rng) % 9), 0); break;
	case 8:
	case 9: take(q, r, unit_random(rng) % 40); break;
	case 10:
	case 11:
		if (event_queue_highest_sent(q) > 0)
			event_queue_settle(q, unit_random(rng) % event_queue_highest_sent(q) + 1);
		break;
	case 12:
		if (event_queue_receipt_due(q, UINT64_MAX / 2))
			put_receipt(q);
		break;
	case 13: put_heartbeat(q); break;
	case 14:
		if (event_queue_peek(q, &iov, 1) == 1 && unit_random(rng) % 4 == 0) {
			event_queue_sent(q, unit_random(rng) % iov.iov_len);
			reconnect(q, r);
		}
		break;
	}
}

UNIT_TEST(nothing_is_lost_without_a_receipt)
{
	uint64_t rng = unit_seed();

	for (int round = 0; round < 60; round++) {
		const unsigned capacity = EVENT_QUEUE_MIN + (unsigned)(unit_random(&rng) % 100);
		struct event_queue *q = new_queue(capacity, round % 3);
		struct reader r = {0};
		uint64_t receipted = 0, arrived = 0;

		for (int step = 0; step < 3000; step++) {
			random_step(q, &r, &rng);
			if (unit_random(&rng) % 1024)
				continue;
			/* A reset: the old session is settled, then a new one. */
			event_queue_settle(q, event_queue_highest_sent(q));
			event_queue_rewind(q);
			event_queue_new_session(q, event_queue_accounted(q));
			receipted += r.receipted;
			arrived += r.observations;
			r = (struct reader){0};
		}
		event_queue_flush_folded(q, UINT64_MAX);
		take(q, &r, SIZE_MAX);
		event_queue_settle(q, event_queue_highest_sent(q));
		if (event_queue_receipt_pending(q))
			ck_assert_int_eq(put_receipt(q), 0);
		take(q, &r, SIZE_MAX);
		receipted += r.receipted;
		arrived += r.observations;
		ck_assert_uint_eq(arrived, event_queue_totals(q)->sent);
		ck_assert_uint_eq(arrived + receipted, event_queue_totals(q)->observed);
		event_queue_free(q);
	}
}

/* ---- folding ---- */

UNIT_TEST(repeats_become_one_observation)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};
	uint64_t now_ns, last_ns = 0;

	stopped_ns = monotonic_ns();
	for (int i = 0; i < 1000; i++) {
		last_ns = stopped_ns;
		observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9);
		observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 8, 9);
		observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 10);
	}
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.observations, 3);
	ck_assert_uint_eq(event_queue_totals(q)->observed, 3000);
	now_ns = event_queue_folded_ns(q);
	ck_assert_uint_gt(now_ns, stopped_ns);
	event_queue_flush_folded(q, now_ns - 1);
	ck_assert(event_queue_all_sent(q));
	event_queue_flush_folded(q, now_ns + NSEC_PER_SEC);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 6);
	ck_assert_uint_eq(r.observations, 3000);
	ck_assert_uint_eq(r.missing, 0);
	ck_assert_int_eq(r.d.source, WIRE_NET_CONNECT_ATTEMPTED);
	ck_assert_uint_eq(detail(&r.d, WIRE_KEY_REPEAT), 999);
	ck_assert_uint_ge(detail(&r.d, WIRE_KEY_LAST_NS), r.d.guest_monotonic_ns);
	ck_assert_uint_ge(detail(&r.d, WIRE_KEY_LAST_NS), last_ns);
	ck_assert_uint_eq(event_queue_totals(q)->sent, 3000);
	ck_assert_uint_eq(event_queue_folded_ns(q), 0);

	/* It goes on: still one observation a second. */
	observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 6);
	event_queue_free(q);
	stopped_ns = 0;
}

static void connect_at(struct event_queue *q, uint64_t at_ns)
{
	struct observation o;

	observation_init(&o, WIRE_NET_CONNECT_ATTEMPTED, 7, "comm", 4, at_ns);
	observation_add_bytes(&o, WIRE_KEY_ADDRESS, "10.0.0.1", 8);
	declaration_add_text(&o.d, WIRE_KEY_FAMILY, wire_text("inet"));
	declaration_add_uint(&o.d, WIRE_KEY_PORT, 80);
	event_queue_observe(q, &o.d);
}

/* A second that ended without a repeat: the next observation is sent, and begins another second. */
UNIT_TEST(a_second_begins_with_what_is_sent)
{
	const uint64_t second_ns = FOLD_WINDOW_MS * NSEC_PER_MSEC, begin_ns = 1000 * second_ns;
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};

	connect_at(q, begin_ns);
	connect_at(q, begin_ns + second_ns);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 2);
	connect_at(q, begin_ns + 2 * second_ns - 1);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 2);
	/* The third connect waits. So a connect after its second does not begin a second. */
	connect_at(q, begin_ns + 2 * second_ns);
	connect_at(q, begin_ns + 2 * second_ns + 1);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 4);
	event_queue_flush_folded(q, UINT64_MAX);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 5);
	ck_assert_uint_eq(detail(&r.d, WIRE_KEY_REPEAT), 1);
	ck_assert_uint_eq(r.observations, 5);
	event_queue_free(q);
}

UNIT_TEST(another_process_of_that_pid_is_no_repeat)
{
	struct event_queue *q = new_queue(64, true);
	struct reader r = {0};

	stopped_ns = monotonic_ns();
	observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9);
	observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9);
	observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 8, 9);
	observe_as(q, WIRE_PROCESS_EXITED, 7, 0);
	/* The repeat comes before the end of its process. */
	take(q, &r, 3);
	ck_assert_uint_eq(detail(&r.d, WIRE_KEY_REPEAT), 1);
	take(q, &r, 1);
	ck_assert_int_eq(r.d.source, WIRE_PROCESS_EXITED);
	observe_as(q, WIRE_PROCESS_SPAWNED, 7, 0);
	observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9);
	observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 8, 9);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 6);
	/* Beginnings and ends are never folded. */
	observe_as(q, WIRE_PROCESS_SPAWNED, 9, 0);
	observe_as(q, WIRE_PROCESS_SPAWNED, 9, 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, 8);
	event_queue_free(q);
	stopped_ns = 0;
}

UNIT_TEST(a_full_table_folds_nothing_and_loses_nothing)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MAX, true);
	const int processes = 4 * FOLD_ENTRIES;
	struct reader r = {0};

	for (int round = 0; round < 5; round++)
		for (int pid = 1; pid <= processes; pid++)
			observe_as(q, WIRE_FS_CHANGED, pid, 5);
	event_queue_flush_folded(q, UINT64_MAX);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.observations, 5 * (uint64_t)processes);
	ck_assert_uint_eq(event_queue_totals(q)->sent, 5 * (uint64_t)processes);
	event_queue_free(q);
}

UNIT_TEST(a_dropped_fold_counts_all_its_repeats)
{
	struct event_queue *q = new_queue(EVENT_QUEUE_MIN, true);
	struct reader r = {0};

	stopped_ns = monotonic_ns();
	for (int i = 0; i < 101; i++)
		observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 7, 9);
	for (int i = 0; i < 100; i++)
		observe_as(q, WIRE_NET_CONNECT_ATTEMPTED, 100 + i, 9);
	event_queue_flush_folded(q, UINT64_MAX);
	ck_assert_uint_eq(event_queue_totals(q)->dropped[DROP_QUEUE_FULL],
			  100 + 100 - (ONE_FAMILY - 1));
	take(q, &r, SIZE_MAX);
	ck_assert_int_eq(put_receipt(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.last.family[PROBE_NET], 100 + 100 - (ONE_FAMILY - 1));
	ck_assert_uint_eq(r.observations + r.receipted, event_queue_totals(q)->observed);
	event_queue_free(q);
	stopped_ns = 0;
}

/* Whether nobody can touch the page there from now on. */
static bool guard(uint8_t *at, size_t page)
{
	uint8_t *p =
		mmap(at, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != MAP_FAILED && p != at)
		munmap(p, page);
	return p == at;
}

/* A queue whose memory ends at a page that cannot be touched; NULL: there is no place for one. */
static struct event_queue *queue_before_guard(unsigned capacity)
{
	const size_t size = MAX(capacity * EVENT_QUEUE_BYTES_EVENT, EVENT_QUEUE_BYTES_MIN) +
			    EVENT_QUEUE_RESERVE + EVENT_QUEUE_SLACK;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *area;

	ck_assert_msg(size % page == 0, "capacity %u does not fill its pages", capacity);
	area = mmap(NULL, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(area, MAP_FAILED);
	/* The hole is where most kernels put the next mapping that fits it. */
	ck_assert_int_eq(munmap(area, size), 0);
	for (unsigned i = 0; i < 64; i++) {
		struct event_queue *q = new_queue(capacity, false);
		struct iovec iov;
		uint8_t *memory;

		ck_assert_ptr_nonnull(q);
		observe(q, 1);
		ck_assert_uint_eq(event_queue_peek(q, &iov, 1), 1);
		memory = (uint8_t *)iov.iov_base - (uintptr_t)iov.iov_base % page;
		if (memory == area || guard(memory + size, page))
			return q;
		/* Something else is there: this one stays in the way of the next. */
	}
	return NULL;
}

UNIT_TEST(nothing_is_written_beyond_its_memory)
{
	struct event_queue *q = queue_before_guard(EVENT_QUEUE_MIN);
	uint64_t rng = unit_seed();
	struct reader r = {0};

	/* qemu-user places mappings by rules of its own. */
	if (!q && getenv("MESON_EXE_WRAPPER")) {
		puts("skipped: the emulator leaves no place for a page after the queue's memory");
		return;
	}
	ck_assert_msg(q, "no place for a page after the queue's memory");
	for (int step = 0; step < 20000; step++) {
		observe(q, unit_random(&rng) % WIRE_DETAIL_TEXT_MAX);
		/* Never empty for long, lest it starts over each time. */
		take(q, &r, unit_random(&rng) % 3);
		if (unit_random(&rng) % 64 == 0)
			put_receipt(q);
	}
	event_queue_free(q);
}

UNIT_TEST(version_1_has_five_keys_and_the_total_as_time)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_1);
	struct wire_refusal refusal;
	struct declaration d;
	struct iovec iov;

	observe(q, 10); /* process.executed: version 1 does not know it */
	ck_assert(event_queue_all_sent(q));
	event_queue_kernel_lost(q, PROBE_PROCESS, 42);
	ck_assert_int_eq(put_receipt(q), 0);
	ck_assert_uint_eq(event_queue_peek(q, &iov, 1), 1);
	ck_assert_int_eq(wire_decode((uint8_t *)iov.iov_base + WIRE_PREFIX_SIZE,
				     iov.iov_len - WIRE_PREFIX_SIZE, &d, &refusal),
			 WIRE_OK);
	ck_assert_int_eq(d.content_version, 1);
	ck_assert_uint_eq(d.n_details, 0);
	ck_assert_uint_eq(d.guest_monotonic_ns, 42);
	event_queue_free(q);
}

UNIT_TEST(observations_are_made_text)
{
	static char nothing_but_ff[2 * WIRE_DETAIL_TEXT_MAX];
	struct observation o;

	observation_init(&o, WIRE_FS_INOTIFY_FIRED, 1, "a\"\n\xff\0zz", 16, UINT64_MAX);
	ck_assert_uint_eq(o.d.guest_comm.len, 6);
	ck_assert_mem_eq(o.d.guest_comm.data, "a\"\n\xef\xbf\xbd", 6);
	ck_assert_uint_eq(o.d.guest_monotonic_ns, WIRE_MONOTONIC_MAX);
	memset(nothing_but_ff, '\xff', sizeof(nothing_but_ff));
	observation_add_bytes(&o, WIRE_KEY_PATH, nothing_but_ff, sizeof(nothing_but_ff));
	ck_assert_uint_eq(o.d.details[0].text.len, WIRE_DETAIL_TEXT_MAX / 3 * 3);
}
