/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/verifier.h"

#include "common/log.h"
#include "common/util.h"
#include "host-receiver/evidence/timestamp.h"

struct verifier {
	struct verifier_options options;
	struct findings findings;
	struct logs logs;
	struct streams *streams;
	struct tree_run *run;
	bool joined;
	int64_t newest_ms;
	/* Of records outside of any log. */
	uint64_t outside, outside_verified;
	struct place outside_at;
};

struct verifier *verifier_new(const struct verifier_options *options)
{
	const struct tree_run_options run = {
		.origin = options->origin, .live = options->live, .earlier = options->earlier};
	struct verifier *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->options = *options;
	logs_init(&v->logs, &v->findings);
	v->streams = streams_new(&v->findings);
	if (v->streams)
		v->run = tree_run_new(&run, &v->logs, v->streams, &v->findings);
	if (!v->run) {
		verifier_free(v);
		return NULL;
	}
	return v;
}

void verifier_free(struct verifier *v)
{
	if (!v)
		return;
	tree_run_free(v->run);
	streams_free(v->streams);
	logs_free(&v->logs);
	free(v);
}

int verifier_keep(struct verifier *v, const char *file, const char *text, size_t len)
{
	return logs_keep(&v->logs, v->options.ring, file, text, len);
}

void verifier_begin_input(struct verifier *v, bool joined)
{
	tree_run_begin_input(v->run);
	v->joined = joined;
}

static void add_malformed(struct verifier *v, const struct line_facts *facts, struct place at)
{
	if (facts->why_offset == UINT64_MAX)
		findings_add(&v->findings, FINDING_BAD, 1, at, "%s", facts->why);
	else
		findings_add(&v->findings, FINDING_BAD, 1, at, "not a record: %s at byte %" PRIu64,
			     facts->why, facts->why_offset);
}

/* ---- a record outside of any log: its own signature decides ---- */

static void add_unknown_key(struct verifier *v, const struct line_facts *facts, struct place at)
{
	char escaped[160];

	findings_add(
		&v->findings, FINDING_UNVERIFIABLE, 1, at, "%s %s", facts->why,
		log_escape(escaped, sizeof(escaped), facts->why_name.data, facts->why_name.len));
}

static int take_outside(struct verifier *v, const struct line_facts *facts, struct place at)
{
	const struct event_facts *event = &facts->event;

	if (v->outside++ == 0)
		v->outside_at = at;
	if (facts->class == CLASS_MALFORMED) {
		add_malformed(v, facts, at);
		return 0;
	}
	if (facts->proof == PROOF_WRONG) {
		findings_add(&v->findings, FINDING_BAD, 1, at, "%s", facts->why);
		return 0;
	}
	if (event->kind == FACT_STREAM_OPENED && event->texts[TEXT_ORIGIN].len > 0) {
		findings_add(&v->findings, FINDING_BAD, 1, at,
			     "stream %.*s says that it is in a log, and stands outside of it",
			     (int)event->texts[TEXT_STREAM].len, event->texts[TEXT_STREAM].data);
		return 0;
	}
	if (facts->proof == PROOF_UNKNOWN_KEY) {
		add_unknown_key(v, facts, at);
		return 0;
	}
	if (facts->proof == PROOF_SIGNED)
		v->outside_verified++;
	else
		findings_add(&v->findings, FINDING_UNSIGNED, 1, at, "no signature");
	return streams_add(v->streams, event,
			   facts->proof == PROOF_SIGNED ? STREAM_VERIFIED : STREAM_UNSIGNED, NULL,
			   at);
}

/* ---- a line ---- */

/* The beginning of a line that the writer did not finish proves nothing. */
static void take_torn(struct verifier *v, struct place at)
{
	if (!v->options.live)
		findings_add_note(&v->findings, FINDING_UNSIGNED, 1, at,
				  "the last line is torn: it ends without a newline");
}

static int take_entry(struct verifier *v, const struct verifier_line *line)
{
	const struct line_facts *facts = line->facts;

	v->newest_ms = MAX(v->newest_ms, facts->event.time_ms);
	if (!tree_run_inside(v->run)) {
		tree_run_leave(v->run);
		return take_outside(v, facts, line->at);
	}
	if (facts->class == CLASS_MALFORMED)
		add_malformed(v, facts, line->at);
	else if (facts->proof == PROOF_WRONG)
		findings_add(&v->findings, FINDING_BAD, 1, line->at, "%s", facts->why);
	return tree_run_entry(v->run, facts, line->bytes, line->at);
}

int verifier_line(struct verifier *v, const struct verifier_line *line)
{
	const struct line_facts *facts = line->facts;

	if (line->too_long) {
		findings_add_note(&v->findings, FINDING_BAD, 1, line->at,
				  "a line longer than %u bytes", FACTS_LINE_MAX);
		return 0;
	}
	switch (facts->class) {
	case CLASS_SEGMENT:
		if (line->at.line == 1 || v->joined)
			return tree_run_segment(v->run, facts, line->at);
		findings_add_note(&v->findings, FINDING_BAD, 1, line->at,
				  "a segment line that is not the first line of its file");
		return 0;
	case CLASS_CHECKPOINT: return tree_run_checkpoint(v->run, facts, line->at);
	case CLASS_MALFORMED:
		if (line->cut) {
			take_torn(v, line->at);
			return 0;
		}
		return take_entry(v, line);
	default: return take_entry(v, line);
	}
}

/* ---- the end ---- */

static bool since_excuses(const struct verifier *v, const struct log_summary *log)
{
	return v->options.since_ms != INT64_MIN && log->first_ms != 0 &&
	       log->first_ms <= v->options.since_ms;
}

static bool start_excused(void *data, const struct stream *s, bool predecessor)
{
	const struct verifier *v = data;
	const struct log_summary *log = s->log;

	if (!log)
		return false;
	/* A stream is in one log; its predecessor may be in the previous log. */
	if (predecessor)
		return log_past_pruned(log) || since_excuses(v, log);
	return log_start_pruned(log) || (log->first_index > 0 && since_excuses(v, log));
}

static bool is_superseded(void *data, const struct stream *s)
{
	(void)data;
	return s->is_log && s->log && s->log->has_successor;
}

static bool open_excused(void *data, const struct stream *s)
{
	const struct verifier *v = data;

	(void)s;
	return v->options.live || v->newest_ms >= v->options.until_ms;
}

static bool is_ignored(void *data, const struct stream *s)
{
	const struct verifier *v = data;

	return s->last_ms != 0 &&
	       (s->last_ms < v->options.since_ms || s->first_ms > v->options.until_ms);
}

static void expect_cells(struct verifier *v)
{
	for (size_t i = 0; i < v->options.n_cells; i++) {
		const struct stream *s = streams_first(v->streams);

		while (s && (strcmp(s->cell, v->options.cells[i]) != 0 || is_ignored(v, s)))
			s = s->next;
		if (!s)
			findings_add(&v->findings, FINDING_MISSING, 1,
				     (struct place){.file = "--expect-cell"},
				     "no verified evidence of cell %s", v->options.cells[i]);
	}
}

static void expect_retention(struct verifier *v)
{
	const int64_t since = v->options.now_ms - v->options.retention_ms;
	char from[TIMESTAMP_TEXT_MAX], want[TIMESTAMP_TEXT_MAX];

	for (const struct log_summary *log = v->logs.first; log; log = log->next)
		if (v->options.retention_ms > 0 && log->present && log->first_index > 0 &&
		    log->first_ms > since)
			findings_add(&v->findings, FINDING_MISSING, 1, log->first,
				     "log %s reaches back to %s only, not to %s", log->origin,
				     timestamp_format(log->first_ms, from),
				     timestamp_format(since, want));
}

static void expect_log(struct verifier *v)
{
	if (v->outside == 0)
		return;
	if (v->options.require_log)
		findings_add_note(&v->findings, FINDING_UNVERIFIABLE, v->outside, v->outside_at,
				  "%" PRIu64 " %s in no log", v->outside,
				  plural(v->outside, "record stands", "records stand"));
	else if (v->options.origin)
		findings_add_note(&v->findings, FINDING_UNVERIFIABLE, v->outside, v->outside_at,
				  "%" PRIu64 " %s in no log, so in none that --origin allows",
				  v->outside, plural(v->outside, "record stands", "records stand"));
}

static enum verdict judge(const struct verifier *v, uint64_t records)
{
	for (int f = 0; f < _FINDING_MAX; f++)
		if (v->findings.count[f] > 0 &&
		    (f != FINDING_UNSIGNED || v->options.require_signed))
			return finding_verdict((enum finding)f);
	return records > 0 ? VERDICT_INTACT : VERDICT_NOTHING;
}

struct verifier_result verifier_finish(struct verifier *v)
{
	const struct streams_context context = {.data = v,
						.start_excused = start_excused,
						.superseded = is_superseded,
						.open_excused = open_excused,
						.ignored = is_ignored};
	const struct tree_run_counts *counts = tree_run_counts(v->run);
	struct verifier_result result = {.findings = &v->findings,
					 .streams = v->streams,
					 .logs = &v->logs,
					 .kept = v->logs.n_kept > 0};

	tree_run_leave(v->run);
	logs_finish(&v->logs, v->options.since_ms);
	streams_finish(v->streams, &context);
	expect_cells(v);
	expect_retention(v);
	expect_log(v);
	result.records = counts->records + v->outside;
	result.verified = counts->verified + v->outside_verified;
	result.in_flight = counts->in_flight;
	result.copies = counts->copies;
	result.checkpoints = counts->checkpoints;
	result.outside = v->outside;
	result.verdict = judge(v, result.records);
	return result;
}
