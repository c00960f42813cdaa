/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/frames.h"

/* Every number so far is settled once all submitted events are durable. */
static void mark_numbers(struct cell *cell)
{
	const struct session *s = cell->numbering.session;

	if (s)
		pipeline_mark(cell->stream.pipeline, cell->stream.account,
			      (struct pipeline_mark){.session = s->id, .seq = s->next - 1});
}

/* A frame arrived: a silence is over. */
static void note_frame(struct cell *cell, uint64_t now_ns)
{
	const uint64_t silence_ns = keepalive_frame(&cell->keepalive, now_ns);

	if (silence_ns == 0)
		return;
	report_resumed(&cell->stream, silence_ns / NSEC_PER_MSEC);
	cell->registry->stats.silent--;
}

/* Report a thing that no agent does, but that does not end the connection. */
static void note_violation(struct cell *cell, const char *reason, const char *field)
{
	report_violation(&cell->stream, cell->active->number,
			 &(struct report_violation){.reason = reason, .field = field});
}

void frame_violation(struct cell *cell, const struct wire_refusal *refusal)
{
	report_violation(&cell->stream, cell->active->number,
			 &(struct report_violation){
				 .reason = wire_error_name(refusal->error),
				 .field = refusal->field,
				 .offset = refusal->offset,
				 .offset_known = true,
			 });
	cell->frames_rejected++;
	cell->registry->stats.rejected[refusal->error]++;
}

static void note_gap(struct cell *cell, const struct gap *gap)
{
	if (gap->last == 0)
		return;
	cell->gaps++;
	cell->registry->stats.gaps++;
	report_gap(&cell->stream, cell->numbering.session, gap);
	mark_numbers(cell);
}

/* Returns whether the frame with this number is evidence; seq 0: it has none. */
static bool take_number(struct cell *cell, uint64_t seq)
{
	enum number_verdict verdict;
	struct gap gap;

	if (seq == 0)
		return true;
	verdict = numbering_frame(&cell->numbering, seq, &gap);
	note_gap(cell, &gap);
	if (verdict == NUMBER_REPEAT) {
		cell->repeated++;
		cell->registry->stats.repeated++;
		return false;
	}
	if (verdict == NUMBER_BACKWARDS)
		note_violation(cell, "sequence", NULL);
	else if (verdict == NUMBER_NO_HELLO)
		note_violation(cell, "no_hello", NULL);
	return true;
}

/* Only this frame is refused, and the connection goes on: its number is settled like any other. */
static void refuse_alone(struct cell *cell, const struct wire_refusal *refusal, uint64_t now_ns)
{
	cell->frames_rejected++;
	cell->eventless++;
	cell->registry->stats.rejected[refusal->error]++;
	/* The version is checked first: before that, no number has a meaning. */
	if (refusal->error != WIRE_UNSUPPORTED_VERSION && !take_number(cell, refusal->seq))
		return;
	limited_refusal(&cell->limited, &cell->stream, refusal, now_ns);
	if (refusal->error != WIRE_UNSUPPORTED_VERSION && refusal->seq > 0)
		mark_numbers(cell);
}

/*
 * A whole frame that ends the connection: its number becomes a gap, so that the agent does not send
 * it again for ever.
 */
static void refuse_with_connection(struct cell *cell, const struct wire_refusal *refusal)
{
	struct gap gap;

	numbering_refused(&cell->numbering, &gap);
	note_gap(cell, &gap);
	frame_violation(cell, refusal);
}

static const struct wire_detail *find_detail(const struct declaration *d, enum wire_key key)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key)
			return &d->details[i];
	return NULL;
}

static uint64_t detail_uint(const struct declaration *d, enum wire_key key)
{
	const struct wire_detail *detail = find_detail(d, key);

	return detail ? detail->uint : 0;
}

/* Keep the boot that the hello names. Returns whether another cell's hello named it before. */
static bool note_boot(struct cell *cell, const struct declaration *d)
{
	const struct wire_detail *boot = find_detail(d, WIRE_KEY_BOOT_ID);
	const size_t len = boot ? boot->text.len : 0;

	memset(cell->boot_id, 0, sizeof(cell->boot_id));
	if (len == 0 || len >= sizeof(cell->boot_id))
		return false;
	memcpy(cell->boot_id, boot->text.data, len);
	for (const struct cell *other = cell->registry->cells; other; other = other->next)
		if (other != cell &&
		    memcmp(other->boot_id, cell->boot_id, sizeof(cell->boot_id)) == 0)
			return true;
	return false;
}

/* Returns whether the connection may stay. */
static bool take_hello(struct cell *cell, const struct declaration *d)
{
	const struct wire_detail *session = find_detail(d, WIRE_KEY_SESSION);
	const struct wire_detail *acks = find_detail(d, WIRE_KEY_ACKS);
	const bool first = !cell->numbering.session;
	const uint64_t last_id = cell->sessions.last_id, evicted = cell->sessions.evicted;
	struct hello_numbers hello = {
		.next_seq = detail_uint(d, WIRE_KEY_NEXT_SEQ),
		.assigned = detail_uint(d, WIRE_KEY_ASSIGNED),
		.boot_elsewhere = note_boot(cell, d),
	};
	struct gap gap;

	if (!session)
		return true;
	hello.session = session->text;
	if (numbering_hello(&cell->numbering, &cell->sessions, &hello, &gap) ==
	    NUMBER_SECOND_SESSION) {
		cell->frames_rejected++;
		note_violation(cell, "second_session", NULL);
		return false;
	}
	note_gap(cell, &gap);
	cell->registry->stats.sessions_evicted += cell->sessions.evicted - evicted;
	if (cell->sessions.last_id != last_id)
		cell->guest.fresh = true;
	if (!first)
		return true;
	cell->acks = acks && acks->boolean;
	cell->ack_step =
		MAX(detail_uint(d, WIRE_KEY_QUEUE_CAPACITY) / CELL_ACK_FRACTION, UINT64_C(1));
	if (cell->acks)
		connection_ack(cell->active, cell->numbering.session->settled);
	return true;
}

/*
 * A heartbeat or a bye. The totals in it are only the guest's word; checkpoints and metrics show
 * them.
 */
static void take_totals(struct cell *cell, const struct declaration *d)
{
	struct cell_registry_stats *stats = &cell->registry->stats;
	const uint64_t dropped = cell->guest.counted[GUEST_DROPPED];
	const uint64_t lost = cell->guest.counted[GUEST_KERNEL_LOST];
	const char *lie = guest_totals_note(&cell->guest, d);
	struct gap gap;

	add_saturated(&stats->guest_dropped, cell->guest.counted[GUEST_DROPPED] - dropped);
	add_saturated(&stats->guest_kernel_lost, cell->guest.counted[GUEST_KERNEL_LOST] - lost);
	if (lie && !cell->lie_noted) {
		cell->lie_noted = true;
		note_violation(cell, wire_error_name(WIRE_OUT_OF_RANGE), lie);
	}
	numbering_reach(&cell->numbering, detail_uint(d, WIRE_KEY_NEXT_SEQ), &gap);
	note_gap(cell, &gap);
}

/* Returns whether the connection may stay. */
static bool take_declaration(struct cell *cell, const struct declaration *d, uint64_t now_ns)
{
	if (d->source == WIRE_TELEMETRY_HEARTBEAT || d->source == WIRE_TELEMETRY_BYE)
		take_totals(cell, d);
	if (d->source == WIRE_TELEMETRY_HEARTBEAT) {
		cell->heartbeat_ns = now_ns;
		cell->eventless++;
		return true;
	}
	if (d->source == WIRE_TELEMETRY_BYE)
		cell->keepalive.said_bye = cell->hurry = true;
	if (d->source == WIRE_TELEMETRY_HELLO && !take_hello(cell, d))
		return false;
	if (!take_number(cell, d->seq)) {
		cell->eventless++;
		return true;
	}
	report_declaration(&cell->stream, cell->active->number, d);
	if (d->seq > 0)
		mark_numbers(cell);
	host_view_declared(cell->view, d, now_ns);
	return true;
}

bool frame_take(struct cell *cell, const uint8_t *body, size_t len)
{
	const uint64_t now_ns = monotonic_ns();
	struct wire_refusal refusal;
	struct declaration d;

	cell->active->frames++;
	cell->frames++;
	cell->registry->stats.frames++;
	note_frame(cell, now_ns);
	if (wire_decode(body, len, &d, &refusal) == WIRE_OK)
		return take_declaration(cell, &d, now_ns);
	if (wire_error_keeps_connection(refusal.error)) {
		refuse_alone(cell, &refusal, now_ns);
		return true;
	}
	refuse_with_connection(cell, &refusal);
	return false;
}
