/* SPDX-License-Identifier: MIT */
#include "host-receiver/judge/logs.h"

#include "common/util.h"

#define LOGS_CHAIN_MAX 4096u

void logs_init(struct logs *logs, struct findings *findings)
{
	*logs = (struct logs){.findings = findings};
	logs->last = &logs->first;
}

void logs_free(struct logs *logs)
{
	while (logs->first) {
		struct log_summary *log = logs->first;

		logs->first = log->next;
		free(log);
	}
	free(logs->kept);
}

struct log_summary *logs_find(const struct logs *logs, struct wire_text origin)
{
	struct log_summary *log = logs->first;

	while (log && !json_text_is(origin, log->origin))
		log = log->next;
	return log;
}

struct log_summary *logs_get(struct logs *logs, struct wire_text origin)
{
	struct log_summary *log = logs_find(logs, origin);

	if (log)
		return log;
	log = calloc(1, sizeof(*log) + origin.len + 1);
	if (!log)
		return NULL;
	memcpy(log->origin, origin.data, origin.len);
	log->number = ++logs->n;
	*logs->last = log;
	logs->last = &log->next;
	return log;
}

bool log_start_pruned(const struct log_summary *log)
{
	return log->first_index > 0 && log->pruned_before >= log->first_index;
}

bool log_past_pruned(const struct log_summary *log)
{
	/*
	 * The holder of a key can sign logs that name each other in a circle, so the steps are
	 * limited.
	 */
	for (unsigned steps = 0; log && steps < LOGS_CHAIN_MAX; log = log->previous, steps++)
		if (log->present ? log_start_pruned(log) : log->pruned_before > 0)
			return true;
	return false;
}

/* ---- kept checkpoints ---- */

static int judge_kept(struct logs *logs, const struct keyring *ring, struct place at,
		      const char *text, size_t len, struct kept_checkpoint *kept)
{
	enum keyring_verdict verdict;
	struct tree_hasher *hasher;
	const char *why, *kid;
	struct note note;
	int r;

	if (note_parse(text, len, &note, &why) < 0) {
		findings_add_note(logs->findings, FINDING_BAD, 1, at, "%s", why);
		return 0;
	}
	hasher = tree_hasher_new();
	if (!hasher)
		return -ENOMEM;
	r = keyring_check_note(ring, hasher, &note, &verdict, &kid);
	tree_hasher_free(hasher);
	if (r < 0)
		return r;
	kept->checkpoint = note.checkpoint;
	if (verdict == KEYRING_SIGNED)
		kept->state = KEPT_UNSEEN;
	else if (verdict == KEYRING_WRONG)
		findings_add_note(logs->findings, FINDING_BAD, 1, at,
				  "kid %s did not sign this checkpoint", kid);
	else
		findings_add_note(
			logs->findings, FINDING_UNVERIFIABLE, 1, at,
			verdict == KEYRING_UNKNOWN_KEY
				? "no key for this checkpoint is in the keyring"
				: "the key of this checkpoint is not for its origin or size");
	return 0;
}

int logs_keep(struct logs *logs, const struct keyring *ring, const char *file, const char *text,
	      size_t len)
{
	struct kept_checkpoint *kept = reallocarray(logs->kept, logs->n_kept + 1, sizeof(*kept));

	if (!kept)
		return -ENOMEM;
	logs->kept = kept;
	kept = &kept[logs->n_kept++];
	*kept = (struct kept_checkpoint){.file = file, .state = KEPT_USELESS};
	return judge_kept(logs, ring, (struct place){.file = file}, text, len, kept);
}

static bool is_of(const struct kept_checkpoint *kept, const struct log_summary *log)
{
	return kept->state != KEPT_USELESS && strcmp(kept->checkpoint.origin, log->origin) == 0;
}

uint64_t logs_next_kept(const struct logs *logs, const struct log_summary *log, uint64_t size)
{
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < logs->n_kept; i++)
		if (is_of(&logs->kept[i], log) && logs->kept[i].checkpoint.size >= size)
			next = MIN(next, logs->kept[i].checkpoint.size);
	return next;
}

void logs_compare_kept(struct logs *logs, const struct log_summary *log, uint64_t size,
		       const struct tree_hash *root)
{
	for (size_t i = 0; i < logs->n_kept; i++) {
		struct kept_checkpoint *kept = &logs->kept[i];

		if (!is_of(kept, log) || kept->checkpoint.size != size)
			continue;
		if (!tree_hash_equal(&kept->checkpoint.root, root))
			kept->state = KEPT_DIFFERENT;
		else if (kept->state == KEPT_UNSEEN)
			kept->state = KEPT_FOUND;
	}
}

static void finish_kept(struct logs *logs, const struct kept_checkpoint *kept)
{
	const struct log_summary *log = logs_find(logs, wire_text(kept->checkpoint.origin));
	const struct place at = {.file = kept->file};
	const uint64_t size = kept->checkpoint.size;

	if (!log || !log->present)
		findings_add(logs->findings, FINDING_ROLLED_BACK, 1, at,
			     "its log %s is not in the input", kept->checkpoint.origin);
	else if (kept->state == KEPT_DIFFERENT)
		findings_add(logs->findings, FINDING_ROLLED_BACK, 1, at,
			     "log %s is another one: its first %" PRIu64
			     " %s not those of the kept checkpoint",
			     log->origin, size, plural(size, "entry is", "entries are"));
	else if (size < log->first_index)
		findings_add_note(logs->findings, FINDING_UNPROVABLE, 1, at,
				  "log %s begins with index %" PRIu64
				  ", after the kept checkpoint of %" PRIu64
				  " %s: keep a newer one within the retention",
				  log->origin, log->first_index, size,
				  plural(size, "entry", "entries"));
	else if (size > log->size)
		findings_add(logs->findings, FINDING_ROLLED_BACK, 1, at,
			     "log %s ends after %" PRIu64
			     " %s, but the kept checkpoint has %" PRIu64,
			     log->origin, log->size, plural(log->size, "entry", "entries"), size);
	else
		findings_add(logs->findings, FINDING_ROLLED_BACK, 1, at,
			     "log %s has no verified entries around size %" PRIu64, log->origin,
			     size);
}

/* ---- the end ---- */

static void finish_start(struct logs *logs, const struct log_summary *log, int64_t since_ms)
{
	if (log->first_index == 0 || log_start_pruned(log))
		return;
	if (since_ms != INT64_MIN && log->first_ms != 0 && log->first_ms <= since_ms)
		return;
	findings_add(logs->findings, FINDING_MISSING, 1, log->first,
		     "log %s: entries 0..%" PRIu64
		     " are missing, and no verified pruned entry explains it",
		     log->origin, log->first_index - 1);
}

static void finish_previous(struct logs *logs, const struct log_summary *log, int64_t since_ms)
{
	const struct log_summary *previous = log->previous;

	if (!previous)
		return;
	if (!previous->present) {
		if (previous->pruned_before == 0 &&
		    (since_ms == INT64_MIN || log->first_ms == 0 || log->first_ms > since_ms))
			findings_add(logs->findings, FINDING_MISSING, 1, log->first,
				     "log %s: its predecessor %s is not there", log->origin,
				     previous->origin);
		return;
	}
	if (log->has_previous_size && previous->size < log->previous_size)
		findings_add(logs->findings, FINDING_MISSING, 1, previous->last,
			     "log %s: entries %" PRIu64 "..%" PRIu64
			     " are missing: its successor %s names them",
			     previous->origin, previous->size, log->previous_size - 1, log->origin);
}

void logs_finish(struct logs *logs, int64_t since_ms)
{
	for (struct log_summary *log = logs->first; log; log = log->next)
		if (log->present) {
			finish_start(logs, log, since_ms);
			finish_previous(logs, log, since_ms);
		}
	for (size_t i = 0; i < logs->n_kept; i++)
		if (logs->kept[i].state == KEPT_UNSEEN || logs->kept[i].state == KEPT_DIFFERENT)
			finish_kept(logs, &logs->kept[i]);
}
