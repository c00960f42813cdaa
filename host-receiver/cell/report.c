/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/report.h"

#include "host-receiver/event/json_writer.h"

static void add_peer(struct event *e, const struct ucred *peer)
{
	event_add_uint(e, EVENT_KEY_PEER_PID, (uint64_t)peer->pid);
	event_add_uint(e, EVENT_KEY_PEER_UID, peer->uid);
	event_add_uint(e, EVENT_KEY_PEER_GID, peer->gid);
}

/* The age of something that may not have happened yet. */
static void add_age(struct event *e, enum event_key key, uint64_t since_ns, uint64_t now_ns)
{
	if (since_ns)
		event_add_uint(e, key, age_ms(since_ns, now_ns));
	else
		event_add_null(e, key);
}

/* ---- the stream ---- */

void report_opened(struct stream *s, const struct report_opened *opened)
{
	struct event *e = stream_begin(s, EVENT_STREAM_OPENED);
	char id[UUID_STRING_MAX];

	event_add_text(e, EVENT_KEY_RECEIVER_VERSION, wire_text(CELLOS_VERSION));
	event_add_text(e, EVENT_KEY_HOSTNAME, wire_text(opened->hostname));
	event_add_text(e, EVENT_KEY_HOST_BOOT_ID, wire_text(opened->boot_id));
	event_add_uint(e, EVENT_KEY_KEEPALIVE_MS, opened->keepalive_ms);
	if (*opened->origin)
		event_add_text(e, EVENT_KEY_ORIGIN, wire_text(opened->origin));
	if (opened->previous) {
		uuid_format(opened->previous->stream_id, id);
		if (opened->previous->sequence > 0)
			event_add_uint(e, EVENT_KEY_PREVIOUS_SEQUENCE, opened->previous->sequence);
		event_add_text(e, EVENT_KEY_PREVIOUS_STREAM_ID, wire_text(id));
	}
	stream_submit(s, e);
}

static void add_totals(const struct stream *s, struct event *e, const struct report_totals *t,
		       uint64_t now_ns)
{
	event_add_uint(e, EVENT_KEY_EVENTS, s->sequence);
	event_add_uint(e, EVENT_KEY_FRAMES, t->frames);
	event_add_uint(e, EVENT_KEY_FRAMES_REJECTED, t->frames_rejected);
	event_add_uint(e, EVENT_KEY_BYTES, t->bytes);
	event_add_uint(e, EVENT_KEY_GUEST_OBSERVED, t->guest[GUEST_OBSERVED]);
	event_add_uint(e, EVENT_KEY_GUEST_SENT, t->guest[GUEST_SENT]);
	event_add_uint(e, EVENT_KEY_GUEST_DROPPED, t->guest[GUEST_DROPPED]);
	event_add_uint(e, EVENT_KEY_GUEST_KERNEL_LOST, t->guest[GUEST_KERNEL_LOST]);
	event_add_uint(e, EVENT_KEY_GAPS, t->gaps);
	event_add_uint(e, EVENT_KEY_REPEATED, t->repeated);
	add_age(e, EVENT_KEY_LAST_HEARTBEAT_AGE_MS, t->heartbeat_ns, now_ns);
	if (t->reads_vmm)
		event_add_uint(e, EVENT_KEY_VMM_BYTES, t->vmm_bytes);
}

void report_checkpoint(struct stream *s, const struct report_totals *totals, uint64_t now_ns)
{
	struct event *e = stream_begin(s, EVENT_STREAM_CHECKPOINT);

	add_totals(s, e, totals, now_ns);
	stream_submit(s, e);
}

static void add_session(struct event *e, const struct session *session)
{
	event_add_text(e, EVENT_KEY_SESSION, wire_text(session->name));
}

static void add_numbers(struct event *e, const struct report_numbers *n)
{
	if (n->session) {
		add_session(e, n->session);
		event_add_uint(e, EVENT_KEY_NEXT_SEQ, n->session->next);
	}
	event_add_uint(e, EVENT_KEY_UNREAD_BYTES, n->unread_bytes);
}

void report_sealed(struct stream *s, const char *reason, const struct report_totals *totals,
		   const struct report_numbers *numbers, uint64_t now_ns)
{
	struct event *e = stream_begin(s, EVENT_STREAM_SEALED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	add_numbers(e, numbers);
	add_totals(s, e, totals, now_ns);
	stream_submit(s, e);
}

/* ---- connections ---- */

void report_connected(struct stream *s, uint64_t connection, const struct ucred *peer)
{
	struct event *e = stream_begin(s, EVENT_AGENT_CONNECTED);

	event_add_uint(e, EVENT_KEY_CONNECTION, connection);
	add_peer(e, peer);
	stream_submit(s, e);
}

void report_disconnected(struct stream *s, const struct report_disconnected *end)
{
	struct event *e = stream_begin(s, EVENT_AGENT_DISCONNECTED);

	event_add_uint(e, EVENT_KEY_CONNECTION, end->connection);
	event_add_text(e, EVENT_KEY_REASON, wire_text(end->reason));
	event_add_uint(e, EVENT_KEY_FRAMES, end->frames);
	event_add_uint(e, EVENT_KEY_BYTES, end->bytes);
	add_numbers(e, &end->numbers);
	stream_submit(s, e);
}

void report_contested(struct stream *s, const char *reason, const struct ucred *peer,
		      uint64_t count)
{
	struct event *e = stream_begin(s, EVENT_CHANNEL_CONTESTED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	event_add_uint(e, EVENT_KEY_COUNT, count);
	if (peer)
		add_peer(e, peer);
	stream_submit(s, e);
}

void report_silenced(struct stream *s, const struct report_silenced *silence, uint64_t now_ns)
{
	struct event *e = stream_begin(s, EVENT_AGENT_SILENCED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(silence->reason));
	event_add_uint(e, EVENT_KEY_WINDOW_MS, silence->window_ms);
	add_age(e, EVENT_KEY_LAST_FRAME_AGE_MS, silence->last_frame_ns, now_ns);
	event_add_bool(e, EVENT_KEY_CONNECTED, silence->connected);
	stream_submit(s, e);
}

void report_resumed(struct stream *s, uint64_t silent_ms)
{
	struct event *e = stream_begin(s, EVENT_AGENT_RESUMED);

	event_add_uint(e, EVENT_KEY_SILENT_MS, silent_ms);
	stream_submit(s, e);
}

/* ---- frames ---- */

void report_violation(struct stream *s, uint64_t connection, const struct report_violation *v)
{
	struct event *e = stream_begin(s, EVENT_CHANNEL_VIOLATION);

	event_add_uint(e, EVENT_KEY_CONNECTION, connection);
	event_add_text(e, EVENT_KEY_REASON, wire_text(v->reason));
	if (v->field)
		event_add_text(e, EVENT_KEY_FIELD, wire_text(v->field));
	if (v->offset_known)
		event_add_uint(e, EVENT_KEY_OFFSET, v->offset);
	stream_submit(s, e);
}

void report_gap(struct stream *s, const struct session *session, const struct gap *gap)
{
	struct event *e = stream_begin(s, EVENT_TELEMETRY_GAP);

	add_session(e, session);
	event_add_text(e, EVENT_KEY_REASON, wire_text(gap_reason_name(gap->reason)));
	event_add_uint(e, EVENT_KEY_FIRST_MISSING, gap->first);
	event_add_uint(e, EVENT_KEY_LAST_MISSING, gap->last);
	stream_submit(s, e);
}

void report_declaration(struct stream *s, uint64_t connection, const struct declaration *d)
{
	struct event *e = stream_begin(s, event_type_of_source(d->source));

	event_add_uint(e, EVENT_KEY_CONNECTION, connection);
	event_add_uint(e, EVENT_KEY_CONTENT_VERSION, d->content_version);
	event_add_text(e, EVENT_KEY_PROBE_SOURCE, wire_text(wire_source_name(d->source)));
	event_add_uint(e, EVENT_KEY_GUEST_PID, d->guest_pid);
	event_add_text(e, EVENT_KEY_GUEST_COMM, d->guest_comm);
	event_add_uint(e, EVENT_KEY_GUEST_MONOTONIC_NS, d->guest_monotonic_ns);
	if (d->seq > 0)
		event_add_uint(e, EVENT_KEY_SEQ, d->seq);
	if (d->n_details > 0)
		event_add_details(e, d->details, d->n_details);
	stream_submit(s, e);
}

void report_version_rejected(struct stream *s, uint16_t content_version, uint64_t count)
{
	struct event *e = stream_begin(s, EVENT_VERSION_REJECTED);

	event_add_uint(e, EVENT_KEY_CONTENT_VERSION, content_version);
	event_add_uint(e, EVENT_KEY_COUNT, count);
	stream_submit(s, e);
}

void report_unknown_source(struct stream *s, struct wire_text source, uint64_t count)
{
	struct event *e = stream_begin(s, EVENT_UNKNOWN_SOURCE);

	event_add_text(e, EVENT_KEY_SOURCE, source);
	event_add_uint(e, EVENT_KEY_COUNT, count);
	stream_submit(s, e);
}

void report_rate_limited(struct stream *s, enum ceiling limit, uint64_t amount)
{
	struct event *e = stream_begin(s, EVENT_RATE_LIMITED);

	event_add_text(e, EVENT_KEY_LIMIT, wire_text(ceiling_name(limit)));
	event_add_uint(e, limit == CEILING_CONNECTIONS ? EVENT_KEY_COUNT : EVENT_KEY_PAUSED_MS,
		       amount);
	stream_submit(s, e);
}

/* ---- what the host sees ---- */

void report_reading(struct stream *s, enum probe_kind kind, const struct probe_reading *reading)
{
	const struct host_probe_ops *probe = host_probe_table[kind];
	size_t begin = 0;

	for (size_t i = 0; i < reading->n_parts; begin = reading->part_end[i++]) {
		struct event *e = stream_begin(s, probe->event);
		const struct wire_text output = {
			.data = reading->outputs + begin,
			.len = reading->part_end[i] - begin,
		};

		event_add_text(e, EVENT_KEY_PROBE_SOURCE, wire_text(probe->source));
		event_add_raw(e, EVENT_KEY_INPUTS, wire_text(reading->inputs));
		event_add_raw(e, EVENT_KEY_OUTPUT, output);
		stream_submit(s, e);
	}
}

/* The names of the probes whose bits are set, as a JSON array. */
static struct wire_text names_of(struct stream *s, unsigned kinds)
{
	struct json_writer w;
	char text[128];
	size_t len = 0;

	json_writer_init(&w, text, sizeof(text));
	json_put_begin_array(&w);
	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++)
		if (kinds & 1u << kind)
			json_put_string(&w, host_probe_table[kind]->source,
					strlen(host_probe_table[kind]->source));
	json_put_end_array(&w);
	json_writer_done(&w, &len);
	return stream_copy(s, (struct wire_text){.data = text, .len = len});
}

void report_unwitnessed(struct stream *s, const struct witness_verdict *verdict, uint64_t now_ns)
{
	struct event *e = stream_begin(s, EVENT_DECLARATION_UNWITNESSED);

	event_add_uint(e, EVENT_KEY_DECLARED, verdict->declared);
	event_add_uint(e, EVENT_KEY_SINCE_MS, age_ms(verdict->since_ns, now_ns));
	event_add_raw(e, EVENT_KEY_WITNESSES, names_of(s, verdict->witnesses));
	stream_submit(s, e);
}
