/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/tree_run.h"

#include "common/log.h"
#include "common/util.h"

#define CHUNK_SIZE (64u * 1024u)
#define CHUNKS_MAX 256u /* 16 MiB of texts */
#define NAME_MAX_  160u

enum run_state {
	RUN_OUTSIDE,
	RUN_WHOLE,
	RUN_COPY,
	RUN_BROKEN,
	RUN_REFUSED,
};

/* An entry that waits for its checkpoint. */
struct pending {
	struct event_facts event; /* its texts are in the chunks */
	struct place at;
	bool copy; /* it was read before */
	bool bad;  /* the line itself is bad, and was counted as bad */
};

struct tree_run {
	struct tree_run_options options;
	struct logs *logs;
	struct streams *streams;
	struct findings *findings;
	struct tree_hasher *hasher;
	struct tree_run_counts counts;

	enum run_state state;
	bool between;		 /* an input has begun, and its segment line was not read yet */
	struct log_summary *log; /* NULL: none */
	struct tree_frontier frontier;
	uint64_t next_kept; /* the next size at which a kept checkpoint needs the root */
	bool differs;	    /* RUN_COPY: it differs from the entries that were read before */

	struct pending *pending;
	size_t n_pending, pending_size;
	uint64_t n_waiting; /* n_pending, or more if they did not fit */
	uint64_t n_bad;	    /* how many of them are bad by themselves, and were counted so */
	uint64_t waiting_bytes;
	struct place waiting_since;
	char *chunks[CHUNKS_MAX];
	size_t n_chunks, chunk, chunk_used;

	/* The newest checkpoint after waiting entries that could not be verified. */
	uint64_t n_unverified; /* entries before it */
	struct place unverified_at;
	char unverified_why[NAME_MAX_];
};

struct tree_run *tree_run_new(const struct tree_run_options *options, struct logs *logs,
			      struct streams *streams, struct findings *findings)
{
	struct tree_run *run = calloc(1, sizeof(*run));

	if (!run)
		return NULL;
	run->options = *options;
	run->logs = logs;
	run->streams = streams;
	run->findings = findings;
	run->hasher = tree_hasher_new();
	if (!run->hasher) {
		free(run);
		return NULL;
	}
	return run;
}

void tree_run_free(struct tree_run *run)
{
	if (!run)
		return;
	for (size_t i = 0; i < run->n_chunks; i++)
		free(run->chunks[i]);
	free(run->pending);
	tree_hasher_free(run->hasher);
	free(run);
}

bool tree_run_inside(const struct tree_run *run)
{
	return run->state != RUN_OUTSIDE && !run->between;
}

const struct tree_run_counts *tree_run_counts(const struct tree_run *run)
{
	return &run->counts;
}

/* ---- what waits ---- */

static void forget_waiting(struct tree_run *run)
{
	run->n_pending = 0;
	run->n_waiting = run->n_bad = run->waiting_bytes = run->n_unverified = 0;
	run->chunk = run->chunk_used = 0;
}

/* NULL: no room, or no memory. */
static char *chunk_take(struct tree_run *run, size_t len)
{
	char *at;

	if (run->chunk < run->n_chunks && run->chunk_used + len > CHUNK_SIZE) {
		run->chunk++;
		run->chunk_used = 0;
	}
	if (run->chunk == run->n_chunks) {
		if (run->n_chunks == CHUNKS_MAX)
			return NULL;
		run->chunks[run->n_chunks] = malloc(CHUNK_SIZE);
		if (!run->chunks[run->n_chunks])
			return NULL;
		run->n_chunks++;
	}
	at = run->chunks[run->chunk] + run->chunk_used;
	run->chunk_used += len;
	return at;
}

static bool keep_texts(struct tree_run *run, struct event_facts *event)
{
	size_t len = 0;
	char *at;

	for (size_t i = 0; i < _FACT_TEXT_MAX; i++)
		len += event->texts[i].len;
	at = chunk_take(run, len);
	if (!at)
		return false;
	for (size_t i = 0; i < _FACT_TEXT_MAX; i++) {
		struct wire_text *text = &event->texts[i];

		if (text->len > 0)
			memcpy(at, text->data, text->len);
		text->data = at;
		at += text->len;
	}
	return true;
}

static int make_room(struct tree_run *run)
{
	const size_t size = run->pending_size ? run->pending_size * 2 : 256;
	struct pending *pending;

	if (run->n_pending < run->pending_size)
		return 0;
	pending = reallocarray(run->pending, size, sizeof(*pending));
	if (!pending)
		return -ENOMEM;
	run->pending = pending;
	run->pending_size = size;
	return 0;
}

/* The verifier has counted it as bad. */
static bool is_bad(const struct line_facts *facts)
{
	return facts->class == CLASS_MALFORMED || facts->proof == PROOF_WRONG;
}

/* Entries above the limits are only counted: no checkpoint can cover them. */
static int wait_for_checkpoint(struct tree_run *run, const struct line_facts *facts, bool copy,
			       size_t bytes, struct place at)
{
	struct pending *p;
	int r;

	if (run->n_waiting++ == 0)
		run->waiting_since = at;
	run->n_bad += is_bad(facts);
	run->waiting_bytes += bytes;
	if (run->n_pending + 1 < run->n_waiting || run->n_pending == TREE_RUN_PENDING_MAX ||
	    run->waiting_bytes > TREE_RUN_PENDING_BYTES)
		return 0;
	r = make_room(run);
	if (r < 0)
		return r;
	p = &run->pending[run->n_pending];
	*p = (struct pending){.event = facts->event, .at = at, .copy = copy};
	p->bad = is_bad(facts);
	if (!p->bad && !keep_texts(run, &p->event))
		return run->n_chunks == CHUNKS_MAX ? 0 : -ENOMEM;
	run->n_pending++;
	return 0;
}

static int use_log_event(struct tree_run *run, const struct event_facts *event)
{
	const struct wire_text origin = event->texts[TEXT_ORIGIN],
			       previous = event->texts[TEXT_PREVIOUS];
	struct log_summary *named;

	if (event->kind == FACT_LOG_OPENED && previous.len > 0) {
		named = logs_get(run->logs, previous);
		if (!named)
			return -ENOMEM;
		named->has_successor = true;
		run->log->previous = named;
		run->log->previous_size = event->numbers[NUMBER_PREVIOUS];
		run->log->has_previous_size = event->has_previous;
	}
	if (event->kind == FACT_LOG_PRUNED && origin.len > 0) {
		named = logs_get(run->logs, origin);
		if (!named)
			return -ENOMEM;
		named->pruned_before = MAX(named->pruned_before, event->numbers[NUMBER_FIRST]);
	}
	return 0;
}

/* An entry that a verified checkpoint covers. */
static int use_entry(struct tree_run *run, const struct pending *p)
{
	const struct event_facts *event = &p->event;
	const struct wire_text origin = event->texts[TEXT_ORIGIN];
	struct log_summary *log = run->log;
	int r;

	if (p->bad)
		return 0;
	if (p->copy) {
		run->counts.copies++;
		return 0;
	}
	if ((event->kind == FACT_STREAM_OPENED || event->kind == FACT_LOG_OPENED) &&
	    origin.len > 0 && !json_text_is(origin, log->origin)) {
		findings_add(run->findings, FINDING_BAD, 1, p->at,
			     "a stream of another log stands in log %s", log->origin);
		return 0;
	}
	run->counts.verified++;
	log->entries++;
	if (event->time_ms != 0) {
		if (log->first_ms == 0 || event->time_ms < log->first_ms)
			log->first_ms = event->time_ms;
		log->last_ms = MAX(log->last_ms, event->time_ms);
	}
	r = use_log_event(run, event);
	return r < 0 ? r : streams_add(run->streams, event, STREAM_VERIFIED, log, p->at);
}

static void add_kid(struct log_summary *log, const char *kid)
{
	for (unsigned i = 0; i < log->n_kids; i++)
		if (log->kids[i] == kid)
			return;
	if (kid && log->n_kids < LOG_KIDS_MAX)
		log->kids[log->n_kids++] = kid;
}

/* A verified checkpoint has this root: all waiting entries count. */
static int cover(struct tree_run *run, const struct note_facts *note, struct place at)
{
	struct log_summary *log = run->log;
	int r = 0;

	if (run->n_waiting > run->n_pending)
		findings_add(
			run->findings, FINDING_BAD, run->n_waiting - run->n_bad, run->waiting_since,
			"more than %u entries, or %" PRIu64 " MiB, stand between two checkpoints",
			TREE_RUN_PENDING_MAX, TREE_RUN_PENDING_BYTES >> 20);
	else
		for (size_t i = 0; i < run->n_pending && r == 0; i++)
			r = use_entry(run, &run->pending[i]);
	forget_waiting(run);
	add_kid(log, note->kid);
	log->checkpoints++;
	run->counts.checkpoints++;
	log->last = at;
	if (run->frontier.size >= log->size) {
		log->size = run->frontier.size;
		log->root = note->root;
		run->state = RUN_WHOLE;
	}
	return r;
}

/* No checkpoint covers the waiting entries. last: no more lines of this log follow. */
static void settle(struct tree_run *run, bool last)
{
	const uint64_t unverified = MIN(run->n_unverified, run->n_waiting);
	const uint64_t uncovered = run->n_waiting - unverified;
	const uint64_t rest = uncovered - MIN(run->n_bad, uncovered);

	if (run->state == RUN_COPY && run->differs)
		findings_add(run->findings, FINDING_BAD,
			     MAX(run->n_waiting - run->n_bad, UINT64_C(1)),
			     run->n_waiting ? run->waiting_since : run->log->last,
			     "a copy of log %s that differs from what was read before",
			     run->log->origin);
	else if (run->n_waiting > 0) {
		findings_add(run->findings, FINDING_UNVERIFIABLE, unverified, run->unverified_at,
			     "%" PRIu64 " %s: %s", unverified,
			     plural(unverified, "entry", "entries"), run->unverified_why);
		if (run->options.live && last && rest <= TREE_RUN_PENDING_MAX) {
			run->counts.in_flight += rest;
			run->log->in_flight += rest;
		} else {
			findings_add(run->findings, FINDING_UNSIGNED, rest, run->waiting_since,
				     "%" PRIu64 " %s after the last checkpoint of log %s", rest,
				     plural(rest, "entry", "entries"), run->log->origin);
		}
	}
	forget_waiting(run);
	run->differs = false;
}

/* The tree is not proven from here on. */
static void break_run(struct tree_run *run)
{
	findings_add(run->findings, FINDING_BAD, run->n_waiting - run->n_bad, run->waiting_since,
		     "%" PRIu64 " %s of log %s that no matching checkpoint covers", run->n_waiting,
		     plural(run->n_waiting, "entry", "entries"), run->log ? run->log->origin : "?");
	forget_waiting(run);
	if (run->log)
		run->log->broken = true;
	run->differs = false;
	run->state = RUN_BROKEN;
}

void tree_run_begin_input(struct tree_run *run)
{
	run->between = true;
}

void tree_run_leave(struct tree_run *run)
{
	if (run->state == RUN_WHOLE || run->state == RUN_COPY)
		settle(run, true);
	run->state = RUN_OUTSIDE;
}

/* ---- segment lines ---- */

static bool frontier_is(const struct tree_frontier *frontier, const struct note_facts *note)
{
	return frontier->size == note->first_index &&
	       (frontier->size == 0 ||
		memcmp(frontier->hashes, note->frontier,
		       tree_frontier_count(frontier->size) * sizeof(struct tree_hash)) == 0);
}

static void explain_unverified(struct tree_run *run, const struct note_facts *note)
{
	char escaped[NAME_MAX_ / 2];

	if (note->verdict == KEYRING_NOT_FOR_IT)
		snprintf(run->unverified_why, sizeof(run->unverified_why),
			 "kid %.60s is not for this origin or this size", note->kid);
	else if (note->name.len > 0)
		snprintf(run->unverified_why, sizeof(run->unverified_why), "no key for kid %s",
			 log_escape(escaped, sizeof(escaped), note->name.data, note->name.len));
	else
		snprintf(run->unverified_why, sizeof(run->unverified_why),
			 "no key for their checkpoint");
}

static void remember_unverified(struct tree_run *run, const struct note_facts *note,
				struct place at)
{
	explain_unverified(run, note);
	run->n_unverified = run->n_waiting;
	run->unverified_at = at;
}

/* Compare a kept checkpoint of the current size, and find the next one. */
static int meet_kept(struct tree_run *run)
{
	struct tree_hash root;
	int r;

	if (run->frontier.size != run->next_kept)
		return 0;
	r = tree_frontier_root(run->hasher, &run->frontier, &root);
	if (r < 0)
		return r;
	logs_compare_kept(run->logs, run->log, run->frontier.size, &root);
	run->next_kept = logs_next_kept(run->logs, run->log, run->frontier.size + 1);
	return 0;
}

/* These entries were read before: this is a copy, or another log with the same origin. */
static int begin_copy(struct tree_run *run, const struct note_facts *note, struct place at)
{
	const struct tree_earlier *earlier = run->options.earlier;
	struct tree_frontier before;
	int r = earlier ? earlier->seek(earlier->data, run->log->origin, note->first_index, &before)
			: 0;

	if (r < 0)
		return r;
	run->state = RUN_COPY;
	if (r == 0) {
		findings_add_note(run->findings, FINDING_BAD, 1, at,
				  "entries of log %s from %" PRIu64
				  " on were read before, and cannot be read again to compare them",
				  run->log->origin, note->first_index);
		break_run(run);
	} else {
		run->differs = !frontier_is(&before, note);
	}
	return 0;
}

/* The segment continues the log, or leaves a hole, or repeats entries that were read before. */
static int join_log(struct tree_run *run, const struct note_facts *note,
		    const struct tree_hash *root, struct place at)
{
	struct log_summary *log = run->log;
	const uint64_t first = note->first_index;

	run->state = RUN_WHOLE;
	if (!log->present) {
		log->present = true;
		log->first_index = first;
		log->first = log->last = at;
	} else if (first < log->size) {
		return begin_copy(run, note, at);
	} else if (first > log->size && !log->broken) {
		findings_add(run->findings, FINDING_MISSING, first - log->size, at,
			     "log %s: entries %" PRIu64 "..%" PRIu64 " are missing", log->origin,
			     log->size, first - 1);
	} else if (first == log->size && !tree_hash_equal(root, &log->root)) {
		findings_add_note(run->findings,
				  note->verdict == KEYRING_SIGNED && note->present ? FINDING_FORKED
										   : FINDING_BAD,
				  1, at, "log %s has another root at size %" PRIu64 " than before",
				  log->origin, first);
		break_run(run);
		return 0;
	}
	log->size = first;
	log->root = *root;
	log->broken = false;
	return 0;
}

static bool segment_holds(struct tree_run *run, const struct note_facts *note,
			  const struct tree_hash *root, struct place at)
{
	if (!note->present)
		return true;
	if (note->verdict == KEYRING_WRONG)
		findings_add_note(run->findings, FINDING_BAD, 1, at,
				  "kid %s did not sign the checkpoint of this segment", note->kid);
	else if (!tree_hash_equal(root, &note->root))
		findings_add_note(run->findings, FINDING_BAD, 1, at,
				  "the frontier of this segment is not its checkpoint's");
	else
		return true;
	return false;
}

/* The segment begins where the last one ended: its checkpoint covers the waiting entries. */
static int continue_log(struct tree_run *run, const struct note_facts *note, struct place at)
{
	if (!note->present)
		return 0;
	if (note->verdict == KEYRING_SIGNED)
		return cover(run, note, at);
	remember_unverified(run, note, at);
	return 0;
}

int tree_run_segment(struct tree_run *run, const struct line_facts *facts, struct place at)
{
	const struct note_facts *note = &facts->note;
	struct log_summary *log = note->origin.len > 0 ? logs_get(run->logs, note->origin) : NULL;
	const bool walking = run->state == RUN_WHOLE || run->state == RUN_COPY;
	const bool same_log = log && log == run->log;
	struct tree_frontier frontier = {.size = note->first_index};
	struct tree_hash root;
	bool continues, holds;
	int r;

	if (note->origin.len > 0 && !log)
		return -ENOMEM;
	run->between = false;
	if (facts->why) {
		findings_add_note(run->findings, FINDING_BAD, 1, at, "%s", facts->why);
		if (walking)
			settle(run, !same_log);
		run->log = log;
		break_run(run);
		return 0;
	}
	if (run->options.origin && !origin_has_prefix(log->origin, run->options.origin)) {
		if (walking)
			settle(run, true);
		run->state = RUN_REFUSED;
		run->log = log;
		return 0;
	}
	if (note->first_index > 0)
		memcpy(frontier.hashes, note->frontier,
		       tree_frontier_count(frontier.size) * sizeof(struct tree_hash));
	r = tree_frontier_root(run->hasher, &frontier, &root);
	if (r < 0)
		return r;
	continues = walking && same_log && frontier_is(&run->frontier, note);
	holds = segment_holds(run, note, &root, at);
	if (continues)
		return holds ? continue_log(run, note, at) : 0;
	if (walking)
		settle(run, !same_log);
	run->log = log;
	if (!holds) {
		log->present = true;
		break_run(run);
		return 0;
	}
	run->frontier = frontier;
	run->next_kept = logs_next_kept(run->logs, log, frontier.size);
	r = join_log(run, note, &root, at);
	if (r == 0 && note->present && note->verdict == KEYRING_SIGNED)
		add_kid(log, note->kid);
	return r == 0 && run->state == RUN_WHOLE ? meet_kept(run) : r;
}

/* ---- entries ---- */

/* Compare the entry of a copy with the one that was read before. */
static int compare_copy(struct tree_run *run, const struct line_facts *facts)
{
	const struct tree_earlier *earlier = run->options.earlier;
	struct tree_hash leaf;
	int r;

	if (run->differs)
		return 0;
	r = earlier->next(earlier->data, &leaf);
	if (r < 0)
		return r;
	run->differs = r == 0 || !tree_hash_equal(&leaf, &facts->leaf);
	return 0;
}

int tree_run_entry(struct tree_run *run, const struct line_facts *facts, size_t bytes,
		   struct place at)
{
	bool copy;
	int r;

	run->counts.records++;
	if (is_bad(facts) && (run->state == RUN_BROKEN || run->state == RUN_REFUSED))
		return 0;
	if (run->state == RUN_BROKEN) {
		findings_add(run->findings, FINDING_BAD, 1, at,
			     "an entry of a segment whose tree does not hold");
		return 0;
	}
	if (run->state == RUN_REFUSED) {
		findings_add(run->findings, FINDING_UNVERIFIABLE, 1, at,
			     "log %s has another origin than --origin allows", run->log->origin);
		return 0;
	}
	copy = run->frontier.size < run->log->size;
	if (copy) {
		r = compare_copy(run, facts);
		if (r < 0)
			return r;
	}
	r = tree_frontier_append(run->hasher, &run->frontier, &facts->leaf);
	if (r == 0)
		r = meet_kept(run);
	return r < 0 ? r : wait_for_checkpoint(run, facts, copy, bytes, at);
}

/* ---- checkpoint lines ---- */

/* A verified checkpoint has another root than this tree. */
static void refuse_root(struct tree_run *run, const struct note_facts *note, struct place at)
{
	const struct log_summary *log = run->log;

	if (note->size == log->size && note->size > log->first_index &&
	    !tree_hash_equal(&note->root, &log->root))
		findings_add_note(run->findings, FINDING_FORKED, 1, at,
				  "log %s has two signed roots of size %" PRIu64, log->origin,
				  note->size);
	else if (note->size == run->frontier.size)
		findings_add_note(
			run->findings, FINDING_BAD, 1, at,
			"the root does not match: the entries before this checkpoint are not "
			"those it was made of");
	else
		findings_add_note(
			run->findings, FINDING_BAD, 1, at,
			"the checkpoint is of %" PRIu64 " %s, but %" PRIu64 " %s before it",
			note->size, plural(note->size, "entry", "entries"), run->frontier.size,
			plural(run->frontier.size, "stands", "stand"));
	break_run(run);
}

static int use_checkpoint(struct tree_run *run, const struct note_facts *note, struct place at)
{
	struct tree_hash root;
	bool matches;
	int r = tree_frontier_root(run->hasher, &run->frontier, &root);

	if (r < 0)
		return r;
	matches = note->size == run->frontier.size && tree_hash_equal(&note->root, &root);
	if (note->verdict == KEYRING_SIGNED && !matches) {
		refuse_root(run, note, at);
	} else if (note->verdict == KEYRING_SIGNED && run->state == RUN_COPY && run->differs) {
		findings_add_note(run->findings, FINDING_FORKED, 1, at,
				  "two signed logs have the origin %s and differ",
				  run->log->origin);
		break_run(run);
	} else if (note->verdict == KEYRING_SIGNED) {
		return cover(run, note, at);
	} else if (!matches) {
		findings_add_note(
			run->findings, FINDING_BAD, 1, at,
			"a checkpoint without a known key, and not of the entries before it");
	} else {
		remember_unverified(run, note, at);
	}
	return 0;
}

int tree_run_checkpoint(struct tree_run *run, const struct line_facts *facts, struct place at)
{
	const struct note_facts *note = &facts->note;

	if (facts->why) {
		findings_add_note(run->findings, FINDING_BAD, 1, at, "%s", facts->why);
	} else if (!tree_run_inside(run)) {
		findings_add_note(run->findings, FINDING_BAD, 1, at,
				  "a checkpoint line without a segment line before it");
	} else if (run->state == RUN_WHOLE || run->state == RUN_COPY) {
		if (!json_text_is(note->origin, run->log->origin))
			findings_add_note(run->findings, FINDING_BAD, 1, at,
					  "a checkpoint of another log than %s", run->log->origin);
		else if (note->verdict == KEYRING_WRONG)
			findings_add_note(run->findings, FINDING_BAD, 1, at,
					  "kid %s did not sign this checkpoint", note->kid);
		else
			return use_checkpoint(run, note, at);
	}
	return 0;
}
