/* SPDX-License-Identifier: MIT */
/*
 * The mode, and what changes it:
 *
 *   from            by                                              to
 *   WAITING         the first acknowledgement                       ACKNOWLEDGED
 *   WAITING         a host that takes bytes and says nothing        UNACKNOWLEDGED
 *   UNACKNOWLEDGED  an acknowledgement after all                    ACKNOWLEDGED
 *   UNACKNOWLEDGED  the next connection: it can be another host     WAITING, with less patience
 *   ACKNOWLEDGED    stays: every later connection is acknowledged from its start
 *
 * The session, and what changes it:
 *
 *   a reset, and all that was sent is settled        a new session
 *   a reset, and sent frames are not settled         finishing: a connection for these alone
 *   a reset while finishing                          finishing goes on; the new session is unborn
 *   finishing, and all is settled or given up        a new session
 *   an acknowledgement above what was ever sent      a new session; everything is sent again
 *
 * A number counts as sent when its frame was sent, and also when a hello, a heartbeat or a bye
 * announced it: the host settles the numbers of dropped events as soon as it knows of them.
 *
 * A session gets its name when it begins, so two clones of one snapshot never share it.
 */
#include "guest-agent/delivery.h"

#include <sys/random.h>

#include "common/util.h"

/* splitmix64: spreads the bits of a clock over the whole word. */
static uint64_t mix(uint64_t v)
{
	v += UINT64_C(0x9e3779b97f4a7c15);
	v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
	return v ^ v >> 31;
}

/* Two clones of a machine can have the same random pool for a moment; their clocks differ. */
static void name_session(struct delivery *d)
{
	uint64_t name = 0;

	if (getrandom(&name, sizeof(name), GRND_NONBLOCK) != sizeof(name))
		name = (uint64_t)getpid() << 32;
	name ^= mix(monotonic_ns()) ^ mix(~clock_ns(CLOCK_REALTIME));
	snprintf(d->session, sizeof(d->session), "%016" PRIx64, name);
}

/* The only function that changes the mode. */
static void set_mode(struct delivery *d, enum delivery_mode mode)
{
	d->mode = mode;
	d->silent_ns = 0;
	event_queue_keep_sent(d->queue, mode != DELIVERY_UNACKNOWLEDGED);
}

void delivery_init(struct delivery *d, struct event_queue *q, uint16_t content_version)
{
	*d = (struct delivery){
		.queue = q,
		.never = content_version == WIRE_VERSION_1,
		.patience_ns = DELIVERY_PATIENCE_MS * NSEC_PER_MSEC,
	};
	set_mode(d, d->never ? DELIVERY_UNACKNOWLEDGED : DELIVERY_WAITING);
	name_session(d);
}

static void begin_session(struct delivery *d, uint64_t base)
{
	event_queue_rewind(d->queue);
	event_queue_new_session(d->queue, base);
	name_session(d);
	d->finishing = d->connected = false;
	d->fruitless = 0;
}

struct delivery_greeting delivery_greeting(const struct delivery *d)
{
	return (struct delivery_greeting){
		.session = d->session,
		.next_seq = event_queue_first_seq(d->queue),
		.assigned = d->finishing ? d->finish_highest + 1 : event_queue_next_seq(d->queue),
		.acks = d->mode != DELIVERY_UNACKNOWLEDGED,
	};
}

struct delivery_greeting delivery_connected(struct delivery *d, uint64_t now_ns)
{
	if (d->mode == DELIVERY_UNACKNOWLEDGED && !d->never) {
		set_mode(d, DELIVERY_WAITING);
		d->patience_ns = DELIVERY_PATIENCE_NEXT_MS * NSEC_PER_MSEC;
	}
	d->connected = true;
	d->progress = false;
	d->progress_ns = d->taken_at_ns = now_ns;
	event_queue_announce(d->queue, event_queue_first_seq(d->queue) - 1);
	return delivery_greeting(d);
}

enum delivery_verdict delivery_taken(struct delivery *d, uint64_t now_ns)
{
	if (d->mode != DELIVERY_WAITING || !d->connected || d->finishing)
		return DELIVERY_GO_ON;
	d->silent_ns += MIN(now_ns - d->taken_at_ns, DELIVERY_TAKING_MS * NSEC_PER_MSEC);
	d->taken_at_ns = now_ns;
	if (d->silent_ns < d->patience_ns)
		return DELIVERY_GO_ON;
	set_mode(d, DELIVERY_UNACKNOWLEDGED);
	return DELIVERY_SAY_SO;
}

/* Whether the old session's frames are all settled or given up. */
static enum delivery_verdict check_finished(struct delivery *d)
{
	if (!d->finishing || event_queue_awaits_settling(d->queue))
		return DELIVERY_GO_ON;
	begin_session(d, event_queue_accounted(d->queue));
	return DELIVERY_RECONNECT;
}

enum delivery_verdict delivery_settled(struct delivery *d, uint64_t n, uint64_t now_ns)
{
	enum delivery_verdict verdict = DELIVERY_GO_ON;

	if (d->never)
		return DELIVERY_GO_ON;
	if (d->mode == DELIVERY_UNACKNOWLEDGED)
		verdict = DELIVERY_SAY_SO;
	if (d->mode != DELIVERY_ACKNOWLEDGED)
		set_mode(d, DELIVERY_ACKNOWLEDGED);
	if (n > event_queue_accounted(d->queue)) {
		begin_session(d, event_queue_settled(d->queue));
		return DELIVERY_RECONNECT;
	}
	if (!event_queue_settle(d->queue, n))
		return verdict;
	d->progress = true;
	d->progress_ns = now_ns;
	d->fruitless = 0;
	if (check_finished(d) == DELIVERY_RECONNECT)
		return DELIVERY_RECONNECT;
	return verdict == DELIVERY_GO_ON ? DELIVERY_PROGRESSED : verdict;
}

uint64_t delivery_deadline_ns(const struct delivery *d)
{
	return d->finishing && d->connected ? d->progress_ns + DELIVERY_FINISH_MS * NSEC_PER_MSEC
					    : 0;
}

enum delivery_verdict delivery_tick(struct delivery *d, uint64_t now_ns)
{
	const uint64_t deadline_ns = delivery_deadline_ns(d);

	if (deadline_ns == 0 || now_ns < deadline_ns)
		return DELIVERY_GO_ON;
	event_queue_rewind(d->queue);
	/*
	 * A host that never acknowledged may have all of it; a host that does acknowledge has only
	 * what it settled.
	 */
	if (d->mode == DELIVERY_WAITING)
		event_queue_settle(d->queue, d->finish_highest);
	while (event_queue_drop_oldest_sent(d->queue))
		continue;
	return check_finished(d);
}

static void after_reset(struct delivery *d)
{
	if (d->finishing)
		return;
	if (!event_queue_awaits_settling(d->queue)) {
		begin_session(d, event_queue_accounted(d->queue));
		return;
	}
	d->finishing = true;
	d->finish_highest = event_queue_accounted(d->queue);
	event_queue_limit(d->queue, d->finish_highest);
}

void delivery_lost(struct delivery *d, bool reset)
{
	const bool connected = d->connected;

	d->connected = false;
	event_queue_rewind(d->queue);
	if (d->finishing || !connected)
		return;
	if (reset) {
		after_reset(d);
		return;
	}
	if (d->progress || !event_queue_awaits_settling(d->queue)) {
		d->fruitless = 0;
		return;
	}
	if (++d->fruitless < DELIVERY_FRUITLESS_MAX)
		return;
	/* This frame may be the one that the host fails on. */
	event_queue_drop_oldest_sent(d->queue);
	d->fruitless = 0;
}

bool delivery_awaits(const struct delivery *d)
{
	return d->connected && d->mode != DELIVERY_UNACKNOWLEDGED &&
	       event_queue_awaits_settling(d->queue) &&
	       (d->mode == DELIVERY_ACKNOWLEDGED ||
		d->silent_ns < DELIVERY_TAKING_MS * NSEC_PER_MSEC);
}
