/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/report.h"

#include "common/log.h"
#include "host-receiver/cell/cell.h"

static struct event *begin_event(struct cell *cell, enum event_type type)
{
	cell->host->stats.events[type]++;
	return pipeline_event(cell->host->pipeline, type, cell->stream, ++cell->sequence);
}

static void submit(struct cell *cell, struct event *e)
{
	pipeline_submit(cell->host->pipeline, e);
	cell_host_submitted(cell->host);
}

static void add_peer(struct event *e, const struct ucred *peer)
{
	event_add_uint(e, EVENT_KEY_PEER_PID, (uint64_t)peer->pid);
	event_add_uint(e, EVENT_KEY_PEER_UID, peer->uid);
	event_add_uint(e, EVENT_KEY_PEER_GID, peer->gid);
}

void tell_opened(struct cell *cell, const uint8_t *previous)
{
	struct event *e = begin_event(cell, EVENT_STREAM_OPENED);
	char id[UUID_STRING_MAX];

	event_add_text(e, EVENT_KEY_RECEIVER_VERSION, wire_text(CELLOS_VERSION));
	event_add_text(e, EVENT_KEY_HOSTNAME, wire_text(cell->host->hostname));
	event_add_text(e, EVENT_KEY_HOST_BOOT_ID, wire_text(cell->host->boot_id));
	event_add_uint(e, EVENT_KEY_KEEPALIVE_MS, cell->options.keepalive_ms);
	if (previous) {
		uuid_format(previous, id);
		event_add_text(e, EVENT_KEY_PREVIOUS_STREAM_ID,
			       pipeline_copy(cell->host->pipeline, wire_text(id)));
	}
	submit(cell, e);
}

static void add_totals(const struct cell *cell, struct event *e, uint64_t now_ns)
{
	event_add_uint(e, EVENT_KEY_EVENTS, cell->sequence);
	event_add_uint(e, EVENT_KEY_FRAMES, cell->frames);
	event_add_uint(e, EVENT_KEY_FRAMES_REJECTED, cell->frames_rejected);
	event_add_uint(e, EVENT_KEY_BYTES, cell->bytes);
	event_add_uint(e, EVENT_KEY_GUEST_OBSERVED, cell->guest_observed);
	event_add_uint(e, EVENT_KEY_GUEST_SENT, cell->guest_sent);
	event_add_uint(e, EVENT_KEY_GUEST_DROPPED, cell->guest_dropped);
	event_add_uint(e, EVENT_KEY_GUEST_KERNEL_LOST, cell->guest_kernel_lost);
	event_add_uint(e, EVENT_KEY_GAPS, cell->gaps);
	if (cell->heartbeat_ns)
		event_add_uint(e, EVENT_KEY_LAST_HEARTBEAT_AGE_MS,
			       age_ms(cell->heartbeat_ns, now_ns));
	else
		event_add_null(e, EVENT_KEY_LAST_HEARTBEAT_AGE_MS);
	if (cell->observer && cell->observer->reads_vmm)
		event_add_uint(e, EVENT_KEY_VMM_BYTES, cell->observer->vmm_bytes);
}

/* A stream that wrote nothing since its last checkpoint has nothing to tell. */
void tell_checkpoint(struct cell *cell, uint64_t now_ns)
{
	struct event *e;

	cell->checkpoint_at_ns = now_ns + cell->host->checkpoint_ms * NSEC_PER_MSEC;
	if (cell->sequence == cell->checkpoint_sequence)
		return;
	e = begin_event(cell, EVENT_STREAM_CHECKPOINT);
	add_totals(cell, e, now_ns);
	submit(cell, e);
	cell->checkpoint_sequence = cell->sequence;
}

void tell_sealed(struct cell *cell, const char *reason)
{
	struct event *e = begin_event(cell, EVENT_STREAM_SEALED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	add_totals(cell, e, monotonic_ns());
	submit(cell, e);
}

static void tell_contested(struct cell *cell, const char *reason, uint64_t count,
			   const struct ucred *peer)
{
	struct event *e = begin_event(cell, EVENT_CHANNEL_CONTESTED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	event_add_uint(e, EVENT_KEY_COUNT, count);
	if (peer)
		add_peer(e, peer);
	submit(cell, e);
}

static void tell_limited(struct cell *cell, enum limited_event kind, uint64_t count)
{
	struct event *e;

	switch (kind) {
	case LIMITED_VERSION:
		e = begin_event(cell, EVENT_VERSION_REJECTED);
		event_add_uint(e, EVENT_KEY_CONTENT_VERSION, cell->refused_version);
		break;
	case LIMITED_SOURCE:
		e = begin_event(cell, EVENT_UNKNOWN_SOURCE);
		event_add_text(
			e, EVENT_KEY_SOURCE,
			pipeline_copy(cell->host->pipeline, wire_text(cell->refused_source)));
		break;
	case LIMITED_RATE:
		e = begin_event(cell, EVENT_RATE_LIMITED);
		event_add_uint(e, EVENT_KEY_LIMIT, cell->options.rate);
		break;
	case LIMITED_SECOND_CONNECTION:
		tell_contested(cell, "second_connection", count, &cell->contested_peer);
		return;
	case LIMITED_PEER:
		tell_contested(cell, "peer_credentials", count, &cell->contested_peer);
		return;
	case LIMITED_VMM_COUNTS: tell_contested(cell, "vmm_counts_more", count, NULL); return;
	default: return;
	}
	event_add_uint(e, EVENT_KEY_COUNT, count);
	submit(cell, e);
}

void count_limited(struct cell *cell, enum limited_event kind, uint64_t n, uint64_t now_ns)
{
	const uint64_t count = once_a_second_add(&cell->limited[kind], n, now_ns);

	if (count > 0)
		tell_limited(cell, kind, count);
}

void flush_limited(struct cell *cell, uint64_t now_ns, bool force)
{
	for (int kind = 0; kind < _LIMITED_MAX; kind++) {
		const uint64_t count = once_a_second_take(&cell->limited[kind], now_ns, force);

		if (count > 0)
			tell_limited(cell, (enum limited_event)kind, count);
	}
}

void tell_silenced(struct cell *cell, uint64_t now_ns)
{
	struct event *e = begin_event(cell, EVENT_AGENT_SILENCED);

	event_add_text(e, EVENT_KEY_REASON,
		       wire_text(cell->connected_ever ? "no_frames" : "never_connected"));
	event_add_uint(e, EVENT_KEY_WINDOW_MS,
		       cell->connected_ever ? cell->options.keepalive_ms
					    : cell->options.connect_within_ms);
	if (cell->last_frame_ns)
		event_add_uint(e, EVENT_KEY_LAST_FRAME_AGE_MS, age_ms(cell->last_frame_ns, now_ns));
	else
		event_add_null(e, EVENT_KEY_LAST_FRAME_AGE_MS);
	event_add_bool(e, EVENT_KEY_CONNECTED, cell->active != NULL);
	submit(cell, e);
	cell->silent = true;
	cell->host->stats.silent++;
	log_warning("msg=\"agent silenced\" cell=%s stream_sequence=%" PRIu64,
		    cell->stream->cell_id, cell->sequence);
}

void tell_violation(struct cell *cell, const struct connection *c,
		    const struct wire_refusal *refusal)
{
	struct event *e = begin_event(cell, EVENT_CHANNEL_VIOLATION);

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	event_add_text(e, EVENT_KEY_REASON, wire_text(wire_error_name(refusal->error)));
	if (refusal->field)
		event_add_text(e, EVENT_KEY_FIELD, wire_text(refusal->field));
	event_add_uint(e, EVENT_KEY_OFFSET, refusal->offset);
	submit(cell, e);
	cell->frames_rejected++;
	cell->host->stats.rejected[refusal->error]++;
}

void tell_gap(struct cell *cell, const struct gap *gap)
{
	struct event *e = begin_event(cell, EVENT_TELEMETRY_GAP);

	cell->gaps++;
	cell->host->stats.gaps++;
	event_add_text(e, EVENT_KEY_SESSION,
		       pipeline_copy(cell->host->pipeline, wire_text(cell->gap.session)));
	event_add_uint(e, EVENT_KEY_FIRST_MISSING, gap->first);
	event_add_uint(e, EVENT_KEY_LAST_MISSING, gap->last);
	submit(cell, e);
}

void tell_declaration(struct cell *cell, const struct connection *c, const struct declaration *d)
{
	struct pipeline *p = cell->host->pipeline;
	struct event *e = begin_event(cell, event_type_of_source(d->source));

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	event_add_uint(e, EVENT_KEY_CONTENT_VERSION, d->content_version);
	event_add_text(e, EVENT_KEY_PROBE_SOURCE, wire_text(wire_source_name(d->source)));
	event_add_uint(e, EVENT_KEY_GUEST_PID, d->guest_pid);
	event_add_text(e, EVENT_KEY_GUEST_COMM, pipeline_copy(p, d->guest_comm));
	event_add_uint(e, EVENT_KEY_GUEST_MONOTONIC_NS, d->guest_monotonic_ns);
	if (d->seq > 0)
		event_add_uint(e, EVENT_KEY_SEQ, d->seq);
	if (d->n_details > 0)
		event_add_details(e, pipeline_copy_details(p, d->details, d->n_details),
				  d->n_details);
	submit(cell, e);
}

void tell_resumed(struct cell *cell, uint64_t silent_ms)
{
	struct event *e = begin_event(cell, EVENT_AGENT_RESUMED);

	event_add_uint(e, EVENT_KEY_SILENT_MS, silent_ms);
	submit(cell, e);
}

void tell_connected(struct cell *cell, const struct connection *c)
{
	struct event *e = begin_event(cell, EVENT_AGENT_CONNECTED);

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	add_peer(e, &c->peer);
	submit(cell, e);
}

void tell_disconnected(struct cell *cell, const struct connection *c, const char *reason)
{
	struct event *e = begin_event(cell, EVENT_AGENT_DISCONNECTED);

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	event_add_uint(e, EVENT_KEY_FRAMES, c->frames);
	event_add_uint(e, EVENT_KEY_BYTES, c->bytes);
	submit(cell, e);
}

void tell_reading(struct cell *cell, enum probe_kind kind, const struct probe_reading *reading)
{
	const struct host_probe_ops *probe = host_probe_table[kind];
	size_t begin = 0;

	for (size_t i = 0; i < reading->n_parts; begin = reading->part_end[i++]) {
		struct event *e = begin_event(cell, probe->event);
		const struct wire_text output = {
			.data = reading->outputs + begin,
			.len = reading->part_end[i] - begin,
		};

		event_add_text(e, EVENT_KEY_PROBE_SOURCE, wire_text(probe->source));
		event_add_raw(e, EVENT_KEY_INPUTS,
			      pipeline_copy(cell->host->pipeline, wire_text(reading->inputs)));
		event_add_raw(e, EVENT_KEY_OUTPUT, pipeline_copy(cell->host->pipeline, output));
		submit(cell, e);
	}
}

/* The names of the probes whose bits are set, as a JSON array. */
static struct wire_text names_of(struct cell *cell, unsigned kinds)
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
	return pipeline_copy(cell->host->pipeline, (struct wire_text){.data = text, .len = len});
}

void tell_unwitnessed(struct cell *cell, const struct witness_verdict *verdict, uint64_t now_ns)
{
	struct event *e = begin_event(cell, EVENT_DECLARATION_UNWITNESSED);

	event_add_uint(e, EVENT_KEY_DECLARED, verdict->declared);
	event_add_uint(e, EVENT_KEY_SINCE_MS, age_ms(verdict->since_ns, now_ns));
	event_add_raw(e, EVENT_KEY_WITNESSES, names_of(cell, verdict->witnesses));
	submit(cell, e);
	log_warning("msg=\"nothing was seen of declared connects\" cell=%s declared=%" PRIu64,
		    cell->stream->cell_id, verdict->declared);
}
