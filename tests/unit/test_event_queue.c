/* SPDX-License-Identifier: MIT */
/*
 * The agent's queue: bounded, nothing lost without a receipt, everything in the order of its
 * numbers. What it queued is read back by the host's own decoder.
 */
#include "guest-agent/event_queue.h"

#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "guest-agent/observation.h"
#include "tests/unit/unit.h"

/* What a host makes of a queue's frames. */
struct reader {
	uint64_t frames, observations, receipts;
	uint64_t last_seq, missing; /* of this session */
	uint64_t receipted;
	struct event_loss last;
};

static uint64_t detail(const struct declaration *d, enum wire_key key)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key)
			return d->details[i].uint;
	return 0;
}

static void read_frame(struct reader *r, const uint8_t *frame, size_t len)
{
	struct wire_refusal refusal;
	struct declaration d;

	ck_assert_uint_eq(wire_decode_length(frame), len - WIRE_PREFIX_SIZE);
	ck_assert_int_eq(
		wire_decode(frame + WIRE_PREFIX_SIZE, len - WIRE_PREFIX_SIZE, &d, &refusal),
		WIRE_OK);
	r->frames++;
	if (wire_source_is_observation(d.source)) {
		ck_assert_uint_gt(d.seq, r->last_seq);
		r->missing += d.seq - r->last_seq - 1;
		r->last_seq = d.seq;
		r->observations++;
		return;
	}
	/* Whatever comes behind it has at least this number. */
	ck_assert_uint_ge(detail(&d, WIRE_KEY_NEXT_SEQ), r->last_seq + 1);
	if (d.source != WIRE_TELEMETRY_DROPPED)
		return;
	r->receipts++;
	r->receipted += detail(&d, WIRE_KEY_QUEUE_FULL) + detail(&d, WIRE_KEY_TOO_LARGE) +
			detail(&d, WIRE_KEY_CHANNEL);
	r->last = (struct event_loss){
		.count = {[DROP_QUEUE_FULL] = detail(&d, WIRE_KEY_QUEUE_FULL),
			  [DROP_TOO_LARGE] = detail(&d, WIRE_KEY_TOO_LARGE),
			  [DROP_CHANNEL] = detail(&d, WIRE_KEY_CHANNEL),
			  [DROP_KERNEL_OVERRUN] = detail(&d, WIRE_KEY_KERNEL_OVERRUN)},
		.first_seq = detail(&d, WIRE_KEY_FIRST_SEQ),
		.last_seq = detail(&d, WIRE_KEY_LAST_SEQ),
	};
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

static void observe(struct event_queue *q, size_t text_len)
{
	static char text[4 * WIRE_DETAIL_TEXT_MAX];
	struct observation o;

	memset(text, 'x', sizeof(text));
	observation_init(&o, WIRE_PROCESS_EXECUTED, 7, "comm", 4, monotonic_ns());
	observation_add_bytes(&o, WIRE_KEY_EXE, text, text_len);
	event_queue_observe(q, &o.d);
}

static int put_receipt(struct event_queue *q)
{
	struct declaration d = {.source = WIRE_TELEMETRY_DROPPED,
				.guest_comm = wire_text("agent"),
				.guest_monotonic_ns = monotonic_ns()};

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

START_TEST(holds_its_capacity_and_no_more)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
	const uint64_t *dropped = event_queue_totals(q)->dropped;

	for (unsigned i = 0; i < EVENT_QUEUE_MIN; i++) {
		ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 0);
		observe(q, 10);
	}
	ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 0);
	observe(q, 10);
	ck_assert_uint_eq(dropped[DROP_QUEUE_FULL], 1);
	ck_assert_uint_eq(event_queue_take_peak(q), EVENT_QUEUE_MIN);
	ck_assert_uint_eq(event_queue_totals(q)->observed, EVENT_QUEUE_MIN + 1);
	event_queue_free(q);
}
END_TEST

START_TEST(a_loss_is_receipted_once_there_is_room)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
	struct reader r = {0};

	for (unsigned i = 0; i < EVENT_QUEUE_MIN + 5; i++)
		observe(q, 10);
	ck_assert(event_queue_receipt_pending(q));
	ck_assert_msg(!event_queue_receipt_due(q, monotonic_ns()), "the queue is full");
	take(q, &r, 1);
	ck_assert(event_queue_receipt_due(q, monotonic_ns()));
	ck_assert_int_eq(put_receipt(q), 0);
	ck_assert(!event_queue_receipt_pending(q));
	observe(q, 10);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.receipts, 1);
	ck_assert_uint_eq(r.receipted, 5);
	ck_assert_uint_eq(r.missing, 5);
	ck_assert_uint_eq(r.last.first_seq, EVENT_QUEUE_MIN + 1);
	ck_assert_uint_eq(r.last.last_seq, EVENT_QUEUE_MIN + 5);
	ck_assert_uint_eq(event_queue_totals(q)->sent, EVENT_QUEUE_MIN + 1);

	/* At most ten a second. */
	for (unsigned i = 0; i < EVENT_QUEUE_MIN + 1; i++)
		observe(q, 10);
	take(q, &r, 1);
	ck_assert(!event_queue_receipt_due(q, monotonic_ns()));
	ck_assert(event_queue_receipt_due(q,
					  monotonic_ns() + EVENT_QUEUE_RECEIPT_MS * NSEC_PER_MSEC));
	event_queue_free(q);
}
END_TEST

START_TEST(large_events_are_full_or_too_large)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
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
	/* Fewer than its capacity, but all of its bytes: EVENT_QUEUE_BYTES_EVENT on average. */
	for (unsigned i = 0; i < EVENT_QUEUE_MIN; i++)
		observe(q, WIRE_DETAIL_TEXT_MAX);
	ck_assert_uint_gt(dropped[DROP_QUEUE_FULL], 0);
	ck_assert_uint_eq(dropped[DROP_TOO_LARGE], 1);
	event_queue_free(q);
}
END_TEST

START_TEST(telemetry_has_room_of_its_own)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
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
	ck_assert(event_queue_empty(q));
	ck_assert_int_eq(put_heartbeat(q), 0);
	event_queue_free(q);
}
END_TEST

START_TEST(a_frame_cut_by_a_broken_connection_is_counted)
{
	struct event_queue *q = event_queue_new(64, WIRE_VERSION_2);
	struct reader r = {0};
	struct iovec iov[4];

	for (int i = 0; i < 3; i++)
		observe(q, 100);
	ck_assert_uint_eq(event_queue_peek(q, iov, 4), 3);
	event_queue_sent(q, iov[0].iov_len + 7);
	ck_assert_uint_eq(event_queue_peek(q, iov, 4), 2);
	event_queue_connection_lost(q);
	ck_assert_uint_eq(event_queue_totals(q)->dropped[DROP_CHANNEL], 1);
	ck_assert_uint_eq(event_queue_wire_seq(q), 3);
	r.last_seq = 1;
	ck_assert_int_eq(put_receipt(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.missing, 1);
	ck_assert_uint_eq(r.last.count[DROP_CHANNEL], 1);
	ck_assert_uint_eq(r.last.first_seq, 2);
	ck_assert_uint_eq(r.last.last_seq, 2);

	/* Between two frames nothing is lost. */
	observe(q, 100);
	event_queue_connection_lost(q);
	ck_assert_uint_eq(event_queue_totals(q)->dropped[DROP_CHANNEL], 1);
	event_queue_free(q);
}
END_TEST

START_TEST(a_receipt_cut_by_a_broken_connection_is_owed_again)
{
	struct event_queue *q = event_queue_new(64, WIRE_VERSION_2);
	struct reader r = {0};

	event_queue_kernel_lost(q, PROBE_PROCESS, 41);
	ck_assert_int_eq(put_receipt(q), 0);
	event_queue_sent(q, 5);
	event_queue_connection_lost(q);
	ck_assert(event_queue_receipt_pending(q));
	event_queue_kernel_lost(q, PROBE_PROCESS, 1);
	ck_assert_int_eq(put_receipt(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.last.count[DROP_KERNEL_OVERRUN], 42);
	ck_assert_uint_eq(event_queue_totals(q)->dropped[DROP_KERNEL_OVERRUN], 42);
	event_queue_free(q);
}
END_TEST

START_TEST(a_new_session_counts_from_one_with_its_gaps)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_2);
	struct reader r = {0};

	/* 300 sent, so that the numbers get shorter; then 301..316 queued and 317..319 lost. */
	for (int i = 0; i < 300; i++) {
		observe(q, 10);
		take(q, &r, 1);
	}
	for (unsigned i = 0; i < EVENT_QUEUE_MIN + 3; i++)
		observe(q, 10);
	take(q, &r, 1); /* 301 */
	ck_assert_int_eq(put_receipt(q), 0);
	ck_assert_int_eq(put_heartbeat(q), 0);
	observe(q, 10); /* 320 */
	event_queue_connection_lost(q);
	event_queue_new_session(q);

	r = (struct reader){0};
	ck_assert_uint_eq(event_queue_wire_seq(q), 1);
	ck_assert_msg(event_queue_receipt_pending(q), "the receipt of the old session is owed");
	take(q, &r, 1);
	ck_assert_int_eq(put_receipt(q), 0);
	take(q, &r, SIZE_MAX);
	ck_assert_uint_eq(r.frames, EVENT_QUEUE_MIN + 1); /* no heartbeat of the old session */
	ck_assert_uint_eq(r.last_seq, 19);
	ck_assert_uint_eq(r.missing, 3);
	ck_assert_uint_eq(r.receipted, 3);
	ck_assert_uint_eq(r.last.first_seq, 16);
	ck_assert_uint_eq(r.last.last_seq, 18);
	observe(q, 10);
	take(q, &r, 1);
	ck_assert_uint_eq(r.last_seq, 20);
	event_queue_free(q);
}
END_TEST

/* Anything in any order: what arrives plus what is receipted is what was observed. */
START_TEST(nothing_is_lost_without_a_receipt)
{
	uint64_t rng = unit_seed();

	for (int round = 0; round < 50; round++) {
		const unsigned capacity = EVENT_QUEUE_MIN + (unsigned)(unit_random(&rng) % 100);
		struct event_queue *q = event_queue_new(capacity, WIRE_VERSION_2);
		struct reader r = {0};
		uint64_t receipted = 0, arrived = 0;

		for (int step = 0; step < 2000; step++) {
			struct iovec iov;

			switch (unit_random(&rng) % 16) {
			default: observe(q, unit_random(&rng) % 900); break;
			case 8:
			case 9:
			case 10: take(q, &r, unit_random(&rng) % 40); break;
			case 11:
				if (event_queue_receipt_due(q, UINT64_MAX / 2))
					put_receipt(q);
				break;
			case 12: put_heartbeat(q); break;
			case 13:
				if (event_queue_peek(q, &iov, 1) == 1 &&
				    unit_random(&rng) % 4 == 0) {
					event_queue_sent(q, unit_random(&rng) % iov.iov_len);
					event_queue_connection_lost(q);
				}
				break;
			case 14:
				if (unit_random(&rng) % 64)
					break;
				event_queue_new_session(q);
				receipted += r.receipted;
				arrived += r.observations;
				r = (struct reader){0};
				break;
			}
		}
		take(q, &r, SIZE_MAX);
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
END_TEST

/* Whether nobody can touch the page there from now on. */
static bool guard(uint8_t *at, size_t page)
{
	uint8_t *p =
		mmap(at, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != MAP_FAILED && p != at)
		munmap(p, page);
	return p == at;
}

/* A queue whose memory ends at a page that cannot be touched. */
static struct event_queue *queue_before_guard(unsigned capacity)
{
	const size_t size = (size_t)capacity * EVENT_QUEUE_BYTES_EVENT + EVENT_QUEUE_RESERVE;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *area;

	ck_assert_msg(size % page == 0, "capacity %u does not fill its pages", capacity);
	area = mmap(NULL, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(area, MAP_FAILED);
	/* The hole is where most kernels put the next mapping that fits it. */
	ck_assert_int_eq(munmap(area, size), 0);
	for (unsigned i = 0; i < 64; i++) {
		struct event_queue *q = event_queue_new(capacity, WIRE_VERSION_2);
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
	ck_abort_msg("no place for a page behind the queue's memory");
}

START_TEST(nothing_is_written_behind_its_memory)
{
	struct event_queue *q = queue_before_guard(EVENT_QUEUE_MIN);
	uint64_t rng = unit_seed();
	struct reader r = {0};

	for (int step = 0; step < 20000; step++) {
		observe(q, unit_random(&rng) % WIRE_DETAIL_TEXT_MAX);
		/* Never empty for long, lest it starts over each time. */
		take(q, &r, unit_random(&rng) % 3);
		if (unit_random(&rng) % 64 == 0)
			put_receipt(q);
	}
	event_queue_free(q);
}
END_TEST

START_TEST(version_1_has_five_keys_and_the_total_as_time)
{
	struct event_queue *q = event_queue_new(EVENT_QUEUE_MIN, WIRE_VERSION_1);
	struct wire_refusal refusal;
	struct declaration d;
	struct iovec iov;

	observe(q, 10); /* process.executed: version 1 does not know it */
	ck_assert(event_queue_empty(q));
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
END_TEST

START_TEST(observations_are_made_text)
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
END_TEST

int main(void)
{
	TCase *tc = tcase_create("event_queue");

	tcase_add_test(tc, holds_its_capacity_and_no_more);
	tcase_add_test(tc, a_loss_is_receipted_once_there_is_room);
	tcase_add_test(tc, large_events_are_full_or_too_large);
	tcase_add_test(tc, telemetry_has_room_of_its_own);
	tcase_add_test(tc, a_frame_cut_by_a_broken_connection_is_counted);
	tcase_add_test(tc, a_receipt_cut_by_a_broken_connection_is_owed_again);
	tcase_add_test(tc, a_new_session_counts_from_one_with_its_gaps);
	tcase_add_test(tc, nothing_is_lost_without_a_receipt);
	tcase_add_test(tc, nothing_is_written_behind_its_memory);
	tcase_add_test(tc, version_1_has_five_keys_and_the_total_as_time);
	tcase_add_test(tc, observations_are_made_text);
	return unit_run("event_queue", &tc, 1);
}
