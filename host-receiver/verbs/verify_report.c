/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/verify_report.h"

#include "common/log.h"
#include "common/util.h"
#include "host-receiver/event/json_writer.h"
#include "host-receiver/evidence/timestamp.h"

#define BUFFER_SIZE (16u * 1024u)
#define NOTES_MAX   4u

/* ---- the verdict ---- */

static const char *verdict_word(enum verdict verdict)
{
	if (verdict == VERDICT_NOTHING)
		return "NOTHING";
	return verdict == VERDICT_INTACT ? "OK" : "NOT OK";
}

static void intact_text(const struct verifier_result *r, char *text, size_t size)
{
	const uint64_t lost = streams_declared_lost(r->streams);

	if (r->findings->count[FINDING_UNSIGNED] > 0)
		snprintf(text, size, "every stream is complete, but not everything is signed");
	else if (lost > 0)
		snprintf(text, size, "intact; %" PRIu64 " observation%s declared lost", lost,
			 lost == 1 ? " was" : "s were");
	else if (r->in_flight > 0 || streams_count_end(r->streams, STREAM_OPEN) > 0)
		snprintf(text, size, "every record is verified up to the newest checkpoint");
	else if (streams_count_end(r->streams, STREAM_INTERRUPTED) > 0)
		snprintf(text, size,
			 "every record is verified and every stream is complete, "
			 "or a later one continues it");
	else
		snprintf(text, size, "every record is verified and every stream is complete");
}

/* The sentence for the first finding that decides the verdict. */
static void verdict_text(const struct verify_report *report, char *text, size_t size)
{
	static const char *const sentences[_FINDING_MAX] = {
		[FINDING_BAD] = "something was changed or is damaged: do not trust it",
		[FINDING_FORKED] = "a log was signed twice, differently: do not trust its host",
		[FINDING_UNVERIFIABLE] = "something cannot be verified",
		[FINDING_UNPROVABLE] = "a kept checkpoint is older than what is left of its log",
		[FINDING_UNSIGNED] = "something is not signed",
		[FINDING_MISSING] = "something is missing",
		[FINDING_ROLLED_BACK] = "a log is not the one that a kept checkpoint is of",
		[FINDING_OPEN] = "a stream has no seal: it is still open, or it was cut off",
	};
	const struct verifier_result *r = report->result;

	if (r->verdict == VERDICT_INTACT) {
		intact_text(r, text, size);
		return;
	}
	snprintf(text, size, "there is no record");
	for (int f = 0; f < _FINDING_MAX; f++)
		if (r->findings->count[f] > 0 &&
		    (f != FINDING_UNSIGNED || report->require_signed)) {
			snprintf(text, size, "%s", sentences[f]);
			return;
		}
}

void verify_report_verdict(const struct verify_report *report, char ret[VERIFY_VERDICT_MAX])
{
	char text[128];

	verdict_text(report, text, sizeof(text));
	snprintf(ret, VERIFY_VERDICT_MAX, "%s: %s", verdict_word(report->result->verdict), text);
}

/* Notes on what this judgement cannot show. Returns their number. */
static unsigned find_notes(const struct verifier_result *r, const char *notes[NOTES_MAX])
{
	unsigned n = 0;

	if (r->verdict == VERDICT_NOTHING)
		return 0;
	if (r->outside > 0)
		notes[n++] = "no checkpoint covers some records: a stream that was removed whole "
			     "would not show";
	if (r->checkpoints > 0 && !r->kept)
		notes[n++] = "no kept checkpoint was given: a log that was cut back to an earlier "
			     "end, or the loss of the newest log, would not show";
	return n;
}

/* ---- for people ---- */

/* Print a plain word as it is, and other text escaped. */
static const char *plain(const char *text, char *room, size_t size)
{
	const char *c = text;

	while (*c > ' ' && *c <= '~' && *c != '"' && *c != '\\')
		c++;
	if (*text == '\0')
		return "-";
	return *c ? log_escape(room, size, text, strlen(text)) : text;
}

static void print_losses(const struct stream_losses *l)
{
	const struct {
		uint64_t n;
		const char *one, *many;
	} parts[] = {
		{l->gap_frames, "frame in gaps", "frames in gaps"},
		{l->guest_dropped, "dropped by the guest", "dropped by the guest"},
		{stream_kernel_lost(l), "lost by its kernel", "lost by its kernel"},
		{l->cut_lines, "line cut after a crash", "lines cut after crashes"},
		{l->silences, "silence", "silences"},
		{l->contests, "contest of the channel", "contests of the channel"},
		{l->unwitnessed, "unwitnessed declaration", "unwitnessed declarations"},
	};
	const char *separator = "  declared: ";

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (parts[i].n == 0)
			continue;
		printf("%s%" PRIu64 " %s", separator, parts[i].n,
		       parts[i].n == 1 ? parts[i].one : parts[i].many);
		separator = ", ";
	}
	if (*separator == ',')
		putchar('\n');
}

static void print_times(int64_t first_ms, int64_t last_ms)
{
	char first[TIMESTAMP_TEXT_MAX], last[TIMESTAMP_TEXT_MAX];

	if (first_ms != 0)
		printf("  from %s to %s\n", timestamp_format(first_ms, first),
		       timestamp_format(last_ms, last));
}

static void print_log(const struct log_summary *log)
{
	printf("log %s\n", log->origin);
	if (!log->present) {
		printf("  not in the input\n");
		return;
	}
	printf("  %" PRIu64 " %s, index %" PRIu64 " to size %" PRIu64 ", %" PRIu64 " %s",
	       log->entries, plural(log->entries, "entry", "entries"), log->first_index, log->size,
	       log->checkpoints, plural(log->checkpoints, "checkpoint", "checkpoints"));
	for (unsigned i = 0; i < log->n_kids; i++)
		printf("%s%s", i == 0 ? ", signed by " : ", ", log->kids[i]);
	if (log->first_index > 0)
		printf(log_start_pruned(log) ? "; pruned before" : "; its beginning is missing");
	if (log->in_flight > 0)
		printf("; %" PRIu64 " in flight", log->in_flight);
	putchar('\n');
	print_times(log->first_ms, log->last_ms);
}

static void print_stream(const struct stream *s)
{
	char room[4][160];

	printf("stream %s%s\n", plain(s->id, room[0], sizeof(room[0])),
	       s->is_log ? " (the log's own)" : "");
	if (!s->is_log || *s->host)
		printf("  cell %s, run %s, host %s\n", plain(s->cell, room[1], sizeof(room[1])),
		       plain(s->run, room[2], sizeof(room[2])),
		       plain(s->host, room[3], sizeof(room[3])));
	print_times(s->first_ms, s->last_ms);
	printf("  %" PRIu64 " record%s, %s%s%s\n", s->records, plural(s->records, "", "s"),
	       stream_end_name(s->end), s->pruned ? ", its beginning was pruned" : "",
	       s->class == STREAM_UNSIGNED ? ", not signed" : "");
	print_losses(&s->losses);
}

static void print_findings(const struct findings *findings)
{
	for (int f = 0; f < _FINDING_MAX; f++) {
		const char *name = finding_name((enum finding)f);
		uint64_t shown = findings->n_places[f];

		for (unsigned i = 0; i < findings->n_places[f]; i++) {
			const struct finding_place *p = &findings->places[f][i];

			if (p->at.line > 0)
				printf("%s: %s:%" PRIu64 ": %s\n", name, p->at.file, p->at.line,
				       p->why);
			else
				printf("%s: %s: %s\n", name, p->at.file, p->why);
		}
		if (shown == FINDINGS_PLACES_MAX && findings->count[f] > shown)
			printf("%s: only the first %" PRIu64 " places are shown\n", name, shown);
	}
}

static uint64_t records_found(const struct findings *f, enum finding finding)
{
	return f->count[finding] - f->notes[finding];
}

static uint64_t notes_found(const struct findings *f)
{
	uint64_t n = 0;

	for (int i = 0; i < _FINDING_MAX; i++)
		n += f->notes[i];
	return n;
}

void verify_report_text(const struct verify_report *report)
{
	const struct verifier_result *r = report->result;
	const struct findings *f = r->findings;
	const char *notes[NOTES_MAX];
	const unsigned n_notes = find_notes(r, notes);
	const uint64_t n_streams = streams_count(r->streams);
	const uint64_t n_missing = f->count[FINDING_MISSING] + f->count[FINDING_ROLLED_BACK];
	const uint64_t n_notes_found = notes_found(f);
	char text[VERIFY_VERDICT_MAX];

	for (const struct log_summary *log = r->logs->first; report->details && log;
	     log = log->next)
		print_log(log);
	for (const struct stream *s = streams_first(r->streams); report->details && s; s = s->next)
		print_stream(s);
	printf("%" PRIu64 " record%s: %" PRIu64 " verified, %" PRIu64 " bad, %" PRIu64
	       " unverifiable, %" PRIu64 " unsigned",
	       r->records, plural(r->records, "", "s"), r->verified, records_found(f, FINDING_BAD),
	       records_found(f, FINDING_UNVERIFIABLE), records_found(f, FINDING_UNSIGNED));
	if (r->in_flight > 0)
		printf(", %" PRIu64 " in flight", r->in_flight);
	if (r->copies > 0)
		printf(", %" PRIu64 " read twice", r->copies);
	if (n_notes_found > 0)
		printf("\n%" PRIu64 " finding%s about checkpoints and segments", n_notes_found,
		       plural(n_notes_found, "", "s"));
	printf("\n%" PRIu64 " stream%s: %" PRIu64 " complete, %" PRIu64 " interrupted, %" PRIu64
	       " unsealed; %" PRIu64 " finding%s of missing records\n",
	       n_streams, plural(n_streams, "", "s"),
	       streams_count_end(r->streams, STREAM_COMPLETE),
	       streams_count_end(r->streams, STREAM_INTERRUPTED),
	       streams_count_end(r->streams, STREAM_OPEN), n_missing, plural(n_missing, "", "s"));
	print_findings(f);
	for (unsigned i = 0; i < n_notes; i++)
		printf("note: %s\n", notes[i]);
	verify_report_verdict(report, text);
	puts(text);
}

/* ---- JSON ---- */

/*
 * The report is written in pieces, one for each stream, because it can be larger than the buffer.
 */
static void flush(struct json_writer *w, FILE *out)
{
	fwrite(w->buf, 1, w->len, out);
	w->len = 0;
}

static void put_time(struct json_writer *w, const char *key, int64_t ms)
{
	char text[TIMESTAMP_TEXT_MAX];

	if (ms == 0)
		json_put_kv_null(w, key);
	else
		json_put_kv_string(w, key, timestamp_format(ms, text));
}

static void put_places(struct json_writer *w, FILE *out, const struct findings *findings)
{
	json_put_key(w, "places");
	json_put_begin_object(w);
	for (int f = 0; f < _FINDING_MAX; f++) {
		json_put_key(w, finding_json_name((enum finding)f));
		json_put_begin_array(w);
		for (unsigned i = 0; i < findings->n_places[f]; i++) {
			const struct finding_place *p = &findings->places[f][i];

			json_put_begin_object(w);
			json_put_kv_string(w, "file", p->at.file);
			json_put_kv_uint(w, "line", p->at.line);
			json_put_kv_string(w, "why", p->why);
			json_put_end_object(w);
			flush(w, out);
		}
		json_put_end_array(w);
	}
	json_put_end_object(w);
}

static void put_logs(struct json_writer *w, FILE *out, const struct logs *logs)
{
	json_put_key(w, "logs");
	json_put_begin_array(w);
	for (const struct log_summary *log = logs->first; log; log = log->next) {
		json_put_begin_object(w);
		json_put_kv_uint(w, "checkpoints", log->checkpoints);
		json_put_kv_uint(w, "entries", log->entries);
		json_put_kv_uint(w, "firstIndex", log->first_index);
		put_time(w, "firstTime", log->first_ms);
		json_put_kv_uint(w, "inFlight", log->in_flight);
		json_put_key(w, "kids");
		json_put_begin_array(w);
		for (unsigned i = 0; i < log->n_kids; i++)
			json_put_string(w, log->kids[i], strlen(log->kids[i]));
		json_put_end_array(w);
		put_time(w, "lastTime", log->last_ms);
		json_put_kv_string(w, "origin", log->origin);
		json_put_kv_bool(w, "present", log->present);
		json_put_kv_bool(w, "pruned", log_start_pruned(log));
		json_put_kv_uint(w, "size", log->size);
		json_put_end_object(w);
		flush(w, out);
	}
	json_put_end_array(w);
}

static void put_losses(struct json_writer *w, const struct stream_losses *l)
{
	json_put_key(w, "declared");
	json_put_begin_object(w);
	json_put_kv_uint(w, "contests", l->contests);
	json_put_kv_uint(w, "cutLines", l->cut_lines);
	json_put_kv_uint(w, "gapFrames", l->gap_frames);
	json_put_kv_uint(w, "gaps", l->gaps);
	json_put_kv_uint(w, "guestDropped", l->guest_dropped);
	json_put_kv_uint(w, "guestKernelLost", stream_kernel_lost(l));
	json_put_kv_uint(w, "silences", l->silences);
	json_put_kv_uint(w, "unwitnessed", l->unwitnessed);
	json_put_end_object(w);
}

static void put_streams(struct json_writer *w, FILE *out, const struct streams *streams)
{
	json_put_key(w, "streamList");
	json_put_begin_array(w);
	for (const struct stream *s = streams_first(streams); s; s = s->next) {
		json_put_begin_object(w);
		json_put_kv_string(w, "cellId", s->cell);
		put_losses(w, &s->losses);
		json_put_kv_string(w, "end", stream_end_name(s->end));
		put_time(w, "firstTime", s->first_ms);
		json_put_kv_string(w, "hostname", s->host);
		put_time(w, "lastTime", s->last_ms);
		json_put_kv_uint(w, "lost", stream_declared_lost(s));
		json_put_kv_bool(w, "pruned", s->pruned);
		json_put_kv_uint(w, "records", s->records);
		json_put_kv_string(w, "runId", s->run);
		json_put_kv_bool(w, "signed", s->class == STREAM_VERIFIED);
		json_put_kv_string(w, "streamId", s->id);
		json_put_end_object(w);
		flush(w, out);
	}
	json_put_end_array(w);
}

static void put_notes(struct json_writer *w, const struct verifier_result *r)
{
	const char *notes[NOTES_MAX];
	const unsigned n = find_notes(r, notes);

	json_put_key(w, "notes");
	json_put_begin_array(w);
	for (unsigned i = 0; i < n; i++)
		json_put_string(w, notes[i], strlen(notes[i]));
	json_put_end_array(w);
}

int verify_report_json(const struct verify_report *report, FILE *out)
{
	const struct verifier_result *r = report->result;
	const uint64_t *count = r->findings->count;
	_cleanup_free_ char *buf = malloc(BUFFER_SIZE);
	struct json_writer w;
	char text[128];

	if (!buf)
		return -ENOMEM;
	verdict_text(report, text, sizeof(text));
	json_writer_init(&w, buf, BUFFER_SIZE);
	json_put_begin_object(&w);
	json_put_kv_uint(&w, "bad", count[FINDING_BAD]);
	json_put_kv_uint(&w, "checkpoints", r->checkpoints);
	json_put_kv_uint(&w, "complete", streams_count_end(r->streams, STREAM_COMPLETE));
	json_put_kv_uint(&w, "declaredLost", streams_declared_lost(r->streams));
	json_put_kv_uint(&w, "exit", (uint64_t)r->verdict);
	json_put_kv_uint(&w, "forked", count[FINDING_FORKED]);
	json_put_kv_uint(&w, "inFlight", r->in_flight);
	json_put_kv_uint(&w, "interrupted", streams_count_end(r->streams, STREAM_INTERRUPTED));
	if (report->details)
		put_logs(&w, out, r->logs);
	json_put_kv_uint(&w, "missing", count[FINDING_MISSING]);
	put_notes(&w, r);
	put_places(&w, out, r->findings);
	json_put_kv_uint(&w, "records", r->records);
	json_put_kv_uint(&w, "rolledBack", count[FINDING_ROLLED_BACK]);
	if (report->details)
		put_streams(&w, out, r->streams);
	json_put_kv_uint(&w, "streams", streams_count(r->streams));
	json_put_kv_uint(&w, "unprovable", count[FINDING_UNPROVABLE]);
	json_put_kv_uint(&w, "unsealed", count[FINDING_OPEN]);
	json_put_kv_uint(&w, "unsigned", count[FINDING_UNSIGNED]);
	json_put_kv_uint(&w, "unverifiable", count[FINDING_UNVERIFIABLE]);
	json_put_kv_string(&w, "verdict", text);
	json_put_kv_uint(&w, "verified", r->verified);
	json_put_end_object(&w);
	flush(&w, out);
	return 0;
}
