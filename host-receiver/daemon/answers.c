/* SPDX-License-Identifier: MIT */
/*
 * The daemon's answers on its control socket: list, show, status. cells.c answers add and remove.
 * The protocol is in docs/control-protocol.md. Loop thread.
 */
#include <sysexits.h>

#include "host-receiver/daemon/internal.h"

/* ---- list, show, status ---- */

static json_t *age_of(uint64_t since_ns, uint64_t now_ns)
{
	return since_ns ? json_integer((json_int_t)((now_ns - since_ns) / NSEC_PER_MSEC))
			: json_null();
}

/* The probes of the cell, by name. */
static json_t *describe_probes(const struct cell *cell, uint64_t now_ns)
{
	const struct probe_set *set = host_view_probes(cell->view);
	json_t *probes = json_object();

	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		const struct probe_status s = probe_set_status(set, (enum probe_kind)kind);

		if (s.wanted)
			json_object_set_new(probes, host_probe_table[kind]->name,
					    json_pack("{s:b,s:s?,s:I,s:I,s:o}", "failing",
						      s.failing, "error", s.why, "readings",
						      (json_int_t)s.readings, "failures",
						      (json_int_t)s.failures, "lastReadingAgeMs",
						      age_of(s.last_ns, now_ns)));
	}
	return probes;
}

/* How often each ceiling was hit; only those that were. */
static json_t *describe_hits(const uint64_t hits[_CEILING_MAX])
{
	json_t *object = json_object();

	for (enum ceiling i = 0; i < _CEILING_MAX; i++)
		if (hits[i] > 0)
			json_object_set_new(object, ceiling_name(i),
					    json_integer((json_int_t)hits[i]));
	return object;
}

static json_int_t hits_in_all(const uint64_t hits[_CEILING_MAX])
{
	json_int_t sum = 0;

	for (enum ceiling i = 0; i < _CEILING_MAX; i++)
		sum += (json_int_t)hits[i];
	return sum;
}

static json_t *describe(const struct cell *cell)
{
	const uint64_t now_ns = monotonic_ns();
	const struct ceiling_rates rates = cell_rates(cell);
	char stream[UUID_STRING_MAX];

	uuid_format(cell->stream.identity->stream_id, stream);
	return json_pack(
		"{s:s,s:s,s:s,s:s,s:o,s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:I,s:I,s:I,s:I,s:o,s:o}",
		"cellId", cell->options.cell_id, "runId", cell->options.run_id, "specSignatureHash",
		cell->options.spec_hash, "streamId", stream, "socket",
		json_sprintf("%s_%u", cell->uds_base, WIRE_VSOCK_PORT), "connected",
		cell->active != NULL, "silent", cell->keepalive.silent, "connections",
		(json_int_t)cell->n_connections, "sequence", (json_int_t)cell->stream.sequence,
		"frames", (json_int_t)cell->frames, "framesRejected",
		(json_int_t)cell->frames_rejected, "bytes", (json_int_t)cell->bytes, "gaps",
		(json_int_t)cell->gaps, "guestDropped",
		(json_int_t)cell->guest.grown[GUEST_DROPPED], "guestKernelLost",
		(json_int_t)cell->guest.grown[GUEST_KERNEL_LOST], "lastFrameAgeMs",
		age_of(cell->keepalive.last_frame_ns, now_ns), "heartbeatAgeMs",
		age_of(cell->heartbeat_ns, now_ns), "keepaliveMs",
		(json_int_t)cell->keepalive.frame_within_ms, "rate", (json_int_t)rates.events,
		"addedAgoMs", (json_int_t)((now_ns - cell->keepalive.added_ns) / NSEC_PER_MSEC),
		"repeated", (json_int_t)cell->repeated, "rateLimited",
		describe_hits(cell->ceilings.hits), "probes", describe_probes(cell, now_ns));
}

static void append_cell(const struct cell *cell, void *array)
{
	json_array_append_new(array, describe(cell));
}

static json_t *all_cells(struct daemon *d)
{
	json_t *array = json_array();

	cell_index_each(&d->cells, append_cell, array);
	return array;
}

static json_t *describe_unserved(const struct unserved_cell *cell)
{
	const uint64_t now_ns = monotonic_ns();

	return json_pack("{s:s,s:s,s:I,s:I}", "cellId", cell->shown, "unserved", cell->why,
			 "unservedForMs", (json_int_t)((now_ns - cell->since_ns) / NSEC_PER_MSEC),
			 "nextTryMs",
			 cell->next_try_ns > now_ns
				 ? (json_int_t)((cell->next_try_ns - now_ns) / NSEC_PER_MSEC)
				 : (json_int_t)0);
}

static json_t *all_unserved(const struct daemon *d)
{
	json_t *array = json_array();

	for (const struct unserved_cell *cell = d->unserved.first; cell; cell = cell->next)
		json_array_append_new(array, describe_unserved(cell));
	return array;
}

static json_t *answer_list(struct daemon *d, const json_t *request)
{
	(void)request;
	return json_pack("{s:b,s:o,s:o}", "ok", 1, "cells", all_cells(d), "unserved",
			 all_unserved(d));
}

static json_t *answer_show(struct daemon *d, const json_t *request)
{
	const char *id = json_string_value(json_object_get(request, "cell"));
	const struct cell *cell = id ? cell_index_find(&d->cells, id) : NULL;
	const struct unserved_cell *unserved;

	if (cell)
		return json_pack("{s:b,s:o}", "ok", 1, "cell", describe(cell));
	unserved = id ? unserved_find(&d->unserved, id) : NULL;
	return unserved ? json_pack("{s:b,s:o}", "ok", 1, "cell", describe_unserved(unserved))
			: daemon_no_cell(id);
}

static json_t *describe_log(struct daemon *d)
{
	const struct pipeline_stats *stats = pipeline_stats(d->pipeline);
	const int error = stats->sink_error, background = evidence_log_background_error(d->log);

	return json_pack(
		"{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:b,s:s,s:I}", "dir", d->config.evidence_dir,
		"segments", (json_int_t)evidence_log_segments(d->log), "bytes",
		(json_int_t)evidence_log_bytes(d->log), "segmentsDeleted",
		(json_int_t)evidence_log_deleted(d->log), "segmentsLost",
		(json_int_t)evidence_log_lost(d->log), "linesWritten", (json_int_t)stats->lines,
		"inflightBytes", (json_int_t)stats->inflight_bytes, "oldestInflightMs",
		(json_int_t)daemon_oldest_inflight_ms(d), "error",
		error || background ? json_string(strerror(-(error ? error : background)))
				    : json_null(),
		"readsPaused", d->registry.paused, "origin", log_stream_origin(d->log_stream),
		"size", (json_int_t)evidence_log_size(d->log));
}

static json_t *describe_signing(const struct daemon *d)
{
	char fingerprint[DAEMON_FINGERPRINT_MAX];

	daemon_key_fingerprint(d->signer, fingerprint);
	return json_pack("{s:s,s:s,s:s,s:b,s:b,s:I,s:I,s:b}", "algorithm",
			 sign_algorithm_name(signer_algorithm(d->signer)), "kid",
			 signer_kid(d->signer), "fingerprint", fingerprint, "landlock",
			 (int)d->landlock, "separateUsers", (int)d->separate, "signerPid",
			 (json_int_t)sign_client_pid(d->client), "restarts",
			 (json_int_t)sign_client_restarts(d->client), "required",
			 (int)d->config.sign_required);
}

static json_t *answer_status(struct daemon *d, const json_t *request)
{
	const struct cell_registry_stats *s = &d->registry.stats;
	json_t *status = json_pack(
		"{s:b,s:s,s:I,s:I,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "ok", 1, "version",
		CELLOS_VERSION, "pid", (json_int_t)getpid(), "uptimeMs",
		(json_int_t)((monotonic_ns() - d->started_ns) / NSEC_PER_MSEC), "log",
		describe_log(d), "cellCount", (json_int_t)s->cells, "connected",
		(json_int_t)s->active, "silent", (json_int_t)s->silent, "frames",
		(json_int_t)s->frames, "rateLimited", hits_in_all(s->limit_hits), "gaps",
		(json_int_t)s->gaps, "guestDropped", (json_int_t)s->guest_dropped,
		"guestKernelLost", (json_int_t)s->guest_kernel_lost, "contested",
		(json_int_t)s->contested, "sessionsEvicted", (json_int_t)s->sessions_evicted);

	(void)request;
	if (status) {
		json_object_set_new(status, "cells", all_cells(d));
		json_object_set_new(status, "unserved", all_unserved(d));
		json_object_set_new(status, "signing", describe_signing(d));
		json_object_set_new(status, "alarm",
				    *d->alarm ? json_string(d->alarm) : json_null());
		json_object_set_new(status, "forward", forwarding_describe(&d->forwarding));
	}
	return status;
}

static json_t *answer_forward_rewind(struct daemon *d, const json_t *request)
{
	const json_t *index = json_object_get(request, "index");
	const json_t *since = json_object_get(request, "sinceMs");
	const json_int_t value = json_integer_value(index ? index : since);
	int r;

	if (!json_is_integer(index ? index : since) || value < 0)
		return control_refusal(EX_USAGE, "forward_rewind: expected index or sinceMs");
	r = forwarding_rewind(&d->forwarding, index ? LINK_REWIND_INDEX : LINK_REWIND_TIME,
			      (uint64_t)value);
	if (r < 0)
		return control_refusal(EXIT_FAILURE, "the forwarder does not run");
	return json_pack("{s:b}", "ok", 1);
}

static json_t *answer_acknowledge(struct daemon *d, const json_t *request)
{
	int r = daemon_acknowledge_alarm(d, control_peer_uid(d->control));

	(void)request;
	if (r == -ENOENT)
		return control_refusal(EXIT_FAILURE, "no alarm stands");
	if (r < 0)
		return control_refusal(EXIT_FAILURE, "cannot remove the alarm: %s", strerror(-r));
	return json_pack("{s:b}", "ok", 1);
}

json_t *daemon_answer(void *ctx, const json_t *request)
{
	static const struct {
		const char *verb;
		json_t *(*answer)(struct daemon *d, const json_t *request);
	} verbs[] = {
		{"add", daemon_add_cell},
		{"remove", daemon_remove_cell},
		{"list", answer_list},
		{"show", answer_show},
		{"status", answer_status},
		{"forward_rewind", answer_forward_rewind},
		{"acknowledge", answer_acknowledge},
	};
	const char *verb = json_string_value(json_object_get(request, "verb"));

	for (size_t i = 0; verb && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].verb, verb) == 0)
			return verbs[i].answer(ctx, request);
	return control_refusal(EX_USAGE,
			       "verb: expected add, remove, list, show, status, acknowledge or "
			       "forward_rewind");
}
