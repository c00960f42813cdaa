/* SPDX-License-Identifier: MIT */
/*
 * What the daemon answers on its control socket: add, remove, list, show, status. The protocol is
 * in docs/control-protocol.md. Loop thread.
 */
#include <search.h>
#include <sysexits.h>

#include "common/log.h"
#include "host-receiver/cell/state.h"
#include "host-receiver/serve.h"

static int compare_ids(const void *a, const void *b)
{
	const struct cell *x = a, *y = b;

	return strcmp(x->options.cell_id, y->options.cell_id);
}

struct cell *daemon_find_cell(struct daemon *d, const char *id)
{
	const struct cell key = {.options.cell_id = id};
	struct cell *const *found = tfind(&key, &d->cells, compare_ids);

	return found ? *found : NULL;
}

bool daemon_index_cell(struct daemon *d, struct cell *cell)
{
	return tsearch(cell, &d->cells, compare_ids) != NULL;
}

void daemon_forget_cell(struct daemon *d, struct cell *cell)
{
	tdelete(cell, &d->cells, compare_ids);
}

void daemon_cell_defaults(const struct daemon *d, struct cell_options *o)
{
	cell_options_defaults(o);
	o->keepalive_ms = (unsigned)d->config.keepalive_ms;
	o->connect_within_ms = (unsigned)d->config.connect_within_ms;
	o->rate = (unsigned)d->config.rate;
}

/* ---- add and remove -----------------------------------------------------------------------------
 */

/* Until its file is durable the cell is not there. */
static json_t *adopt(struct daemon *d, struct cell *cell, const json_t *options)
{
	int r = daemon_index_cell(d, cell) ? cell_state_store(d->state_fd, cell->options.cell_id,
							      options, cell->stream->stream_id)
					   : -ENOMEM;

	if (r == 0) {
		log_info("msg=\"cell added\" cell=%s socket=%s_%u", cell->options.cell_id,
			 cell->uds_base, WIRE_VSOCK_PORT);
		return json_pack("{s:b,s:o}", "ok", 1, "socket",
				 json_sprintf("%s_%u", cell->uds_base, WIRE_VSOCK_PORT));
	}
	log_error("msg=\"cannot remember the cell\" cell=%s why=\"%s\"", cell->options.cell_id,
		  strerror(-r));
	daemon_forget_cell(d, cell);
	cell_state_remove(d->state_fd, cell->options.cell_id);
	cell_remove(cell, "removed");
	return control_refusal(EXIT_FAILURE, "cannot remember the cell: %s", strerror(-r));
}

static json_t *answer_add(struct daemon *d, const json_t *request)
{
	const json_t *options = json_object_get(request, "options");
	char why[CELL_WHY_MAX] = "no memory";
	struct cell_options o;
	struct cell *cell;
	int r;

	if (!json_is_object(options))
		return control_refusal(EX_USAGE, "options: expected an object of strings");
	daemon_cell_defaults(d, &o);
	if (cell_options_from_json(&o, options, why) < 0)
		return control_refusal(EX_USAGE, "%s", why);
	if (*o.uds_base != '/')
		return control_refusal(EX_USAGE, "--uds %.100s: expected an absolute path",
				       o.uds_base);
	if (cell_options_look(&o, why) < 0)
		return control_refusal(EX_USAGE, "%s", why);
	if (d->stopping)
		return control_refusal(EXIT_FAILURE, "the daemon is stopping");
	if (daemon_find_cell(d, o.cell_id))
		return control_refusal(EX_CANTCREAT, "cell %s exists already", o.cell_id);
	if (d->host.stats.cells >= d->config.max_cells)
		return control_refusal(EX_CANTCREAT,
				       "there are max_cells = %" PRIu64 " cells already",
				       d->config.max_cells);
	r = cell_add(&d->host, &o, false, NULL, &cell, why);
	if (r < 0)
		return control_refusal(r == -EPERM || r == -EACCES ? EX_NOPERM : EX_CANTCREAT, "%s",
				       why);
	return adopt(d, cell, options);
}

/* Returns the cell, or NULL and the refusal. */
static struct cell *wanted_cell(struct daemon *d, const json_t *request, json_t **ret_refusal)
{
	const char *id = json_string_value(json_object_get(request, "cell"));
	struct cell *cell = id ? daemon_find_cell(d, id) : NULL;

	if (!cell)
		*ret_refusal = id ? control_refusal(EXIT_FAILURE, "%.128s: no such cell", id)
				  : control_refusal(EX_USAGE, "cell: expected a cell's id");
	return cell;
}

static json_t *answer_remove(struct daemon *d, const json_t *request)
{
	json_t *refusal = NULL;
	struct cell *cell = wanted_cell(d, request, &refusal);
	int r;

	if (!cell)
		return refusal;
	r = cell_state_remove(d->state_fd, cell->options.cell_id);
	if (r < 0 && r != -ENOENT)
		return control_refusal(EXIT_FAILURE, "cannot forget the cell: %s", strerror(-r));
	log_info("msg=\"cell removed\" cell=%s", cell->options.cell_id);
	daemon_forget_cell(d, cell);
	cell_remove(cell, "removed");
	pipeline_flush(d->pipeline);
	return json_pack("{s:b}", "ok", 1);
}

/* ---- list, show, status -------------------------------------------------------------------------
 */

static json_t *age_of(uint64_t since_ns, uint64_t now_ns)
{
	return since_ns ? json_integer((json_int_t)((now_ns - since_ns) / NSEC_PER_MSEC))
			: json_null();
}

/* Those the cell has, by name. */
static json_t *describe_probes(const struct cell *cell, uint64_t now_ns)
{
	const struct probe_set *set = cell->observer ? cell->observer->set : NULL;
	json_t *probes = json_object();

	for (int kind = 0; kind < _PROBE_KIND_MAX; kind++) {
		const struct probe_status s = probe_set_status(set, (enum probe_kind)kind);

		if (s.wanted)
			json_object_set_new(probes, probe_table[kind]->name,
					    json_pack("{s:b,s:s?,s:I,s:I,s:o}", "failing",
						      s.failing, "error", s.why, "readings",
						      (json_int_t)s.readings, "failures",
						      (json_int_t)s.failures, "lastReadingAgeMs",
						      age_of(s.last_ns, now_ns)));
	}
	return probes;
}

static json_t *describe(const struct cell *cell)
{
	const uint64_t now_ns = monotonic_ns();
	char stream[UUID_STRING_MAX];

	uuid_format(cell->stream->stream_id, stream);
	return json_pack(
		"{s:s,s:s,s:s,s:s,s:o,s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:I,s:I,s:I,s:o}",
		"cellId", cell->options.cell_id, "runId", cell->options.run_id, "specSignatureHash",
		cell->options.spec_hash, "streamId", stream, "socket",
		json_sprintf("%s_%u", cell->uds_base, WIRE_VSOCK_PORT), "connected",
		cell->active != NULL, "silent", cell->silent, "connections",
		(json_int_t)cell->n_connections, "sequence", (json_int_t)cell->sequence, "frames",
		(json_int_t)cell->frames, "framesRejected", (json_int_t)cell->frames_rejected,
		"bytes", (json_int_t)cell->bytes, "gaps", (json_int_t)cell->gaps, "guestDropped",
		(json_int_t)cell->guest_dropped, "guestKernelLost",
		(json_int_t)cell->guest_kernel_lost, "lastFrameAgeMs",
		age_of(cell->last_frame_ns, now_ns), "heartbeatAgeMs",
		age_of(cell->heartbeat_ns, now_ns), "keepaliveMs",
		(json_int_t)cell->options.keepalive_ms, "rate", (json_int_t)cell->options.rate,
		"addedAgoMs", (json_int_t)((now_ns - cell->added_ns) / NSEC_PER_MSEC), "probes",
		describe_probes(cell, now_ns));
}

static void collect(const void *node, VISIT which, void *array)
{
	const struct cell *const *cell = node;

	if (which == postorder || which == leaf)
		json_array_append_new(array, describe(*cell));
}

static json_t *all_cells(struct daemon *d)
{
	json_t *array = json_array();

	twalk_r(d->cells, collect, array);
	return array;
}

static json_t *answer_list(struct daemon *d, const json_t *request)
{
	(void)request;
	return json_pack("{s:b,s:o}", "ok", 1, "cells", all_cells(d));
}

static json_t *answer_show(struct daemon *d, const json_t *request)
{
	json_t *refusal = NULL;
	struct cell *cell = wanted_cell(d, request, &refusal);

	return cell ? json_pack("{s:b,s:o}", "ok", 1, "cell", describe(cell)) : refusal;
}

static json_t *describe_log(struct daemon *d)
{
	const struct pipeline_stats *stats = pipeline_stats(d->pipeline);
	const int error = stats->sink_error, background = evidence_log_background_error(d->log);

	return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:o,s:b}", "dir", d->config.evidence_dir,
			 "segments", (json_int_t)evidence_log_segments(d->log), "bytes",
			 (json_int_t)evidence_log_bytes(d->log), "segmentsDeleted",
			 (json_int_t)evidence_log_deleted(d->log), "linesWritten",
			 (json_int_t)stats->lines, "inflightBytes",
			 (json_int_t)stats->inflight_bytes, "error",
			 error || background ? json_string(strerror(-(error ? error : background)))
					     : json_null(),
			 "readsPaused", d->host.paused);
}

static json_t *answer_status(struct daemon *d, const json_t *request)
{
	const struct cell_host_stats *s = &d->host.stats;
	json_t *status =
		json_pack("{s:b,s:s,s:I,s:I,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "ok", 1,
			  "version", CELLOS_VERSION, "pid", (json_int_t)getpid(), "uptimeMs",
			  (json_int_t)((monotonic_ns() - d->started_ns) / NSEC_PER_MSEC), "log",
			  describe_log(d), "cellCount", (json_int_t)s->cells, "connected",
			  (json_int_t)s->active, "silent", (json_int_t)s->silent, "frames",
			  (json_int_t)s->frames, "rateLimited", (json_int_t)s->rate_limited, "gaps",
			  (json_int_t)s->gaps, "guestDropped", (json_int_t)s->guest_dropped,
			  "guestKernelLost", (json_int_t)s->guest_kernel_lost, "contested",
			  (json_int_t)s->contested);

	(void)request;
	if (status)
		json_object_set_new(status, "cells", all_cells(d));
	return status;
}

json_t *daemon_answer(void *ctx, const json_t *request)
{
	static const struct {
		const char *verb;
		json_t *(*answer)(struct daemon *d, const json_t *request);
	} verbs[] = {
		{"add", answer_add},   {"remove", answer_remove}, {"list", answer_list},
		{"show", answer_show}, {"status", answer_status},
	};
	const char *verb = json_string_value(json_object_get(request, "verb"));

	for (size_t i = 0; verb && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].verb, verb) == 0)
			return verbs[i].answer(ctx, request);
	return control_refusal(EX_USAGE, "verb: expected add, remove, list, show or status");
}
